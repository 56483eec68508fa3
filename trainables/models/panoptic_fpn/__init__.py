"""Panoptic FPN: every pixel's category, and which instance of a thing it belongs to."""
