"""Timings: `python -m bench` for the table against peers, `pytest bench` for fine grains."""
