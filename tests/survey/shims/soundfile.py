"""soundfile, but a sound with a rate of `DEADLY` Hz ends the process, as a bug in a decoder would.

The first sound that is opened while there is a file of the name in the environment variable `ONCE`
ends the process as well, and the file is gone.

Found before the real one by processes that a test starts with this folder first in their path.
"""

import importlib
import os
import signal
import sys

DEADLY = 12345
ONCE = "SOUNDFILE_SHIM_ONCE"

_here = os.path.dirname(__file__)
_path = sys.path
sys.path = [place for place in _path if place != _here]
del sys.modules["soundfile"]
_real = importlib.import_module("soundfile")
sys.path = _path


class _SoundFile(_real.SoundFile):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.samplerate == DEADLY or _is_first():
            os.kill(os.getpid(), signal.SIGKILL)


def _is_first():
    try:
        os.unlink(os.environ.get(ONCE, ""))
    except FileNotFoundError:
        return False
    return True


_real.SoundFile = _SoundFile
sys.modules["soundfile"] = _real
