"""The attribute study against NumPy's own correlations of maps made one by one."""

from __future__ import annotations

import csv
import dataclasses
import json
import warnings
from itertools import combinations

import numpy as np
import pytest
import soundfile

import fastdeconv as fd
from fastdeconv.analysis.attributes import Correlations, least_groups
from fastdeconv.errors import ParameterError
from fastdeconv.report import study as report
from fastdeconv.textfiles import read_rows


@pytest.fixture(scope="module")
def control(net):
    return fd.randomised(net, 7)


@pytest.fixture(scope="module")
def study(net, tones, control):
    return fd.attribute_study(net, tones, control=control, resamplings=200)


@pytest.fixture(scope="module")
def wide_study(net, many_tones, control):
    """Enough groups of every attribute for intervals."""
    return fd.attribute_study(net, many_tones, control=control, resamplings=200)


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


def test_labels_are_of_margins_that_are_told_from_nought(wide_study):
    found = wide_study.find(ignores="pitch", follows="start")
    assert found
    assert all(0 < row["low"] <= row["margin"] <= row["high"] for row in found)
    assert [row["margin"] for row in found] == sorted((r["margin"] for r in found), reverse=True)
    assert wide_study.find(ignores="start", follows="pitch") == []


def test_a_silent_feature_has_no_correlation_and_no_label(study):
    assert np.isnan(study.correlation("pitch", "pool2")[5])
    (row,) = [r for r in study.feature_table
              if (r["layer"], r["feature"], r["subject"]) == ("pool2", 5, "network")]
    assert row["ignores"] == row["follows"] == "" and np.isnan(row["margin"])


def test_means_lie_in_their_intervals_and_differences_are_of_means(wide_study):
    for layer in wide_study.layers:
        own = wide_study.mean("pitch", layer)
        assert own.low <= own.value <= own.high
        difference = wide_study.difference("pitch", layer)
        assert difference.value == pytest.approx(
            own.value - wide_study.mean("pitch", layer, "control").value
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


def only(tones, **wanted):
    """Those with one of the values wanted; what is left the same in all is no attribute."""
    return [
        fd.Stimulus(one.name, {k: v for k, v in one.attributes.items() if k not in wanted
                               or len(wanted[k]) > 1}, one.source)
        for one in tones if all(one.attributes[k] in values for k, values in wanted.items())
    ]


def has_interval(estimate):
    assert np.isnan(estimate.low) == np.isnan(estimate.high)
    return not np.isnan(estimate.low)


@pytest.mark.parametrize(("pitches", "starts", "groups"), [
    (["500"], ["0.01"], 0), (["500"], ["0.01", "0.02"], 2), (["500", "900"], ["0.01", "0.02"], 4),
    (["500", "900", "1500"], ["0.01", "0.02"], 6), (["500", "900"], ["0.01", "0.02", "0.03"], 6),
])
def test_an_interval_takes_six_groups_of_stimuli(net, many_tones, control, pitches, starts, groups):
    stimuli = only(many_tones, pitch=pitches, start=starts)
    study = fd.attribute_study(net, stimuli, control=control, resamplings=200)
    assert len(study.design.of("gain")) == max(1, groups)
    wanted = groups >= least_groups() == 6
    for estimate in (study.mean("gain"), study.mean("gain", "pool1"),
                     study.difference("gain", "pool1"),
                     study.difference("gain", "pool1", "input")):
        assert np.isfinite(estimate.value)
        assert has_interval(estimate) == wanted
        assert ("[" in str(estimate)) == wanted
        assert "nan" not in str(estimate)


def test_with_one_group_nothing_is_said_beyond_the_stimuli(net, many_tones, control, tmp_path):
    stimuli = only(many_tones, gain=["0.5"], start=["0.01"])
    study = fd.attribute_study(net, stimuli, control=control, resamplings=200)
    text = study.findings()
    assert "alike than" not in text and "not distinguishable" not in text and "nan" not in text
    assert "nothing can be said for pool1, pool2: there is only one group" in text
    assert "there is only one attribute" in text
    for subject in ("network", "control"):
        assert study.find(subject=subject) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = study.save(tmp_path)
    for name in ("layers.csv", "features.csv"):
        with (folder / name).open() as file:
            rows = list(csv.DictReader(file))
        assert {row["low"] + row["high"] for row in rows} == {""}


def test_two_groups_of_each_attribute_label_no_feature(net, many_tones, control):
    stimuli = only(many_tones, pitch=["500", "900"], start=["0.01"])
    study = fd.attribute_study(net, stimuli, control=control, resamplings=200)
    assert [len(study.design.of(a)) for a in study.attributes] == [2, 2]
    assert {row["ignores"] + row["follows"] for row in study.feature_table} == {""}
    assert all(np.isnan(row["low"]) and np.isnan(row["high"]) for row in study.feature_table)
    assert "About single features nothing can be said" in study.findings()


@pytest.mark.parametrize("resamplings", [1, 39, 40, 119, 120])
def test_an_interval_takes_enough_resamplings(wide_study, resamplings):
    """One beyond each end: 40 at 95 %, 120 where it is widened for three pairs of attributes."""
    few = dataclasses.replace(
        wide_study, parameters={**wide_study.parameters, "resamplings": resamplings}
    )
    assert has_interval(few.mean("pitch", "pool1")) == (resamplings >= 40)
    assert has_interval(few.difference("pitch", "pool1")) == (resamplings >= 40)
    labelled = [row for row in few.feature_table if row["ignores"]]
    assert bool(labelled) == (resamplings >= 120)
    assert ("resamplings are too few" in few.findings()) == (resamplings < 40)


def test_a_margin_takes_more_groups_the_more_attributes_there_are(wide_study):
    assert wide_study.margin_confidence == pytest.approx(1 - 0.05 / 3)
    assert least_groups(wide_study.margin_confidence) == 7


def test_silent_groups_do_not_count(wide_study):
    """All groups of one attribute silent but five: as with five groups."""
    groups = wide_study.design.of("start")
    for left, wanted in ((5, False), (6, True)):
        found = {}
        for key, views in wide_study.found.items():
            own = views["map"]
            sums, pairs = own.sums.copy(), own.pairs.copy()
            sums[:, groups[left:]], pairs[:, groups[left:]] = 0, 0
            found[key] = {**views, "map": Correlations(sums, pairs)}
        cut = dataclasses.replace(wide_study, found=found)
        assert has_interval(cut.mean("start", "pool1")) == wanted
        assert has_interval(cut.difference("start", "pool1")) == wanted
        assert ("groups of stimuli the maps are silent" in cut.findings()) == (not wanted)


def test_what_differs_by_less_than_is_known_does_not_differ(wide_study):
    """A control that differs from the network by rounding."""
    found = {}
    for key, views in wide_study.found.items():
        subject = "network" if key[0] == "control" else key[0]
        own = wide_study.found[subject, key[1]]["map"]
        error = 1e-7 if key[0] == "control" else 0
        found[key] = {**views, "map": Correlations(own.sums - error * own.pairs, own.pairs)}
    study = dataclasses.replace(wide_study, found=found)
    assert study.difference("pitch", "pool1").low > 0
    assert "alike than" not in study.findings()
    assert "not distinguishable from the control's in pool1, pool2" in study.findings()


@pytest.mark.parametrize("subject", ["network", "control"])
def test_a_silent_layer_is_called_silent_and_compared_with_nothing(
    net, many_tones, control, subject
):
    dead = {**control.arrays, "conv2.bias": np.full(6, -1e6)}
    silent = fd.Network(net.layers, dead, net.input_shape, frontend=net.frontend)
    pair = (silent, control) if subject == "network" else (net, silent)
    study = fd.attribute_study(pair[0], many_tones, control=pair[1], resamplings=50)
    assert np.isnan(study.correlation("pitch", "pool2", subject)).all()
    assert str(study.mean("pitch", "pool2", subject)) == "silent"
    assert str(study.difference("pitch", "pool2")) == "silent"
    paragraph = study.findings().split("\n\n")[1]
    assert "silent in pool2" in paragraph
    assert "pool2" not in paragraph.partition("They are")[2].partition(".")[0]
    said = "Silent, and not compared: pool2." if subject == "network" else (
        "Not compared, because the control is silent there: pool2."
    )
    assert said in paragraph


def test_silent_features_are_counted(wide_study):
    assert "in pool2 (1 of 6 features silent)" in wide_study.findings()
    assert "About 2 of them nothing can be said" in wide_study.findings()


def test_names_cannot_break_a_paragraph_or_reach_a_terminal_as_codes(net, tones, control):
    named = [
        fd.Stimulus(tone.name, dict(zip(("a\nb", "c\x1b[31m"), tone.attributes.values())),
                    tone.source)
        for tone in tones
    ]
    text = fd.attribute_study(net, named, control=control, resamplings=50).findings()
    assert len(text.strip().split("\n")) == 2 * 5 - 1
    assert "a\\nb" in text and "\x1b" not in text


def test_a_layer_called_input_is_not_the_input(net, tones):
    other = fd.Network(
        [{"type": "conv2d", "name": "input", "padding": "same"}, {"type": "relu"}],
        {"input.weight": net.arrays["conv1.weight"], "input.bias": np.zeros(4)}, (1, 33, 20),
        frontend=net.frontend,
    )
    study = fd.attribute_study(other, tones, layers="input", resamplings=1)
    assert study.correlation("pitch", "input").shape == (4,)
    assert study.correlation("pitch", subject="input").shape == (1,)
    assert f"correlate: pitch {study.mean('pitch', subject='input')}," in study.findings()


def test_findings_put_the_input_first_and_name_every_attribute(study):
    text = study.findings()
    paragraphs = text.strip().split("\n\n")
    assert paragraphs[0].startswith("6 stimuli with 9 pairs")
    assert "input spectrograms" in paragraphs[0]
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


def test_attributes_may_have_the_names_of_our_columns(
    net, tones, control, tmp_path, monkeypatch
):
    monkeypatch.setattr(report, "has_figures", lambda: False)  # one for every name takes long
    names = ["stimulus", "file", "name", "attribute", "attribute_stimulus", "layer", "feature",
             "subject", "view", "correlation", "ignores", "follows", "margin", "low", "high",
             "network", "control", "input", "map", "=formula"]
    plain = dict.fromkeys(names, "usual")
    changed = [plain, *(plain | {name: "-other"} for name in names)]
    stimuli = [fd.Stimulus(f"sound {i}", attributes, tones[i % 2].source)
               for i, attributes in enumerate(changed)]
    study = fd.attribute_study(net, stimuli, control=control, layers="pool1", resamplings=1)
    folder = study.save(tmp_path)
    rows = {}
    for name in ("stimuli", "features", "layers"):
        with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
            assert len(set(header)) == len(header)
            file.seek(0)
            rows[name] = read_rows(file)
    for i, row in enumerate(rows["stimuli"]):
        assert list(row.values()) == [f"sound {i}", *changed[i].values()]
    assert set(rows["features"][0]) == {
        "layer", "feature", "subject", *(f"correlation_{name}" for name in names), "ignores",
        "follows", "margin", "low", "high",
    }
    assert {row["layer"] for row in rows["features"]} == {"pool1"}
    assert {row["attribute"] for row in rows["layers"]} == set(names)


def test_without_matplotlib_everything_else_is_written(study, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "has_figures", lambda: False)
    folder = study.save(tmp_path)
    assert (folder / "findings.txt").exists() and not list(folder.glob("*.png"))


@pytest.mark.parametrize(("place", "message"), [
    ((3,), "out must be a folder, found 3"), ((None,), "out must be a folder"),
    (("out", 3), "name must be a str, found 3"), (("a\0b",), "a.*b"),
])
def test_where_nothing_can_be_written_is_said(study, tmp_path, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=message):
        study.save(*place)
    assert not list(tmp_path.iterdir())


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
        ({"resamplings": "many"}, "resamplings must be an int from 1"),
        ({"rule": "nope"}, "rule must be one of"),
        ({"start": np.ones((4, 16, 10))}, "start must be one of map, max"),
        ({"control": 3}, "net must be a Network, a name or a path, found 3"),
        ({"stimuli": 3}, "stimuli must be a list, found 3"),
        ({"stimuli": ["a.wav"]}, r"stimuli\[0\] must be a Stimulus, .* found 'a.wav'"),
        ({"stimuli": []}, "there are no stimuli"),
    ],
)
def test_options_that_do_not_fit_are_refused(net, tones, control, options, message):
    with pytest.raises(ParameterError, match=message):
        fd.attribute_study(net, **({"stimuli": tones, "control": control} | options))


def test_a_path_stands_for_the_stimuli_there(net, tmp_path):
    rows = ["file,pitch"]
    for pitch in (500, 900):
        soundfile.write(tmp_path / f"{pitch}.wav", np.sin(np.arange(640) * pitch / 1000), 8000)
        rows.append(f"{pitch}.wav,{pitch}")
    (tmp_path / "attributes.csv").write_text("\n".join(rows))
    for path in (tmp_path, str(tmp_path), tmp_path / "attributes.csv"):
        study = fd.attribute_study(net, path, layers="pool1", resamplings=1)
        assert [stimulus.name for stimulus in study.stimuli] == ["500.wav", "900.wav"]
    with pytest.raises(FileNotFoundError, match="missing"):
        fd.attribute_study(net, "missing")


def test_a_control_of_other_layers_is_refused(net, tones):
    other = fd.Network(
        [{"type": "conv2d", "name": "conv1"}],
        {"conv1.weight": np.ones((1, 1, 3, 3)), "conv1.bias": [0]}, (1, 33, 20),
    )
    with pytest.raises(ParameterError, match="the control must have the same layers"):
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
    with pytest.raises(ParameterError, match="to must be one of control, input"):
        study.difference("pitch", "pool1", "network")


@pytest.mark.parametrize("wrong", [3, None, ["pool1"], np.array(["pool1", "pool2"])])
def test_names_of_another_type_are_refused(study, wrong):
    for ask in (
        lambda: study.mean(wrong), lambda: study.mean("pitch", wrong),
        lambda: study.mean("pitch", "pool1", wrong),
        lambda: study.correlation("pitch", "pool1", "network", wrong),
        lambda: study.difference("pitch", wrong), lambda: study.difference("pitch", "pool1", wrong),
        lambda: study.find(subject=wrong), lambda: study.find(margin=np.ones(2)),
        lambda: study.find(layer=[] if wrong is None else wrong),
        lambda: study.find(ignores=[] if wrong is None else wrong),
    ):
        with pytest.raises(ParameterError):
            ask()
