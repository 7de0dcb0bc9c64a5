"""Trained models for other programs: ONNX graphs and MONAI bundles."""
