"""The int8 form of a network: calibrated tile by tile, within memory that does not grow with the tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellcount_core.models.families.onnx_graph import layer_weights
from cellcount_core.training.variants import write_int8

pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
pytestmark = pytest.mark.slow

_OWN_PEAK = Path("/proc/self/clear_refs")
NETWORK: dict[str, object] = {"outputs": 1, "stem": 1, "filters": [8, 8]}


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not _OWN_PEAK.exists(), reason="only Linux forgets a peak of resident memory")
def test_the_memory_of_a_calibration_does_not_grow_with_its_tiles(tmp_path: Path) -> None:
    from cellcount_core.models.families.unet import build_unet

    weights = layer_weights(build_unet(NETWORK))
    tiles = [np.full((256, 256, 1), 0.3, np.float32)] * 16
    write_int8(NETWORK, weights, tiles[:1], tmp_path / "warm.onnx")
    peaks = []
    for count in (1, 16):
        _OWN_PEAK.write_text("5")
        write_int8(NETWORK, weights, tiles[:count], tmp_path / "network.onnx")
        peaks.append(_peak_mib())
    # The activations of one tile are 44 MiB.
    assert peaks[1] - peaks[0] < 80
