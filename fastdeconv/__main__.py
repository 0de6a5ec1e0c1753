"""The process of the command line: ``fastdeconv``, or ``python -m fastdeconv``."""

import os
import signal


def main() -> None:
    """Prepare the process, then run the command."""
    # Until a command takes Ctrl-C itself, it ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The first file that is opened would take the place of a standard stream that is closed,
    # and libraries would print into it.
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # No kernel here multiplies by BLAS. Its threads would cost memory, and time to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from .cli import main as command

    command()


if __name__ == "__main__":
    main()
