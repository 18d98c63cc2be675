"""Drills that break a run, and load with workers killed at random; see `python -m benchmarks.reliability --help`."""
