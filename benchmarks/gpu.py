"""Megapixels/s of the GPU engines at batch sizes 1-256: the model alone, and from raw fields to labels with the device shared.

    python benchmarks/gpu.py [--package nuclei] [--side 256] [--batches 1 2 4 ... 256] [--jit]

KERAS_BACKEND chooses TensorFlow, JAX or PyTorch. It runs on a CPU too, where small sizes show that it works and nothing more.
`busy` is the share of the wall time that the device's thread spent inside the engine; 0.85 is asked for.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from cellcount_core.models.engines.keras import POLICIES, KerasEngine
from cellcount_core.models.package import Package, find_package
from cellcount_core.objects.separators import build_separator
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.pipeline.process import prepare_process
from cellcount_core.pipeline.separate import separate_whole

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", default="nuclei")
    parser.add_argument(
        "--side", type=int, default=256, help="px of a field's side, a multiple of the stride"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=list(_BATCHES))
    parser.add_argument("--engines", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring, a row and column")
    parser.add_argument(
        "--jit", action="store_true", help="TensorFlow: compile by XLA, to see whether it is faster"
    )
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
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
    separator = build_separator(package.separator)
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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
