"""Suites: sets of measurements of a package. Each answers a question that users ask before they trust a counter."""
