"""Images with label images: the layouts they come in, and how they are read (in the same way as the fields of a run)."""
