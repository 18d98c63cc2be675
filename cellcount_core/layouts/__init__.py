"""Layouts: what file names and an instrument's metadata files say about plates, wells, sites, channels and planes. Pixels are never read."""
