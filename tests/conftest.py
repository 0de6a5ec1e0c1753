"""For all tests: no verdict depends on how busy the machine is, or on chance."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
