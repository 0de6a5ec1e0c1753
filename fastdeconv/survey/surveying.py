"""A network on a collection: `survey`, and `Survey`, which reads what it wrote."""

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

__all__ = ["Survey", "as_workers", "survey"]

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
    """Run a network on a collection, and note what every feature of its layers responds to.

    The work is cut into shards of a few tracks, and goes on where it was: a shard that is in the
    folder is not computed again, whoever did it. A track that cannot be read, or that ends the
    process that reads it, costs itself alone. The tables are the same bit for bit
    whatever the executor, the number of workers and the order, on processors with the same
    instruction set.

    Parameters
    ----------
    files : path or iterable of paths
        A folder; a ``.csv`` with a column ``track``, ``file`` or ``path``; any other file with a
        path a line; a sound; or paths. Paths in a file are relative to its folder. In a folder,
        files are taken by their suffix, hidden ones are not, and links are followed.
    net : Network, str or path
        As in `explain`. Its front end says how tracks are read.
    out : path
        Folder for the survey; made if need be.
    layers : str or iterable of str, optional
        Default: as in `explain`. Layers that the survey in `out` lacks are added to it;
        those it has are not computed again.
    executor : concurrent.futures.Executor, optional
        Default: processes of this machine. What works there has to see the files and `out`
        under the same names.
    workers : int, optional
        Processes, or, with an executor, workers it has. Default: the CPUs that may be used.
        Memory is that of the longest track, for each.
    part : (int, int), optional
        (i, n), i from 1: only every n-th shard. Parts may run at the same time, anywhere; the
        one that finds all shards done makes the tables.
    tags : path, optional
        A CSV with a column ``track`` and a column for each attribute, of numbers or classes: see
        `Survey.attributes`. Kept in the folder for the next time.
    rows : bool
        False keeps no row for every window, only what tables of features and exemplars are made
        of: for a million tracks. Then there is nothing about features that fire together, nor
        about tags.
    seconds : float
        Length of the windows of a network that takes any number of frames.
    retry : bool
        Compute shards again in which tracks could not be used. A file that has changed is
        read again in any case.
    progress : callable, optional
        Called with (tracks done, tracks in all).

    Returns
    -------
    Survey
        With a `part`, perhaps not complete.

    Raises
    ------
    ParameterError
        If there are no tracks, an argument is not as described, `out` holds a survey by
        another network or with other settings (says which) or somebody is writing there, or
        few of the tracks of `tags` are known; without the extra ``fastdeconv[survey]``.
    BackendError
        If processes cannot be started, or die whatever they do.
    OSError
        If `out` cannot be written, such as on a full disk. What is done stays.

    Notes
    -----
    A script that calls this without an executor begins processes, and must do so behind
    ``if __name__ == "__main__":``.

    Windows lie side by side. The last one of a track is moved back to end where the
    track does, so that it is whole; what it shares with the one before counts twice. A track that
    is shorter than one window is padded with silence, whose part of a map does not count.

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
        raise ParameterError("what features have to do with tags is computed of rows: keep them")
    features = _features(network, layers)
    share = _share(part)
    collection = read_collection(files, folder)
    table = None
    if tags is not None:
        # Read first: what is wrong with it is said before hours of work.
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
    """A number of processes; by default the CPUs that may be used."""
    if workers is None:
        return usable_cpus()
    return as_int("workers", workers, minimum=1, maximum=_MOST_WORKERS)


@contextmanager
def _without_leftovers(folder: Path, *, alone: bool) -> Iterator[None]:
    """Remove what killed processes left, before this run and of this run."""
    from .store import clear_temporary

    places = (folder, folder / "shards") if alone else ()
    for place in places:
        clear_temporary(place)
    yield
    for place in places:
        clear_temporary(place)


class Survey:
    """What a survey found. Made by `survey`, or read with `Survey.load`.

    Tables are Arrow tables, read when they are asked for: ``to_pylist()`` gives a list of dicts,
    ``to_pandas()`` a data frame. `fastdeconv.survey.schema` says what their columns hold.

    Attributes
    ----------
    folder : Path
    is_complete : bool
        Whether the tables are there: they are made when all shards are done.
    layers : dict of str -> int
        The layers, and how many features each has.
    classes : list of str
        Of the network.
    root : str
        The folder that tracks are relative to.
    left_aside : int
        Files of the folder that were no sound, by their suffix.
    counts : dict of str -> number
        ``tracks``, ``errors``, ``windows``, ``seconds``; empty until the survey is complete.
    left_out : list of str
        Attributes of the user's table that nothing is said about, and why.
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
        """The survey in a folder, which anybody may have written.

        Parameters
        ----------
        folder : path

        Returns
        -------
        Survey

        Raises
        ------
        ParameterError
            If there is none, or it is damaged or of another version; without the extra
            ``fastdeconv[survey]``.
        """
        _require_pyarrow()
        return cls(_folder(folder))

    def __repr__(self) -> str:
        state = f"{self.counts['tracks']} tracks" if self.is_complete else "not complete"
        return f"<Survey in {str(self.folder)!r}: {state}, layers {', '.join(self.layers)}>"

    @property
    def is_complete(self) -> bool:
        """Whether its tables are made."""
        return bool(self.counts)

    @property
    def tracks(self) -> pa.Table:
        """One row a track."""
        return self._table("tracks")

    @property
    def features(self) -> pa.Table:
        """One row a feature: how strongly and how often it fires."""
        return self._table("features")

    @property
    def exemplars(self) -> pa.Table:
        """For every feature the windows in which it is strongest, at most one a track."""
        return self._table("exemplars")

    @property
    def together(self) -> pa.Table:
        """For every feature those that fire with it."""
        return self._table("together")

    @property
    def attributes(self) -> pa.Table:
        """What features have to do with the attributes of the user's table.

        Numbers: Pearson's correlation. Two classes: the area under the curve (AUC). More: the
        share of the variance between classes (eta squared). Each with a 95 % interval, and the q
        of Benjamini and Hochberg over the whole table. That a feature goes with an attribute
        does not say that it detects it: make the same survey with untrained weights to see
        what goes with it without any learning.
        """
        return self._table("attributes")

    @property
    def tags(self) -> pa.Table:
        """The user's table, one row a track and attribute."""
        return self._table("tags")

    @property
    def trust(self) -> pa.Table:
        """One row an excerpt of the atlas: how far to believe it, where that was asked for.

        A verdict is about a feature in one window, see docs/believe.md; the windows of excerpts
        are those in which the feature is strongest.
        """
        return self._table("trust")

    @property
    def errors(self) -> list[dict[str, str]]:
        """The tracks that could not be used, ``track`` and ``error``."""
        import pyarrow.compute as pc

        failed = self.tracks.filter(pc.is_valid(self.tracks["error"]))
        return failed.select(["track", "error"]).to_pylist()

    def rows(self, layers: str | Iterable[str] | None = None) -> Iterator[pa.Table]:
        """The rows of all windows, a shard at a time; see `schema.rows_schema`.

        Layers that were added to a survey later are in other tables than the first ones.

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
            If a layer is unknown, or the survey keeps no rows.
        """
        from .record import shards_of_record

        shards = shards_of_record(self.folder, self._record, self.tracks)
        if not shards.rows:
            raise ParameterError("this survey was made without rows")
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
                f"{printable(str(self.folder))}: the survey is not complete; run its command again "
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
