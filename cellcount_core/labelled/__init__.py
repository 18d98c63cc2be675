"""Images with label images: the layouts they come in, and reading them as the fields of a run are read."""
