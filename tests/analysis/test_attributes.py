"""The attribute study against NumPy's own correlations of maps made one by one."""

from __future__ import annotations

import csv
import json
from itertools import combinations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.errors import ParameterError
from fastdeconv.report import study as report


@pytest.fixture(scope="module")
def control(net):
    return fd.randomised(net, 7)


@pytest.fixture(scope="module")
def study(net, tones, control):
    return fd.attribute_study(net, tones, control=control, resamplings=200)


def brute_force(tones, maps, attribute):
    """Mean correlation over pairs that differ in `attribute` alone; maps (stimuli, K, ...)."""
    found = []
    for k in range(len(maps[0])):
        values = [
            np.corrcoef(maps[i][k].ravel(), maps[j][k].ravel())[0, 1]
            for i, j in combinations(range(len(tones)), 2)
            if [n for n in tones[i].attributes
                if tones[i].attributes[n] != tones[j].attributes[n]] == [attribute]
            and maps[i][k].std() > 0 and maps[j][k].std() > 0
        ]
        found.append(np.mean(values) if values else np.nan)
    return np.array(found)


@pytest.mark.parametrize("attribute", ["pitch", "gain"])
@pytest.mark.parametrize("layer", ["pool1", "pool2"])
@pytest.mark.parametrize("subject", ["network", "control"])
def test_correlations_are_those_of_maps_made_one_by_one(
    study, net, control, tones, subject, layer, attribute
):
    own = net if subject == "network" else control
    traces = [own.forward(tone.clip(net.frontend).x) for tone in tones]
    views = {
        "map": [fd.deconvolve(trace, layer) for trace in traces],
        "activation": [trace[layer] for trace in traces],
    }
    for view, maps in views.items():
        np.testing.assert_allclose(
            study.correlation(attribute, layer, subject, view),
            brute_force(tones, maps, attribute), atol=1e-5,
        )


def test_the_input_is_measured_as_it_is(study, net, tones):
    inputs = [tone.clip(net.frontend).x for tone in tones]
    for attribute in study.attributes:
        np.testing.assert_allclose(
            study.correlation(attribute), brute_force(tones, inputs, attribute), atol=1e-5
        )


def test_loudness_alone_changes_nothing_of_a_network_without_biases(study):
    # The linear input scales, and with it every map: the attribute is ignored wholly.
    assert study.mean("gain").value == pytest.approx(1, abs=1e-5)
    assert np.nanmin(study.correlation("gain", "pool2")) == pytest.approx(1, abs=1e-4)
    found = study.find(ignores="gain", follows="pitch", subject="network")
    assert all(row["margin"] > 0 and row["low"] > 0 for row in found)
    assert study.find(ignores="pitch", follows="gain", margin=0.1) == []


def test_a_silent_feature_has_no_correlation_and_no_label(study):
    assert np.isnan(study.correlation("pitch", "pool2")[5])
    (row,) = [r for r in study.feature_table
              if (r["layer"], r["feature"], r["subject"]) == ("pool2", 5, "network")]
    assert row["ignores"] == row["follows"] == "" and np.isnan(row["margin"])


def test_means_lie_in_their_intervals_and_differences_are_of_means(study):
    for layer in study.layers:
        own = study.mean("pitch", layer)
        assert own.low <= own.value <= own.high
        difference = study.difference("pitch", layer)
        assert difference.value == pytest.approx(
            own.value - study.mean("pitch", layer, "control").value
        )
        assert difference.low <= difference.value <= difference.high


def test_features_in_blocks_are_the_same_features(study, net, tones, control, monkeypatch):
    monkeypatch.setattr("fastdeconv.analysis.attributes._LANES", 4)
    apart = fd.attribute_study(net, tones, control=control, resamplings=200)
    for key, views in study.found.items():
        for view, own in views.items():
            np.testing.assert_array_equal(apart.found[key][view].sums, own.sums)


def test_threads_and_kept_inputs_do_not_change_a_bit(study, net, tones, control, monkeypatch):
    monkeypatch.setattr("fastdeconv.analysis.attributes._INPUT_BYTES", 0)
    other = fd.attribute_study(net, tones, control=control, resamplings=200, num_threads=1)
    for key, views in study.found.items():
        for view, own in views.items():
            np.testing.assert_array_equal(other.found[key][view].sums, own.sums)


def test_some_features_and_layers(study, net, tones, control):
    found = fd.attribute_study(
        net, tones, control=control, layers="pool2", features=[3, 0], resamplings=10
    )
    np.testing.assert_array_equal(
        found.correlation("pitch", "pool2"), study.correlation("pitch", "pool2")[[3, 0]]
    )
    assert found.features == {"pool2": [3, 0]}


def test_progress_ends_where_it_said(net, tones, control):
    calls = []
    fd.attribute_study(net, tones, control=control, resamplings=1,
                       progress=lambda *call: calls.append(call))
    assert calls[-1][1:] == (24, 24)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_findings_put_the_input_first_and_name_every_attribute(study):
    text = study.findings()
    paragraphs = text.strip().split("\n\n")
    assert paragraphs[0].startswith("6 stimuli, 9 pairs") and "input spectrograms" in paragraphs[0]
    assert paragraphs[1].startswith("pitch:") and paragraphs[2].startswith("gain:")
    assert f"{study.mean('pitch', 'pool2', 'control')} in pool2" in paragraphs[1]


def test_the_folder_has_tables_arrays_words_and_figures(study, tmp_path):
    folder = study.save(tmp_path)
    with (folder / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Two attributes; two layers by two subjects by two views, and the input.
    assert len(rows) == 2 * (2 * 2 * 2 + 1)
    value = next(r for r in rows if r["attribute"] == "pitch" and r["layer"] == "input")
    assert float(value["correlation"]) == study.mean("pitch").value
    with np.load(folder / "study.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(
            arrays["network/pool2/map/sums"], study.found["network", "pool2"]["map"].sums
        )
        assert arrays["groups/attribute"].tolist() == [g.attribute for g in study.design.groups]
    assert (folder / "findings.txt").read_text() == study.findings()
    assert json.loads((folder / "manifest.json").read_text())["network"] == "tiny"
    assert len((folder / "stimuli.csv").read_text().splitlines()) == 7
    figures = sorted(path.name for path in folder.glob("attribute_*"))
    if report.has_figures():
        assert figures == [f"attribute_{a}.{e}" for a in ("gain", "pitch") for e in ("png", "svg")]
        again = study.save(tmp_path, "again")
        for name in figures:
            assert (folder / name).read_bytes() == (again / name).read_bytes()
    else:
        assert figures == []


def test_without_matplotlib_everything_else_is_written(study, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "has_figures", lambda: False)
    folder = study.save(tmp_path)
    assert (folder / "findings.txt").exists() and not list(folder.glob("*.png"))


def test_a_folder_that_is_there_is_not_replaced_unasked(study, tmp_path):
    study.save(tmp_path)
    with pytest.raises(ParameterError, match="already there"):
        study.save(tmp_path)
    study.save(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": []}, "features must be at least one"),
        ({"features": [9]}, "has features 0..3"),
        ({"layers": "nope"}, "no layer 'nope'"),
        ({"resamplings": 0}, "resamplings must be an int from 1"),
        ({"rule": "nope"}, "rule must be one of"),
    ],
)
def test_options_that_do_not_fit_are_refused(net, tones, control, options, message):
    with pytest.raises(ParameterError, match=message):
        fd.attribute_study(net, tones, control=control, **options)


def test_a_control_of_other_layers_is_refused(net, tones):
    other = fd.Network(
        [{"type": "conv2d", "name": "conv1"}],
        {"conv1.weight": np.ones((1, 1, 3, 3)), "conv1.bias": [0]}, (1, 33, 20),
    )
    with pytest.raises(ParameterError, match="the control must have the layers"):
        fd.attribute_study(net, tones, control=other)


def test_stimuli_of_different_lengths_are_named(net, tones, control):
    free = fd.Network(
        net.layers, net.arrays, (1, 33, None),
        frontend={**net.frontend.to_record(), "frames": None},
    )
    long = fd.Stimulus("long one", {"pitch": "500", "gain": "9"},
                       lambda frontend: fd.Clip(np.ones(900, np.float32), 8000, frontend))
    with pytest.raises(ParameterError, match="'long one' gives an input of 1 x 33 x 29"):
        fd.attribute_study(free, [*tones, long])


def test_asking_for_what_was_not_studied_says_what_was(study):
    with pytest.raises(ParameterError, match="attributes: pitch, gain"):
        study.mean("tempo")
    with pytest.raises(ParameterError, match="layers: pool1, pool2"):
        study.mean("pitch", "pool9")
    with pytest.raises(ParameterError, match="subject must be"):
        study.find(subject="input")
    with pytest.raises(ParameterError, match="was not studied"):
        study.find(layer="conv1")
