"""A PyTorch library that can train one model: families, data, one training loop."""
