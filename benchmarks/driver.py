"""What running on a cluster costs: CPU time of the Ray runner beside the serial one, memory of the driver, and planning many files.

    python benchmarks/driver.py overhead [--small 2000] [--large 6000] [--rounds 3] [--record]
    python benchmarks/driver.py memory [--small 2000] [--large 10000] [--record]
    python benchmarks/driver.py plan [--files 1000000] [--record]
    python benchmarks/driver.py plan-arrays [--images 23040] [--record]

overhead: CPU-seconds a field, slopes over two sizes, start-up apart. Fields are 256 x 256 16-bit TIFF files counted with the `threshold`
package. Every run is a process of its own, runners in turn; its CPU time is the sum over its process tree (driver, Ray's own
processes, actors).

memory: peak of the driver at two numbers of fields, which must not grow with them. Tiny images, `threshold`, one Ray actor; the driver's
own process is measured (VmHWM), not Ray's processes or the actor.

plan: seconds and peak memory from listing to plan.parquet. The keys are ImageXpress names of 384-well plates with 9 sites and 2 channels,
listed in a shuffled order, as a store would give them: the store of this script makes them up, so that planning alone is measured.

plan-arrays: the same for one OME-Zarr plate (0.4) of 384 wells, 5 channels, 3 levels and labels beside each image: 44 objects an image,
1,014,530 in all by default. The store also makes up the metadata that planning reads.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import tifffile

from benchmarks.record import record
from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.plates import WellPosition
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.ome_zarr import OmeZarrSettings
from cellcount_core.output.planfile import ShardLimits
from cellcount_core.output.runfile import ModelIdentity
from cellcount_core.plan.planner import PlannedModel, make_plan
from cellcount_core.stores.base import LIST_BATCH, Listed

_PEAK_OF_THIS_PROCESS = """
import sys
from cellcount_core.cli.main import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print("peak", [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")][0])
sys.exit(code)
"""

SITES, CHANNELS, WELLS = 9, 2, 384
_PLATE_FILES = SITES * CHANNELS * WELLS
_STAINS = ("w1", "w2", "w3", "w4", "w5")
_LEVELS, _CHUNK = (2160, 1080, 540), 1080
"""Sides of the levels of an image in OME-Zarr, and of their chunks, in px."""

_STEP = 7_368_787  # a prime: multiplying by it modulo the number of files visits each once, far apart


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    overhead_of = commands.add_parser("overhead")
    overhead_of.add_argument("--small", type=int, default=2000)
    overhead_of.add_argument("--large", type=int, default=6000)
    overhead_of.add_argument("--rounds", type=int, default=3)
    overhead_of.add_argument("--actors", type=int, default=2)
    overhead_of.set_defaults(measure=overhead)
    memory_of = commands.add_parser("memory")
    memory_of.add_argument("--small", type=int, default=2000)
    memory_of.add_argument("--large", type=int, default=10_000)
    memory_of.set_defaults(measure=memory)
    plan_of = commands.add_parser("plan")
    plan_of.add_argument("--files", type=int, default=1_000_000)
    plan_of.set_defaults(measure=plan)
    arrays_of = commands.add_parser("plan-arrays")
    arrays_of.add_argument("--images", type=int, default=384 * 60)
    arrays_of.set_defaults(measure=plan_arrays)
    for command in (overhead_of, memory_of, plan_of, arrays_of):
        command.add_argument(
            "--record", action="store_true", help="write the table to docs/explanation/performance.md"
        )
    arguments = made.parse_args()
    arguments.measure(arguments)


def plate_name(index: int) -> str:
    """The file name of the field of that number on a 384-well plate."""
    return f"P_{chr(65 + index // 24 % 16)}{index % 24 + 1:02d}_s{index // 384 + 1}.tif"


def overhead(arguments: argparse.Namespace) -> None:
    """Measure and print the CPU time a field of both runners."""
    slopes: dict[str, list[float]] = {"serial": [], "ray": []}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for size in (arguments.small, arguments.large):
            sources[size] = Path(scratch) / str(size)
            sources[size].mkdir()
            write_fields(sources[size], size)
        for turn in range(arguments.rounds):
            for runner in ("serial", "ray") if turn % 2 == 0 else ("ray", "serial"):
                low, high = (cpu_seconds(runner, arguments.actors, sources[size], size) for size in sources)
                slopes[runner].append((high - low) / (arguments.large - arguments.small))
                print(
                    f"{runner}: {low:.1f} s, {high:.1f} s: {1000 * slopes[runner][-1]:.3f} ms a field",
                    flush=True,
                )
    medians = {runner: statistics.median(values) for runner, values in slopes.items()}
    table = [
        "| runner | CPU time a field |",
        "|---|---|",
        f"| serial | {1000 * medians['serial']:.3f} ms |",
        f"| ray, {arguments.actors} actors | {1000 * medians['ray']:.3f} ms |",
        f"| ratio | {medians['ray'] / medians['serial']:.3f} |",
    ]
    print("\n".join(table))
    record("overhead", table)


def write_fields(folder: Path, count: int) -> None:
    """`count` images in ImageXpress names; 64 different ones, so that making them does not take longer than counting."""
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[:256, :256]
    bodies = []
    for _ in range(64):
        image = rng.normal(300, 12, (256, 256))
        for y, x in rng.integers(12, 244, (25, 2)):
            image += 1500.0 * ((yy - y) ** 2 + (xx - x) ** 2 <= 49)
        path = folder / "one.tif"
        tifffile.imwrite(path, np.clip(image, 0, 65535).astype(np.uint16))
        bodies.append(path.read_bytes())
    path.unlink()
    for index in range(count):
        (folder / plate_name(index)).write_bytes(bodies[index % 64])


def cpu_seconds(runner: str, actors: int, source: Path, fields: int) -> float:
    """CPU time of one count, over its process tree."""
    output = Path(tempfile.mkdtemp(prefix="overhead-"))
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(source), str(output / "out")]
    command += ["--layout", "imagexpress", "--model", "threshold", "--progress", "quiet", "--runner", runner]
    command += ["--set", "execution.threads=1"] + (["--actors", str(actors)] if runner == "ray" else [])
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    spent: dict[int, float] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for member in [root, *root.children(recursive=True)]:
                times = member.cpu_times()
                spent[member.pid] = times.user + times.system
        except psutil.Error:
            pass
        time.sleep(0.1)
    told = process.stdout.read().decode() if process.stdout else ""
    shutil.rmtree(output)
    if process.returncode != 0 or f"of {fields} fields" not in told:
        raise SystemExit(f"{runner}: exit code {process.returncode}: {told}")
    return sum(spent.values())


def memory(arguments: argparse.Namespace) -> None:
    """Measure and print the peak of the driver at both numbers of fields."""
    peaks = []
    table = ["| fields | peak of the driver |", "|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        one = Path(scratch) / "one.tif"
        tifffile.imwrite(one, np.random.default_rng(0).normal(300, 10, (32, 32)).astype(np.uint16))
        for count in (arguments.small, arguments.large):
            source = Path(scratch) / str(count)
            source.mkdir()
            for index in range(count):
                (source / plate_name(index)).write_bytes(one.read_bytes())
            peaks.append(driver_peak_mib(source, Path(scratch) / f"out{count}"))
            table.append(f"| {count} | {peaks[-1]:.1f} MiB |")
            print(table[-1], flush=True)
    table.append(f"| ratio | {peaks[1] / peaks[0]:.3f} |")
    print(table[-1])
    record("driver-memory", table)


def driver_peak_mib(source: Path, output: Path) -> float:
    """Peak resident memory of the driver process, in MiB."""
    arguments = [
        "count",
        str(source),
        str(output),
        "--layout",
        "imagexpress",
        "--model",
        "threshold",
        "--progress",
        "quiet",
    ]
    arguments += ["--actors", "1"]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK_OF_THIS_PROCESS, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split("peak")[1]) / 1024


def plan(arguments: argparse.Namespace) -> None:
    """Plan as many files as asked, read the plan back, and print what it took."""
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "w1"}, measure=("w1", "w2"))
    record("plan-keys", measured_plan(run, MadeUpFiles(arguments.files)))


def plan_arrays(arguments: argparse.Namespace) -> None:
    """Plan one OME-Zarr plate of as many images as asked, read the plan back, and print what it took."""
    run = RunConfig(layout=OmeZarrSettings(), channels={"nuclei": "w1"}, measure=("w1", "w2"))
    record("plan-arrays", measured_plan(run, MadeUpArrays(arguments.images)))


def measured_plan(run: RunConfig, store: MadeUpStore) -> list[str]:
    """Plan `run` on the objects of `store`; print and return the table of what it took."""
    model = PlannedModel(
        ModelIdentity("none", "0", "0", "none"), ("nuclei",), lambda _, measured: schema_3("Nuclei", measured)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, cpu = time.perf_counter(), time.process_time()
    # Only what planning asks of a store is made up.
    with make_plan(store, run, model, ShardLimits(64, 2**40)) as planned:  # type: ignore[arg-type]
        took, busy = time.perf_counter() - started, time.process_time() - cpu
        size = planned.path.stat().st_size / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started = time.perf_counter()
        fields = sum(len(shard.fields) for shard in planned.shards())
        read = time.perf_counter() - started
        shards = planned.summary.shards
    table = [
        f"| {store.objects:,} keys ({fields:,} fields, {shards:,} shards) | |",
        "|---|---|",
        f"| planned | {took:.1f} s ({busy:.1f} s CPU) |",
        f"| peak memory, of which before planning | {peak:.0f} MiB, {before:.0f} MiB |",
        f"| read back | {read:.1f} s |",
        f"| plan.parquet | {size:.1f} MiB |",
    ]
    print("\n".join(table))
    return table


class MadeUpStore(Protocol):
    """A store whose `objects` objects are listed in shuffled order."""

    url: str = "memory://made-up"
    objects: int

    def listed(self, number: int) -> Listed:
        """The object of that number."""
        ...

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """All objects in shuffled order."""
        for start in range(0, self.objects, LIST_BATCH):
            numbers = range(start, min(start + LIST_BATCH, self.objects))
            yield [self.listed(number * _STEP % self.objects) for number in numbers]


class MadeUpFiles(MadeUpStore):
    """Files of ImageXpress plates. It can only list."""

    def __init__(self, files: int) -> None:
        self.objects = files

    def listed(self, number: int) -> Listed:
        """The file of that number."""
        plate, rest = divmod(number, _PLATE_FILES)
        well, rest = divmod(rest, SITES * CHANNELS)
        site, channel = divmod(rest, CHANNELS)
        name = WellPosition(*divmod(well, 24)).name
        key = f"plate{plate:04d}/TimePoint_1/plate{plate:04d}_{name}_s{site + 1}_w{channel + 1}.TIF"
        return Listed(key, 2_000_000 + number, f"{number:032x}")


class MadeUpArrays(MadeUpStore):
    """The objects of one OME-Zarr plate (0.4): those of its images, then two of each well and of the plate. It can list and read metadata."""

    def __init__(self, images: int) -> None:
        self._images, self._names = images, _objects_of_an_image()
        self._groups = [f"{_well(number)}/" for number in range(min(images, WELLS))] + [""]
        self.objects = images * len(self._names) + 2 * len(self._groups)

    def listed(self, number: int) -> Listed:
        """The object of that number."""
        image, name = divmod(number, len(self._names))
        if image < self._images:
            place = f"{_well(image % WELLS)}/{image // WELLS}/{self._names[name]}"
        else:
            group, name = divmod(number - self._images * len(self._names), 2)
            place = self._groups[group] + (".zgroup", ".zattrs")[name]
        return Listed(f"plate.zarr/{place}", 1_000 if "/.z" in f"/{place}" else 1_000_000, f"{number:032x}")

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes]]:
        """The metadata objects of `keys`, in that order."""
        for key in keys:
            yield key, json.dumps(self._metadata(key.split("/")[1:])).encode()

    def _metadata(self, path: Sequence[str]) -> object:
        """What the object of that path in the plate says."""
        if path[-1] == ".zarray":
            side = _LEVELS[int(path[-2])]
            return {
                "zarr_format": 2, "shape": [len(_STAINS), side, side], "chunks": [1, _CHUNK, _CHUNK], "dtype": "<u2",
                "compressor": None, "fill_value": 0, "order": "C", "filters": None, "dimension_separator": "/",
            }  # fmt: skip
        if len(path) == 1:
            wells = [_well(number) for number in range(min(self._images, WELLS))]
            rows, columns = (sorted({well.split("/")[at] for well in wells}) for at in (0, 1))
            placed = [
                {"path": well, "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
                for well in wells
                for row, column in [well.split("/")]
            ]
            named = [[{"name": name} for name in names] for names in (rows, columns)]
            return {"plate": {"rows": named[0], "columns": named[1], "wells": placed, "version": "0.4"}}
        if len(path) == 3:
            own = next(number for number in range(WELLS) if _well(number) == "/".join(path[:2]))
            images = range(len(range(own, self._images, WELLS)))
            return {"well": {"images": [{"path": str(number)} for number in images], "version": "0.4"}}
        axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
        levels = [{"path": str(number)} for number in range(len(_LEVELS))]
        return {
            "multiscales": [{"version": "0.4", "axes": axes, "datasets": levels}],
            "omero": {"channels": [{"label": name} for name in _STAINS]},
        }


def _objects_of_an_image() -> list[str]:
    """Paths below an image: its metadata, that of its levels, their chunks, and labels of the finest level."""
    names = [".zgroup", ".zattrs", "labels/.zgroup", "labels/.zattrs"]
    names += [f"labels/nuclei/{name}" for name in (".zgroup", ".zattrs", "0/.zarray")]
    for level, side in enumerate(_LEVELS):
        chunks = [f"{y}/{x}" for y in range(-(-side // _CHUNK)) for x in range(-(-side // _CHUNK))]
        names.append(f"{level}/.zarray")
        names += [f"{level}/{channel}/{chunk}" for channel in range(len(_STAINS)) for chunk in chunks]
        names += [f"labels/nuclei/0/{chunk}" for chunk in chunks] if level == 0 else []
    return names


def _well(number: int) -> str:
    """The path of a well on a 384-well plate."""
    name = WellPosition(*divmod(number, 24)).name
    return f"{name[0]}/{name[1:]}"


if __name__ == "__main__":
    main()
