"""Benchmarks, which are not part of the package that users install.

- ``python -m bench`` times fastdeconv beside PyTorch and others, into RESULTS.md.
- ``python -m bench --compare REV`` says whether the working tree is slower than a git revision.
- ``python -m bench.belief`` measures the tables of docs/believe.md again: no timing.
- ``pytest bench`` times single kernels on every back end and instruction set.

NOTES.md says what was tried to make kernels faster, and what came of it.
"""
