"""What engines cost: a tile on one CPU thread, engine by engine, and a GPU at many batch sizes.

    python benchmarks/engines.py cpu [--packages nuclei PATH ...] [--rounds 25] [--record]
    python benchmarks/engines.py gpu [--package nuclei] [--side 256] [--batches 1 2 4 ... 256] [--jit] [--record]

cpu: a 256 x 256 tile, engines in turns, CPU time. OpenVINO is no engine of the product; its rows appear where `pip install openvino` was
done, to show what it would bring.

gpu: megapixels/s of the model alone, and from raw fields to labels with the device shared. KERAS_BACKEND chooses TensorFlow, JAX or PyTorch.
It runs on a CPU too, where small sizes show that it works and nothing more. `busy` is the share of the wall time that the device's thread
spent inside the engine; 0.85 is asked for.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from cellcount_core.models.engines import load_engine
from cellcount_core.models.engines.keras import POLICIES, KerasEngine
from cellcount_core.models.package import Package, find_package
from cellcount_core.objects.separators import build_separator
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.instances.task import section_of, separate_whole

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

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    of_cpu = commands.add_parser("cpu")
    of_cpu.add_argument("--packages", nargs="+", default=["nuclei"])
    of_cpu.add_argument("--rounds", type=int, default=25)
    of_cpu.add_argument("--side", type=int, default=256, help="px of a tile's side")
    of_cpu.set_defaults(measure=cpu)
    of_gpu = commands.add_parser("gpu")
    of_gpu.add_argument("--package", default="nuclei")
    of_gpu.add_argument(
        "--side", type=int, default=256, help="px of a field's side, a multiple of the stride"
    )
    of_gpu.add_argument("--batches", type=int, nargs="+", default=list(_BATCHES))
    of_gpu.add_argument("--engines", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    of_gpu.add_argument("--seconds", type=float, default=5.0, help="of measuring, a row and column")
    of_gpu.add_argument(
        "--jit", action="store_true", help="TensorFlow: compile by XLA, to see whether it is faster"
    )
    of_gpu.set_defaults(measure=gpu)
    for command in (of_cpu, of_gpu):
        command.add_argument(
            "--record", action="store_true", help="write the table to docs/explanation/performance.md"
        )
    arguments = made.parse_args()
    arguments.measure(arguments)


def cpu(arguments: argparse.Namespace) -> None:
    """Print what a tile costs on each engine of each package."""
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


def gpu(arguments: argparse.Namespace) -> None:
    """Print megapixels/s of each GPU engine and batch size."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    package = find_package(arguments.package)
    fields = [_field(number, arguments.side) for number in range(8)]
    table = [
        f"| {_device()}, {arguments.side} px | batch | model alone, MP/s | prepare, infer, separate, MP/s | busy |",
        "|---|---|---|---|---|",
    ]
    for name in arguments.engines:
        for batch in arguments.batches:
            engine = KerasEngine(_with(package, name), 1, name, batch=batch)
            if arguments.jit:
                engine.compile_by_xla()
            alone = _model_alone(engine, package, fields, arguments.seconds)
            whole, busy = _whole_path(engine, package, fields, arguments.seconds)
            table.append(f"| {name} | {batch} | {alone:.1f} | {whole:.1f} | {busy:.2f} |")
            print(table[-1], flush=True)
    print("\n".join(table))
    record("gpu", table)


def _with(package: Package, name: str) -> Package:
    """The package with that engine, which only names the same weights."""
    from dataclasses import replace

    return replace(package, engines={**package.engines, name: package.engines["keras"]})


def _device() -> str:
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    elif backend == "jax":
        import jax

        names = [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    else:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{names[0] if names else 'no GPU: CPU'}, {backend}"


def _field(number: int, side: int) -> NDArray[np.uint16]:
    """A 16-bit field of some 100 nuclei to 256 x 256 px."""
    rng = np.random.default_rng(number)
    light = np.zeros((side, side), np.float32)
    for _ in range(side * side // 650):
        centre = (int(rng.integers(0, side)), int(rng.integers(0, side)))
        cv2.circle(light, centre, int(rng.integers(7, 12)), float(rng.uniform(0.4, 1.0)), -1)
    blurred = cv2.GaussianBlur(light, (0, 0), 1.5)
    return np.clip(400 + 9000 * blurred + rng.normal(0, 60, light.shape), 0, 65535).astype(np.uint16)


def _model_alone(
    engine: KerasEngine, package: Package, fields: list[NDArray[np.uint16]], seconds: float
) -> float:
    canvases = [whole_canvas([field], package.input, package.stride) for field in fields]
    tiles = np.stack([canvases[index % len(canvases)] for index in range(engine.batch)])
    engine.run(tiles)
    began, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - began < seconds:
        engine.run(tiles)
        runs += 1
    return runs * engine.batch * fields[0].size / 1e6 / (time.perf_counter() - began)


def _whole_path(
    engine: KerasEngine, package: Package, fields: list[NDArray[np.uint16]], seconds: float
) -> tuple[float, float]:
    """MP/s of raw fields to labels, fields in threads of their own as in a worker, and the share the device was busy."""
    separator = build_separator(section_of(package).separator)
    device = Device(engine)
    prepare_process()

    def count(number: int) -> int:
        field = fields[number % len(fields)]
        maps = device.submit(whole_canvas([field], package.input, package.stride)).result()
        return int(separate_whole(separator, maps).max(initial=0))

    threads = max(3, 2 * engine.batch)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(engine.batch)))
        device.busy_s, began, done = 0.0, time.perf_counter(), 0
        while done < 2 * engine.batch or time.perf_counter() - began < seconds:
            list(pool.map(count, range(4 * engine.batch)))
            done += 4 * engine.batch
        took = time.perf_counter() - began
    device.close()
    return done * fields[0].size / 1e6 / took, device.busy_s / took


if __name__ == "__main__":
    main()
