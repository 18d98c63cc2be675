"""Part A: counts that looked right and were not."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.cases.bench import Bench, Case, Counted, Seen, near
from benchmarks.cases.images import blank, draw, grid, mixed, noisy, ome_xml, write_pages


def _judged(given: str, right: int, counted: Counted, share: float = 0.03) -> Seen:
    """One line for the objects of all fields against their true number."""
    total, fields = counted.total(), counted.rows()
    held = bool(fields) and near(total, right, share) and not counted.reasons()
    return Seen(given, str(right), f"{total}; {counted.seen()}" if fields else counted.seen(), held)


def sizes(bench: Bench) -> Iterator[Seen]:
    """A1: a few large objects or one clump decide at which size all are counted."""
    arrangements = {
        "40 discs of 20 px, 8 of 80 px": (mixed(40, 10, 8, 40), 48),
        "40 of 20 px, 8 of 60 px": (mixed(40, 10, 8, 30), 48),
        "60 of 20 px, 6 of 120 px": (mixed(60, 10, 6, 60, height=900), 66),
        "30 of 20 px, one clump of 150 px": (mixed(30, 10, 1, 75), 31),
    }
    for number, (words, (image, right)) in enumerate(arrangements.items()):
        folder = bench.new(f"one-{number}")
        tifffile.imwrite(folder / "i.tif", noisy(image))
        yield _judged(words, right, bench.count(folder))
        plate = bench.new(f"plate-{number}")
        for copy in range(6):
            tifffile.imwrite(plate / f"i{copy}.tif", noisy(image, seed=copy + 1))
        yield _judged(f"a plate of six: {words}", 6 * right, bench.count(plate))
    empty = bench.new("empty")
    for copy in range(3):
        tifffile.imwrite(empty / f"e{copy}.tif", noisy(blank(), seed=copy))
    counted = bench.count(empty)
    yield Seen(
        "a plate of empty fields",
        "0, 0, 0; exit 0",
        counted.seen(),
        counted.counts() == [0, 0, 0] and counted.done.code == 0,
    )
    if bench.data is not None:
        yield _real_mixed(bench, bench.data)


def _real_mixed(bench: Bench, data: Path) -> Seen:
    from cellcount_core.labelled.dataset import load_folder

    folder, right = bench.new("real"), 0
    images = load_folder(data / "dsb2018_nuclei", modality=("fluorescence",))
    for image in images:
        areas = np.bincount(image.labels.ravel())[1:].astype(np.float64)
        diameters = np.sort(2 * np.sqrt(areas[areas > 0] / np.pi))
        if diameters.size < 5:
            continue
        weight = np.cumsum(diameters**2)
        by_area = diameters[np.searchsorted(weight, weight[-1] / 2)]
        if by_area / np.median(diameters) > 1.5:
            place = folder / image.id
            place.mkdir()
            tifffile.imwrite(place / "i.tif", image.plane)
            right += diameters.size
    counts = [bench.count(place) for place in sorted(folder.iterdir())]
    total = sum(counted.total() for counted in counts)
    each = ", ".join(str(counted.total()) for counted in counts)
    return Seen(
        f"the {len(counts)} real images whose area-weighted diameter is over 1.5 times the median", str(right),
        f"{total} ({each})", near(total, right, 0.10),
    )  # fmt: skip


def levels(bench: Bench) -> Iterator[Seen]:
    """A2: full scale taken from dust."""
    for top in (5_000, 20_000, 60_000):
        image = grid(level=600)
        image[20:30, 100:250] = top
        folder = bench.new(f"fibre-{top}")
        tifffile.imwrite(folder / "i.tif", noisy(image))
        counted = bench.count(folder)
        yield Seen(
            f"40 nuclei and a fibre of 0.3 % at {top}",
            "40 (41 with the fibre)",
            counted.seen(),
            counted.total() in (40, 41),
        )
    for grains in (0, 2, 3, 6):
        image = grid(300, 8, level=800, height=1000, width=1000, top=40, step=55)
        for index in range(grains):
            draw(image, 965, 80 + 150 * index, 14, level=64_000)
        folder = bench.new(f"grains-{grains}")
        tifffile.imwrite(folder / "i.tif", noisy(image))
        counted = bench.count(folder)
        yield Seen(
            f"300 nuclei and {grains} saturated grains", f"300 (to {300 + grains})", counted.seen(),
            291 <= counted.total() <= 309 + grains,
        )  # fmt: skip
    for share in (0.001, 0.003, 0.005):
        image = grid(60, 10, level=900, top=60)
        rng = np.random.default_rng(5)
        image[rng.random(image.shape) < share] = 65_000
        folder = bench.new(f"hot-{share}")
        tifffile.imwrite(folder / "i.tif", noisy(image))
        yield _judged(f"60 nuclei and {share:.1%} hot pixels", 60, bench.count(folder))
    image = grid(level=900)
    image[:, :21] = 30_000
    folder = bench.new("edge")
    tifffile.imwrite(folder / "i.tif", noisy(image))
    counted = bench.count(folder)
    yield Seen(
        "40 nuclei and a bright edge of 3 %",
        "40 (41 with the edge)",
        counted.seen(),
        counted.total() in (40, 41),
    )
    image = grid(300, 8, level=2000, height=1000, width=1000, top=60, step=55)
    image[:, :30] = np.maximum(image[:, :30], 2.5 * 2000)
    folder = bench.new("pale-edge")
    tifffile.imwrite(folder / "i.tif", noisy(image))
    counted = bench.count(folder)
    yield Seen(
        "300 nuclei and an edge of 3 %, 2.5 times as bright", "warned: bright_debris", counted.seen(),
        "bright_debris" in counted.seen(),
    )  # fmt: skip


def multi_file_sets(bench: Bench) -> Iterator[Seen]:
    """A3: pages named by their position, not by TiffData and UUID."""
    files = (("s_DAPI.ome.tif", "urn:uuid:0a", 40), ("s_GFP.ome.tif", "urn:uuid:0b", 8))
    planes = "".join(
        f'<TiffData IFD="{z}" FirstC="{c}" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for c, (name, uuid, _) in enumerate(files)
        for z in (0, 1)
    )
    folder = bench.new("set")
    for name, uuid, number in files:
        xml = ome_xml(("DAPI", "GFP"), planes=planes, z=2, uuid=uuid)
        write_pages(folder / name, [noisy(grid(number), seed=z) for z in (0, 1)], xml)
    for channel, right in (("DAPI", 40), ("GFP", 8)):
        counted = bench.count(folder, "--channel", channel)
        numbers = [count for count in counted.counts() if count is not None]
        held = bool(numbers) and all(count == right for count in numbers)
        yield Seen(
            f"a set of two files, --channel {channel}",
            f"{right}, and never the other file's",
            counted.seen(),
            held,
        )
    odd = bench.new("odd")
    swapped = '<TiffData IFD="1" FirstC="0" PlaneCount="1"/><TiffData IFD="0" FirstC="1" PlaneCount="1"/>'
    write_pages(
        odd / "i.ome.tif", [noisy(grid(8)), noisy(grid(40))], ome_xml(("DAPI", "GFP"), planes=swapped)
    )
    yield _judged(
        "one file whose TiffData puts DAPI on its second page", 40, bench.count(odd, "--channel", "DAPI"), 0
    )


def axes(bench: Bench) -> Iterator[Seen]:
    """A4: axes guessed."""
    for channels in (2, 3, 5):
        last = np.dstack([noisy(grid())] * channels)
        for name, write in (("tif", tifffile.imwrite), ("npy", np.save)):
            folder = bench.new(f"last-{channels}-{name}")
            write(folder / f"i.{name}", last)
            counted = bench.count(folder)
            right = counted.counts() == [40] or (
                not counted.total() and counted.done.code != 0 and counted.done.says("axes|channel")
            )
            yield Seen(
                f"{channels} channels last, .{name}",
                "40, or one clear refusal",
                counted.seen(),
                right and len(counted.rows()) <= 1,
            )
            if counted.counts() != [40]:
                told = bench.count(folder, "--set", "run.axes=YXC", "--channel", "0")
                yield Seen("the same with run.axes=YXC --channel 0", "40", told.seen(), told.counts() == [40])


def merges(bench: Bench) -> Iterator[Seen]:
    """A5: a colour merge taken as luminance."""
    blue = ((grid(24) - 300) / 10).clip(0, 255)
    green = np.roll(blue, 45, 1)
    folder = bench.new("merge")
    cv2.imwrite(str(folder / "i.png"), np.dstack([blue + 12, green + 12, 0 * blue]).astype(np.uint8))
    counted = bench.count(folder)
    named = counted.done.says("--channel (blue|green|red)")
    yield Seen(
        "24 nuclei in blue, 24 others in green",
        "a warning that names --channel blue",
        counted.seen(),
        named and bool(counted.warned()),
    )
    chosen = bench.count(folder, "--channel", "blue")
    yield Seen("the same, --channel blue", "24", chosen.seen(), chosen.counts() == [24])
    grey = bench.new("grey")
    cv2.imwrite(str(grey / "i.png"), np.dstack([blue + 12] * 3).astype(np.uint8))
    plain = bench.count(grey)
    yield Seen(
        "grey saved as colours",
        "24 and no warning of colours",
        plain.seen(),
        plain.counts() == [24] and not plain.done.says("--channel"),
    )


def masks(bench: Bench) -> Iterator[Seen]:
    """A6: masks counted as images."""
    image = grid()
    labels = cv2.connectedComponents((image > 1300).astype(np.uint8))[1].astype(np.uint16)
    for name in (
        "a_cp_masks.png",
        "a_labels.tif",
        "a_mask.png",
        "a_outlines_1.png",
        "a_seg.npy",
        "a_cp_outlines.png",
        "a_result.tif",
    ):
        folder = bench.new(name.replace(".", "-"))
        tifffile.imwrite(folder / "a.tif", noisy(image))
        if name.endswith(".npy"):
            np.save(folder / name, {"masks": labels}, allow_pickle=True)  # type: ignore[arg-type]
        elif name.endswith(".tif"):
            tifffile.imwrite(folder / name, labels)
        else:
            cv2.imwrite(
                str(folder / name),
                (labels > 0).astype(np.uint8) * 255 if "mask.png" in name or "outlines" in name else labels,
            )
        counted = bench.count(folder)
        planned = bench.run("plan", folder)
        told = name in planned.text or planned.says("left out") or name in counted.done.text
        yield Seen(
            f"a.tif beside {name}", "40; left out and named", counted.seen(), counted.total() == 40 and told
        )


def pieces(bench: Bench) -> Iterator[Seen]:
    """A7: label images in pieces."""
    if bench.data is None:
        return
    from cellcount_core.labelled.dataset import load_folder

    folder = bench.new("real")
    images = [
        image for image in load_folder(bench.data / "dsb2018_nuclei") if image.id.startswith("a891bbc89143")
    ]
    tifffile.imwrite(folder / "i.tif", images[0].plane)
    counted = bench.count(folder, "--labels")
    labels = [tifffile.imread(path) for path in (counted.out / "labels").rglob("*.tif*")]
    split = sum(_in_pieces(one) for one in labels)
    number = sum(int(one.max()) for one in labels)
    yield Seen(
        f"image a891bbc89143 of DSB, {number} labels",
        "0 labels of several pieces",
        str(split),
        bool(labels) and split == 0,
    )


def _in_pieces(labels: NDArray[np.integer]) -> int:
    boxes = ndimage.find_objects(labels)
    eight = np.ones((3, 3))
    return sum(
        ndimage.label(labels[box] == number, eight)[1] > 1
        for number, box in enumerate(boxes, 1)
        if box is not None
    )


def elongated(bench: Bench) -> Iterator[Seen]:
    """A8: elongated nuclei."""
    for ratio in (3, 5, 8):
        for turned in ("", ", turned at random"):
            rng = np.random.default_rng(ratio)
            image, half = blank(740, 740), 13.0
            for index in range(40):
                y, x = (
                    (60 + 90 * (index // 7), 70 + 100 * (index % 7))
                    if turned
                    else (60 + 80 * (index // 5), 80 + 135 * (index % 5))
                )
                turn = float(rng.uniform(0, np.pi)) if turned else 0.0
                draw(image, y, x, half * ratio**0.5, down=half / ratio**0.5, turn=turn)
            folder = bench.new(f"ratio-{ratio}-{len(turned)}")
            tifffile.imwrite(folder / "i.tif", noisy(image))
            yield _judged(f"40 ellipses of axis ratio {ratio}{turned}", 40, bench.count(folder))


def areas(bench: Bench) -> Iterator[Seen]:
    """A9: areas of drawn discs."""
    for diameter in (8, 12, 20, 35, 60, 140):
        step = max(30.0, 2.2 * diameter)
        side = int(4 * step + step)
        folder = bench.new(f"d{diameter}")
        tifffile.imwrite(
            folder / "i.tif",
            noisy(grid(16, diameter / 2, height=max(300, side), width=max(300, side), top=step, step=step)),
        )
        counted = bench.count(folder, "--diameter", str(diameter))
        table = counted.table("objects")
        if table is None or not table.num_rows:
            yield Seen(f"discs of {diameter} px", "within 10 %", counted.seen(), False)
            continue
        found = float(np.median(table.column("Nuclei_AreaShape_Area").to_numpy())) / (np.pi * diameter**2 / 4)
        yield Seen(f"discs of {diameter} px", "area within 10 %", f"{found:.2f}x", abs(found - 1) <= 0.10)


def zero_tails(bench: Bench) -> Iterator[Seen]:
    """A10: a preallocated file whose end was not written."""
    folder = bench.new("tail")
    image = noisy(grid(64, 10, top=50))
    image[image.shape[0] // 2 :] = 0
    tifffile.imwrite(folder / "i.tif", image)
    counted = bench.count(folder)
    yield Seen(
        "the lower half is zero bytes",
        "warned: zero_tail, and told",
        counted.seen(),
        "zero_tail" in counted.warned(),
    )
    black = bench.new("black")
    clipped = noisy(grid(40) - DARKER)
    tifffile.imwrite(black / "i.tif", clipped)
    plain = bench.count(black)
    yield Seen(
        "a background cut off at 0",
        "40, no such warning",
        plain.seen(),
        plain.counts() == [40] and "zero_tail" not in plain.warned(),
    )


DARKER = 340.0


def calibrations(bench: Bench) -> Iterator[Seen]:
    """A11: calibration out of range, contradictory, or in other spellings."""
    cases = {
        ' PhysicalSizeX="5e-7" PhysicalSizeY="5e-7"': None,
        ' PhysicalSizeX="500000" PhysicalSizeY="500000"': None,
        ' PhysicalSizeX="0.5" PhysicalSizeY="2.5"': None,
        ' PhysicalSizeX="500" PhysicalSizeY="500" PhysicalSizeXUnit="nanometer" PhysicalSizeYUnit="nanometer"': 0.5,
        ' PhysicalSizeX="0.0005" PhysicalSizeY="0.0005" PhysicalSizeXUnit="millimeter" PhysicalSizeYUnit="millimeter"': 0.5,
        ' PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeXUnit="Âµm" PhysicalSizeYUnit="Âµm"': 0.5,
        ' PhysicalSizeX="0.5" PhysicalSizeY="0.5"': 0.5,
    }
    for number, (size, right) in enumerate(cases.items()):
        folder = bench.new(f"c{number}")
        xml = ome_xml(("DAPI",), planes="<TiffData/>", size=size)
        write_pages(folder / "i.ome.tif", [noisy(grid())], xml)
        counted = bench.count(folder)
        found = counted.rows()[0]["um_per_px"] if counted.rows() else "no row"
        if right is None:
            held = found is None and any("calibration" in code for code in counted.warned())
            yield Seen(size.strip(), "null, with a warning", f"{found}; {counted.seen()}", held)
        else:
            yield Seen(
                size.strip(),
                f"{right} µm/px",
                str(found),
                isinstance(found, float) and abs(found - right) < 1e-6,
            )


def stacks(bench: Bench) -> Iterator[Seen]:
    """A12: pages that nothing describes."""
    folder = bench.new("z")
    pages = [noisy(300 + (grid() - 300) * share, seed=n) for n, share in enumerate((0.4, 1.0, 0.4))]
    write_pages(folder / "z.tif", pages)
    plain = bench.count(folder)
    yield Seen(
        "three pages without metadata",
        "refused, with run.pages as the way out",
        plain.seen(),
        plain.total() == 0 and plain.done.says("run.pages"),
    )
    counted = bench.count(folder, "--set", "run.pages=z")
    planes = [value for row in counted.rows() for key, value in row.items() if "planes" in key]
    told = 3 in planes or any("project" in code for code in counted.warned())
    yield Seen(
        "the same, run.pages=z",
        "40, and that 3 planes were projected",
        counted.seen(),
        counted.counts() == [40] and told,
    )
    times = bench.new("t")
    write_pages(times / "t.tif", [noisy(grid(), seed=n) for n in range(8)])
    counted = bench.count(times, "--set", "run.pages=time")
    yield Seen(
        "eight time points as pages, run.pages=time", "40 each", counted.seen(), counted.counts() == [40] * 8
    )


def evaluation(bench: Bench) -> Iterator[Seen]:
    """A13: evaluation is counting."""
    if bench.data is None:
        return
    from cellcount_core.labelled.dataset import load_folder

    folder = bench.new("val")
    images = load_folder(bench.data / "dsb2018_nuclei", split="val", modality=("fluorescence",))[::6]
    for image in images:
        (folder / "images").mkdir(exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "images" / f"{image.id[:16]}.tif", image.plane)
        tifffile.imwrite(folder / "masks" / f"{image.id[:16]}.tif", image.labels)
    done = bench.run("evaluate", "nuclei", folder, "--out", bench.folder / "evaluation", "--split", "all")
    listed = next(iter((bench.folder / "evaluation").glob("*.csv")), None)
    if listed is None:
        yield Seen("evaluate beside count", "equal counts", done.last, False)
        return
    with listed.open() as file:
        evaluated = {row["id"]: int(row["counted"]) for row in csv.DictReader(file)}
    differ = 0
    for image in images:
        one = bench.new(f"one-{image.id[:16]}")
        tifffile.imwrite(one / "i.tif", image.plane)
        differ += bench.count(one).total() != evaluated[image.id[:16]]
    yield Seen(
        f"{len(images)} validation images, evaluate beside count",
        "0 counts differ",
        f"{differ} differ",
        differ == 0,
    )


def doubts(bench: Bench) -> Iterator[Seen]:
    """A14: a field that is flagged is invisible."""
    if bench.data is None:
        return
    folder = bench.new("stained")
    with (bench.data / "dsb2018_nuclei" / "index.csv").open() as file:
        stained = [row["file"] for row in csv.DictReader(file) if row["modality"] == "histology"][:3]
    for name in stained:
        shutil.copy(bench.data / "dsb2018_nuclei" / name, folder)
    counted = bench.count(folder)
    tail = "\n".join(counted.done.text.splitlines()[-12:])
    summary = (
        json.loads((counted.out / "summary.json").read_text())
        if (counted.out / "summary.json").is_file()
        else {}
    )
    yield Seen(
        "three stained images with `nuclei`: the last lines",
        "unlike … try --model histology",
        counted.done.last,
        "histology" in tail and "unlike" in tail,
    )
    yield Seen(
        "… summary.json",
        "warnings by code",
        str(summary.get("warnings")),
        "out_of_domain" in str(summary.get("warnings")),
    )
    for name in ("wells.parquet", "plates.parquet"):
        table = counted.table(name)
        columns = [column for column in (table.column_names if table is not None else []) if "warn" in column]
        yield Seen(f"… {name}", "a column of warnings", ", ".join(columns), bool(columns))
    strict = bench.count(folder, "--strict")
    yield Seen(
        "… --strict",
        "an exit code of its own",
        f"exit {strict.done.code}",
        strict.done.code not in (0, 1, 2, 3),
    )


def also(bench: Bench) -> Iterator[Seen]:
    """What stands below part A."""
    byte = ((grid(24) - 300) / 10).clip(0, 255)
    bmp = bench.new("bmp")
    cv2.imwrite(str(bmp / "i.bmp"), (byte + 12).astype(np.uint8))
    yield _judged("an 8-bit BMP", 24, bench.count(bmp), 0)
    long = bench.new("long")
    tifffile.imwrite(long / "a.tif", noisy(grid()))
    shutil.copy(long / "a.tif", long / ("y" * 251 + ".tif"))
    counted = bench.count(long, "--labels")
    images = len(list((counted.out / "labels").rglob("*.tif*"))) if counted.out.is_dir() else 0
    yield Seen(
        "a name of 255 bytes, --labels",
        "40, 40 and two label images",
        f"{counted.seen()}; {images} label images",
        counted.counts() == [40, 40] and images == 2,
    )
    dapi = bench.new("dapi")
    write_pages(
        dapi / "i.ome.tif", [noisy(grid()), noisy(grid(8))], ome_xml(("DAPI", "GFP"), planes="<TiffData/>")
    )
    yield _judged("--channel dapi where the file says DAPI", 40, bench.count(dapi, "--channel", "dapi"), 0)
    wrong = bench.count(dapi, "--channel", "DAPY")
    yield Seen(
        "--channel DAPY",
        "refused, naming DAPI",
        wrong.seen(),
        wrong.total() == 0 and wrong.done.says("DAPI\\b"),
    )


COUNTS: dict[str, tuple[str, Case]] = {
    "A1": ("size estimate weighed by area", sizes),
    "A2": ("full scale taken from dust", levels),
    "A3": ("multi-file OME sets", multi_file_sets),
    "A4": ("axes guessed", axes),
    "A5": ("colour merge taken as luminance", merges),
    "A6": ("masks counted as images", masks),
    "A7": ("label images in pieces", pieces),
    "A8": ("elongated nuclei", elongated),
    "A9": ("areas of small nuclei", areas),
    "A10": ("zero tails", zero_tails),
    "A11": ("calibration", calibrations),
    "A12": ("pages without a meaning", stacks),
    "A13": ("evaluation is counting", evaluation),
    "A14": ("doubts are told", doubts),
    "A0": ("also", also),
}
