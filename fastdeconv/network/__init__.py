"""What a network is: layers, the graph that they form, and the archive on disk.

Nothing here computes activations; `fastdeconv.deconvnet` does that.
"""
