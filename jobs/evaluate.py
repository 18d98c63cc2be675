"""`python -m jobs.evaluate PACKAGE DATA [--out DIR …]`: what `ray job submit` runs; the same as `cellcount evaluate`."""

from __future__ import annotations

import sys

from cellcount_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
