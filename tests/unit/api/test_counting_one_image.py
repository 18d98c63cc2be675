"""One image by the public API: the same count, labels and warnings as a run of the command, and clear faults."""

from __future__ import annotations

import json
import math
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import cellcount_core as cc
from cellcount_core.cli.main import main
from cellcount_core.domain.errors import CellcountError, FieldFault, Reason
from tests.plates import nuclear_field
from tests.unit.api.made import isolated

NOTEBOOK = Path(__file__).parents[3] / "docs" / "tutorial" / "counting-in-python.ipynb"
ROW = (
    "Metadata_Plate",
    "Metadata_Well",
    "count",
    "count_low",
    "count_high",
    "diameter_px",
    "diameter_source",
    "scale",
    "focus",
    "warnings",
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with isolated():
        yield


@cache
def images() -> dict[str, NDArray[np.generic]]:
    """Images that go different ways: plain, of another size, empty, upside down, padded, in colours, of floats."""
    rng = np.random.default_rng(3)
    plain, _ = cc.made_up_image(objects=60, seed=1)
    small = cv2.resize(plain, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    grey = np.clip(plain / 40, 0, 255).astype(np.uint8)
    padded = plain.copy()
    padded[:, :150] = 0
    return {
        "plain/a.tif": plain,
        "small/a.tif": small,
        "empty/a.tif": rng.normal(300, 4, (300, 280)).astype(np.uint16),
        "bright/a.png": 255 - grey,
        "padded/a.tif": padded,
        "colours/a.png": np.dstack([np.zeros_like(grey), grey[::-1], grey]),
        "floats/a.npy": plain.astype(np.float32) / 65535,
    }


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cc.Output]:
    """Every image in a folder of its own, so that each is a plate, counted by the command."""
    root = tmp_path_factory.mktemp("images")
    for name, image in images().items():
        (root / name).parent.mkdir()
        if name.endswith(".npy"):
            np.save(root / name, image)
        elif name.endswith(".png"):
            cv2.imwrite(str(root / name), image)
        else:
            tifffile.imwrite(root / name, image)
    out = tmp_path_factory.mktemp("counts")
    done = main(["count", str(root), str(out), "--labels", "--runner", "serial", "--progress", "quiet"])
    assert done == 0
    return root, cc.open(out)


@pytest.mark.parametrize("name", images())
def test_a_file_counts_as_the_command_counts_it(name: str, counted: tuple[Path, cc.Output]) -> None:
    root, out = counted
    key = f"{name.partition('/')[0]}"
    [row] = [row for row in out.fields.to_table().to_pylist() if row["Metadata_Plate"] == key]

    result = cc.count(root / name)

    assert {column: result.row[column] for column in ROW} == {column: row[column] for column in ROW}
    assert (result.count, result.warnings) == (row["count"], tuple(row["warnings"]))
    index = 0 if name.endswith(".npy") else -1
    assert np.array_equal(result.labels, out.label_image(name, index))
    theirs = out.to_pandas("objects").query("Metadata_Plate == @key").reset_index(drop=True)
    assert result.objects.to_pandas().equals(theirs)


def test_the_images_of_this_test_warn_of_something(counted: tuple[Path, cc.Output]) -> None:
    _, out = counted

    warned = {row["Metadata_Plate"] for row in out.fields.to_table().to_pylist() if row["warnings"]}

    assert {"bright", "padded", "colours"} <= warned


def test_an_array_counts_as_the_file_that_holds_it(counted: tuple[Path, cc.Output]) -> None:
    root, _ = counted

    of_array, of_file = cc.count(images()["plain/a.tif"]), cc.count(str(root / "plain/a.tif"))

    assert of_array.count == of_file.count
    assert np.array_equal(of_array.labels, of_file.labels)
    assert (of_array.interval, of_array.diameter) == (of_file.interval, of_file.diameter)


@pytest.mark.slow
def test_the_notebook_counts_as_the_command_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    told: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), told)

    command = [
        "count",
        str(told["images"]),
        "again",
        "--layout",
        "imagexpress",
        "--channel",
        "w1",
        "--progress",
        "quiet",
    ]
    assert (
        main([*command, "--runner", "serial"]) == int(cc.open("again").summary["fields"]["missing"] > 0) * 3
    )
    out, result, one = told["out"], told["result"], told["one"]
    assert isinstance(out, cc.Output)
    assert isinstance(result, cc.Result)
    assert isinstance(one, cc.Result)
    assert out.fields.to_table().equals(cc.open("again").fields.to_table())
    [row] = [
        row
        for row in out.fields.to_table().to_pylist()
        if (row["Metadata_Well"], row["Metadata_Site"]) == ("A01", 1)
    ]
    assert (one.count, one.warnings) == (row["count"], tuple(row["warnings"]))
    image, planted = cc.made_up_image(objects=80)
    assert np.array_equal(cc.count(image).labels, result.labels)
    assert abs(result.count - planted) <= 0.1 * planted


def test_what_is_doubtful_is_told_and_kept(counted: tuple[Path, cc.Output]) -> None:
    root, _ = counted

    with pytest.warns(cc.DoubtfulCount, match='channel="blue"'):
        result = cc.count(root / "colours/a.png")

    assert "colours_differ" in result.warnings
    assert any("different things" in note for note in result.notes)
    assert not any("--" in note for note in result.notes)


def test_settings_and_arguments_reach_the_count() -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))

    given = cc.count(image, diameter=18, um_per_px=0.65, settings={"run.tile": 512})

    assert given.row["diameter_source"] == "given"
    assert given.diameter == 18
    assert given.um_per_px == 0.65
    areas = (
        given.objects.column("area_um2").to_numpy() / given.objects.column("Nuclei_AreaShape_Area").to_numpy()
    )
    assert np.allclose(areas, 0.65**2)


def test_one_colour_of_an_array_is_counted_by_its_name() -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))
    colours = np.dstack([np.zeros_like(image), np.zeros_like(image), image])

    assert cc.count(colours, channel="blue").count == cc.count(image).count


def test_what_is_told_of_an_array_is_about_the_array() -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))
    result = cc.count(np.dstack([np.zeros_like(image), np.zeros_like(image), image]), channel="blue")

    assert not any("name" in note for note in result.notes)
    assert result.row["Metadata_Plate"] == "array"


def test_the_names_of_one_file_are_no_convention(tmp_path: Path) -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))
    tifffile.imwrite(tmp_path / "plate_A01_s1_w1.TIF", image)

    assert not any("names" in note for note in cc.count(tmp_path / "plate_A01_s1_w1.TIF", diameter=18).notes)


def test_a_diameter_that_the_model_does_not_use_is_told() -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))

    with pytest.warns(
        cc.DoubtfulCount, match=r"diameter given \(18 px\) is not used: `threshold` counts images"
    ):
        cc.count(image, model="threshold", diameter=18)


def test_what_a_run_warns_of_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate = cc.made_up_plate(tmp_path / "plate", wells=1)
    with pytest.warns(cc.DoubtfulCount) as told:
        cc.run(plate, tmp_path / "out", layout="imagexpress", channel="w1", model="threshold", diameter=18)

    assert sum("is not used" in str(each.message) for each in told) == 1
    assert "warning:" not in capsys.readouterr().err


def test_what_is_no_image_is_refused_in_words() -> None:
    refused: dict[str, object] = {
        r"image\.filled\(0\)": np.ma.masked_less(np.arange(100.0).reshape(10, 10), 3),
        "rows differ in length": [[1, 2], [3]],
        "the location of the image is empty": "",
        r"did you mean 's3://x/y\.tif'\?": "s3:/x/y.tif",
    }
    for told, image in refused.items():
        with pytest.raises(CellcountError, match=told):
            cc.count(image)


def test_a_stack_is_counted_where_its_axes_are_named() -> None:
    image, _ = cc.made_up_image(objects=12, shape=(256, 256))
    stack = np.stack([image // 2, image])

    assert cc.count(stack, settings={"run.axes": "ZYX"}).count == cc.count(image).count


def test_a_notebook_shows_the_image_with_its_count() -> None:
    image, _ = cc.made_up_image(objects=30)
    result = cc.count(image)

    shown = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert result.overlay().shape[:2] == (1024, 1024)
    page = result._repr_html_()
    assert f'<b style="font-size: 20px">{result.count}</b> objects' in page
    assert "http" not in page
    assert f"count={result.count}" in repr(result)
    assert len(repr(result)) < 300


BAD: dict[str, tuple[Callable[[], NDArray[np.generic]], Reason, str]] = {
    "nan": (lambda: np.full((50, 60), np.nan), Reason.NON_FINITE, "not finite"),
    "bool": (
        lambda: np.ones((50, 60), np.bool_),
        Reason.WRONG_DTYPE,
        "a mask; the image that it was made from is expected",
    ),
    "labels": (
        lambda: labels(),
        Reason.WRONG_DTYPE,
        "labels or a mask; the image that they were made from is expected",
    ),
    "4-D": (
        lambda: np.zeros((2, 3, 50, 60), np.uint16),
        Reason.WRONG_SHAPE,
        r"one plane \(H, W\) is expected",
    ),
    "3-D": (lambda: np.zeros((9, 50, 60), np.uint16), Reason.WRONG_SHAPE, 'settings={"run.axes": "ZYX"}'),
    "RGB": (lambda: np.zeros((50, 60, 3), np.uint8), Reason.WRONG_SHAPE, 'channel="blue"'),
    "complex": (lambda: np.zeros((50, 60), np.complex64), Reason.WRONG_DTYPE, "integers or floats"),
    "text": (lambda: np.array([["a", "b"]]), Reason.WRONG_DTYPE, "integers or floats"),
    "objects": (lambda: np.array([[None, 1]], dtype=object), Reason.WRONG_DTYPE, "integers or floats"),
    "empty": (lambda: np.zeros((0, 60), np.uint16), Reason.WRONG_SHAPE, "has no pixels"),
    "a number": (lambda: np.array(7), Reason.WRONG_SHAPE, r"\(H, W\) is expected"),
    "a line": (lambda: np.zeros(60, np.uint16), Reason.WRONG_SHAPE, r"\(H, W\) is expected"),
}


def labels() -> NDArray[np.int32]:
    """A label image: discs of one value each."""
    y, x = np.mgrid[:200, :200]
    found = np.zeros((200, 200), np.int32)
    for number in range(9):
        cy, cx = 35 + 65 * (number // 3), 35 + 65 * (number % 3)
        found[(y - cy) ** 2 + (x - cx) ** 2 < 400] = number + 1
    return found


@pytest.mark.parametrize("kind", BAD)
def test_an_array_that_is_no_image_says_what_was_expected(kind: str) -> None:
    made, reason, told = BAD[kind]

    with pytest.raises(ValueError, match=told) as fault:
        cc.count(made())

    assert isinstance(fault.value, FieldFault)
    assert fault.value.reason is reason
    assert str(fault.value).startswith("the array: ")


def test_labels_are_counted_where_that_is_wanted() -> None:
    drawn = np.where(labels() > 0, 200, 0).astype(np.uint8)

    assert cc.count(drawn, model="threshold", diameter="model", settings={"run.masks": "count"}).count == 9


def test_a_file_that_is_not_there_names_the_one_that_may_be_meant(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plate_A01.tif", cc.made_up_image(objects=5)[0])

    with pytest.raises(
        FileNotFoundError, match=r"plate_A0l\.tif: there is no such file; did you mean 'plate_A01\.tif'\?"
    ):
        cc.count(tmp_path / "plate_A0l.tif")


def test_faults_of_files_and_settings_are_the_builtins_that_a_caller_expects(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no image at all")
    (tmp_path / "no-bytes.tif").touch()
    np.save(tmp_path / "stack.npy", np.zeros((9, 50, 60), np.uint16))
    image = cc.made_up_image(objects=5)[0]
    told: dict[str, Callable[[], object]] = {
        "looks like text": lambda: cc.count(tmp_path / "text.tif"),
        "0 bytes": lambda: cc.count(tmp_path / "no-bytes.tif"),
        "holds 9 images": lambda: cc.count(tmp_path / "stack.npy"),
        "is a folder; `run` counts": lambda: cc.count(tmp_path),
        "did you mean 'nuclei'": lambda: cc.count(image, model="nuclie"),
        "run.diameter": lambda: cc.count(image, diameter=-3),
        "run.zz: unknown key": lambda: cc.count(image, settings={"run.zz": 1}),
        "holds one channel without a name": lambda: cc.count(
            image, channel="DAPI", settings={"run.measure": ["FITC"]}
        ),
    }
    for words, act in told.items():
        with pytest.raises(ValueError, match=words.replace("`", "[`]")) as fault:
            act()
        assert isinstance(fault.value, CellcountError)
        assert "--" not in str(fault.value), fault.value


@pytest.mark.slow
def test_several_threads_may_count_at_once() -> None:
    image, _ = cc.made_up_image(objects=20, shape=(256, 256))
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(cc.count(image).count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [cc.count(image).count] * 4


def test_a_process_that_was_forked_counts_too() -> None:
    image, _ = cc.made_up_image(objects=20, shape=(256, 256))
    here = cc.count(image, model="threshold").count

    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply_async(_count_there, (image,)).get(timeout=120)

    assert there == here


def _count_there(image: NDArray[np.uint16]) -> int:
    return cc.count(image, model="threshold").count


def test_the_interval_is_that_of_the_row() -> None:
    result = cc.count(cc.made_up_image(objects=12, shape=(256, 256))[0])

    assert result.interval is not None
    low, high = result.interval
    assert math.isclose(low, result.row["count_low"])
    assert low <= result.count <= high


def test_an_image_alone_counts_as_on_its_plate_at_the_object_size_of_the_plate(tmp_path: Path) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    for number, size in enumerate((19, 20, 22)):
        tifffile.imwrite(folder / f"{number}.tif", nuclear_field(size, 12, seed=number, side=200))
    rows = (
        cc.run(folder, tmp_path / "out", settings={"execution.runner": "serial"})
        .fields.to_table()
        .to_pylist()
    )
    alone = [cc.count(folder / f"{number}.tif").row for number in range(3)]
    assert any(row["out_of_domain"] != one["out_of_domain"] for row, one in zip(rows, alone, strict=True))
    for row in rows:
        again = cc.count(folder / row["source"][0], diameter=row["diameter_px"]).row
        assert {name: again[name] for name in SAME} == {name: row[name] for name in SAME}


SAME = ("count", "count_low", "count_high", "scale", "diameter_px", "out_of_domain", "area_fraction")
