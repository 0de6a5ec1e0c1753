"""For all tests: no verdict depends on how busy the machine is, how they were begun, or chance."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# Background jobs of a shell ignore Ctrl-C, nohup a hang-up; so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
