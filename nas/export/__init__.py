"""Export networks for use without this package: Python source, torch.export, ONNX, safetensors.

`exporting` exports a run in any format and checks it. `source` writes a network as plain PyTorch, `program` as a
program of torch.export, `onnx` as an ONNX file. `isolated` runs an exported Python file without this package,
`equality` compares outputs, `pooling` decomposes poolings that ONNX lacks.

Imports `nas.run` and below, and not `nas.tune`, `nas.testing` or `nas.benchmark`. Start with `exporting`.
"""
