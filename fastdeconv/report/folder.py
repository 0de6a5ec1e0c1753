"""The folder of one result: it appears whole, or not at all.

A result is written under a hidden name and gets its own name once it is complete. Its manifest,
which is written last, lists its files. Only a folder that holds these files and no others is ever
replaced, because a `manifest.json` alone may be a stranger's. The hidden folder is locked while it
is written, and a lock ends with its process. So what a killed run left can be told from what
another process is writing; it is removed when the next result is written beside it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import ParameterError, printable, shown
from ..files import read_regular
from ..textfiles import write_json, write_text
from ..untrusted_json import parse_json
from ..version import __version__
from .names import safe_name

try:
    import fcntl
except ImportError:  # Windows, where nothing that a killed run left is removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "ATTRIBUTES", "CORRESPONDENCE", "DECISION", "EVOLUTION", "EXPLANATION", "INVARIANCE",
    "MANIFEST", "TOP_CLIPS", "as_folder", "check_free", "check_writable", "manifest_head",
    "new_folder", "read_manifest", "replace_file", "result_place", "write_manifest",
]

#: The file that says what a result is and which files it has.
MANIFEST = "manifest.json"
#: The kinds of results, by the ``format`` that their manifests name.
EXPLANATION = "fastdeconv-explanation"
ATTRIBUTES = "fastdeconv-attributes"
EVOLUTION = "fastdeconv-evolution"
DECISION = "fastdeconv-decision"
TOP_CLIPS = "fastdeconv-top-clips"
INVARIANCE = "fastdeconv-invariance"
CORRESPONDENCE = "fastdeconv-correspondence"

_VERSION = 1
"""Version of the format of manifests."""
_MOST_MANIFEST_BYTES = 1 << 26
_DEEPEST_MANIFEST = 16

# Files that file managers leave in any folder that is opened.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

# A hidden folder or file is "new" until its lock is held, and then "partial". "replaced" is an
# earlier result for the short time until the new one has taken its name.
_LEFTOVER = re.compile(
    r"\.(?P<name>.+)\.fastdeconv-(?P<what>new|partial|replaced)-[0-9a-f]{16}", re.DOTALL
)
_NEW_SECONDS = 60.0
"""A "new" folder older than this was left behind: making and locking it takes microseconds."""

_RENAME_EXCHANGE = 2  # of Linux's renameat2; macOS's renamex_np calls it RENAME_SWAP
_AT_FDCWD = -100


def as_folder(out: Any) -> Path:
    """`out` as a path.

    Raises
    ------
    ParameterError
        If it is not a path.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise ParameterError(f"out must be a folder, found {shown(out)}")
    return Path(out)


def result_place(out: Any, name: Any, fallback: str) -> tuple[Path, str]:
    """Where a result goes: the folder `out`, and a safe name in it.

    Raises
    ------
    ParameterError
        If `out` is not a path, or `name` is not a string.
    """
    if not isinstance(name, str):
        raise ParameterError(f"name must be a str, found {shown(name)}")
    return as_folder(out), safe_name(name, fallback)


def check_writable(out: Path) -> None:
    """Check that the folder `out` can be written, or made; makes no folder.

    Raises
    ------
    ParameterError
        If it cannot be made or written.
    """
    try:
        missing = list(takewhile(lambda path: not _is_there(path), (out, *out.parents)))
        nearest = missing[-1].parent if missing else out
        for path in missing:
            _is_there(nearest / path.name)  # raises an error where the name is too long
        # A file that has no name, where the system knows such files.
        tempfile.TemporaryFile(dir=nearest).close()
    except (OSError, ValueError) as error:
        raise _cannot_write(out, error) from None


def check_free(out: Path, name: str, kind: str, *, overwrite: bool) -> None:
    """Check that the result `name` may be written in `out`.

    Parameters
    ----------
    out : Path
    name : str
    kind : str
        The kind of result, such as `EXPLANATION`.
    overwrite : bool

    Raises
    ------
    ParameterError
        If something has that name already. With `overwrite` that is an error only if it is
        something other than a result of this kind, or holds other files as well.
    """
    final = out / name
    if not os.path.lexists(final):
        return
    where = printable(str(final))
    if not overwrite:
        raise ParameterError(
            f"{where} is already there: overwrite=True (--overwrite) replaces it"
        )
    reason = _why_not_ours(final, kind)
    if reason is not None:
        raise ParameterError(
            f"{where} is not a result of fastdeconv and is not overwritten: {reason}"
        )


def read_manifest(folder: Path, kind: str) -> dict[str, Any] | None:
    """The manifest of a result of this kind. It may come from anybody.

    Returns
    -------
    dict or None
        None if the folder has no manifest, or one of another kind.

    Raises
    ------
    ValueError
        If it is damaged, or of another version. The text says what was found.
    """
    try:
        data = read_regular(folder / MANIFEST, _MOST_MANIFEST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"its {MANIFEST} cannot be read: {error.strerror}") from None
    try:
        manifest = parse_json(
            data.decode("utf-8"), most_chars=len(data), deepest=_DEEPEST_MANIFEST
        )
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"its {MANIFEST} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        return None
    if manifest.get("version") != _VERSION:
        raise ValueError(f"its {MANIFEST} is of another version")
    return manifest


def manifest_head(kind: str) -> dict[str, Any]:
    """With what every manifest begins: the kind of result, and what wrote it."""
    return {"format": kind, "version": _VERSION, "fastdeconv": __version__}


def write_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the manifest, the last file of a result, with the list of all files."""
    write_json(folder / MANIFEST, {**record, "files": sorted(_files(folder))})


@contextmanager
def new_folder(out: Path, name: str, kind: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write in, which becomes ``out / name`` when the block ends without an error.

    Until then it has a hidden name in `out`. If the block raises anything at all, the folder is
    removed, with the folders that were made for it, and an earlier result stays as it was. The
    block ends with `write_manifest`.

    Parameters
    ----------
    out : Path
        Made if it does not exist, with its parents.
    name : str
        A result of `safe_name`.
    kind : str
        The kind of result, such as `EXPLANATION`.
    overwrite : bool
        Replace an earlier result of this name and kind as a whole.

    Yields
    ------
    Path

    Raises
    ------
    ParameterError
        If `out` cannot be written, or as `check_free`.
    OSError
        Whatever the block raises; on a full disk with the name of the result.
    """
    check_free(out, name, kind, overwrite=overwrite)
    fresh, partial = (_hidden(out, name, what) for what in ("new", "partial"))
    made: list[Path] = []
    try:
        # Within the block: a signal may arrive as soon as the folder is there.
        _make(fresh, made)
        with _claimed(fresh, partial):
            _clear_leftovers(out)
            try:
                yield partial
                check_free(out, name, kind, overwrite=overwrite)
                _publish(partial, out / name)
            except OSError as error:
                # Writing to an open file on a full disk fails without the name of the file.
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                where = printable(str(out / name))
                reason = f"{where} cannot be written: {os.strerror(error.errno)}"
                raise OSError(error.errno, reason) from None
            finally:
                # The unfinished result, or the earlier one that it has replaced.
                shutil.rmtree(partial, ignore_errors=True)
    except BaseException:
        for hidden in (fresh, partial):
            with suppress(ValueError):  # a null character in the path
                shutil.rmtree(hidden, ignore_errors=True)
        _remove_empty(made)
        raise


def replace_file(path: Path, text: str) -> None:
    """Write one file of a folder: afterwards the new file is there whole, or the old one is."""
    fresh = _hidden(path.parent, path.name, "new")
    partial = _hidden(path.parent, path.name, "partial")
    try:
        fresh.touch(exist_ok=False)
        with _claimed(fresh, partial):
            write_text(partial, text)
            partial.replace(path)
    except BaseException:
        for hidden in (fresh, partial):
            hidden.unlink(missing_ok=True)
        raise


# --- whether a folder is a result of ours --------------------------------------------------


def _why_not_ours(final: Path, kind: str) -> str | None:
    """Why a folder is not a result of this kind and nothing else; None if it is one."""
    if final.is_symlink() or not final.is_dir():
        return "it is not a folder"
    try:
        manifest = read_manifest(final, kind)
    except ValueError as error:
        return str(error)
    if manifest is None:
        return f"it has no {MANIFEST} of such a result"
    listed = manifest.get("files")
    if not isinstance(listed, list):
        return f"its {MANIFEST} does not list its files (it is of an older version)"
    known = {MANIFEST, *map(str, listed)}
    for found in _files(final):
        if found not in known and Path(found).name not in _LITTER:
            return f"it holds {printable(found)}, which is not part of the result"
    return None


def _files(folder: Path) -> Iterator[str]:
    """The paths of everything below a folder, relative to it; folders end in a slash."""
    for parent, folders, files in os.walk(folder):
        inside = Path(parent).relative_to(folder)
        # A link to a folder is not followed, and counts as a file.
        links = {name for name in folders if Path(parent, name).is_symlink()}
        yield from ((inside / name).as_posix() for name in (*files, *links))
        yield from (f"{(inside / name).as_posix()}/" for name in folders if name not in links)


# --- hidden folders and files --------------------------------------------------------------


def _hidden(out: Path, name: str, what: str) -> Path:
    return out / f".{name}.fastdeconv-{what}-{os.urandom(8).hex()}"


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder; `made` gets the folders around it that are made too, the innermost first."""
    try:
        made += [parent for parent in folder.parents if not parent.exists()]
        folder.mkdir(parents=True)
    except (OSError, ValueError) as error:
        raise _cannot_write(folder.parent, error) from None


def _is_there(path: Path) -> bool:
    """Whether a path exists, be it a link to nothing; an OSError where it never can."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _cannot_write(out: Path, error: OSError | ValueError) -> ParameterError:
    # A ValueError: there is a null character in the path.
    reason = getattr(error, "strerror", None) or error
    return ParameterError(f"cannot write in the output folder {printable(str(out))}: {reason}")


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        # Not made, or somebody else has put something in it by now; or a null character.
        with suppress(OSError, ValueError):
            folder.rmdir()


@contextmanager
def _claimed(fresh: Path, partial: Path) -> Iterator[None]:
    """Lock `fresh`, and only then rename it to `partial`, which is removed if it is not locked."""
    lock = os.open(fresh, os.O_RDONLY) if fcntl else None
    try:
        if lock is not None:
            _lock(lock)
        fresh.rename(partial)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file; False where another process has it, or there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clear_leftovers(out: Path) -> None:
    """Remove what killed runs left in `out`, and give an earlier result its name back."""
    if not fcntl:
        return
    with suppress(OSError), os.scandir(out) as entries:
        for entry in entries:
            match = _LEFTOVER.fullmatch(entry.name)
            if match and not entry.is_symlink():
                with suppress(OSError):
                    _clear(Path(entry.path), match["what"], out / match["name"])


def _clear(left: Path, what: str, final: Path) -> None:
    if what == "new" and time.time() - left.stat().st_mtime < _NEW_SECONDS:
        return
    if not (left.is_dir() or left.is_file()):  # opening a pipe, for example, would wait
        return
    descriptor = os.open(left, os.O_RDONLY)
    try:
        if not _lock(descriptor):
            return
        if what == "replaced" and not os.path.lexists(final):
            left.rename(final)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _publish(partial: Path, final: Path) -> None:
    """Give the finished folder its name; an earlier result gets the hidden name instead."""
    if not os.path.lexists(final):
        partial.rename(final)
    elif not _exchange(partial, final):
        # If the process is killed between the two renames, `_clear_leftovers` of the next run
        # finds the earlier result.
        aside = _hidden(final.parent, final.name, "replaced")
        final.rename(aside)
        try:
            partial.rename(final)
        except BaseException:
            aside.rename(final)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step; False where the system cannot."""
    with suppress(OSError, TypeError, AttributeError):
        system = ctypes.CDLL(None)
        names = os.fsencode(one), os.fsencode(other)
        if hasattr(system, "renameat2"):
            swapped = system.renameat2(
                _AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE
            )
        else:
            swapped = system.renamex_np(*names, _RENAME_EXCHANGE)
        return bool(swapped == 0)
    return False
