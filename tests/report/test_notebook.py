from __future__ import annotations

import base64
import importlib.resources
import io
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

import fastdeconv as fd
from fastdeconv.report import notebook

SR = 8000
FRONTEND = {"kind": "stft", "sr": SR, "n_fft": 64, "hop_length": 32}
HOSTILE = "<img src=x onerror=alert(1)>"


def make_explanation(names=("relu1", "relu2"), seconds=0.08, silent=(), **how):
    """Of a network of two convolutions, 4 and 6 features; those in `silent` are dead in relu2."""
    rng = np.random.default_rng(0)
    bias = np.zeros(6)
    bias[list(silent)] = -1e6
    net = fd.Network(
        [
            {"type": "conv2d", "name": "conv1", "padding": "same"},
            {"type": "relu", "name": names[0]},
            {"type": "conv2d", "name": "conv2", "padding": "same"},
            {"type": "relu", "name": names[1]},
        ],
        {
            "conv1.weight": rng.standard_normal((4, 1, 3, 3)), "conv1.bias": np.ones(4),
            "conv2.weight": rng.standard_normal((6, 4, 3, 3)), "conv2.bias": bias,
        },
        (1, None, None),
        frontend=how.pop("frontend", FRONTEND),
        name=how.pop("name", "tiny"),
    )
    samples = (0.2 * rng.standard_normal(round(seconds * SR))).astype(np.float32)
    return fd.explain(how.pop("clip", (samples, SR)), net, **how)


class Fragment(HTMLParser):
    """The elements of a piece of HTML, by name, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data} "

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def pictures(self):
        return [
            Image.open(io.BytesIO(_content(img["src"], "image/png"))) for img in self.all("img")
        ]

    def sounds(self):
        return [
            soundfile.read(io.BytesIO(_content(audio["src"], "audio/ogg")))
            for audio in self.all("audio")
        ]


def _content(source, kind):
    head, data = source.split(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


@pytest.fixture(scope="module")
def explanation():
    return make_explanation()


# The overview


def decided():
    rng = np.random.default_rng(0)
    net = fd.Network(
        [
            {"type": "conv2d", "name": "conv1"}, {"type": "relu"},
            {"type": "global_avg_pool2d"}, {"type": "flatten"}, {"type": "linear", "name": "fc"},
        ],
        {
            "conv1.weight": rng.standard_normal((4, 1, 3, 3)), "conv1.bias": np.ones(4),
            "fc.weight": rng.standard_normal((3, 4)), "fc.bias": np.zeros(3),
        },
        (1, None, None), frontend=FRONTEND, classes=["rock", "<b>jazz</b>", "folk"],
        output="softmax",
    )
    samples = (0.2 * rng.standard_normal(SR // 4)).astype(np.float32)
    return fd.decision((samples, SR), net, methods=["cam", "gradient"], classes=net.classes[:2])


def test_a_decision_has_a_picture_and_a_player_of_the_clip_and_of_every_map():
    why = decided()
    fragment = Fragment(why._repr_html_())
    heard = [why.sound(name, method, "for").any() for name, method in why.maps]
    assert len(fragment.pictures()) == 1 + 4
    assert len(fragment.sounds()) == 1 + sum(heard)
    assert "<b>jazz</b>" in fragment.text and "cam" in fragment.text
    assert "<b>jazz</b>" not in why._repr_html_()


def test_a_decision_of_many_classes_shows_the_first_and_says_how_many_more_there_are(monkeypatch):
    monkeypatch.setattr("fastdeconv.report.decision.CLASSES", 1)
    fragment = Fragment(decided()._repr_html_())
    assert len(fragment.pictures()) == 1 + 2
    assert "1 more classes were explained" in fragment.text


def test_a_damaged_result_is_named(tmp_path, explanation):
    folder = explanation.save(tmp_path, "it")
    (folder / "original.png").unlink()
    saved = fd.Explanation.load(folder)
    with pytest.raises(fd.ParameterError, match=r"it: .*original\.png"):
        saved._repr_html_()


def test_a_saved_result_shows_what_the_explanation_showed(tmp_path, explanation):
    saved = fd.Explanation.load(explanation.save(tmp_path, "it"))
    one, other = (Fragment(shown._repr_html_()) for shown in (explanation, saved))
    assert len(other.pictures()) == len(one.pictures()) == 1 + 2 * notebook.FEATURES
    assert len(other.sounds()) == len(one.sounds())
    assert all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(one.pictures(), other.pictures())
    )
    assert "index.html" in other.text and ".save(folder)" not in other.text


def test_a_song_has_a_player_and_a_time_line_of_every_layer():
    song = make_explanation(seconds=0.5, duration="all")
    fragment = Fragment(song._repr_html_())
    assert len(fragment.sounds()) == 1
    assert [picture.size[1] for picture in fragment.pictures()] == [
        len(values) for values in song.timeline.values()
    ]


def test_the_overview_has_a_picture_and_a_player_of_the_clip_and_of_every_feature(explanation):
    shown = Fragment(explanation._repr_html_())
    names = [
        f"{layer}/{row['feature']}"
        for layer in explanation.maps for row in explanation.ranked(layer)[:3]
    ]
    assert [audio["aria-label"] for audio in shown.all("audio")] == ["The original", *names]
    assert [img["alt"] for img in shown.all("img")] == [
        "Spectrogram of the original", *(f"What is heard of {name}" for name in names)
    ]
    assert {audio["preload"] for audio in shown.all("audio")} == {"none"}
    assert {picture.size for picture in shown.pictures()} == {(21, 120)}
    for samples, rate in shown.sounds():
        assert (rate, len(samples)) == (SR, explanation.clip.samples.size)
        assert np.abs(samples).max() > 0.1


def test_pictures_are_those_that_save_writes(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    original, first, *_ = Fragment(explanation._repr_html_()).all("img")
    k = explanation.ranked("relu1")[0]["feature"]
    for img, file in ((original, "original.png"), (first, f"relu1/feature_{k}.png")):
        assert _content(img["src"], "image/png") == (folder / file).read_bytes()


def test_label_and_three_numbers_stand_under_a_feature(explanation):
    text = Fragment(explanation._repr_html_()).text
    row = explanation.ranked("relu2")[0]
    said = "level {level:.1f} dB, centroid {centroid:.0f} Hz, onset {onset:.2f}".format(**row)
    assert said.replace("-", "−") in text
    assert row["label"] in text


def test_silent_features_are_counted_not_shown():
    shown = Fragment(make_explanation(silent=[0, 1, 2, 3])._repr_html_())
    assert "the 2 to hear first, of 6; 4 silent in this clip" in shown.text
    assert {a["aria-label"] for a in shown.all("audio")} >= {"relu2/4", "relu2/5"}
    assert len(shown.all("audio")) == 1 + 3 + 2
    assert "all 6 silent in this clip" in make_explanation(silent=range(6))._repr_html_()


def test_an_explanation_without_features_or_layers_still_shows_the_clip():
    for how, said in (({"features": []}, "no features"), ({"layers": []}, "No layers")):
        shown = Fragment(make_explanation(**how)._repr_html_())
        assert said in shown.text
        assert len(shown.all("audio")) == len(shown.all("img")) == 1


def test_names_from_outside_stay_text():
    script = "'\"><script>"
    explanation = make_explanation(names=(HOSTILE, script), name=HOSTILE)
    explanation.name = f"{HOSTILE}\x1b[31m"
    for view in (explanation, explanation.show(HOSTILE, 1), explanation.show(script, 2)):
        html = view._repr_html_()
        shown = Fragment(html)
        assert HOSTILE in shown.text or script in shown.text
        assert not shown.all("script")
        assert all(set(img) == {"src", "alt", "style"} for img in shown.all("img"))
        assert "\x1b" not in html


def test_nothing_is_loaded_from_elsewhere_and_no_text_is_coloured(explanation):
    for view in (explanation, explanation.show("relu1", 0)):
        shown = Fragment(view._repr_html_())
        assert not {name for name, _ in shown.elements} & {"script", "link", "style", "a", "iframe"}
        styles = [attrs.get("style", "") for _, attrs in shown.elements]
        assert not any(part.strip().startswith(("color:", "background"))
                       for style in styles for part in style.split(";"))


def test_a_long_clip_is_cut_to_what_a_notebook_can_keep(monkeypatch):
    explanation = make_explanation(seconds=3, features=[0])
    whole = len(explanation._repr_html_())
    monkeypatch.setattr(notebook, "SECONDS", 1)
    monkeypatch.setattr(notebook, "COLUMNS", 100)
    shown = Fragment(html := explanation._repr_html_())
    assert len(html) < whole / 2
    assert "Players hold the first 1 s" in shown.text
    assert {len(samples) for samples, _ in shown.sounds()} == {SR}
    assert {picture.size for picture in shown.pictures()} == {(100, 120)}


def test_five_layers_of_the_demo_take_less_than_700_kb():
    demo = importlib.resources.files("fastdeconv") / "data" / "demo.flac"
    assert len(fd.explain(demo)._repr_html_()) < 700_000


def test_a_rate_that_vorbis_does_not_take_is_shown_as_wav():
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    fast = make_explanation(frontend={**FRONTEND, "sr": 400_000}, clip=(samples, 400_000))
    players = Fragment(fast._repr_html_()).all("audio")
    for player in players:
        sound, _ = soundfile.read(io.BytesIO(_content(player["src"], "audio/wav")))
        assert len(sound) == 4000


# One feature


@pytest.mark.parametrize("mode", ["mask", "phase"])
def test_show_has_three_pictures_two_players_and_every_number(mode):
    explanation = make_explanation(mode=mode)
    view = explanation.show("relu2", 3)
    shown = Fragment(view._repr_html_())
    assert [picture.size for picture in shown.pictures()] == [(21, 120)] * 3
    assert all(img["alt"] for img in shown.all("img"))
    assert [audio["aria-label"] for audio in shown.all("audio")] == ["The original", "relu2/3"]
    (original, _), (feature, _) = shown.sounds()
    assert len(original) == len(feature) == explanation.clip.samples.size
    assert len(shown.all("tr")) == 1 + len(notebook.NUMBERS)
    own = explanation.clip_numbers
    assert f"centroid {view.row['centroid']:.0f} Hz {own['centroid']:.0f} Hz" in shown.text
    assert f"Number {view.row['rank']} of 6" in shown.text


def test_the_picture_of_the_map_is_that_of_save(tmp_path, explanation):
    folder = explanation.save(tmp_path)
    _, shown, heard = Fragment(explanation.show("relu2", 3)._repr_html_()).all("img")
    for img, name in ((shown, "map_3"), (heard, "feature_3")):
        assert _content(img["src"], "image/png") == (folder / "relu2" / f"{name}.png").read_bytes()


def test_a_silent_feature_can_be_shown():
    view = make_explanation(silent=[2]).show("relu2", 2)
    assert "silent" in repr(view)
    assert "level – –" in Fragment(view._repr_html_()).text


def test_a_twin_says_of_whom():
    explanation = make_explanation()
    explanation.maps["relu2"][1] = 0.5 * explanation.maps["relu2"][0]
    assert "twin of 0" in Fragment(explanation.show("relu2", 1)._repr_html_()).text


def test_a_network_whose_rows_are_time_gets_upright_pictures():
    explanation = make_explanation(frontend={**FRONTEND, "layout": "CTF"})
    for picture in Fragment(explanation.show("relu2", 0)._repr_html_()).pictures():
        assert picture.size == (21, 120)


def test_the_repr_of_a_view_is_one_line(explanation):
    view = explanation.show("relu1", 2)
    assert repr(view).startswith(f"<Feature 2 of 'relu1', rank {view.row['rank']}")
    assert repr(view).endswith(", in 'clip'>")


@pytest.mark.parametrize("method", ["show", "plot"])
def test_what_was_not_explained_is_an_error_at_once(explanation, method):
    with pytest.raises(fd.ParameterError, match=r"'pool9' was not explained.*relu1, relu2"):
        getattr(explanation, method)("pool9", 0)
    with pytest.raises(fd.ParameterError, match=r"feature 6 of layer 'relu2'.*0-5"):
        getattr(explanation, method)("relu2", 6)


# Drawn by matplotlib


def drawn(figure):
    """The axes with spectrograms; the last of all is the colour bar."""
    return figure.axes[:-1]


@pytest.mark.parametrize(
    ("features", "count"), [(None, 4), (2, 1), (np.int64(2), 1), ([3, 1, 2], 3), ([], 0)]
)
def test_plot_has_as_many_axes_as_features(explanation, features, count):
    pytest.importorskip("matplotlib")
    figure = explanation.plot("relu1", features, columns=2)
    assert len(drawn(figure)) == count
    assert Image.open(io.BytesIO(figure._repr_png_())).format == "PNG"


def test_by_default_what_to_hear_first_is_plotted_and_nothing_silent():
    pytest.importorskip("matplotlib")
    explanation = make_explanation(silent=[0, 3])
    titles = [ax.get_title().split()[0] for ax in drawn(explanation.plot("relu2"))]
    ranked = [row["feature"] for row in explanation.ranked("relu2")][:4]
    assert titles == [f"relu2/{k}" for k in ranked]
    assert drawn(make_explanation(silent=range(6)).plot("relu2")) == []


def test_decibels_are_relative_to_the_loudest_of_the_layer(explanation):
    pytest.importorskip("matplotlib")
    stft = np.abs(explanation.clip.stft)
    heard = np.abs(explanation.maps["relu2"][:, 0] * stft)
    (ax,) = drawn(explanation.plot("relu2", 1))
    (mesh,) = ax.collections
    expected = 20 * np.log10(np.maximum(heard[1] / heard.max(), 1e-4))
    np.testing.assert_allclose(mesh.get_array().reshape(expected.shape), expected, atol=1e-3)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-80, 0)
    assert mesh.cmap.name == "magma"


def test_axes_are_in_seconds_and_hertz(explanation):
    pytest.importorskip("matplotlib")
    (ax,) = drawn(explanation.plot("relu2", 1))
    assert ax.get_ylim()[1] == pytest.approx(SR / 2, rel=0.05)
    assert ax.get_xlim()[1] == pytest.approx(21 * 32 / SR, rel=0.1)
    assert (ax.get_yscale(), ax.get_ylabel()) == ("symlog", "Hz")


def test_dollars_in_names_are_no_mathematics():
    pytest.importorskip("matplotlib")
    figure = make_explanation(names=("relu1", "$x_{$")).plot("$x_{$", 0)
    figure._repr_png_()
    assert drawn(figure)[0].get_title().startswith("\\$")


def test_pyplot_is_left_alone(explanation):
    pytest.importorskip("matplotlib")
    explanation.plot("relu1")._repr_png_()
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


@pytest.mark.parametrize("columns", [0, 1.5, True])
def test_columns_must_be_a_number_of_columns(explanation, columns):
    pytest.importorskip("matplotlib")
    with pytest.raises(fd.ParameterError, match="columns"):
        explanation.plot("relu1", columns=columns)


def test_without_matplotlib_plot_says_what_to_install(explanation, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fastdeconv.report.figures", raising=False)
    with pytest.raises(fd.ParameterError, match=r"pip install 'fastdeconv\[notebook\]'"):
        explanation.plot("relu1")
    assert explanation._repr_html_()
