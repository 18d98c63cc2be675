"""Make the shipped `threshold` package: `python models/make_threshold.py` (deterministic; the golden tensors are synthetic).

The package that is shipped says the same in format 1; written anew it has another digest, and wants another version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from cellcount_core.models.engines.smooth import SmoothEngine
from cellcount_core.models.manifest import FORMAT
from cellcount_core.models.package import InputSpec, Package
from cellcount_core.models.package import write_package

NETWORK = {"sigma_px": 1.5}
RADIUS = 8
SECTION = {
    "maps": ["intensity"], "stride": 1, "receptive_radius": RADIUS, "separator": {"kind": "watershed"}
}  # fmt: skip


def main() -> None:
    folder = Path(__file__).parent / "threshold"
    folder.mkdir(exist_ok=True)
    _golden(folder)
    package = write_package(
        folder,
        {
            "format": FORMAT,
            "name": "threshold",
            "version": "1.0.0",
            "family": "threshold",
            "task": "instances",
            "object": "Nuclei",
            "modality": ["fluorescence"],
            "description": "Otsu's threshold and a distance watershed. No training: the reference the networks are measured against.",
            "input": {
                "channels": ["nuclei"],
                "diameter_px": None,
                "normalisation": {"kind": "noise_floor", "percentile": 99.8, "floor_sigmas": 12.0},
            },
            "network": NETWORK,
            "instances": SECTION,
            "engines": {"smooth": {}},
            "golden": {"file": "golden.npz", "atol": 1e-6},
            "accuracy": {},
            "training": {},
        },
    )
    print(f"{folder}: {package.name} {package.version} {package.digest[:12]}")


def _golden(folder: Path) -> None:
    rng = np.random.default_rng(0)
    tiles = rng.normal(0.0, 0.05, (2, 64, 64, 1)).astype(np.float32)
    yy, xx = np.mgrid[:64, :64]
    for y, x in ((16, 20), (40, 24), (44, 46)):
        tiles[0, ..., 0] += ((yy - y) ** 2 + (xx - x) ** 2 < 64).astype(np.float32)
    with tempfile.TemporaryDirectory() as empty:
        bare = Package(
            folder=Path(empty), digest="", name="", version="", family="threshold", object_name="Nuclei", modality=(),
            input=InputSpec(("nuclei",), None, 99.8, 12.0), network=NETWORK, section=SECTION,
            engines={}, golden="", golden_atol=0.0, accuracy={},
        )  # fmt: skip
        maps = SmoothEngine(bare).run(tiles)
    np.savez_compressed(folder / "golden.npz", input=tiles, maps=maps)


if __name__ == "__main__":
    main()
