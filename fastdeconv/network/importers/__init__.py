"""Networks from other frameworks: read, rewritten as layers, and compared with the original.

`keras`, `onnx` and `torch` each have one public function. This module imports nothing, so that
opening an archive, which only needs `opening`, stays fast.
"""
