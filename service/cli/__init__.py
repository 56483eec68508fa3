"""The `sweepserve` command."""
