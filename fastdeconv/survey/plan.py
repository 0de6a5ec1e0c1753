"""One run of a survey: which shards are missing, computing them, and making the tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import ParameterError, printable, shown
from ..kernels.dispatch import get_implementation
from ..network.fingerprint import hash_of, network_hash
from ..network.network import Network
from ..textfiles import as_bytes, table_text
from ..version import __version__
from .collection import Collection, shards_of, track_of
from .engine import Progress, run_jobs
from .measuring import window_samples
from .record import SCHEMAS, checked_record, padded_to
from .schema import EDGES, FORMAT, KEPT, VERSION
from .store import (
    RECORD,
    holding_record,
    read_record,
    read_table,
    write_record,
    write_table,
    write_whole,
)
from .tables import (
    Shards,
    exemplar_table,
    feature_table,
    means_of_tracks,
    together_table,
    track_table,
)
from .tagging import attribute_table
from .worker import NETWORK, Done, Job, shard_name

__all__ = ["Plan"]


class Plan:
    """One run of a survey of a collection into a folder."""

    def __init__(
        self, out: Path, network: Network, features: Mapping[str, int], collection: Collection,
        *, rows: bool, seconds: float, tags: pa.Table | None,
    ) -> None:
        self._out, self._network, self._collection = out, network, collection
        self._wanted, self._tags = dict(features), tags
        self._rows, self._seconds = rows, seconds
        self._shards = shards_of(collection.tracks, rows=rows)
        self._record: dict[str, Any] = {}

    def settle(self) -> None:
        """Check that the folder holds no other survey, and write or update its record.

        Raises
        ------
        ParameterError
            If it holds another survey; says what differs.
        """
        (self._out / "shards").mkdir(exist_ok=True)
        with holding_record(self._out):
            if read_record(self._out) is None:
                self._check_fresh()
                record = self._new_record()
            else:
                record = checked_record(self._out)
                self._check_same(record)
            known = record["features"]
            added = {layer: n for layer, n in self._wanted.items() if layer not in known}
            if added:
                record["layer_sets"].append(list(added))
                known.update(added)
            root = track_of(self._collection.root)
            if added or self._tags is not None or root != record["root"]:
                record["counts"] = None  # the tables in the folder are of something else
            record["root"] = root
            record["left_aside"] = self._collection.left_aside
            if not (self._out / NETWORK).exists():
                self._network.save(self._out / NETWORK)
            if self._tags is not None:
                write_table(self._out / "tags.parquet", self._tags)
            write_record(self._out, record)
        self._record = record

    def run(
        self, share: tuple[int, int], executor: Executor | None, workers: int,
        progress: Progress | None, *, retry: bool,
    ) -> None:
        """Compute the shards that are missing of a part (i, n) of the survey.

        With `retry`, shards in which tracks could not be used are computed again.
        """
        there, files = self._there(), self._files()
        mine = [
            (shard, layers) for place, shard in enumerate(self._shards)
            if place % share[1] == share[0] - 1 for layers in self._sets()
        ]
        todo = [
            (shard, layers) for shard, layers in mine
            if (name := shard_name(shard.digest, layers)) not in there
            or (retry and files.has_errors(name, layers))
        ]
        total = sum(len(shard.tracks) for shard, _ in mine)
        done = total - sum(len(shard.tracks) for shard, _ in todo)
        backend, isa = get_implementation()
        common = {
            "out": str(self._out.absolute()), "root": self._collection.root,
            "network": self._record["settings"]["network"], "seconds": self._seconds,
            "padded_to": padded_to(self._record), "rows": self._rows, "backend": backend,
            "isa": isa,
        }

        def jobs() -> Iterator[Job]:
            for shard, layers in todo:
                name = shard_name(shard.digest, layers)
                yield Job(name=name, tracks=shard.tracks, features=layers, **common)

        def tell(one: Done) -> None:
            nonlocal done
            done += one.tracks
            if progress is not None:
                progress(done, total)

        if progress is not None:
            progress(done, total)
        if todo:
            run_jobs(jobs(), executor, workers, tell)

    def is_done(self) -> bool:
        """Whether all shards are there, whichever process computed them.

        That includes the shards of layers that another part has added to the survey meanwhile.
        """
        self._record = checked_record(self._out)
        there = self._there()
        return all(
            shard_name(shard.digest, layers) in there
            for shard in self._shards for layers in self._sets()
        )

    def write_tables(self) -> None:
        """Make the tables of all shards."""
        out, record = self._out, self._record
        self._note(counts=None)
        shards = self._files()
        summary = shards.summary()
        if [one.track for one in summary.tracks] != [t.name for t in self._collection.tracks]:
            raise ParameterError(
                f"{printable(str(out / 'shards'))}: a shard has other tracks than its name says. "
                "Remove the folder and run the survey again"
            )
        digests = [shard.digest for shard in self._shards for _ in shard.tracks]
        tables = {
            "tracks": track_table(summary, digests),
            "features": feature_table(summary),
            "exemplars": exemplar_table(summary, record["network"]["classes"]),
        }
        left_out: list[str] = []
        if self._rows:
            tables["together"] = together_table(shards)
            if (out / "tags.parquet").exists():
                tables["attributes"], left_out = self._attributes(shards)
        for name, table in tables.items():
            write_table(out / f"{name}.parquet", table)
        failed = [one._asdict() for one in summary.tracks if one.error is not None]
        write_whole(out / "errors.csv", as_bytes(table_text(["track", "error"], failed)))
        self._note(left_out=left_out, counts={
            "tracks": len(summary.tracks), "errors": len(failed), "windows": summary.windows,
            "seconds": sum(one.duration for one in summary.tracks),
        })

    def _note(self, **facts: Any) -> None:
        """Write facts about the tables into the record.

        Nothing is written if another part has added layers since the record was read: the tables
        lack them, and that part will make the tables again.
        """
        with holding_record(self._out):
            record = checked_record(self._out)
            if record["layer_sets"] == self._record["layer_sets"]:
                write_record(self._out, record | facts)

    def _attributes(self, shards: Shards) -> tuple[pa.Table, list[str]]:
        tags = read_table(self._out / "tags.parquet", SCHEMAS["tags"])
        tracks, means = means_of_tracks(shards)
        ends = np.cumsum([*shards.features.values()])
        values = dict(zip(shards.features, np.split(means, ends[:-1], axis=1)))
        return attribute_table(tags, tracks, values)

    def _files(self) -> Shards:
        sets = self._sets()
        names = [[shard_name(shard.digest, layers) for layers in sets] for shard in self._shards]
        return Shards(self._out, names, sets, self._rows, padded_to(self._record))

    def _sets(self) -> list[dict[str, int]]:
        features = self._record["features"]
        return [
            {layer: features[layer] for layer in layers} for layers in self._record["layer_sets"]
        ]

    def _there(self) -> set[str]:
        names = os.listdir(self._out / "shards")
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}

    def _settings(self) -> dict[str, Any]:
        """The settings that all runs into one folder must have in common."""
        frontend = self._network.frontend
        assert frontend is not None
        size, step = window_samples(frontend, self._seconds)
        return {
            "version of fastdeconv": __version__,
            "network": network_hash(self._network),
            "front end": hash_of(frontend.to_record()),
            "window": size / frontend.sr,
            "hop": step / frontend.sr,
            "rows": self._rows,
            "exemplars": KEPT,
        }

    def _new_record(self) -> dict[str, Any]:
        frontend = self._network.frontend
        assert frontend is not None
        return {
            "format": FORMAT,
            "version": VERSION,
            "settings": self._settings(),
            "network": {
                "name": self._network.name, "classes": list(self._network.classes or ()),
            },
            "frontend": frontend.to_record(),
            "layer_sets": [],
            "features": {},
            "edges": EDGES.tolist(),
            "root": "",
            "left_aside": 0,
            "counts": None,
            "left_out": [],
        }

    def _check_fresh(self) -> None:
        for name in SCHEMAS:
            if (self._out / f"{name}.parquet").exists():
                raise ParameterError(
                    f"{printable(str(self._out))}: has {name}.parquet, but no {RECORD}. It is not "
                    "the folder of a survey, and nothing in it is overwritten: choose another one"
                )

    def _check_same(self, record: Mapping[str, Any]) -> None:
        found, wanted = record["settings"], self._settings()
        differing = [
            f"{key} (there {shown(found.get(key))}, now {shown(wanted[key])})"
            for key in wanted if found.get(key) != wanted[key]
        ]
        if differing:
            raise ParameterError(
                f"{printable(str(self._out))} holds a survey that differs in "
                f"{', '.join(differing)}: choose another folder"
            )
