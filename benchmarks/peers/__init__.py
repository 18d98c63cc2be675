"""The shipped packages beside other counters of nuclei: one script, equal settings, one table. See `benchmarks.peers.run`."""
