"""Stores: where images are read from and tables are written to.

This is the only package that uses fsspec, s3fs and obstore. `open.open_store` turns a path or URL into a
`base.Store`, which can list, read many objects at once, and write an object whole or not at all.
"""
