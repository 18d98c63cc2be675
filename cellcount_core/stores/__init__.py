"""Stores: where images come from and where tables go. List, read many at once, commit once.

The only place that touches fsspec, s3fs and obstore. `open.open_store` turns a URL into a `base.Store`.
"""
