"""Layouts: what the names of files and an instrument's metadata files say of plates, wells, sites, channels and planes. Never pixels."""
