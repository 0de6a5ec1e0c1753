from __future__ import annotations

import csv
import json

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ParameterError
from fastdeconv.report import study as report


@pytest.fixture(scope="module")
def checkpoints(net):
    return {"start": fd.randomised(net, 1), "end": net}


@pytest.fixture(scope="module")
def clips(net, tones):
    return [tone.clip(net.frontend) for tone in tones]


@pytest.fixture(scope="module")
def evolution(checkpoints, clips):
    return fd.feature_evolution(checkpoints, clips, "pool2", [4, 5, 0])


def test_the_strongest_unit_of_all_clips_is_found(evolution, checkpoints, clips):
    for t, net in enumerate(checkpoints.values()):
        maps = np.stack([net.forward(clip.x)["pool2"] for clip in clips])
        for i, k in enumerate(evolution.features):
            own = maps[:, k]
            if own.max() <= 0:
                assert evolution.clip[i, t] == -1 and not evolution.maps[i, t].any()
                continue
            clip, row, column = np.unravel_index(own.argmax(), own.shape)
            assert evolution.value[i, t] == own.max()
            assert evolution.clip[i, t] == clip
            assert evolution.position[i, t].tolist() == [row, column]


def test_maps_are_the_projections_of_that_unit(evolution, checkpoints, clips):
    for t, net in enumerate(checkpoints.values()):
        for i, k in enumerate(evolution.features):
            clip = evolution.clip[i, t]
            if clip >= 0:
                trace = net.forward(clips[clip].x)
                wanted = fd.deconvolve(trace, "pool2", [k], start="max")[0]
                np.testing.assert_array_equal(evolution.maps[i, t], wanted)


def test_of_a_feature_that_never_fires_nothing_is_told(evolution):
    assert evolution.clip[1].tolist()[1] == -1
    assert evolution.position[1, 1].tolist() == [-1, -1]
    assert evolution.box[1, 1].tolist() == [0, 0, 0, 0]
    assert not evolution.maps[1, 1].any() and evolution.patch(1, 1).size == 0
    (row,) = [r for r in evolution.table if (r["feature"], r["checkpoint"]) == (5, "end")]
    assert list(row) == list(evolution.table[0])
    assert {key for key, value in row.items() if value is not None} == {
        "layer", "feature", "checkpoint"
    }


def test_boxes_are_what_a_unit_sees(evolution, checkpoints, clips):
    """Outside its box nothing changes the unit, at each side of it something does."""
    net = checkpoints["end"]
    row, column = evolution.position[0, 1]
    top, bottom, left, right = evolution.box[0, 1]
    x = np.random.default_rng(0).random((1, 33, 20)).astype(np.float32)
    inside = np.zeros_like(x, bool)
    inside[:, top:bottom, left:right] = True
    free = fd.Network(net.layers, net.arrays, net.input_shape)

    def unit(x):
        return free.forward(x)["pool2"][:, row, column]

    np.testing.assert_array_equal(unit(np.where(inside, x, 0)), unit(np.where(inside, x, 1)))
    assert (bottom - top, right - left) <= (10, 10)
    np.testing.assert_array_equal(evolution.patch(0, 1), evolution.maps[0, 1][:, top:bottom,
                                                                             left:right])
    outside = evolution.maps[0, 1].copy()
    outside[:, top:bottom, left:right] = 0
    assert not outside.any()


def _with_kernel(size, seed):
    """One convolution of `size` and a pool: maps of one size whatever the kernel."""
    rng = np.random.default_rng(seed)
    return fd.Network(
        [{"type": "conv2d", "name": "conv1", "padding": "same"},
         {"type": "max_pool2d", "name": "pool1", "kernel_size": 2}],
        {"conv1.weight": rng.random((2, 1, size, size)) + 0.1, "conv1.bias": np.zeros(2)},
        (1, 33, 20),
    )


def test_boxes_are_those_of_each_checkpoints_own_kernels(clips):
    checkpoints = {"wide": _with_kernel(7, 0), "narrow": _with_kernel(3, 1)}
    found = fd.feature_evolution(checkpoints, clips, "pool1", [0, 1])
    for t, net in enumerate(checkpoints.values()):
        for k in found.features:
            row, column = found.position[k, t]
            seen = np.zeros((33, 20), bool)
            for place in np.ndindex(seen.shape):
                x = np.zeros((1, 33, 20), np.float32)
                x[0][place] = 1
                seen[place] = net.forward(x)["pool1"][k, row, column] > 0
            rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
            assert found.box[k, t].tolist() == [
                rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            ]


def test_a_jump_to_another_clip_is_reported():
    """One feature that looks for high values, then for low ones."""
    up = fd.Network([{"type": "conv2d", "name": "conv1", "bias": False}],
                    {"conv1.weight": np.ones((1, 1, 1, 1))}, (1, 4, 4))
    down = fd.Network(up.layers, {"conv1.weight": -np.ones((1, 1, 1, 1))}, (1, 4, 4))
    clips = [np.full((1, 4, 4), value, np.float32) for value in (-2, 1)]
    found = fd.feature_evolution({"1": up, "2": up, "end": down}, clips, "conv1")
    assert found.clip.tolist() == [[1, 1, 0]]
    assert found.value.tolist() == [[1, 1, 2]]


def test_by_default_the_strongest_of_the_last_checkpoint_are_shown(checkpoints, clips):
    found = fd.feature_evolution(checkpoints, clips, "pool1")
    last = found.value[:, -1]
    assert sorted(found.features) == [0, 1, 2, 3]
    assert (np.diff(last) <= 0).all()


def test_of_equal_clips_the_first_counts(checkpoints, clips):
    found = fd.feature_evolution(checkpoints, [clips[0]] * 3, "pool1")
    assert set(found.clip.ravel()) <= {0, -1}


def test_plain_arrays_are_clips(evolution, checkpoints, clips):
    found = fd.feature_evolution(checkpoints, [c.x for c in clips], "pool2", [4, 5, 0])
    np.testing.assert_array_equal(found.maps, evolution.maps)


def test_the_folder_has_table_arrays_and_picture(evolution, tmp_path):
    folder = evolution.save(tmp_path)
    with (folder / "evolution.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["feature"], r["checkpoint"]) for r in rows[:3]] == [
        ("4", "start"), ("4", "end"), ("5", "start")
    ]
    with np.load(folder / "evolution.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["maps"], evolution.maps)
        assert arrays["checkpoints"].tolist() == ["start", "end"]
    assert json.loads((folder / "manifest.json").read_text())["layer"] == "pool2"
    pictures = sorted(path.name for path in folder.glob("evolution.*g"))
    assert pictures == (["evolution.png", "evolution.svg"] if report.has_figures() else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": {}}, "at least one network"),
        ({"clips": []}, "clips must be at least one"),
        ({"clips": [np.zeros((1, 33, 20)), np.zeros((1, 33, 21))]}, "of one shape"),
        ({"layer": "nope"}, "no layer 'nope'"),
        ({"checkpoints": {"end": 3}}, "checkpoint 'end' must be a Network, found int"),
        ({"checkpoints": {0: None}}, "must be named by str, found 0"),
        ({"clips": None}, "clips must be a list, found None"),
        ({"clips": np.zeros((1, 33, 20))}, r"clips\[0\] must be .* of shape \(33, 20\)"),
        ({"features": []}, "features must not be empty"),
        ({"features": [6]}, "has features 0..5"),
        ({"features": [-1]}, "has features 0..5"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoints, clips, change, message):
    options = {"checkpoints": checkpoints, "clips": clips, "layer": "pool2", "features": [0]}
    with pytest.raises(ParameterError, match=message):
        fd.feature_evolution(**(options | change))


def test_a_checkpoint_with_another_number_of_features_is_named(checkpoints, clips):
    other = fd.Network(
        [{"type": "conv2d", "name": "conv1", "padding": "same", "bias": False},
         {"type": "max_pool2d", "name": "pool1", "kernel_size": 2}],
        {"conv1.weight": np.ones((3, 1, 3, 3))}, (1, 33, 20),
    )
    with pytest.raises(ParameterError, match=r"checkpoint 'other': .*shape 3 x 16 x 10"):
        fd.feature_evolution({**checkpoints, "other": other}, clips, "pool1")
