"""Suites: sets of measurements of a package, each a question that users ask of a counter before they trust it."""
