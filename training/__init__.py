"""The recipe that makes the bundled network ``choi5-genre`` and the demo clip.

Not part of the installed package; run it from a checkout with
``python -m training`` (see README.md in this folder).
"""
