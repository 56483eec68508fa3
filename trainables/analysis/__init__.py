"""Pictures and statistics of trained models."""
