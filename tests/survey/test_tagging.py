"""The user's table, and the numbers about it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import stats

import fastdeconv as fd
from fastdeconv.survey.tagging import attribute_table, read_tags

TRACKS = [f"t{i:02}.wav" for i in range(40)]
RNG = np.random.default_rng(0)
VALUES = np.abs(RNG.standard_normal((40, 3)))
VALUES[:, 2] = 0
VALUES[2::4, 1] += 1


def write(path, **columns):
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values()))
    return path


def rows_of(tmp_path, **columns):
    tags = read_tags(write(tmp_path / "tags.csv", track=TRACKS, **columns), "/music", TRACKS)
    table, left_out = attribute_table(tags, TRACKS, {"a": VALUES})
    return table.to_pylist(), left_out


def test_numbers_get_a_correlation(tmp_path):
    tempo = 3 * VALUES[:, 0] + RNG.standard_normal(40)
    rows, left_out = rows_of(tmp_path, tempo=tempo.round(6))
    wanted = stats.pearsonr(VALUES[:, 0], tempo.round(6))
    interval = wanted.confidence_interval()
    assert rows[0]["kind"] == "r" and rows[0]["n"] == 40 and rows[0]["label"] is None
    assert rows[0]["value"] == pytest.approx(wanted.statistic)
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((interval.low, interval.high))
    p = [wanted.pvalue, stats.pearsonr(VALUES[:, 1], tempo).pvalue]
    assert [row["q"] for row in rows[:2]] == pytest.approx(stats.false_discovery_control(p))
    # A constant feature does not go with anything, and has no numbers.
    assert rows[2]["value"] is rows[2]["low"] is rows[2]["q"] is None
    assert left_out == []


def test_two_classes_get_an_auc(tmp_path):
    is_live = VALUES[:, 0] + 0.3 * RNG.standard_normal(40) > 0.7
    rows, _ = rows_of(tmp_path, live=is_live.astype(int))
    yes, no = VALUES[is_live, 0], VALUES[~is_live, 0]
    wanted = stats.mannwhitneyu(yes, no)
    assert rows[0]["kind"] == "auc" and rows[0]["label"] == "1"
    assert rows[0]["value"] == pytest.approx(wanted.statistic / len(yes) / len(no))
    assert 0 < rows[0]["low"] < rows[0]["value"] < rows[0]["high"] <= 1


def test_an_auc_of_one_has_an_interval_too(tmp_path):
    middle = np.median(VALUES[:, 0])
    rows, _ = rows_of(tmp_path, side=np.where(VALUES[:, 0] > middle, "right", "left"))
    assert rows[0]["value"] == 1 and rows[0]["label"] == "right"
    assert 0.8 < rows[0]["low"] < rows[0]["high"] == 1


def test_more_classes_get_a_share_of_the_variance(tmp_path):
    groups = np.arange(40) % 4
    rows, _ = rows_of(tmp_path, genre=np.array(["jazz", "pop", "rock", "folk"])[groups])
    row = rows[1]
    whole = np.square(VALUES[:, 1] - VALUES[:, 1].mean()).sum()
    within = sum(
        np.square(VALUES[groups == g, 1] - VALUES[groups == g, 1].mean()).sum() for g in range(4)
    )
    assert row["kind"] == "eta2" and row["label"] == "rock"
    assert row["value"] == pytest.approx(1 - within / whole)
    assert 0 <= row["low"] < row["value"] < row["high"] < 1
    # The ends are those under which what was found is just no surprise.
    f = stats.f_oneway(*(VALUES[groups == g, 1] for g in range(4))).statistic
    for end, tail in ((row["low"], 0.975), (row["high"], 0.025)):
        if end > 0:
            assert stats.ncf.cdf(f, 3, 36, 40 * end / (1 - end)) == pytest.approx(tail, abs=1e-6)


def test_classes_that_hardly_differ_have_a_wide_interval_with_the_value_in_it(tmp_path):
    path = write(tmp_path / "tags.csv", track=TRACKS[:6], metre=["4/4", "3/4", "6/8"] * 2)
    tags = read_tags(path, "/music", TRACKS[:6])
    # The means of the classes are nearly equal: less different than chance would have them.
    values = np.array([[1.0, 1.1, 0.9, 0.0, -0.1, 0.11]]).T
    (row,) = attribute_table(tags, TRACKS[:6], {"a": values})[0].to_pylist()
    assert row["kind"] == "eta2" and row["q"] > 0.99
    assert row["low"] == 0 and 0.5 < row["high"] < 1 and row["value"] < 1e-4
    # As wide as if the classes differed as much as chance makes them differ in the median.
    f = stats.f.ppf(0.5, 2, 3)
    end = row["high"]
    assert stats.ncf.cdf(f, 2, 3, 6 * end / (1 - end)) == pytest.approx(0.025, abs=1e-6)


def test_tracks_without_a_value_do_not_count(tmp_path):
    cells = ["" if i % 2 else str(i) for i in range(40)]
    rows, _ = rows_of(tmp_path, year=cells)
    assert {row["n"] for row in rows} == {20}


def test_what_cannot_be_said_is_left_out_and_said(tmp_path):
    rows, left_out = rows_of(
        tmp_path, title=[f"song {i}" for i in range(40)], same=["x"] * 40,
        rare=["1", "2"] + [""] * 38, empty=["", "nan"] * 20,
    )
    assert rows == []
    assert left_out == [
        "title (40 classes are too many for 40 tracks)", "same (all tracks have the same value)",
        "rare (tracks with a value: 2, of 3 needed)",
        "empty (tracks with a value: 0, of 3 needed)",
    ]


def test_a_table_of_other_tracks_is_refused_with_examples(tmp_path):
    path = write(tmp_path / "tags.csv", track=["x/t01.wav", "t02.wav", "z.wav"], a=[1, 2, 3])
    with pytest.raises(fd.ParameterError, match=(
        r"1 of its 3 tracks are among the 40 of the survey. Its column 'track' has "
        r"'x/t01\.wav', 'z\.wav'; the survey has 't00\.wav', 't01\.wav', 't03\.wav'"
    )):
        read_tags(path, "/music", TRACKS)


def test_paths_may_be_absolute_or_written_otherwise(tmp_path):
    paths = ["/music/t00.wav", "./t01.wav", "t02.wav"]
    path = write(tmp_path / "tags.csv", file=paths, a=[1, 2, 3])
    assert read_tags(path, "/music", TRACKS)["track"].to_pylist() == TRACKS[:3]


def test_tracks_of_a_list_are_found_by_absolute_and_by_relative_paths(tmp_path):
    absolute = [f"/music/{track}" for track in TRACKS]
    given = write(tmp_path / "tags.csv", track=TRACKS[:20] + absolute[20:], a=range(40))
    for tracks in (TRACKS, absolute):
        assert read_tags(given, "/music", tracks)["track"].to_pylist() == tracks
    above = write(tmp_path / "above.csv", track=["/other/x.wav", "/music/in/y.wav"], a=[1, 2])
    tracks = ["../../other/x.wav", "y.wav"]
    assert read_tags(above, "/music/in", tracks)["track"].to_pylist() == tracks


def test_a_track_that_is_there_twice_is_refused(tmp_path):
    path = write(tmp_path / "tags.csv", track=["t00.wav", "t01.wav", "./t00.wav"], a=[1, 2, 3])
    with pytest.raises(fd.ParameterError, match=r"line 4: the track 't00\.wav' is in line 2"):
        read_tags(path, "/music", TRACKS)


def test_empty_rows_and_tracks_of_other_collections_may_be_there_twice(tmp_path):
    names = [*TRACKS[:3], "other.wav", "other.wav", "", ""]
    path = write(tmp_path / "tags.csv", track=names, a=[1, 2, 3, 4, 5, "", ""])
    assert read_tags(path, "/music", TRACKS)["track"].to_pylist() == TRACKS[:3]


@pytest.mark.parametrize(
    ("cells", "numbers", "labels"),
    [
        (["1", "2.5", "-3e2", "nan"], [1, 2.5, -300], None),
        (["1", "2", "3", "NaN"], [1, 2, 3], None),
        (["1", "0", "1", ""], None, ["1", "0", "1"]),
        (["1", "1.0", "0", "0.0"], None, ["1", "1", "0", "0"]),
        (["4_4", "3_4", "6_8", "3_4"], None, ["4_4", "3_4", "6_8", "3_4"]),
        (["1", "2", "inf", "3"], None, ["1", "2", "inf", "3"]),
    ],
)
def test_columns_are_numbers_or_classes(tmp_path, cells, numbers, labels):
    path = write(tmp_path / "tags.csv", track=TRACKS[:4], a=cells)
    found = read_tags(path, "/music", TRACKS[:4]).to_pydict()
    count = len(found["track"])
    assert found["number"] == (numbers or [None] * count)
    assert found["label"] == (labels or [None] * count)


def test_an_attribute_of_broken_tracks_alone_is_left_out_and_said(tmp_path):
    path = write(tmp_path / "tags.csv", track=TRACKS, a=range(40), b=["x", *[""] * 39])
    tags = read_tags(path, "/music", TRACKS)
    _, left_out = attribute_table(tags, TRACKS[1:], {"a": VALUES[1:]})
    assert left_out == ["b (tracks with a value: 0, of 3 needed)"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("track;a\nx;1\n", r"found 'track;a'; columns must be separated by commas"),
        ("name,a\nx,1\n", "a column track"), ("track\nx\n", "a column track"),
        ("track,a,a\nx,1,2\n", "different"), ("track,a\nx,1,2\n", "line 2: found 3 columns"),
        ('track,a\n"x,1\n', "line 2: unexpected end"),
    ],
)
def test_no_table_is_refused(tmp_path, text, reason):
    (tmp_path / "tags.csv").write_text(text)
    with pytest.raises(fd.ParameterError, match=reason):
        read_tags(tmp_path / "tags.csv", "/music", TRACKS)


def test_a_survey_keeps_the_tags_for_the_next_time(sounds, run, tmp_path):
    names = sorted(path.name for path in sounds.iterdir())
    table = write(tmp_path / "tags.csv", track=names, loud=[i % 2 for i in range(12)],
                  tempo=range(12))
    found = run(sounds, tags=table)
    rows = found.attributes.to_pylist()
    assert {row["attribute"]: row["kind"] for row in rows} == {"loud": "auc", "tempo": "r"}
    assert len(found.tags) == 24
    means = {}
    for one in (row for shard in found.rows() for row in shard.to_pylist()):
        means.setdefault(one["track"], []).append(one["pool1.mean"][0])
    values = [np.mean(means[name]) for name in names]
    first = next(row for row in rows if row["attribute"] == "tempo" and row["feature"] == 0)
    assert first["value"] == pytest.approx(stats.pearsonr(values, range(12)).statistic)
    assert run(sounds).attributes.equals(found.attributes)
    with pytest.raises(fd.ParameterError, match="0 of its 1 tracks"):
        run(sounds, tags=write(tmp_path / "wrong.csv", track=["x"], a=[1]))
    assert run(sounds, "bare").tracks.equals(found.tracks)
    with pytest.raises(fd.ParameterError, match="no table of tags"):
        _ = run(sounds, "bare").attributes
