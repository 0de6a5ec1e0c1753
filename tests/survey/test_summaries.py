from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.survey.collection import Track
from fastdeconv.survey.measuring import LayerValues, Measured, Window
from fastdeconv.survey.rows import rows_table
from fastdeconv.survey.schema import EDGES, KEPT
from fastdeconv.survey.summaries import (
    empty_summary,
    merge_into,
    percentiles,
    summarise,
    summary_of,
    summary_table,
)

FEATURES = {"a": 3, "b": 2}


def shard(seed, tracks=4, windows=3):
    rng = np.random.default_rng(seed)
    found = []
    for number in range(tracks):
        name = Track(f"{seed}-{number}", 1, 1)
        if number == 1:
            found.append((name, "broken"))
            continue
        layers = []
        for count in FEATURES.values():
            maxima = rng.integers(-1, 4, (windows, count)).astype(np.float32)
            active = np.full_like(maxima, 0.5)
            at = rng.integers(0, 5, maxima.shape).astype(np.int32)
            size = np.full(windows, 5, np.int32)
            layers.append(LayerValues(maxima - 1, maxima, active, at, size))
        places = [Window(float(i), 1.0) for i in range(windows)]
        found.append((name, Measured(places, np.eye(windows, 3, dtype=np.float32), layers)))
    return rows_table([*FEATURES], found)


def merged(parts):
    total = empty_summary(FEATURES)
    for part in parts:
        merge_into(total, part)
    return total


def test_shards_merge_to_what_all_rows_together_are():
    tables = [shard(seed) for seed in range(4)]
    total = merged(summarise(table, FEATURES, 0.0) for table in tables)
    rows = [row for table in tables for row in table.to_pylist() if row["error"] is None]
    assert total.windows == len(rows) == 36
    assert [t.error for t in total.tracks].count("broken") == 4
    for layer, count in FEATURES.items():
        own = total.layers[layer]
        means = np.array([row[f"{layer}.mean"] for row in rows])
        np.testing.assert_allclose(own.mean, means.mean(axis=0))
        np.testing.assert_allclose(own.m2, np.square(means - means.mean(axis=0)).sum(axis=0))
        for feature in range(count):
            ranked = {}
            for row in rows:
                score = row[f"{layer}.max"][feature]
                key = (-score, row["track"], row["start"])
                ranked[row["track"]] = min(ranked.get(row["track"], key), key)
            wanted = [key for key in sorted(ranked.values()) if key[0] < 0][:KEPT]
            best = own.best[feature]
            found = [
                (-row["score"], total.tracks[row["track"]].track, row["start"])
                for row in best if row["score"] > -np.inf
            ]
            assert found == wanted
            for row in best[best["score"] > -np.inf]:
                assert row["label"] == int(row["start"])  # each window has a class of its own
                assert row["start"] < row["at"] < row["end"] == row["start"] + 1


def test_a_summary_comes_back_from_its_file():
    own = summarise(shard(0), FEATURES, 0.0)
    read = summary_of(summary_table(own), FEATURES)
    assert read.tracks == own.tracks and read.windows == own.windows
    for layer in FEATURES:
        for name in ("mean", "m2", "active", "max", "histogram", "best"):
            one, other = getattr(own.layers[layer], name), getattr(read.layers[layer], name)
            if name == "best":
                kept = one["score"] > -np.inf
                assert (kept == (other["score"] > -np.inf)).all()
                one, other = one[kept], other[kept]
            np.testing.assert_array_equal(one, other)


def test_a_summary_of_other_features_is_refused():
    with pytest.raises(fd.ParameterError, match="lists of another length than 4"):
        summary_of(summary_table(summarise(shard(0), FEATURES, 0.0)), {"a": 4, "b": 2})


def test_percentiles_are_within_a_bin():
    values = np.random.default_rng(0).lognormal(0, 2, 1000)
    own = empty_summary({"a": 1}).layers["a"]
    own.histogram[0] = np.bincount(np.searchsorted(EDGES, values, side="right"),
                                   minlength=len(EDGES) + 1)
    own.max[0] = values.max()
    found = percentiles(own, (0.5, 0.9, 0.99, 1.0))[:, 0]
    wanted = np.percentile(values, (50, 90, 99, 100), method="inverted_cdf")
    np.testing.assert_allclose(found, wanted, rtol=0.091)
    assert found[-1] == pytest.approx(values.max())
