"""A network on a collection: shards of tracks, the tables made of them, and exemplars.

=============  ===============================================================================
schema         the tables, column by column
collection     the tracks of a folder or a list, and how they are cut into shards
measuring      one track: its windows, and what every feature puts out in each
rows           what was measured as the table of a shard, and back
store          files that are there whole or not at all, and locks
worker         what another process does: one shard
engine         shards on any executor, workers that die, what goes on from there
cluster        the workers of a Dask cluster as an executor
summaries      what a shard says of every feature, and how that is merged
together       which features fire together
tagging        a table of the user's, and what features have to do with it
tables         the tables of all shards
record         ``survey.json``, and reading the tables
plan           one run: what is to be done, doing it, and the tables when all is done
verdicts       how far to believe features in the windows of exemplars
surveying      `fastdeconv.survey` and `Survey`
=============  ===============================================================================

Other processes import what `worker` needs: `measuring`, `rows`, `summaries` and `store`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package has the name of the function `fastdeconv.survey`.

    Importing any module of it puts the package where the function would be looked up, so the
    package can be called as well.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .surveying import survey

        return survey(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
