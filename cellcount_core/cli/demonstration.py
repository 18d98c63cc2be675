"""`cellcount demo`: a plate with known counts, counted, compared and drawn."""

from __future__ import annotations

import sys
from pathlib import Path

from cellcount_core.cli.progress import Display, open_display

_SEED = 96


def run(folder: Path, wells: int, runner: str) -> int:
    """Render, count, compare, draw. The exit code is that of the count, which accepts the two files damaged on purpose."""
    from rich.console import Console

    from cellcount_core.config import JobConfig
    from cellcount_core.demo.compare import compare
    from cellcount_core.demo.plate import render_plate
    from cellcount_core.demo.table import print_comparison
    from cellcount_core.report.pictures import draw_pictures
    from cellcount_core.runners.job import run_job
    from cellcount_core.stores.base import StorageOptions
    from cellcount_core.stores.open import open_store

    output = folder / "out"
    with open_display(Display.AUTO if sys.stderr.isatty() else Display.QUIET) as events:
        print(f"rendering {wells} wells with known counts into {folder}", flush=True)
        plate = render_plate(folder, _SEED, wells=wells)
        job = JobConfig.model_validate(
            {
                "input": str(plate.images),
                "output": str(output),
                "run": {
                    "layout": {"kind": "imagexpress"},
                    "channels": {"nuclei": "w1"},
                    "measure": ["w1", "w2"],
                },
                "execution": {"runner": runner, "shard_fields": 16, "max_failed": 2},
            }
        )
        print("counting it with the shipped model", flush=True)
        result = run_job(job, events)
        events.stage("drawing pictures")
        pictures = draw_pictures(open_store(str(output), StorageOptions()), StorageOptions(), 6)
    print_comparison(compare(output, plate.truth_csv), Console(soft_wrap=False))
    print(
        f"counted in {result.seconds:.0f} s; tables: {output}/wells.parquet, {output}/fields/, {output}/objects/"
    )
    print(f"prove it:   cellcount verify {output}")
    print(f"plate map:  {output}/{pictures.plate_map}")
    print(f"overlays:   {output}/{pictures.overlays}")
    return int(result.exit_code)
