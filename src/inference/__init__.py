"""Predictions of trained networks, and their export to ONNX and torch.export."""
