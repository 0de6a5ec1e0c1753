"""The folder of one result: there whole, or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ParameterError, printable
from .tables import write_text

__all__ = ["MANIFEST", "check_free", "check_writable", "new_folder", "replace_file"]

#: The file that marks a folder as a result of this package.
MANIFEST = "manifest.json"


def check_writable(out: Path) -> None:
    """See that one can write in the folder `out`, or make it; leaves nothing behind.

    Raises
    ------
    ParameterError
        If it cannot be made or written.
    """
    probe = _partial_path(out, "check")
    made = _make(probe)
    probe.rmdir()
    _remove_empty(made)


def check_free(out: Path, name: str, *, overwrite: bool) -> None:
    """See that the result `name` may be written in `out`.

    Raises
    ------
    ParameterError
        If something has that name: without `overwrite` whatever it is, with it
        anything but an earlier result.
    """
    final = out / name
    if not os.path.lexists(final):
        return
    where = printable(str(final))
    if not overwrite:
        raise ParameterError(
            f"{where} is already there: overwrite=True (--overwrite) replaces it"
        )
    if final.is_symlink() or not (final / MANIFEST).is_file():
        raise ParameterError(
            f"{where} is not a result of fastdeconv (no {MANIFEST} in it) and is not overwritten"
        )


@contextmanager
def new_folder(out: Path, name: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write in, which becomes ``out / name`` when the block ends well.

    Until then it has a hidden name of its own in `out`. If the block raises
    anything at all it is removed, with the folders made for it, and an earlier result
    stays as it was.

    Parameters
    ----------
    out : Path
        Made if need be, with its parents.
    name : str
        A result of `safe_name`.
    overwrite : bool
        Replace an earlier result with this name, whole: nothing of it is kept.

    Yields
    ------
    Path

    Raises
    ------
    ParameterError
        If `out` cannot be written, or see `check_free`.
    """
    check_free(out, name, overwrite=overwrite)
    partial = _partial_path(out, name)
    made: list[Path] = []
    try:
        made = _make(partial)
        yield partial
        check_free(out, name, overwrite=overwrite)
        _publish(partial, out / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(made)
        raise


def replace_file(path: Path, text: str) -> None:
    """Write a file beside others: the new one whole, or the old one as it was."""
    partial = _partial_path(path.parent, path.name)
    try:
        write_text(partial, text)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _partial_path(out: Path, name: str) -> Path:
    # The random part tells apart processes of two machines that share the folder.
    return out / f".{name}.partial-{os.getpid()}-{os.urandom(4).hex()}"


def _make(folder: Path) -> list[Path]:
    """The folders around it that had to be made, the innermost first."""
    try:
        missing = [parent for parent in folder.parents if not parent.exists()]
        folder.mkdir(parents=True)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(
            f"cannot write in the output folder {printable(str(folder.parent))}: {reason}"
        ) from None
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return  # somebody else has something in it by now


def _publish(partial: Path, final: Path) -> None:
    """Give the finished folder its name; an earlier result goes only once that worked."""
    aside = partial.with_name(f"{partial.name}-replaced")
    try:
        if final.exists():
            final.rename(aside)
        partial.rename(final)
    except BaseException:
        if aside.exists() and not final.exists():
            aside.rename(final)
        raise
    finally:
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
