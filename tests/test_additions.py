"""What a result has beside its features: places, how far to believe them, other rules and modes."""

from __future__ import annotations

import csv
import json
import math
import shutil

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.feature_maps import FEATURE_RULES, feature_maps
from fastdeconv.belief.trust import COLUMNS
from fastdeconv.explaining.additions import additions_of
from fastdeconv.report.listening import facts_of
from fastdeconv.report.tables import PLACE_COLUMNS

from .test_saved import SR, change, explain_command, make_network, read_tree, samples


@pytest.fixture(scope="module")
def explanation():
    return fd.explain((samples(), SR), make_network())


@pytest.fixture(scope="module")
def folder(explanation, tmp_path_factory):
    return explanation.save(
        tmp_path_factory.mktemp("out"), "song", trust=True, modes=["mask", "wiener"],
        rules="gradient_x_deviation",
    )


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def command(tmp_path):
    return explain_command(tmp_path)


def test_saving_by_other_rules_runs_the_network_forward_once(explanation, tmp_path, monkeypatch):
    passes, forward = [], fd.Network.forward
    monkeypatch.setattr(
        fd.Network, "forward", lambda net, x: passes.append(net) or forward(net, x)
    )
    assert len(explanation.maps) > 1
    explanation.save(tmp_path, rules="all")
    assert passes == [explanation.network]


def test_other_rules_start_from_the_values_that_were_given_for_each_feature(tmp_path):
    net = make_network()
    asked = [3, 1, 3]
    clip = fd.load_clip((samples(), SR), net.frontend)
    start = np.random.default_rng(0).random(
        (len(asked), *net.forward(clip.x)["pool1"].shape[1:]), np.float32
    )
    ex, wanted = (
        fd.explain(clip, net, "pool1", asked, rule, start) for rule in ("deconvnet", "gradient")
    )
    saved = fd.Explanation.load(ex.save(tmp_path, rules="gradient", audio_format="flac"))
    for k in set(asked):
        sound = saved.sound("pool1", k, "gradient")
        np.testing.assert_allclose(
            sound, wanted.sound("pool1", k), atol=2e-4 * np.abs(sound).max()
        )


# Where the strongest unit looks


def test_the_table_says_where_the_strongest_unit_of_each_feature_looks(explanation):
    trace = explanation.network.forward(explanation.clip.x)
    firing = [row for row in explanation.table if row["level"] is not None]
    assert len(firing) > 5
    for row in firing:
        plane = trace[row["layer"]][row["feature"]]
        unit = [int(at) for at in np.unravel_index(plane.argmax(), plane.shape)]
        place = trace.place(row["layer"], *unit)
        assert (row["unit_start"], row["unit_end"]) == place.seconds
        assert (row["unit_low"], row["unit_high"]) == place.hertz


def test_a_silent_feature_has_no_strongest_unit():
    ex = fd.explain((0 * samples(), SR), make_network(), "pool1")
    assert all(row["level"] is None for row in ex.table)
    assert {row["unit_start"] for row in ex.table} == {None}


# How far to believe


def test_what_trust_says_is_in_the_table_and_comes_back(explanation, folder):
    saved, asked = fd.Explanation.load(folder), explanation.trust()
    np.testing.assert_equal(saved.trust(), asked)
    assert [row["feature"] for row in saved.trust("pool2")] == [0, 1, 2, 3, 4, 5]
    with (folder / "features.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[-len(COLUMNS) :] == COLUMNS
    assert [row["verdict"] for row in rows] == [row["verdict"] for row in asked]
    for row, told in zip(rows, asked):
        missing = math.isnan(told["where"])
        assert row["where"] == ("" if missing else repr(told["where"]))


def test_trust_is_asked_once(explanation, folder, monkeypatch):
    monkeypatch.setattr("fastdeconv.belief.trust.trust", None)
    done = []
    explanation.trust("pool1", progress=lambda *told: done.append(told))
    assert done == []


def test_progress_of_trust_is_told_after_each_layer():
    done = []
    ex = fd.explain((samples(), SR), make_network())
    ex.trust(progress=lambda *told: done.append(told))
    assert done == [("pool1", 4, 10), ("pool2", 10, 10)]


def test_a_result_without_it_says_how_to_get_it(explanation, tmp_path):
    plain = fd.Explanation.load(explanation.save(tmp_path, "plain"))
    with pytest.raises(fd.ParameterError, match=r"trust=True"):
        plain.trust()
    assert not {*COLUMNS} & {*plain.table[0]}
    assert plain.table == explanation.table


def test_a_result_of_a_version_without_these_columns_is_read(explanation, tmp_path):
    folder = explanation.save(tmp_path, "old")
    with (folder / "features.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][-4:] == [*PLACE_COLUMNS]
    older = "".join(",".join(row[:-4]) + "\n" for row in rows)
    (folder / "features.csv").write_text(older, encoding="utf-8")
    wanted = [
        {key: value for key, value in row.items() if key not in PLACE_COLUMNS}
        for row in explanation.table
    ]
    assert fd.Explanation.load(folder).table == wanted


def test_a_song_has_no_verdict_and_says_what_to_do(tmp_path):
    song = fd.explain((samples(), SR), make_network(), duration="all")
    with pytest.raises(fd.ParameterError, match=r"one clip.*without duration"):
        song.trust()
    with pytest.raises(fd.ParameterError, match=r"one clip.*without duration"):
        fd.Explanation.load(song.save(tmp_path)).trust()
    with pytest.raises(fd.ParameterError, match=r"gradient_x_deviation.*for a clip"):
        fd.explain((samples(), SR), make_network(), duration="all", rule="gradient_x_deviation")


def test_a_network_without_weights_has_no_control():
    pool = fd.Network(
        [{"type": "max_pool2d", "name": "pool", "kernel_size": 2}], {}, (1, 33, None),
        frontend=fd.Frontend(sr=SR, n_fft=64, hop_length=32),
    )
    (row,) = fd.explain((samples(), SR), pool).trust()
    assert (row["verdict"], row["reason"]) == ("unsure", "no control")
    assert math.isnan(row["control_yes_rate"]) and row["yes_rate"] == 0


def test_a_waveform_is_tried_in_pieces_of_its_length(tmp_path):
    rng = np.random.default_rng(0)
    frontend = fd.Frontend(
        kind="waveform", sr=SR, n_fft=64, hop_length=32, win_length=64, frames=2000
    )
    net = fd.Network(
        [
            {"type": "conv2d", "name": "conv", "padding": "same"},
            {"type": "relu", "name": "relu"},
            {"type": "max_pool2d", "name": "pool", "kernel_size": [1, 8]},
        ],
        {"conv.weight": rng.standard_normal((5, 1, 1, 9)), "conv.bias": np.zeros(5)},
        (1, 1, 2000), frontend=frontend,
    )
    ex = fd.explain((samples(), SR), net)
    rows = ex.trust()
    assert all(-1 <= row["where"] <= 1 for row in rows)
    saved = fd.Explanation.load(ex.save(tmp_path, trust=True, modes="all", rules="all"))
    np.testing.assert_equal(saved.trust(), rows)
    assert {row["unit_low"] for row in saved.table} == {None}
    assert all(0 <= row["unit_start"] < row["unit_end"] <= 0.25 for row in saved.table)


# Other rules and modes


def test_other_rules_and_modes_are_sounds_of_their_maps(explanation, folder):
    saved, net, clip = fd.Explanation.load(folder), explanation.network, explanation.clip
    assert saved.versions == ["gradient_x_deviation", "wiener"]
    trace = net.forward(clip.x)
    for layer, features in explanation.features.items():
        maps = feature_maps(trace, clip.frontend.layout, layer, rule="gradient_x_deviation")
        wanted = {
            "gradient_x_deviation": fd.auralise(clip, maps),
            "wiener": fd.auralise(clip, explanation.maps[layer], "wiener"),
        }
        for version, sounds in wanted.items():
            for k in features:
                found = saved.sound(layer, k, version)
                step = np.abs(sounds[k]).max() / 32768 / 0.89
                np.testing.assert_allclose(found, sounds[k], atol=0.6 * step)
                for picture in (f"feature_{k}.png", f"map_{k}.png"):
                    assert (folder / layer / version / picture).is_file()


def test_gradient_times_deviation_by_its_definition(explanation, tmp_path):
    net, x = explanation.network, explanation.clip.x
    trace = net.forward(x)
    gradient = fd.deconvolve(trace, "pool2", [1, 4], rule="gradient", start="one")
    deviation = x - x.mean(axis=2, keepdims=True)
    found = feature_maps(trace, "CFT", "pool2", [1, 4], rule="gradient_x_deviation")
    np.testing.assert_allclose(found, gradient * deviation, rtol=1e-4, atol=1e-6)
    ex = fd.explain(explanation.clip, net, "pool2", [1, 4], rule="gradient_x_deviation")
    np.testing.assert_array_equal(ex.maps["pool2"], found)
    facts = dict(facts_of(fd.Explanation.load(ex.save(tmp_path)).manifest))
    assert facts["rule"] == "gradient × deviation, from 1 everywhere of each feature"


@pytest.mark.parametrize("rule", FEATURE_RULES)
def test_every_rule_can_be_the_first_and_is_then_not_repeated(rule):
    additions = additions_of({"rule": rule}, "phase", rules="all", modes="all")
    others = [other for other in FEATURE_RULES if other != rule]
    assert [version.key for version in additions.versions] == [*others, "mask", "wiener"]


@pytest.mark.parametrize("asked", [{"rules": ["deep"]}, {"modes": "loud"}, {"rules": 3}])
def test_rules_and_modes_that_do_not_exist_are_refused(explanation, tmp_path, asked):
    with pytest.raises(fd.ParameterError, match=r"rules|modes"):
        explanation.save(tmp_path, "x", **asked)
    assert not list(tmp_path.iterdir())


def test_versions_that_are_not_there_are_named(folder):
    with pytest.raises(fd.ParameterError, match="'phase'; there are gradient_x_deviation, wiener"):
        fd.Explanation.load(folder).sound("pool1", 0, "phase")


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["versions"][0].update(key="../../elsewhere"),
        lambda m: m["versions"][0].update(rule="deep"),
        lambda m: m.update(versions=7),
        lambda m: m["layers"][0]["versions"].pop("wiener"),
        lambda m: m["layers"][0]["versions"]["wiener"]["gains"].update({"0": 0}),
        lambda m: m["layers"][0]["versions"]["wiener"]["rms"].update({"0": "loud"}),
    ],
)
def test_what_a_manifest_says_of_versions_is_not_trusted(copy, edit):
    change(copy, edit)
    with pytest.raises(fd.ParameterError, match="copy"):
        fd.Explanation.load(copy)


@pytest.mark.parametrize("old, new", [("unsure", "certain"), (",verdict,", ",word,")])
def test_what_a_table_says_of_trust_is_not_believed(copy, old, new):
    table = copy / "features.csv"
    table.write_text(table.read_text().replace(old, new).replace("yes,", f"{new},"))
    with pytest.raises(fd.ParameterError, match="copy"):
        fd.Explanation.load(copy)


# The command


def test_more_is_added_to_what_is_there_and_less_leaves_it_as_it_is(command, tmp_path):
    common = ["--layers", "pool1"]
    assert command("out", *common).exit_code == 0
    assert command("out", *common, "--trust").exit_code == 0
    more = [*common, "--trust", "--rules", "guided,deconvnet", "--modes", "wiener"]
    result = command("out", *more)
    assert result.exit_code == 0, result.output
    assert "already there, with the same settings" in command("out", *more).stdout
    saved = fd.Explanation.load(tmp_path / "out" / "song")
    assert saved.versions == ["guided", "wiener"] and "verdict" in saved.table[0]
    before = read_tree(tmp_path / "out")
    less = command("out", *common, "--rules", "guided")
    assert less.exit_code == 0, less.output
    assert (
        "already there, with the same settings, and more: verdicts (--trust); other rules and "
        "modes (wiener)." in less.stdout
    )
    assert read_tree(tmp_path / "out") == before
    other = command("out", *common, "--rules", "gradient")
    assert other.exit_code == 1
    assert "differs in other rules and modes, trust: --overwrite replaces it" in other.stderr


def test_a_result_with_verdicts_has_all_that_one_without_them_has(command, tmp_path):
    assert command("with", "--trust").exit_code == command("without").exit_code == 0
    more, less = (read_tree(tmp_path / name / "song") for name in ("with", "without"))
    told = {"features.csv", "index.html", "manifest.json"}
    assert {name: more[name] for name in less.keys() - told} == {
        name: less[name] for name in less.keys() - told
    }
    rows, fewer = (
        fd.Explanation.load(tmp_path / name / "song").table for name in ("with", "without")
    )
    names = fewer[0].keys()
    assert [{name: row[name] for name in names} for row in rows] == fewer


def test_layers_added_later_have_the_same_as_the_others(command, tmp_path):
    beside = ["--trust", "--rules", "guided", "--modes", "wiener"]
    assert command("at-once", "--layers", "pool1,pool2", *beside).exit_code == 0
    assert command("step", "--layers", "pool1", *beside).exit_code == 0
    result = command("step", "--layers", "pool1,pool2", *beside)
    assert "Computed: pool2. Taken over from before: pool1." in result.stdout
    assert read_tree(tmp_path / "step" / "song") == read_tree(tmp_path / "at-once" / "song")


@pytest.mark.parametrize("options, said", [
    (["--trust", "--duration", "all"], "not for a song of many windows: leave --duration out"),
    (["--modes", "phase", "--duration", "3"], "leave --duration out"),
    (["--rules", "deep"], "'deep' is not one of deconvnet, guided, gradient"),
    (["--modes", "mask,,"], "'' is not one of mask, phase, wiener"),
])
def test_what_cannot_be_asked_is_said_before_anything_is_done(command, tmp_path, options, said):
    result = command("out", *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_page_holds_valid_json_where_numbers_are_missing(tmp_path):
    ex = fd.explain((0 * samples(), SR), make_network())
    folder = ex.save(tmp_path, "silent", trust=True)
    data = fd.Explanation.load(folder).page()
    assert json.dumps(data, allow_nan=False)
    verdicts = {one["verdict"] for layer in data["layers"] for one in layer["features"]}
    assert verdicts == {"silent"}


def test_maps_that_were_saved_are_kept_when_more_is_asked_for(command, tmp_path):
    assert command("out").exit_code == 0
    net = fd.Network.load(tmp_path / "net.npz")
    ex = fd.explain(str(tmp_path / "song.wav"), net, num_threads=1)
    ex.save(tmp_path / "out", "song", maps=True, overwrite=True)
    found = command("out", "--trust")
    assert found.exit_code == 0, found.output
    saved = fd.Explanation.load(tmp_path / "out/song")
    for layer, maps in ex.maps.items():
        np.testing.assert_array_equal(saved.maps(layer), maps)
    assert saved.trust()


@pytest.mark.parametrize("damage", [
    lambda manifest: manifest["layers"][0]["versions"]["wiener"]["rms"].popitem(),
    lambda manifest: manifest["layers"][0]["versions"]["wiener"]["gains"].update({"99": 1.0}),
])
def test_a_result_that_lacks_a_feature_of_a_version_is_refused(copy, damage):
    manifest = json.loads((copy / "manifest.json").read_text())
    damage(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(fd.ParameterError, match="has not the same features by wiener"):
        fd.Explanation.load(copy)


def test_a_result_with_a_verdict_and_no_share_is_refused(copy):
    with (copy / "features.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["yes_rate"] = ""
    with (copy / "features.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(fd.ParameterError, match="yes_rate"):
        fd.Explanation.load(copy)
