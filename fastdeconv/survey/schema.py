"""The tables of a survey: one schema each, and what every column holds.

A survey of the folder ``OUT`` has these files::

    survey.json            what was computed and how, see below
    network.npz            the network
    shards/<hash>.parquet  a few tracks each, `rows_schema`; a shard that is there is done
    tracks.parquet         TRACKS
    features.parquet       FEATURES
    exemplars.parquet      EXEMPLARS
    together.parquet       TOGETHER    (not with --no-rows)
    attributes.parquet     ATTRIBUTES  (if a table of tags was given)
    tags.parquet           TAGS        (likewise)
    trust.parquet          TRUST       (if an atlas with verdicts was asked for)
    trust/<hash>.parquet   TRUST       of all features of a layer in one window
    errors.csv             track, error

``survey.json`` holds

- ``format`` ("fastdeconv-survey"), ``version`` (`VERSION`);
- ``settings``: what every run into the same folder must have in common: ``version of fastdeconv``,
  ``network`` (a hash), ``front end`` (a hash), ``window`` and ``hop`` (seconds), ``rows`` (bool),
  ``exemplars`` (how many are kept for each feature);
- ``network``: ``name`` (str or null), ``classes`` (list of str);
- ``frontend``: its record;
- ``layer_sets``: lists of layers that were computed together, in the order of the tables;
- ``features``: layer -> number of its features;
- ``edges``: `EDGES`;
- ``root``: the folder that tracks are relative to, an absolute path on the machine that made the
  survey, written like a track;
- ``left_aside``: how many files of the folder were left out because of their suffix;
- ``left_out``: attributes of the user's table that are not in ATTRIBUTES, and why (list of str);
- ``counts``: ``tracks``, ``errors``, ``windows`` and ``seconds`` of the tables as they are now;
  null until the tables are made. ``windows`` are those of tracks that could be used with all
  layers.

**Tracks.** A track is a path relative to the root, with slashes. File names are bytes that need
not be UTF-8, but Parquet stores only UTF-8. Other bytes are written ``\\udcXX``, see
`fastdeconv.survey.collection.track_of` and its inverse, `path_of`.

Tables may come from anybody. A text in them must not be used as HTML or as a path unless it has
been checked.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "ATTRIBUTES", "EDGES", "EXEMPLARS", "FEATURES", "FORMAT", "KEPT", "SHOWN", "TAGS", "TOGETHER",
    "TOGETHER_KEPT", "TRACKS", "TRUST", "TWINS", "VERSION", "rows_schema", "summary_schema",
]

FORMAT = "fastdeconv-survey"
#: Version of the format of the tables and of ``survey.json``.
VERSION = 1

#: How many exemplars of a feature are shown, and how many are kept; the others are spares.
SHOWN, KEPT = 9, 12
#: How many other features `TOGETHER` has for each feature: those with the highest correlations.
TOGETHER_KEPT = 10
#: Two features with a correlation above this are called twins.
TWINS = 0.99

# Eight bins for each octave from 2^-16 to 2^16: an estimate from a bin is at most 9 % off.
_OCTAVES, _PER_OCTAVE = 16, 8
_POSITIVE = 2.0 ** (np.arange(-_OCTAVES * _PER_OCTAVE, _OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)

#: Edges of the histograms of all features. Bin 0 counts values below EDGES[0], bin i counts values
#: from EDGES[i - 1] to below EDGES[i], and the last bin counts values from EDGES[-1] on. The bin
#: that begins at 0 counts silence and everything below 2^-16.
EDGES: NDArray[np.float64] = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])

_TEXT, _FLOATS = pa.string(), pa.list_(pa.float32())


def rows_schema(layers: Iterable[str]) -> pa.Schema:
    """The table of a shard: a row for each window, and a row of nulls for an unusable track.

    ======== ============= ==================================================================
    track    string        the path, see above
    start    float64       where the window begins in the track, seconds; windows lie side by
                           side, and the last window of a track ends where the track ends
    duration float64       seconds of sound in the window; shorter than the window only where the
                           whole track is shorter
    error    string        why the track could not be used; null if it could
    scores   list<float32> the network's score of each class; empty without classes
    L.mean   list<float32> for each feature of layer L the mean activation over all places
    L.max    list<float32> for each feature the largest activation
    L.active list<float32> for each feature the share of places where it is above 0, 0 to 1
    L.at     list<int32>   for each feature the place along time of the (first) maximum in its map
    L.size   int32         number of places along time in a map of the layer, padding included
    ======== ============= ==================================================================
    """
    fields = [
        pa.field("track", _TEXT, nullable=False), pa.field("start", pa.float64()),
        pa.field("duration", pa.float64()), pa.field("error", _TEXT), pa.field("scores", _FLOATS),
    ]
    for layer in layers:
        fields += [pa.field(f"{layer}.{what}", _FLOATS) for what in ("mean", "max", "active")]
        fields += [
            pa.field(f"{layer}.at", pa.list_(pa.int32())), pa.field(f"{layer}.size", pa.int32()),
        ]
    return pa.schema(fields)


_EXEMPLAR = pa.struct([
    pa.field("feature", pa.int32()), pa.field("track", pa.int32()), pa.field("start", pa.float64()),
    pa.field("end", pa.float64()), pa.field("at", pa.float64()), pa.field("score", pa.float32()),
    pa.field("label", pa.int32()),
])


def summary_schema(layers: Iterable[str]) -> pa.Schema:
    """The table of a shard of a survey without rows: one row, the statistics of its windows.

    ============ ============ =================================================================
    tracks       list<struct> track, windows, duration, error, as in TRACKS
    n            int64        number of windows
    L.mean       list<double> for each feature of layer L the mean of the windows' means
    L.m2         list<double> sum of the squared differences of the windows' means from it
    L.active     list<double> sum of the shares of places above 0
    L.max        list<float>  largest activation; -inf if n is 0
    L.histogram  list<int64>  counts of all features, one feature after another
    L.exemplars  list<struct> candidates: `track` is an index into `tracks`, `label` an index into
                              the classes (-1: none)
    ============ ============ =================================================================
    """
    doubles = pa.list_(pa.float64())
    track = pa.struct([pa.field(name, TRACKS.field(name).type) for name in TRACKS.names
                       if name != "shard"])
    fields = [pa.field("tracks", pa.list_(track)), pa.field("n", pa.int64())]
    for layer in layers:
        fields += [pa.field(f"{layer}.{what}", doubles) for what in ("mean", "m2", "active")]
        fields += [
            pa.field(f"{layer}.max", _FLOATS),
            pa.field(f"{layer}.histogram", pa.list_(pa.int64())),
            pa.field(f"{layer}.exemplars", pa.list_(_EXEMPLAR)),
        ]
    return pa.schema(fields)


#: One row for each track, sorted by track.
TRACKS = pa.schema([
    pa.field("track", _TEXT, nullable=False),
    pa.field("shard", _TEXT, nullable=False),  # digest of the shard, see worker.shard_name
    pa.field("windows", pa.int32(), nullable=False),  # 0 for a track with an error
    pa.field("duration", pa.float64(), nullable=False),  # seconds; 0 for a track with an error
    pa.field("error", _TEXT),  # null if it could be used
])

#: One row for each feature, in the order of layers and features. Statistics of a layer are over the
#: windows of all tracks that could be used with that layer.
FEATURES = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("n", pa.int64(), nullable=False),  # number of windows
    pa.field("mean", pa.float64()),  # mean of the windows' mean activations; null if n is 0
    pa.field("std", pa.float64()),  # their standard deviation (the variance is divided by n)
    pa.field("p50", pa.float64()),  # percentiles of the windows' maxima, estimated from the
    pa.field("p90", pa.float64()),  # histogram: off by the width of a bin (9 %) at most
    pa.field("p99", pa.float64()),
    pa.field("max", pa.float32()),  # the largest of the windows' maxima, exact
    pa.field("active", pa.float64()),  # mean over windows of the share of places above 0
    pa.field("silent", pa.bool_(), nullable=False),  # whether it is above 0 nowhere
    pa.field("histogram", pa.list_(pa.int64()), nullable=False),  # of the maxima, see EDGES
])

#: For each feature the windows with its largest activations, at most one of each track. The largest
#: comes first; equal ones are sorted by (track, start). A feature that is above 0 nowhere has none.
EXEMPLARS = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("rank", pa.int32(), nullable=False),  # from 0
    pa.field("track", _TEXT, nullable=False),
    pa.field("start", pa.float64(), nullable=False),  # where the window begins, seconds
    pa.field("end", pa.float64(), nullable=False),  # where the window's sound ends, seconds
    pa.field("at", pa.float64(), nullable=False),  # where the maximum is, seconds: the middle of
    # the part of the window that its place in the map stands for
    pa.field("score", pa.float32(), nullable=False),  # the activation there
    pa.field("label", _TEXT),  # the class with the highest score in that window; null without
    # classes
])

#: For each feature those that fire together with it: correlation of the windows' maxima over all
#: windows of tracks that could be used with all layers.
TOGETHER = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("other_layer", _TEXT, nullable=False),
    pa.field("other_feature", pa.int32(), nullable=False),
    pa.field("r", pa.float64(), nullable=False),  # Pearson's correlation, the highest first
])

#: For each feature and attribute how they go together, over tracks. The value of a feature in a
#: track is the mean of the mean activations of the track's windows.
ATTRIBUTES = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("attribute", _TEXT, nullable=False),
    pa.field("kind", _TEXT, nullable=False),  # r: of numbers, Pearson's correlation. auc: of two
    # classes, the probability that a track of class `label` has the larger activation than one of
    # the other class. eta2: of more classes, the share of the variance that lies between them.
    pa.field("value", pa.float64()),  # null if the feature is constant
    pa.field("low", pa.float64()),  # 95 % confidence interval of the value; null where the value
    pa.field("high", pa.float64()),  # is null, and where there are too few tracks
    pa.field("label", _TEXT),  # of auc the class that comes second in the alphabet, of eta2 the
    # class with the highest mean; null for numbers
    pa.field("n", pa.int64(), nullable=False),  # number of tracks with a value
    pa.field("q", pa.float64()),  # q value of Benjamini and Hochberg over all rows of the table
])

#: For each excerpt of the atlas how far to believe what is seen and heard of the feature in that
#: window, by `fastdeconv.belief.trust`; in the order of EXEMPLARS. Made only on request.
TRUST = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("track", _TEXT, nullable=False),
    pa.field("start", pa.float64(), nullable=False),  # the window, as in EXEMPLARS
    pa.field("end", pa.float64(), nullable=False),
    pa.field("rule", _TEXT, nullable=False),  # the rule of the map,
    pa.field("map_start", _TEXT, nullable=False),  # what the way back started from,
    pa.field("mode", _TEXT, nullable=False),  # and how the map became a sound
    pa.field("verdict", _TEXT, nullable=False),  # yes, unsure, no or silent
    pa.field("reason", _TEXT, nullable=False),
    # The numbers, null where one does not exist. The verdict depends on the first four.
    *(pa.field(name, pa.float64()) for name in (
        "nearest", "where", "reactivation", "among_sounds", "support", "input_where",
        "beyond_input", "among_features", "same", "steadiness",
    )),
    pa.field("yes_rate", pa.float64(), nullable=False),  # share of "yes" among all features of the
    # layer in this window
    pa.field("control_yes_rate", pa.float64()),  # the same share in an untrained network; null
    # without such a control
])

#: The user's table as it was read: a row for each track and attribute with a value. An attribute
#: without any value has one row, with neither a number nor a label.
TAGS = pa.schema([
    pa.field("track", _TEXT, nullable=False),
    pa.field("attribute", _TEXT, nullable=False),
    pa.field("number", pa.float64()),  # null if the attribute has classes
    pa.field("label", _TEXT),  # the class; null if the attribute has numbers
])
