"""soundfile, but a sound with a rate of `DEADLY` Hz ends the process, as a bug in a decoder would.

Found before the real one by processes that a test starts with this folder first in their path.
"""

import importlib
import os
import signal
import sys

DEADLY = 12345

_here = os.path.dirname(__file__)
_path = sys.path
sys.path = [place for place in _path if place != _here]
del sys.modules["soundfile"]
_real = importlib.import_module("soundfile")
sys.path = _path


class _SoundFile(_real.SoundFile):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.samplerate == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)


_real.SoundFile = _SoundFile
sys.modules["soundfile"] = _real
