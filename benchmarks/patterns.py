"""What is measured of multi-label patterns: splits of a table, heads, training speed, weights; each a command that prints its figures.

python -m benchmarks.patterns statistics TABLE [--folds 5]      label shares of folds
python -m benchmarks.patterns make FOLDER [--weak] [--images N] a made-up set, to train on
python -m benchmarks.patterns thresholds PACKAGE                macro F1 beside flat thresholds, and the rare patterns
python -m benchmarks.patterns heads CONFIG                      one head, 2 x 14 and 4 x 7
python -m benchmarks.patterns speed FOLDER                      images/s by batch, size of the network and cache
python -m benchmarks.patterns weights CONFIG                    distribution of weights with and without regularisation
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from benchmarks.record import write_section
from cellcount_core.demo.patterns import CHANNELS, NAMES, STRONG, WEAK, write_patterns
from cellcount_core.domain.errors import RunFault
from cellcount_core.labelled.patterns import STRUCTURES, pattern_names, read_annotations
from cellcount_core.models.package import load_package
from cellcount_core.tasks.patterns.learn import PatternsConfig
from cellcount_core.tasks.patterns.score import weak_patterns
from cellcount_core.training.batches import training_batches
from cellcount_core.training.stratify import pattern_shares, stratified_folds

SIZES: dict[str, dict[str, object]] = {
    "0.2 M": {"preset": "compact", "filters": [16, 32, 64, 96], "convolutions": [1, 2, 2, 1]},
    "5 M": {"preset": "compact", "filters": [64, 128, 256, 512], "convolutions": [1, 2, 2, 2]},
    "58 M": {"preset": "seed", "dense": [3500]},
}
"""Networks of about 0.2, 5 and 58 million parameters for images of 128 px, as the source's were."""

_WARM = 8
"""Steps before time is taken: more than the batches that are made ahead, which would hide that they are made too slowly."""
_PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "patterns.md"
_told: list[str] = []


def say(line: str) -> None:
    """Print a line, and keep it to be recorded."""
    print(line, flush=True)
    _told.append(line)


def statistics(table: Path, names: str, folds: int) -> int:
    """Print how the patterns of a table are spread over stratified folds. Returns 1 if one of 50 images or more is off by over a tenth."""
    beside = table.parent / NAMES
    known = pattern_names(names or (str(beside) if beside.is_file() else STRUCTURES))
    rows = read_annotations(table, known)
    shown = np.array([[name in row.patterns for name in known] for row in rows])
    fold = stratified_folds(shown, [row.group or row.id for row in rows], folds)
    say(
        f"{table}: {len(rows):,} images, {shown.sum() / len(rows):.2f} patterns an image; folds of {np.bincount(fold).tolist()} images"
    )
    say(
        f"{'pattern':<32}{'images':>8}{'share':>9}  {'images by fold':<42}{'largest difference of share':>28}"
    )
    worst = 0.0
    for one in sorted(pattern_shares(shown, fold, known, folds), key=lambda one: -one.images):
        say(
            f"{one.name:<32}{one.images:>8}{one.images / len(rows):>9.3%}  {' '.join(f'{part:>7}' for part in one.parts):<42}{one.off:>28.1%}"
        )
        worst = max(worst, one.off if one.images >= 50 else 0.0)
    say(f"largest difference of share among patterns of 50 images or more: {worst:.1%} (bar: 10 %)")
    return int(worst > 0.1)


def thresholds(folder: Path) -> int:
    """Print what a package states of its second hold-out. Returns 1 if its thresholds do not beat both flat ones, or its rarest pattern is
    never told."""
    accuracy = load_package(folder).accuracy
    section = load_package(folder).section
    flat = {
        name.removeprefix("macro_f1_flat_"): float(str(value))
        for name, value in accuracy.items()
        if name.startswith("macro_f1_flat_")
    }
    own = float(str(accuracy["macro_f1"]))
    say(
        f"{accuracy['images']} images, {accuracy['patterns']} patterns: macro F1 {own:.4f} ({accuracy['macro_f1_low']:.4f} to {accuracy['macro_f1_high']:.4f}), micro F1 {accuracy['micro_f1']:.4f}"
    )
    for name, value in flat.items():
        say(f"  flat {name:<5} {value:.4f} ({own - value:+.4f} by the package's thresholds)")
    names, images = section["patterns"], section["threshold_images"]
    assert isinstance(names, list) and isinstance(images, list)
    f1s = np.array(
        [np.nan if accuracy[f"f1_{name}"] is None else accuracy[f"f1_{name}"] for name in names], np.float64
    )
    weak = weak_patterns(names, f1s, np.array([int(str(accuracy[f"images_{name}"])) for name in names]))
    say(f"  weak: {'; '.join(weak) or 'none'}")
    order = sorted(range(len(names)), key=lambda at: images[at])
    say(f"{'pattern':<32}{'fitted on':>10}{'measured on':>12}{'threshold':>11}{'F1':>8}")
    for at in order:
        f1 = accuracy[f"f1_{names[at]}"]
        say(
            f"{names[at]:<32}{images[at]:>10}{accuracy[f'images_{names[at]}']:>12}{section['thresholds'][at]:>11.3f}{'' if f1 is None else f'{f1:.3f}':>8}"
        )
    rarest = accuracy[f"f1_{names[order[0]]}"]
    return int(own <= max(flat.values()) or not rarest)


def heads(path: Path, changes: list[str]) -> int:
    """Train one network with one head, with 2 and with 4, of as many hidden units in all, and print the figures of each."""
    from cellcount_core.training.trainer import train

    rows = []
    for count in (1, 2, 4):
        config = _settings(path, [*changes, f"network.heads={count}", "network.dense=[112]"], f"heads{count}")
        folder = train(config, report=lambda line: print(f"  {line}", file=sys.stderr))
        accuracy = load_package(folder).accuracy
        rows.append((count, len(config.patterns) // count, accuracy))
    say(f"{'heads':<10}{'macro F1':>10}{'95 % interval':>20}{'micro F1':>10}{'all right':>11}")
    for count, each, accuracy in rows:
        ends = f"{accuracy['macro_f1_low']:.4f} to {accuracy['macro_f1_high']:.4f}"
        say(
            f"{f'{count} x {each}':<10}{accuracy['macro_f1']:>10.4f}{ends:>20}{accuracy['micro_f1']:>10.4f}{accuracy['all_right']:>11.3f}"
        )
    return 0


@dataclass(frozen=True, slots=True)
class Speed:
    """One line of the sweep. `waiting` is the share of the time in which the network waits for its next batch."""

    size: str
    parameters: int
    batch: int
    cache: str
    images_s: float
    waiting: float

    @property
    def seconds(self) -> float:
        """Seconds an image."""
        return 1 / self.images_s


def speed(
    data: Path, out: Path, batches: list[int], caches: list[str], side: int, least_s: float, sizes: list[str]
) -> int:
    """Train for a few seconds with each batch, size of the network and cache; print and draw the speeds, and write them to speed.csv."""
    found = []
    for size, network in ((size, SIZES[size]) for size in sizes):
        for cache in caches:
            for batch in batches:
                one = _one_speed(data, size, dict(network), batch, cache, side, least_s)
                found.append(one)
                say(
                    f"{one.size:>7} ({one.parameters / 1e6:5.2f} M)  batch {one.batch:>3}  cache {one.cache:<6}  {one.images_s:8.2f} images/s  "
                    f"{one.seconds:7.4f} s an image  {one.waiting:6.1%} waiting for data"
                )
    out.mkdir(parents=True, exist_ok=True)
    with (out / "speed.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["size", "parameters", "batch", "cache", "images_s", "s_an_image", "waiting"])
        writer.writerows(
            [
                s.size,
                s.parameters,
                s.batch,
                s.cache,
                round(s.images_s, 3),
                round(s.seconds, 5),
                round(s.waiting, 4),
            ]
            for s in found
        )
    draw_speed(found, out / "speed.png")
    say(f"{out / 'speed.csv'}, {out / 'speed.png'}")
    return 0


def _one_speed(
    data: Path, size: str, network: dict[str, object], batch: int, cache: str, side: int, least_s: float
) -> Speed:
    from cellcount_core.training.network import compiled, prepare_backend
    from cellcount_core.training.start import load_lesson

    with tempfile.TemporaryDirectory() as scratch:
        config = _speed_config(data, network, batch, cache, side, scratch)
        prepare_backend(1)
        lesson = load_lesson(config)
        if cache != "off":
            for number in range(len(lesson.train)):
                lesson.crop(np.random.default_rng(0), number)
        network_, trainee = compiled(config, 10**6)
        steps = waited = 0.0
        since = before = time.monotonic()
        for number, (inputs, targets) in training_batches(lesson, config, 0, 10**6):
            ready = time.monotonic()
            if number >= _WARM:
                waited += ready - before
            trainee.train_on_batch(inputs, targets)
            before = time.monotonic()
            if number == _WARM - 1:
                since = before
            if number >= _WARM:
                steps += 1
                if before - since > least_s and steps >= _WARM:
                    break
        seconds = before - since
        return Speed(size, network_.count_params(), batch, cache, steps * batch / seconds, waited / seconds)


def _speed_config(
    data: Path, network: dict[str, object], batch: int, cache: str, side: int, scratch: str
) -> PatternsConfig:
    return PatternsConfig.model_validate(
        {
            "name": "speed", "task": "patterns", "patterns": str(data / NAMES), "input": {"channels": list(CHANNELS)}, "data": {"path": str(data)},
            "network": network, "crop_px": side, "cache": {"kind": cache}, "batch": batch, "steps": 10**6, "threads": 1,
            "work_dir": scratch, "package_dir": f"{scratch}/package",
        }
    )  # fmt: skip


def cache_speed(data: Path, caches: list[str], side: int) -> int:
    """Print how long it takes to have an augmented image, without any network, in the first epoch and in the next one."""
    from cellcount_core.training.start import load_lesson

    say(
        f"{'cache':<8}{'first epoch':>14}{'next epochs':>14}   seconds of wall time (of this process) an image"
    )
    for cache in caches:
        with tempfile.TemporaryDirectory() as scratch:
            lesson = load_lesson(_speed_config(data, dict(SIZES["0.2 M"]), 1, cache, side, scratch))
            found = []
            for _ in range(2):
                wall, own = time.perf_counter(), time.process_time()
                for number in range(len(lesson.train)):
                    lesson.crop(np.random.default_rng(number), number)
                count = len(lesson.train)
                found.append(
                    f"{(time.perf_counter() - wall) / count:.4f} ({(time.process_time() - own) / count:.4f})"
                )
            say(f"{cache:<8}{found[0]:>18}{found[1]:>18}")
    return 0


def draw_speed(found: list[Speed], path: Path) -> None:
    """Images/s against batch, a line for each size and cache; and the share of the time that is spent waiting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    lines = {"off": ":", "disk": "--", "memory": "-"}
    for at, size in enumerate(dict.fromkeys(one.size for one in found)):
        for cache in dict.fromkeys(one.cache for one in found):
            own = [one for one in found if (one.size, one.cache) == (size, cache)]
            style = {
                "color": f"C{at}",
                "linestyle": lines[cache],
                "marker": "o",
                "label": f"{size}, cache {cache}",
            }
            left.plot([one.batch for one in own], [one.images_s for one in own], **style)
            right.plot([one.batch for one in own], [100 * one.waiting for one in own], **style)
    left.set(xscale="log", yscale="log", xlabel="batch", ylabel="images/s")
    right.set(xscale="log", xlabel="batch", ylabel="time spent waiting for data (%)", ylim=(-2, 102))
    for panel in (left, right):
        ticks = sorted({one.batch for one in found})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    right.legend(fontsize=7, loc="upper right")
    figure.savefig(path, dpi=120)


def weights(path: Path, out: Path, changes: list[str]) -> int:
    """Train the same network with and without weight decay and dropout, and draw the distributions of its weights."""
    from cellcount_core.training.export import averaged_network
    from cellcount_core.training.start import load_lesson
    from cellcount_core.training.trainer import train_network

    found = {}
    for name, own in (
        ("without", ["optimiser.weight_decay=0", "network.dropout=0"]),
        ("with", ["optimiser.weight_decay=0.1", "network.dropout=0.3"]),
    ):
        config = _settings(path, [*changes, *own], f"weights-{name}")
        lesson = load_lesson(config)
        train_network(config, lesson, report=lambda line: print(f"  {line}", file=sys.stderr))
        _, network = averaged_network(config, lesson)
        kernels = {
            layer.name: layer.get_weights()[0].ravel()
            for layer in network.layers
            if layer.weights and layer.get_weights()[0].ndim > 1
        }
        found[name] = kernels
        every = np.concatenate(list(kernels.values()))
        curve = (Path(config.work_dir) / "curves.csv").read_text().splitlines()[-1].split(",")
        say(f"{name:>8} regularisation: {every.size:,} weights, sd {every.std():.4f}, |w| < 0.01: {(np.abs(every) < 0.01).mean():.1%}, "
              f"largest {np.abs(every).max():.3f}; loss {curve[3]}, validation {curve[5]}")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    draw_weights(found, out / "weights.png")
    say(str(out / "weights.png"))
    return 0


def draw_weights(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Histograms of the weights of each layer, without and with regularisation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = [name for name in next(iter(found.values())) if name != "features"]
    figure = Figure(figsize=(3 * len(layers), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, layer in zip(np.atleast_1d(figure.subplots(1, len(layers))), layers, strict=True):
        reach = max(float(np.quantile(np.abs(kernels[layer]), 0.999)) for kernels in found.values())
        for name, kernels in found.items():
            panel.hist(
                kernels[layer],
                bins=60,
                range=(-reach, reach),
                histtype="step",
                density=True,
                label=f"{name} regularisation",
            )
        panel.set(title=layer, xlabel="weight", ylabel="density", yscale="log")
    panel.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def _settings(path: Path, changes: list[str], suffix: str) -> PatternsConfig:
    """The settings of a file with some changed, and work and package folders of their own."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        *sections, name = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = yaml.safe_load(value)
    for folder in ("work_dir", "package_dir"):
        tree[folder] = f"{str(tree[folder]).rstrip('/')}-{suffix}"
    return PatternsConfig.model_validate(tree)


def main() -> int:
    """Run the command that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("statistics")
    one.add_argument("table", type=Path)
    one.add_argument(
        "--names", default="", help=f"default: {NAMES} beside the table if it is there, else {STRUCTURES}"
    )
    one.add_argument("--folds", type=int, default=5)
    one = commands.add_parser("make")
    one.add_argument("folder", type=Path)
    one.add_argument("--weak", action="store_true")
    one.add_argument("--images", type=int, default=4000)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--side", type=int, default=STRONG.side_px)
    one = commands.add_parser("thresholds")
    one.add_argument("package", type=Path)
    for name in ("heads", "weights"):
        one = commands.add_parser(name)
        one.add_argument("config", type=Path)
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        one.add_argument("--out", type=Path, default=Path("out/patterns"))
    one = commands.add_parser("cache")
    one.add_argument("data", type=Path)
    one.add_argument("--caches", default="off,disk,memory")
    one.add_argument("--side", type=int, default=128)
    one = commands.add_parser("speed")
    one.add_argument("data", type=Path)
    one.add_argument("--out", type=Path, default=Path("out/patterns"))
    one.add_argument("--batches", default="4,16,64")
    one.add_argument("--caches", default="off,disk,memory")
    one.add_argument("--side", type=int, default=128)
    one.add_argument("--seconds", type=float, default=10.0)
    one.add_argument("--sizes", default=",".join(SIZES))
    for each in commands.choices.values():
        each.add_argument("--record", metavar="SECTION", default="")
    asked = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = _run(asked)
    except RunFault as fault:
        print(f"{parser.prog}: {fault}", file=sys.stderr)
        return int(fault.exit_code)
    if asked.record:
        write_section(
            asked.record,
            ["```text", *_told, "```"],
            "python -m benchmarks.patterns " + shlex.join(sys.argv[1:]),
            _PAGE,
        )
    return code


def _run(asked: argparse.Namespace) -> int:
    if asked.command == "statistics":
        return statistics(asked.table, asked.names, asked.folds)
    if asked.command == "make":
        scene = replace(WEAK if asked.weak else STRONG, side_px=asked.side).of_images(asked.images)
        print(write_patterns(asked.folder, asked.images, scene, asked.seed))
        return 0
    if asked.command == "thresholds":
        return thresholds(asked.package)
    if asked.command == "heads":
        return heads(asked.config, asked.set)
    if asked.command == "weights":
        return weights(asked.config, asked.out, asked.set)
    if asked.command == "cache":
        return cache_speed(asked.data, asked.caches.split(","), asked.side)
    batches = [int(each) for each in asked.batches.split(",")]
    return speed(
        asked.data,
        asked.out,
        batches,
        asked.caches.split(","),
        asked.side,
        asked.seconds,
        asked.sizes.split(","),
    )


if __name__ == "__main__":
    sys.exit(main())
