"""What a 256 x 256 tile costs on one CPU thread, engine by engine, measured in turns.

    python benchmarks/engines.py [--packages nuclei PATH ...] [--rounds 25] [--record]

CPU time is that of the whole process: an engine that used more threads than it was given would not look faster for it.

OpenVINO is no engine of the product; its rows appear where `pip install openvino` was done, to show what it would bring. What it makes
of the int8 file is not the same network (`_SAME_NETWORK`), so that is not among them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, find_package

Maps = NDArray[np.float32]
Run = Callable[[Maps], Maps]

_WARM_UP = 2
_SAME_NETWORK = 0.02
"""Mean difference of two engines' maps below which they run one network; int8 is the farthest from float32."""

_NAMES = {
    "onnxruntime": "ONNX Runtime, float32",
    "onnxruntime-int8": "ONNX Runtime, int8",
    "keras": "Keras, float32",
}
_OPENVINO = (
    ("OpenVINO, float32", "onnxruntime", "f32"),
    ("OpenVINO, bfloat16", "onnxruntime", "bf16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", nargs="+", default=["nuclei"])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--side", type=int, default=256, help="px of a tile's side")
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    table = [
        f"| package | engine | CPU ms a tile of {arguments.side} px, median | best | tiles a CPU second | from float32: largest | mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in arguments.packages:
        package = find_package(name)
        engines = {_NAMES[engine]: _loaded(package, engine) for engine in _NAMES if _runs(package, engine)}
        engines |= _openvino(package)
        table += _rows(package, engines, arguments.side, arguments.rounds)
    print("\n".join(table))
    record("engines", table)


def _runs(package: Package, engine: str) -> bool:
    installed = all(find_spec(library) is not None for library in ("keras", "tensorflow"))
    return engine in package.engines and (engine != "keras" or installed)


def _loaded(package: Package, name: str) -> Run:
    if name != "keras":
        return load_engine(package, name, threads=1).run
    from cellcount_core.models.engines.keras import KerasEngine

    return KerasEngine(package, 1, name, batch=1).run


def _openvino(package: Package) -> dict[str, Run]:
    if find_spec("openvino") is None:
        return {}
    import openvino

    core = openvino.Core()
    runs: dict[str, Run] = {}
    for label, engine, precision in _OPENVINO:
        if engine not in package.engines:
            continue
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        model = core.read_model(str(package.file(package.engines[engine])))
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        runs[label] = partial(_ask, request.infer)
    return runs


def _ask(infer: Callable[[list[Maps]], dict[object, Maps]], tiles: Maps) -> Maps:
    return np.array(next(iter(infer([tiles]).values())))


def _rows(package: Package, engines: dict[str, Run], side: int, rounds: int) -> list[str]:
    """Every engine once a round, so that whatever else the machine does falls on all of them."""
    tile = _tile(package, side)
    expected = engines[_NAMES["onnxruntime"]](tile)
    for run in engines.values():
        for _ in range(_WARM_UP):
            run(tile)
    busy: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            cpu = time.process_time()
            run(tile)
            busy[name].append(1000 * (time.process_time() - cpu))
    rows = []
    for name, run in engines.items():
        difference = np.abs(run(tile) - expected)
        assert difference.mean() < _SAME_NETWORK, f"{package.name}, {name}: not the network of the others"
        median = float(np.median(busy[name]))
        rows.append(
            f"| {package.name} | {name} | {median:.1f} | {min(busy[name]):.1f} | "
            f"{1000 / median:.0f} | {difference.max():.2g} | {difference.mean():.2g} |"
        )
    return rows


def _tile(package: Package, side: int) -> Maps:
    """A tile (1, side, side, C) of blurred spots: something for every layer to answer to."""
    import cv2

    rng = np.random.default_rng(0)
    spots = np.zeros((side, side), np.float32)
    for _ in range(side * side // 1000):
        centre = (int(rng.integers(0, side)), int(rng.integers(0, side)))
        cv2.circle(spots, centre, int(rng.integers(7, 12)), float(rng.uniform(0.4, 1.0)), -1)
    noisy = cv2.GaussianBlur(spots, (0, 0), 1.5) + rng.normal(0, 0.03, spots.shape).astype(np.float32)
    return np.repeat(noisy[None, ..., None], len(package.input.channels), axis=-1).astype(np.float32)


if __name__ == "__main__":
    main()
