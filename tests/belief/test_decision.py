"""A decision as a whole: its table against the definitions, its maps against PyTorch and Captum,
what a user meets."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.belief.metrics import complexity, own_mask, sparseness, top_mask
from fastdeconv.belief.passes import scores_of_constant
from fastdeconv.belief.rules import METHODS, cam_layer
from fastdeconv.deconvnet.scores import scores_of
from fastdeconv.errors import ParameterError

from . import reference

# ---- its table, by the definitions ----


def scores(net: fd.Network, x: np.ndarray) -> np.ndarray:
    """(classes, places)"""
    out = net.forward(x)[net.layers[-1].name].astype(np.float64)
    return out.reshape(len(out), -1)


def of_the_sound(
    clip: fd.Clip, net: fd.Network, kind: str, mask: np.ndarray, c: int
) -> dict[str, float]:
    def through(m: np.ndarray) -> np.ndarray:
        sound = fd.auralise(clip, m[None].astype(np.float32))[0]
        return scores(net, fd.Clip(sound, clip.sr, clip.frontend).x)

    found = reference.of_the_sound(kind, scores(net, clip.x), through(mask), through(1 - mask), c)
    return {**found, "energy": reference.energy(clip.stft.astype(np.complex128), mask)}


def numbers(
    clip: fd.Clip, net: fd.Network, kind: str, e: np.ndarray, c: int
) -> dict[str, float]:
    found = {}
    for fill, end in (("band_mean", ""), ("min", "_min")):
        for name, value in reference.flipping(
            lambda x: scores(net, x), kind, clip.x, e, c, fill
        ).items():
            found[f"{name}{end}"] = value
    found |= of_the_sound(clip, net, kind, reference.own_mask(e), c)
    for name, value in of_the_sound(clip, net, kind, reference.top_mask(e), c).items():
        found[f"{name}_top"] = value
    return {**found, "sps": reference.sps(e), "comp": reference.comp(e)}


# ---- numbers ----


@pytest.mark.parametrize("kind, classes, ends", [
    ("softmax", 3, "mean"), ("softmax", 2, "frames"), ("sigmoid", 3, "mean"),
    ("sigmoid", 1, "mean"),
])
def test_the_table_follows_the_definitions(
    clip: fd.Clip, make_net: Any, kind: str, classes: int, ends: str
) -> None:
    net = make_net(clip.frontend, clip.x.shape, classes=classes, ends=ends, output=kind)
    why = fd.decision(clip, net, ["c0"], ["integrated_gradients", "guided", "cam"])
    rows = {(row["method"], row["of"]): row for row in why.table}
    for method in why.methods:
        e = reference.blurred(why.maps["c0", method], method)
        np.testing.assert_allclose(why.heard_map("c0", method), e, atol=1e-9)
        for name, value in numbers(clip, net, kind, why.heard_map("c0", method), 0).items():
            assert rows[method, None][name] == pytest.approx(value, abs=1e-4), (method, name)
    spectrogram = numbers(clip, net, kind, clip.x[0].astype(np.float64), 0)
    assert rows["input", None]["srg"] == pytest.approx(spectrogram["srg"], abs=1e-5)
    band = np.repeat(clip.x[0].mean(axis=1, keepdims=True), clip.x.shape[2], axis=1)
    assert rows["band_mean", None]["comp"] == pytest.approx(complexity(band), abs=1e-4)
    assert (("runner_up", "cam") in rows) == (classes > 1)


def test_the_table_of_the_bundled_network(bundled: fd.Network, song: fd.Clip) -> None:
    why = fd.decision(song, bundled, ["orchestral"])
    row = why.table[0]
    wanted = numbers(song, bundled, "softmax", why.heard_map("orchestral", why.methods[0]), 2)
    for name, value in wanted.items():
        assert row[name] == pytest.approx(value, abs=1e-3), name


def test_the_runner_up_is_the_map_of_the_likeliest_other_class(
    clip: fd.Clip, net: fd.Network
) -> None:
    why = fd.decision(clip, net, ["c1"], "cam")
    others = sorted(({"c0", "c2"}), key=lambda name: -why.scores[name].probability)
    e = fd.decision(clip, net, others[:1], "cam").maps[others[0], "cam"]
    (row,) = (row for row in why.table if row["method"] == "runner_up")
    assert row["srg"] == pytest.approx(numbers(clip, net, "softmax", e, 1)["srg"], abs=1e-5)


def test_masks_and_sizes() -> None:
    e = np.array([[1.0, -4.0, 0.5], [1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(own_mask(e), [[1, 0, 0.5], [1, 0, 1]])
    np.testing.assert_array_equal(top_mask(e), [[1, 0, 0], [0, 0, 0]])  # 1.2 bins; first of three
    assert not own_mask(-np.abs(e)).any()
    assert math.isnan(sparseness(0 * e)) and math.isnan(complexity(0 * e))
    assert sparseness(np.eye(4)) == pytest.approx(0.75)
    assert complexity(np.ones((2, 3))) == pytest.approx(math.log(6))


# ---- maps, beside PyTorch and Captum ----


@pytest.fixture(scope="module")
def torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def module(torch: Any, net: fd.Network) -> Any:
    """The network in PyTorch and float64."""
    made = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3),
    ).double()
    for layer, name in ((0, "conv1"), (3, "conv2"), (8, "fc")):
        for key in ("weight", "bias"):
            values = torch.from_numpy(net.arrays[f"{name}.{key}"].astype(np.float64))
            getattr(made[layer], key).data = values
    return made


@pytest.fixture(scope="module")
def odds(torch: Any, module: Any) -> Any:
    def log_odds(x: Any) -> Any:
        z = module(x)
        return z[:, 1] - torch.logsumexp(z[:, [0, 2]], dim=1)

    return log_odds


@pytest.fixture(scope="module")
def why(clip: fd.Clip, net: fd.Network) -> fd.Decision:
    return fd.decision(clip, net, ["c1"], "all")


@pytest.fixture(scope="module")
def x(torch: Any, clip: fd.Clip) -> Any:
    return torch.from_numpy(clip.x.astype(np.float64))[None].requires_grad_()


def test_the_gradient_is_of_the_log_odds(torch: Any, odds: Any, x: Any, why: fd.Decision) -> None:
    (wanted,) = torch.autograd.grad(odds(x)[0], x)
    np.testing.assert_allclose(why.maps["c1", "gradient"], wanted[0, 0], atol=1e-6)
    deviation = x.detach() - x.detach().mean(dim=3, keepdim=True)
    np.testing.assert_allclose(
        why.maps["c1", "gradient_x_deviation"], (wanted * deviation)[0, 0], atol=1e-6
    )


def test_integrated_gradients_are_captums(
    torch: Any, odds: Any, x: Any, why: fd.Decision, clip: fd.Clip, net: fd.Network
) -> None:
    attr = pytest.importorskip("captum.attr")
    silence = torch.full_like(x, float(clip.x.min()))
    wanted = attr.IntegratedGradients(odds).attribute(
        x, silence, n_steps=12, method="riemann_middle"
    )
    np.testing.assert_allclose(
        why.maps["c1", "integrated_gradients"], wanted[0, 0].detach(), atol=1e-5
    )
    found, whole = why.completeness["c1"]
    assert whole == pytest.approx((odds(x) - odds(silence)).item(), abs=1e-4)
    assert found == pytest.approx(wanted.sum().item(), abs=1e-4)
    more = fd.decision(clip, net, ["c1"], steps=100).completeness["c1"]
    assert abs(more[0] - more[1]) < 0.02 * abs(more[1])


def test_class_activation_maps_are_captums(
    odds: Any, x: Any, module: Any, why: fd.Decision
) -> None:
    attr = pytest.importorskip("captum.attr")
    assert why.network.layers[cam_layer(why._trace)].name == "relu1"
    found = attr.LayerGradCam(odds, module[1]).attribute(x, relu_attributions=True)
    wanted = attr.LayerAttribution.interpolate(found, tuple(x.shape[2:]), "bilinear")
    np.testing.assert_allclose(why.maps["c1", "cam"], wanted[0, 0].detach(), atol=1e-6)


def test_guided_and_deconvnet_start_from_one_at_the_score(
    why: fd.Decision, clip: fd.Clip, net: fd.Network
) -> None:
    trace = net.forward(clip.x)
    for rule in ("guided", "deconvnet"):
        wanted = fd.deconvolve(trace, "class:c1", rule=rule)[0, 0]
        np.testing.assert_allclose(why.maps["c1", rule], wanted, rtol=1e-6, atol=1e-9)


def test_occlusion_is_of_the_log_odds(why: fd.Decision, clip: fd.Clip, net: fd.Network) -> None:
    np.testing.assert_allclose(
        why.maps["c1", "occlusion"], fd.occlude(clip, net, [], ["c1"]).class_map("c1")
    )


def test_versus_explains_the_difference_of_two_scores(
    torch: Any, module: Any, x: Any, clip: fd.Clip, net: fd.Network
) -> None:
    why = fd.decision(clip, net, ["c1"], ["gradient", "occlusion"], versus="c2")
    z = module(x)[0]
    (wanted,) = torch.autograd.grad(z[1] - z[2], x)
    np.testing.assert_allclose(why.maps["c1", "gradient"], wanted[0, 0], atol=1e-6)
    means = x.detach().mean(dim=3, keepdim=True).expand_as(x)
    drops = fd.decision(clip, net, ["c1"], ["occlusion"], versus="c2").maps["c1", "occlusion"]
    changed = x.detach().clone()
    changed[..., :16, :16] = means[..., :16, :16]
    z2 = module(changed)[0]
    assert drops[0, 0] == pytest.approx((z[1] - z[2] - z2[1] + z2[2]).item(), abs=1e-5)
    # The probability is that of a choice between the two.
    row = next(row for row in why.table if row["method"] == "occlusion")
    e = why.heard_map("c1", "occlusion")
    pair = fd.Network(
        net.layers, {**net.arrays, "fc.weight": net.arrays["fc.weight"][1:],
                     "fc.bias": net.arrays["fc.bias"][1:]},
        net.input_shape, frontend=net.frontend, classes=["c1", "c2"], output="softmax",
    )
    for name, value in numbers(clip, pair, "softmax", e, 0).items():
        assert row[name] == pytest.approx(value, abs=1e-4), name


# ---- what a user meets ----


def test_all_rules_are_there_for_the_likeliest_classes(why: fd.Decision, clip: fd.Clip) -> None:
    assert tuple(why.methods) == METHODS
    assert [*why.maps] == [("c1", method) for method in METHODS]
    assert sum(score.probability for score in why.scores.values()) == pytest.approx(1)
    default = fd.decision(clip, why.network)
    assert default.methods == ["integrated_gradients"]
    best = max(default.scores, key=lambda name: default.scores[name].probability)
    assert default.classes[0] == best
    assert all(default.scores[name].probability > 1 / 3 for name in default.classes)


def test_sounds_for_against_and_what_is_left(why: fd.Decision, clip: fd.Clip) -> None:
    e = why.heard_map("c1", "gradient")
    for part, mask in (("for", own_mask(e)), ("against", own_mask(-e)), ("left", 1 - own_mask(e))):
        wanted = fd.auralise(clip, mask[None].astype(np.float32))[0]
        np.testing.assert_array_equal(why.sound("c1", "gradient", part), wanted)
    assert not why.sound("c1", "cam", "against").any()
    both = why.sound("c1", "cam") + why.sound("c1", "cam", "left")
    np.testing.assert_allclose(both[:-32], clip.samples[:-32], atol=1e-5)  # the end fades out


def test_notes_say_what_a_reader_has_to_know(clip: fd.Clip, make_net: Any) -> None:
    net = make_net(clip.frontend, clip.x.shape, output=None)
    least = min(
        (scores := fd.decision(clip, net).scores), key=lambda name: scores[name].probability
    )
    notes = fd.decision(clip, net, [least], steps=1).notes
    assert any("softmax is assumed" in note for note in notes)
    assert any("no more than chance" in note for note in notes)
    silent = fd.Clip(np.zeros(760, np.float32), 8000, clip.frontend)
    why = fd.decision(silent, net, ["c0"])
    assert any("silent" in note for note in why.notes)
    row = why.table[0]
    assert row["srg"] == 0 and row["sps"] is None and row["energy"] is None
    assert why.verdict("c0").startswith("No explanation found")
    assert not why.sound("c0").any()


def test_the_bits_do_not_depend_on_the_number_of_threads(
    clip: fd.Clip, net: fd.Network
) -> None:
    found = []
    for threads in (1, 3):
        with fd.config(num_threads=threads):
            why = fd.decision(clip, net, ["c0", "c1"], "all")
            found.append((why.maps, why.table, fd.explain(clip, net, "pool2").trust()))
    for key, plane in found[0][0].items():
        np.testing.assert_array_equal(plane, found[1][0][key])
    np.testing.assert_equal(found[0][1:], found[1][1:])


@pytest.mark.parametrize("arguments, words", [
    ({"classes": ["rock"]}, "there is no class 'rock'; classes: 'c0', 'c1', 'c2'"),
    ({"classes": []}, "at least one class"),
    ({"methods": ["lime"]}, "there is no method 'lime'; methods: integrated_gradients"),
    ({"methods": []}, "at least one method"),
    ({"classes": ["c1"], "versus": "c1"}, "versus is the class 'c1' itself"),
    ({"versus": 3}, "versus must be the name of a class"),
    ({"steps": 0}, "steps must be an int from 1"),
    ({"offset": 1.0}, "offset is for files"),
])
def test_bad_input_is_refused(
    clip: fd.Clip, net: fd.Network, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        fd.decision(clip, net, **arguments)


def test_what_was_not_asked_for_is_said(why: fd.Decision) -> None:
    with pytest.raises(ParameterError, match="class 'c2' was not explained; there are 'c1'"):
        why.sound("c2")
    with pytest.raises(ParameterError, match="method 'lime' was not asked for"):
        why.sound("c1", "lime")
    with pytest.raises(ParameterError, match="part must be one of for, against, left"):
        why.sound("c1", part="rest")


def test_classes_without_names_go_by_number(clip: fd.Clip, net: fd.Network) -> None:
    nameless = fd.Network(net.layers, net.arrays, net.input_shape, frontend=net.frontend)
    why = fd.decision(clip, nameless, "1", "cam")
    np.testing.assert_array_equal(
        why.maps["1", "cam"], fd.decision(clip, net, "c1", "cam").maps["c1", "cam"]
    )


def test_the_only_class_cannot_be_compared_with_another(
    bundled: fd.Network, song: fd.Clip
) -> None:
    one = fd.Network(
        [{"type": "conv2d", "name": "conv", "bias": False},
         {"type": "global_avg_pool2d", "name": "mean"}],
        {"conv.weight": np.ones((1, 1, 3, 3))}, input_shape=(1, 257, 173),
        frontend=bundled.frontend, classes=["voice"], output="sigmoid",
    )
    with pytest.raises(ParameterError, match="has no other class than versus, 'voice'"):
        fd.decision(song, one, versus="voice")


def test_silence_goes_through_a_network_once(
    clip: fd.Clip, make_net: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(clip.frontend, clip.x.shape)
    silence = np.full(clip.x.shape, clip.x.min(), np.float32)
    found = scores_of_constant(net, clip.x.shape, clip.x.min())
    np.testing.assert_array_equal(found, scores_of(net.forward(silence)))
    monkeypatch.setattr(fd.Network, "forward", None)
    np.testing.assert_array_equal(scores_of_constant(net, clip.x.shape, clip.x.min()), found)


def test_scores_of_silence_are_those_of_the_back_end_in_use(clip: fd.Clip, make_net: Any) -> None:
    net = make_net(clip.frontend, clip.x.shape)
    silence = np.full(clip.x.shape, clip.x.min(), np.float32)
    for name in fd.available_backends():
        with fd.config(backend=name):
            found = scores_of_constant(net, clip.x.shape, clip.x.min())
            np.testing.assert_array_equal(found, scores_of(net.forward(silence)))
