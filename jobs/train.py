"""`python -m jobs.train CONFIG.yaml [--set key=value …] [--seeds 0,1,2]`: what `ray job submit` runs; the same as `cellcount train`."""

from __future__ import annotations

import sys

from cellcount_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
