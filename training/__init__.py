"""The recipe that makes the bundled network ``choi5-genre`` and the demo clip.

It is not part of the installed package. Run it from a checkout with ``python -m training``; see
README.md in this folder.
"""
