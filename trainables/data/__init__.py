"""One file a dataset; `datasets.py` is the table."""
