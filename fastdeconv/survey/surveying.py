"""A network on a collection: `survey` makes the tables, `Survey` reads them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio._checks import as_bool, as_int, as_number
from ..audio.clip import needed_frontend
from ..errors import ParameterError, printable, shown
from ..kernels.dispatch import usable_cpus
from ..network.choosing import as_list, choose_layers, open_network
from ..network.network import Network
from ..optional import optional_module
from .collection import path_of, read_collection
from .engine import Progress

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Survey", "as_workers", "survey", "tracks_text"]

_LONGEST_SECONDS = 3600.0
_MOST_WORKERS = 4096
_MOST_PARTS = 1_000_000


def survey(
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    net: Network | str | os.PathLike[str],
    out: str | os.PathLike[str],
    layers: str | Iterable[str] | None = None,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    part: tuple[int, int] | None = None,
    tags: str | os.PathLike[str] | None = None,
    rows: bool = True,
    seconds: float = 10.0,
    retry: bool = False,
    progress: Progress | None = None,
) -> Survey:
    """Run a network on a collection, and record what every feature of its layers responds to.

    The work is cut into shards of a few tracks. The same call goes on where an earlier one stopped:
    a shard that is in the folder is not computed again. A track that cannot be read, or that ends
    the process that reads it, becomes an error and affects no other track. The tables have the same
    bits whatever the executor, the number of workers and the order, on processors with the same
    instruction set.

    Parameters
    ----------
    files : path or iterable of paths
        A folder; a ``.csv`` with a column ``track``, ``file`` or ``path``; any other text file with
        one path in each line; one sound; or paths. Paths in a file are relative to its folder. In a
        folder, sounds are recognised by their suffix, hidden files are left out, and links are
        followed.
    net : Network, str or path
        As in `explain`. Its front end says how tracks are read.
    out : path
        Folder for the survey; created if it does not exist.
    layers : str or iterable of str, optional
        Default: as in `explain`. Layers that the survey in `out` lacks are added to it; layers
        that it has are not computed again.
    executor : concurrent.futures.Executor, optional
        Default: processes on this machine. Its workers must see the files and `out` under the
        same paths.
    workers : int, optional
        How many processes to start, or how many workers the executor has. Default: the number of
        CPUs that this process may use. Each needs memory for its longest track.
    part : (int, int), optional
        (i, n), i from 1 to n: compute only every n-th shard, from the i-th on. Parts may run at the
        same time, on any machines; the one that finds all shards done makes the tables.
    tags : path, optional
        A CSV file with a column ``track`` and a column of numbers or classes for each attribute:
        see `Survey.attributes`. It is kept in the folder for later runs.
    rows : bool
        If False, no row is kept for every window, only the statistics from which the tables of
        features and exemplars are made: for a million tracks. Then there are no tables about
        features that fire together and about tags.
    seconds : float
        Length of a window, if the network takes any number of frames. At most 3600.
    retry : bool
        Compute shards again in which tracks could not be used. A file that has changed is
        read again in any case.
    progress : callable, optional
        Called with (tracks done, tracks in all).

    Returns
    -------
    Survey
        With `part`, it may not be complete.

    Raises
    ------
    ParameterError
        If there are no tracks; an argument is not as described; `out` holds a survey with another
        network or with other settings (says which); another survey is writing there; too few
        tracks of `tags` are in the collection; or the extra ``fastdeconv[survey]`` is missing.
    BackendError
        If processes cannot be started, or die whatever they do.
    OSError
        If `out` cannot be written, for instance on a full disk. Shards that are done stay.
    FileNotFoundError
        If there is no such folder, list or table of tags.

    Notes
    -----
    Without an executor this function starts processes. A script must call it inside of
    ``if __name__ == "__main__":``.

    Windows lie side by side. The last window of a track is moved back, so that it ends where the
    track ends and is whole; what it shares with the window before counts twice. A track that is
    shorter than a window is padded with silence. Places of a map that stand for this silence do not
    count.

    Examples
    --------
    >>> import fastdeconv as fd
    >>> found = fd.survey("music", "choi5-genre", "out")  # doctest: +SKIP
    >>> found.exemplars.to_pylist()[0]["track"]  # doctest: +SKIP
    'jazz/take_five.mp3'
    """
    _require_pyarrow()
    from .plan import Plan
    from .store import locked
    from .tagging import read_tags

    folder = _folder(out)
    network = open_network(net)
    needed_frontend(network.frontend)
    seconds = as_number("seconds", seconds, above=0)
    if seconds > _LONGEST_SECONDS:
        raise ParameterError(f"seconds must be at most {_LONGEST_SECONDS:g}, found {seconds:g}")
    count = as_workers(workers)
    as_bool("rows", rows)
    as_bool("retry", retry)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ParameterError(
            f"executor must be a concurrent.futures.Executor, found {shown(executor)}"
        )
    if tags is not None and not rows:
        raise ParameterError("tags need the rows of all windows: leave out rows=False or the tags")
    features = _features(network, layers)
    share = _share(part)
    collection = read_collection(files, folder)
    table = None
    if tags is not None:
        # Read now, so that errors in it are reported before hours of work.
        table = read_tags(tags, collection.root, [track.name for track in collection.tracks])
    _make(folder)
    with locked(folder, alone=part is None), _without_leftovers(folder, alone=part is None):
        plan = Plan(
            folder, network, features, collection, rows=rows, seconds=seconds, tags=table
        )
        plan.settle()
        plan.run(share, executor, count, progress, retry=retry)
        if plan.is_done():
            plan.write_tables()
    return Survey(folder)


def as_workers(workers: int | None) -> int:
    """A number of processes, checked; by default the CPUs that this process may use."""
    if workers is None:
        return usable_cpus()
    return as_int("workers", workers, minimum=1, maximum=_MOST_WORKERS)


@contextmanager
def _without_leftovers(folder: Path, *, alone: bool) -> Iterator[None]:
    """Remove the temporary files of killed processes, before and after a run that is alone.

    Not after an error: workers of the user's executor may still be writing then.
    """
    from .store import clear_temporary

    places = (folder, folder / "shards") if alone else ()
    for place in places:
        clear_temporary(place)
    yield
    for place in places:
        clear_temporary(place)


def tracks_text(tracks: int, errors: int = 0) -> str:
    """A number of tracks in words; of a survey those that could be used, of all."""
    used = f"{tracks - errors:,} of " if errors else ""
    return f"{used}{tracks:,} track{'' if tracks == 1 else 's'}"


class Survey:
    """The results of a survey. Made by `survey`, or read with `Survey.load`.

    The tables are Arrow tables, which are read on first use: ``to_pylist()`` gives a list of dicts,
    ``to_pandas()`` a data frame. `fastdeconv.survey.schema` describes their columns.

    Attributes
    ----------
    folder : Path
    is_complete : bool
        Whether the tables have been made, which happens when all shards are done.
    layers : dict of str to int
        The layers, and how many features each has.
    classes : list of str
        The classes of the network.
    root : str
        The folder that tracks are relative to.
    left_aside : int
        How many files of the folder were left out because of their suffix.
    counts : dict of str to number
        ``tracks``; ``errors``, how many of them could not be used; ``windows`` and ``seconds`` of
        the others. Empty until the survey is complete.
    left_out : list of str
        Attributes of the user's table that are not in `attributes`, each with the reason.
    """

    def __init__(self, folder: Path) -> None:
        from .record import checked_record

        self.folder = folder
        self._record = checked_record(folder)
        self._tables: dict[str, Any] = {}
        self.layers: dict[str, int] = dict(self._record["features"])
        self.classes: list[str] = list(self._record["network"]["classes"])
        self.root: str = path_of(self._record["root"])
        self.left_aside: int = self._record["left_aside"]
        self.counts: dict[str, Any] = dict(self._record["counts"] or {})
        self.left_out: list[str] = list(self._record["left_out"])

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Survey:
        """Read the survey in a folder, which anybody may have written.

        Parameters
        ----------
        folder : path

        Returns
        -------
        Survey

        Raises
        ------
        ParameterError
            If there is none, it is damaged or of another version, or the extra
            ``fastdeconv[survey]`` is missing.
        """
        _require_pyarrow()
        return cls(_folder(folder))

    def __repr__(self) -> str:
        state = "not complete"
        if self.is_complete:
            state = tracks_text(self.counts["tracks"], self.counts["errors"])
        return f"<Survey in {str(self.folder)!r}: {state}, layers {', '.join(self.layers)}>"

    @property
    def is_complete(self) -> bool:
        """Whether the tables have been made."""
        return bool(self.counts)

    @property
    def tracks(self) -> pa.Table:
        """A row for each track."""
        return self._table("tracks")

    @property
    def features(self) -> pa.Table:
        """A row for each feature: how strongly and how often it fires."""
        return self._table("features")

    @property
    def exemplars(self) -> pa.Table:
        """For each feature the windows in which it is strongest, at most one of each track."""
        return self._table("exemplars")

    @property
    def together(self) -> pa.Table:
        """For each feature the features that fire together with it."""
        return self._table("together")

    @property
    def attributes(self) -> pa.Table:
        """How features go with the attributes of the user's table.

        For numbers, Pearson's correlation. For two classes, the area under the ROC curve (AUC). For
        more classes, the share of the variance between them (eta squared). Each has a 95 %
        interval, and a q value of Benjamini and Hochberg over the whole table. That a feature goes
        with an attribute does not prove that it detects the attribute. Make the same survey with
        untrained weights to see what goes with it without any learning.
        """
        return self._table("attributes")

    @property
    def tags(self) -> pa.Table:
        """The user's table: a row for each track and attribute."""
        return self._table("tags")

    @property
    def trust(self) -> pa.Table:
        """How far to believe each excerpt of the atlas, if that was asked for.

        A verdict is about a feature in one window, see docs/believe.md. The windows of excerpts
        are those in which the feature is strongest.
        """
        return self._table("trust")

    @property
    def errors(self) -> list[dict[str, str]]:
        """The tracks that could not be used: dicts with ``track`` and ``error``."""
        import pyarrow.compute as pc

        failed = self.tracks.filter(pc.is_valid(self.tracks["error"]))
        return failed.select(["track", "error"]).to_pylist()

    def rows(self, layers: str | Iterable[str] | None = None) -> Iterator[pa.Table]:
        """The rows of all windows, a table for each shard; see `schema.rows_schema`.

        Layers that were added to the survey later are in tables of their own, which follow.

        Parameters
        ----------
        layers : str or iterable of str, optional
            Only the tables that have one of these layers. Default: all.

        Returns
        -------
        iterator of pyarrow.Table

        Raises
        ------
        ParameterError
            If a layer is unknown, or the survey was made without rows.
        """
        from .record import shards_of_record

        shards = shards_of_record(self.folder, self._record, self.tracks)
        if not shards.rows:
            raise ParameterError(
                f"{printable(str(self.folder))}: this survey was made without rows"
            )
        wanted = [layers] if isinstance(layers, str) else as_list(
            "layers", self.layers if layers is None else layers
        )
        for layer in wanted:
            if layer not in self.layers:
                raise ParameterError(f"no layer {shown(layer)}; there are {', '.join(self.layers)}")
        for place, own in enumerate(shards.layer_sets):
            if not any(layer in own for layer in wanted):
                continue
            for names in shards.names:
                yield shards.read(names[place], own, None)

    def _table(self, name: str) -> Any:
        from .record import read_named_table

        if not self.is_complete:
            raise ParameterError(
                f"{printable(str(self.folder))}: the survey is not complete. Run its command again "
                "to go on"
            )
        if name not in self._tables:
            self._tables[name] = read_named_table(self.folder, self._record, name)
        return self._tables[name]


def _require_pyarrow() -> None:
    optional_module("pyarrow", "a survey", "survey")


def _folder(out: Any) -> Path:
    if not isinstance(out, (str, os.PathLike)):
        raise ParameterError(f"out must be a folder, found {shown(out)}")
    return Path(out)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ParameterError(
            f"cannot write in the output folder {printable(str(folder))}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None


def _features(network: Network, layers: Any) -> dict[str, int]:
    """Layer -> number of its features."""
    places = [network.layer_index(layer) for layer in choose_layers(network, layers)]
    found = {network.layers[i].name: network.known_shapes[i][0] for i in sorted(set(places))}
    if not found:
        raise ParameterError("layers must not be empty")
    for layer, count in found.items():
        if count is None:
            raise ParameterError(f"layer {layer!r} has a number of features that depends on x")
    return {layer: count for layer, count in found.items() if count is not None}


def _share(part: Any) -> tuple[int, int]:
    if part is None:
        return 1, 1
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise ParameterError(f"part must be (i, n), found {shown(part)}")
    count = as_int("part", part[1], minimum=1, maximum=_MOST_PARTS)
    return as_int("part", part[0], minimum=1, maximum=count), count
