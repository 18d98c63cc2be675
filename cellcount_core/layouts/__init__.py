"""Layouts: how the names of files tell plate, well, site, time point, channel and plane. Names alone, never pixels."""
