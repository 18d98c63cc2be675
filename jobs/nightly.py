"""`python -m jobs.nightly CONFIG.yaml [--set key=value …]`: what `ray job submit` runs; the same as `cellcount nightly`."""

from __future__ import annotations

import sys

from cellcount_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["nightly", *sys.argv[1:]]))
