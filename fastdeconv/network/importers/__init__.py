"""Networks of other people: read, rewritten as layers, and compared with the original.

`keras`, `onnx` and `torch` hold a function each. Nothing is loaded here, so that opening an
archive, which asks `opening` what kind of file it is, costs no more than that.
"""
