"""The page of a whole song: its time lines, seen and clicked in a browser."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import fastdeconv as fd

from .conftest import SR, WIDER, make_network, make_samples

SECONDS = 12.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    soundfile.write(out / "long.wav", make_samples(seconds=SECONDS), SR)
    net = make_network(channels=(6, 10), classes=["rock", "jazz"])
    return fd.explain(out / "long.wav", net, duration="all").save(out / "out")


def click(opened, layer, feature, share):
    """Click on the row of a feature of a time line, at a share of the song."""
    line = opened.page.locator(f"[data-line='{layer}']")
    picture, count = line.locator("img"), int(line.get_attribute("data-count"))
    box = picture.bounding_box()
    picture.click(
        position={"x": share * box["width"], "y": (feature + 0.5) / count * box["height"]}
    )


def held(opened):
    """What the player holds, and where it is."""
    opened.wait_for("!sounds[0].paused && sounds[0].readyState > 2 && !sounds[0].seeking")
    opened.press(" ")
    opened.wait_for("sounds[0].paused")
    return opened.page.evaluate("[sounds[0].src.split('/').pop(), sounds[0].currentTime]")


def rendered(opened, layer):
    return opened.page.evaluate(
        "JSON.parse(document.getElementById('data').textContent)"
        f".layers[{layer}].features.filter(feature => !feature.silent).map(feature => feature.k)"
    )


def test_a_click_on_a_row_plays_the_feature_there(open_page, folder):
    opened = open_page(folder / "index.html")
    feature = rendered(opened, 1)[0]
    click(opened, 1, feature, 0.25)
    name, time = held(opened)
    assert name == f"feature_{feature}.wav"
    assert 0.25 * SECONDS - 0.1 <= time < SECONDS
    assert opened.text("#now") == f"pool2/{feature}"
    assert opened.text("#line-said").startswith(f"pool2/{feature} at 3.0 s")
    click(opened, 1, feature, 0.5)
    _, later = held(opened)
    assert later >= 0.5 * SECONDS - 0.1


def test_a_click_on_a_row_without_a_sound_plays_the_original(open_page, folder):
    opened = open_page(folder / "index.html")
    (without, *_) = sorted({*range(10)} - {*rendered(opened, 1)})
    click(opened, 1, without, 0.5)
    name, time = held(opened)
    assert name == "original.wav"
    assert time >= 0.5 * SECONDS - 0.1
    assert opened.text("#line-said") == f"pool2/{without} at 6.0 s, without a sound"


def test_playheads_of_all_time_lines_move(open_page, folder):
    opened = open_page(folder / "index.html")
    click(opened, 0, rendered(opened, 0)[0], 0.5)
    held(opened)
    places = opened.page.eval_on_selector_all(
        "[data-line] .axes > .playhead:first-of-type, [data-line] .axes > .playhead",
        "heads => heads.map(head => parseFloat(head.style.left))",
    )
    assert len(places) == 2
    assert min(places) >= 49


def test_the_page_says_what_it_shows(open_page, folder):
    opened = open_page(folder / "index.html")
    said = opened.page.inner_text("header")
    assert "14 of 16 features have sounds and pictures: those to hear first." in said
    assert "as in one pass of the network over the whole song" in said
    assert opened.page.locator(".line").count() == 2
    assert "6 features, 6 of them with a sound" in opened.page.inner_text(".lines")
    values = np.load(folder / "pool2" / "timeline.npy")
    assert opened.page.evaluate(
        "[...document.querySelectorAll('.line img')].map(image => image.naturalWidth)"
    ) == [values.shape[1]] * 2


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(open_page, folder, width):
    opened = open_page(folder / "index.html", width=width)
    assert opened.page.evaluate(WIDER) == 0
