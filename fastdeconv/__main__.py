"""The process of the command line: ``fastdeconv``, or ``python -m fastdeconv``."""

import os
import signal


def main() -> None:
    """Prepare the process, then run the command."""
    # Until a command handles Ctrl-C itself, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Where a standard stream is closed, the first file that is opened would take its place, and
    # libraries would print into that file.
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # No kernel here uses BLAS. Its threads would cost memory, and time to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from .cli import main as command

    command()


if __name__ == "__main__":
    main()
