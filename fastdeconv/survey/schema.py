"""The tables of a survey: one schema each, and what every column holds.

A survey of the folder ``OUT`` has these files::

    survey.json            what was computed and how, see below
    network.npz            the network
    shards/<hash>.parquet  a few tracks each, `rows_schema`; there = done
    tracks.parquet         TRACKS
    features.parquet       FEATURES
    exemplars.parquet      EXEMPLARS
    together.parquet       TOGETHER    (not with --no-rows)
    attributes.parquet     ATTRIBUTES  (where a table of tags was given)
    tags.parquet           TAGS        (the same)
    trust.parquet          TRUST       (where an atlas with verdicts was asked for)
    trust/<hash>.parquet   TRUST       of all features of a layer in one window
    errors.csv             track, error

``survey.json`` holds

- ``format`` ("fastdeconv-survey"), ``version`` (`VERSION`);
- ``settings``: what a second run into the same folder must share: ``version of fastdeconv``,
  ``network`` (a hash), ``front end`` (a hash), ``window`` and ``hop`` (seconds), ``rows`` (bool),
  ``exemplars`` (how many are kept for each feature);
- ``network``: ``name`` (str or null), ``classes`` (list of str);
- ``frontend``: its record;
- ``layer_sets``: lists of layers that were computed together, in the order of the tables;
- ``features``: layer -> number of its features;
- ``edges``: `EDGES`;
- ``root``: the folder that tracks are relative to, an absolute path of the machine on which the
  survey was made, written like a track;
- ``left_aside``: how many files of the folder were no sound, by their suffix;
- ``left_out``: attributes of the user's table that nothing is said about, and why (list of str);
- ``counts``: of the tables as they are now, ``tracks``, ``errors``, ``windows``, ``seconds``.
  null until the tables were made.

**Tracks.** A track is a path relative to the root, with slashes. File names are bytes, and some
are not UTF-8; Parquet takes UTF-8 alone. Bytes that are not are written ``\\udcXX``, see
`fastdeconv.survey.files.track_of` and `path_of`, its inverse.

Tables may come from anybody: text in them is no HTML and no path until it was checked.
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
#: Of the tables and of ``survey.json``.
VERSION = 1

#: Exemplars that are shown of a feature, and those that are kept: the others are spares.
SHOWN, KEPT = 9, 12
#: Features that are kept beside each in `TOGETHER`, the strongest correlations.
TOGETHER_KEPT = 10
#: Two features that correlate above this are called twins.
TWINS = 0.99

# Eight bins an octave, from 2^-16 to 2^16: an estimate from a bin is at most 9 % off.
_OCTAVES, _PER_OCTAVE = 16, 8
_POSITIVE = 2.0 ** (np.arange(-_OCTAVES * _PER_OCTAVE, _OCTAVES * _PER_OCTAVE + 1) / _PER_OCTAVE)

#: Edges of the histograms of all features. Bin 0 counts values below EDGES[0], bin i those from
#: EDGES[i - 1] to below EDGES[i], the last one those from EDGES[-1] on. The bin that begins
#: with 0 is that of silence and of what is below 2^-16.
EDGES: NDArray[np.float64] = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])

_TEXT, _FLOATS = pa.string(), pa.list_(pa.float32())


def rows_schema(layers: Iterable[str]) -> pa.Schema:
    """Of a shard: one row a window, one of nulls for a track that could not be used.

    ======== ============= ==================================================================
    track    string        the path, see above
    start    float64       seconds in the track; windows lie side by side, and the last one of a
                           track ends where the track does
    duration float64       seconds of sound in the window; less than the window's length only
                           where the whole track is shorter
    error    string        why the track could not be used; null where it could
    scores   list<float32> what the network puts out for each class; empty without classes
    L.mean   list<float32> of each feature of layer L the mean activation over all places
    L.max    list<float32> its largest activation
    L.active list<float32> the share of places where it is above 0, 0 to 1
    L.at     list<int32>   along time, the place of the (first) maximum in the layer's map
    L.size   int32         places along time in the layer's map, padding included
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
    """Of a shard of a survey without rows: one row, what its windows add to the tables.

    ============ ============ =================================================================
    tracks       list<struct> track, windows, duration, error, as in TRACKS
    n            int64        windows
    L.mean       list<double> of each feature of layer L the mean of the means of windows
    L.m2         list<double> sum of the squares of their differences to it
    L.active     list<double> sum of the shares of places above 0
    L.max        list<float>  largest activation; -inf where n is 0
    L.histogram  list<int64>  counts of all features, one after another
    L.exemplars  list<struct> candidates: track is a place in `tracks`, label one in the classes
                              (-1: none)
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


#: One row a track, in the order of tracks.
TRACKS = pa.schema([
    pa.field("track", _TEXT, nullable=False),
    pa.field("shard", _TEXT, nullable=False),  # digest of the shard, see worker.shard_name
    pa.field("windows", pa.int32(), nullable=False),  # 0 for a track with an error
    pa.field("duration", pa.float64(), nullable=False),  # seconds from its begin to its end
    pa.field("error", _TEXT),  # null where it could be used
])

#: One row a feature, in the order of layers and features.
FEATURES = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("n", pa.int64(), nullable=False),  # windows
    pa.field("mean", pa.float64()),  # of the mean activations of windows; null where n is 0
    pa.field("std", pa.float64()),  # of the same, divided by n
    pa.field("p50", pa.float64()),  # percentiles of the maxima of windows, read off the
    pa.field("p90", pa.float64()),  # histogram: at most a bin's width (9 %) off
    pa.field("p99", pa.float64()),
    pa.field("max", pa.float32()),  # of the maxima of windows, exact
    pa.field("active", pa.float64()),  # mean over windows of the share of places above 0
    pa.field("silent", pa.bool_(), nullable=False),  # above 0 nowhere in the collection
    pa.field("histogram", pa.list_(pa.int64()), nullable=False),  # of maxima, see EDGES
])

#: For every feature the windows with its largest activations, at most one a track, the largest
#: first; of equal ones the first by (track, start). A feature that is above 0 nowhere has none.
EXEMPLARS = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("rank", pa.int32(), nullable=False),  # from 0
    pa.field("track", _TEXT, nullable=False),
    pa.field("start", pa.float64(), nullable=False),  # the window, seconds in the track
    pa.field("end", pa.float64(), nullable=False),  # where its sound ends, seconds in the track
    pa.field("at", pa.float64(), nullable=False),  # the maximum, seconds in the track: middle of
    # the part of the window that its place in the map stands for
    pa.field("score", pa.float32(), nullable=False),  # the activation there
    pa.field("label", _TEXT),  # the class with the highest score in that window; null without
])

#: For every feature those that fire with it: correlation over all windows of the maxima.
TOGETHER = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("other_layer", _TEXT, nullable=False),
    pa.field("other_feature", pa.int32(), nullable=False),
    pa.field("r", pa.float64(), nullable=False),  # Pearson's, the highest first
])

#: For every feature and attribute how they go together, over tracks: of a track the mean of the
#: mean activations of its windows.
ATTRIBUTES = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("attribute", _TEXT, nullable=False),
    pa.field("kind", _TEXT, nullable=False),  # r: numbers, Pearson's correlation. auc: two classes,
    # the chance that a track of class `label` has the larger activation. eta2: more classes, the
    # share of the variance that lies between them.
    pa.field("value", pa.float64()),  # null where the feature or the attribute is constant
    pa.field("low", pa.float64()),  # 95 % confidence interval of the value; null with it, and
    pa.field("high", pa.float64()),  # where there are too few tracks
    pa.field("label", _TEXT),  # of auc the class that comes second in the alphabet, of eta2 the
    # one with the highest mean; null for numbers
    pa.field("n", pa.int64(), nullable=False),  # tracks that have a value
    pa.field("q", pa.float64()),  # Benjamini and Hochberg's, over all rows of the table
])

#: For every excerpt of the atlas how far to believe what is seen and heard of the feature in its
#: window, by `fastdeconv.belief.trust`; in the order of EXEMPLARS. Only where it was asked for.
TRUST = pa.schema([
    pa.field("layer", _TEXT, nullable=False),
    pa.field("feature", pa.int32(), nullable=False),
    pa.field("track", _TEXT, nullable=False),
    pa.field("start", pa.float64(), nullable=False),  # the window, as in EXEMPLARS
    pa.field("end", pa.float64(), nullable=False),
    pa.field("rule", _TEXT, nullable=False),  # how the feature is made heard: the rule for going
    pa.field("map_start", _TEXT, nullable=False),  # back, what it starts from,
    pa.field("mode", _TEXT, nullable=False),  # and how the map becomes a sound
    pa.field("verdict", _TEXT, nullable=False),  # yes, unsure, no or silent
    pa.field("reason", _TEXT, nullable=False),
    # The numbers, null where there is none; the first four decide.
    *(pa.field(name, pa.float64()) for name in (
        "nearest", "where", "reactivation", "among_sounds", "support", "input_where",
        "beyond_input", "among_features", "same", "steadiness",
    )),
    pa.field("yes_rate", pa.float64(), nullable=False),  # share of "yes" among all features of the
    pa.field("control_yes_rate", pa.float64()),  # layer, and of an untrained network's, in the
    # same window; null without a control
])

#: The user's table, as it was read: one row a track and attribute that has a value.
TAGS = pa.schema([
    pa.field("track", _TEXT, nullable=False),
    pa.field("attribute", _TEXT, nullable=False),
    pa.field("number", pa.float64()),  # one of the two is null
    pa.field("label", _TEXT),
])
