"""A trained network to other places: the portable bundle, PyTorch, ONNX, StableHLO."""
