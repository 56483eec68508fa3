"""One file a model family: its frozen config and its module. No family imports another."""
