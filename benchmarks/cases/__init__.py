"""Inputs and situations that once gave a wrong count or a misleading word; see `python -m benchmarks.cases --help`."""
