"""`python -m jobs.count CONFIG.yaml [--set key=value …]`: what `ray job submit` runs; the same as `cellcount count`."""

from __future__ import annotations

import sys

from cellcount_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["count", *sys.argv[1:]]))
