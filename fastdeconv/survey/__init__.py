"""A network on a collection: shards of tracks, the tables made of them, and exemplars.

=============  ===============================================================================
schema         the tables, column by column
lists          reading the lists and tables that a user wrote
collection     the tracks of a folder or a list, and how they are cut into shards
measuring      one track: its windows, and the values of every feature in each window
rows           from these values to the table of a shard, and back
store          writing files whole or not at all; locks
worker         the work of another process: one shard
engine         running shards on any executor, and going on when a worker dies
cluster        the workers of a Dask cluster as an executor
summaries      statistics of every feature over a shard, and how they are merged
together       correlations between features
tagging        the user's table of tags, and how features go with its attributes
tables         the tables of all shards
record         ``survey.json``, and reading the tables
plan           one run: which shards are missing, computing them, and making the tables
verdicts       how far to believe features in the windows of exemplars
surveying      `fastdeconv.survey` and `Survey`
=============  ===============================================================================

A worker process imports only what `worker` needs: `measuring`, `rows`, `summaries` and `store`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that can be called, because it has the name of the function `fastdeconv.survey`.

    As soon as one of its modules is imported, ``fastdeconv.survey`` is the package and no longer
    the function.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .surveying import survey

        return survey(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
