"""The files of a survey: each is written whole or not at all, under a lock on the folder.

Many processes, on several machines, write into one folder. A file gets its name only when it is
complete. So a name that exists means that this work is done, by whatever process. A survey holds a
lock on its folder while it runs; the parts of one survey share the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import ParameterError, printable, shown
from ..files import open_regular, read_regular
from ..textfiles import as_bytes, json_text
from ..untrusted_json import parse_json

try:
    import fcntl
except ImportError:  # Windows: there is no lock, and users must not run two surveys at once
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "LONGEST_TEXT", "RECORD", "clear_temporary", "holding_record", "locked", "read_record",
    "read_table", "shard_path", "write_record", "write_table", "write_whole",
]

RECORD = "survey.json"
_LOCK = ".lock"
_RECORD_LOCK = ".record-lock"
_TEMPORARY = ".tmp"
_MOST_RECORD_BYTES = 1 << 26
_DEEPEST = 16
_MOST_TABLE_BYTES = 1 << 34
"""Of an unpacked table. No survey writes a larger one."""
_MOST_ROWS = 20_000_000
LONGEST_TEXT = 4096
"""Characters of a text in a table: the length of the longest path that Linux opens."""
_MOST_CHARACTERS = 1 << 30
"""Characters of a column."""


def shard_path(out: Path, name: str) -> Path:
    """The path of a shard."""
    return out / "shards" / f"{name}.parquet"


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file that has its name only once it is complete and on the disk.

    Raises
    ------
    OSError
        If it cannot be written, for instance on a full disk; has the name of the file. Nothing
        half-written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{_TEMPORARY}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def clear_temporary(folder: Path) -> None:
    """Remove the temporary files of killed processes. Only for who holds the folder alone."""
    for left in folder.glob(f".*{_TEMPORARY}"):
        with suppress(OSError):
            left.unlink()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file; the same table gives the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    write_whole(path, memoryview(sink.getvalue()))


def read_table(
    path: Path, schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    """Read a Parquet file that must have exactly this schema, and that anybody may have written.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
    columns : list of str, optional
        Default: all.

    Raises
    ------
    ParameterError
        If it does not exist, is damaged, or is another table.
    """
    where = printable(str(path))
    try:
        with open_regular(path) as file:
            source = pq.ParquetFile(file)
            if not _agree(source.schema_arrow, schema):
                raise ParameterError(f"{where}: not this table of a survey, or of another version")
            groups = range(source.metadata.num_row_groups)
            size = sum(source.metadata.row_group(i).total_byte_size for i in groups)
            if size > _MOST_TABLE_BYTES:
                raise ParameterError(f"{where}: larger than {_MOST_TABLE_BYTES >> 30} GB")
            _check_texts(file, schema if columns is None else map(schema.field, columns), where)
            table = source.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise ParameterError(f"{where}: there is no such table") from None
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or shown(str(error))
        raise ParameterError(f"{where}: damaged, or not a table of a survey: {reason}") from None
    for name in table.column_names:
        if not schema.field(name).nullable and table[name].null_count:
            raise ParameterError(f"{where}: column {shown(name)} has empty cells")
    return table.cast(schema if columns is None else pa.schema(map(schema.field, columns)))


def _check_texts(file: IO[bytes], fields: Iterable[pa.Field], where: str) -> None:
    """Refuse columns of text that would take much more memory than those of any survey.

    A Parquet file may hold a text once and repeat it a million times when it is unpacked.
    """
    names = [field.name for field in fields if pa.types.is_string(field.type)]
    parquet = pq.ParquetFile(file, read_dictionary=names)
    rows = parquet.metadata.num_rows
    if rows > _MOST_ROWS:
        raise ParameterError(f"{where}: it has {rows} rows, over the limit of {_MOST_ROWS}")
    for name in names:
        total = 0
        for chunk in parquet.read(columns=[name], use_threads=False).column(0).chunks:
            lengths = pc.utf8_length(chunk.dictionary)
            longest = pc.max(lengths).as_py() or 0
            if longest > LONGEST_TEXT:
                raise ParameterError(
                    f"{where}: column {shown(name)} has a text of {longest} characters, over the "
                    f"limit of {LONGEST_TEXT}"
                )
            total += pc.sum(lengths.take(chunk.indices.drop_null())).as_py() or 0
        if total > _MOST_CHARACTERS:
            raise ParameterError(
                f"{where}: column {shown(name)} has {total} characters, over the limit of "
                f"{_MOST_CHARACTERS}"
            )


def _agree(found: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether names and types of columns are the same; names of list items do not matter."""

    def facts(schema: pa.Schema) -> list[Any]:
        return [(field.name, _type(field.type)) for field in schema]

    return facts(found) == facts(wanted)


def _type(kind: pa.DataType) -> Any:
    return ("list", _type(kind.value_type)) if pa.types.is_list(kind) else kind


def write_record(out: Path, record: Mapping[str, Any]) -> None:
    """Write ``survey.json``."""
    write_whole(out / RECORD, as_bytes(json_text(record)))


def read_record(out: Path) -> dict[str, Any] | None:
    """Read ``survey.json``, which anybody may have written; None if there is none.

    Raises
    ------
    ParameterError
        If it is damaged.
    """
    where = printable(str(out / RECORD))
    try:
        data = read_regular(out / RECORD, _MOST_RECORD_BYTES)
        record = parse_json(data.decode("utf-8"), most_chars=len(data), deepest=_DEEPEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ParameterError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ParameterError(f"{where}: damaged: {error}") from None
    if not isinstance(record, dict):
        raise ParameterError(f"{where}: damaged: not a JSON object")
    return record


@contextmanager
def locked(out: Path, *, alone: bool) -> Iterator[None]:
    """Lock the folder of a survey, alone or together with other parts of the same survey.

    The lock ends with its process. On a file system without locks nothing is locked.

    Raises
    ------
    ParameterError
        If another process holds the lock.
    """
    if not fcntl:
        yield
        return
    handle = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParameterError(
                f"{printable(str(out))}: another survey is writing there. Wait until it has ended, "
                "or let every process do a part of one survey (--part 1/4, --part 2/4, ...)"
            ) from None
        except OSError:  # for instance on a network file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def holding_record(out: Path) -> Iterator[None]:
    """Lock ``survey.json`` while it is changed; waits until others have changed it."""
    if not fcntl:
        yield
        return
    handle = os.open(out / _RECORD_LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
