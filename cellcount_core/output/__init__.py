"""What an output folder holds: its tables, parts, label images, run.json and plan."""
