"""What a network is: layer records, the chain of them, and the archive on disk.

Nothing here computes activations; that is the room `fastdeconv.deconvnet`.
"""
