"""Write the packages `viability-fluorescence` and `viability-live-dead` anew. Both use the network of `nuclei`, as it is.

    python models/make_viability.py

Run it whenever `nuclei` has changed: the packages state the digests of its files. What they know beside that is which channels
they look at: `all` and `dead`, of which cells are found in the first, or `live` and `dead`, of which they are found in the brighter.
"""

from __future__ import annotations

from pathlib import Path

from cellcount_core.models.package import read_for_writing, write_package

ROOT = Path(__file__).resolve().parent
PACKAGES = {
    "viability-fluorescence": (
        ("all", "dead"),
        (("all",),),
        "Live and dead cells in fluorescence: a stain of all nuclei (Hoechst, DAPI, AO) and one of dead ones (PI, 7-AAD, EthD-1, SYTOX).",
    ),
    "viability-live-dead": (
        ("live", "dead"),
        (("live", "dead"),),
        "Live and dead cells in fluorescence: a stain of live cells (calcein, AO, FDA) and one of dead ones (PI, EthD-1, 7-AAD).",
    ),
}


def main() -> None:
    for name, (channels, seen, description) in PACKAGES.items():
        manifest = read_for_writing(ROOT / "nuclei")
        instances = manifest.pop("instances")
        # How well `nuclei` counts, and how sure it is, was measured on nuclei of one stain.
        for key in ("accuracy", "interval", "variants"):
            manifest.pop(key, None)
        given = manifest["input"]
        assert isinstance(given, dict)
        manifest |= {
            "name": name,
            "version": "1.0.0",
            "task": "viability",
            "object": "Cells",
            "description": description,
            "network_of": "nuclei",
            "input": {**given, "channels": list(channels), "seen": [list(roles) for roles in seen]},
            "viability": {"instances": instances},
        }
        folder = ROOT / name
        folder.mkdir(exist_ok=True)
        written = write_package(folder, manifest)
        print(f"models/{name}: {written.version} {written.digest[:12]}")


if __name__ == "__main__":
    main()
