"""What the page of a song says of how far to believe it, and its other rules and modes."""

from __future__ import annotations

import json

import pytest

import fastdeconv as fd

from .conftest import MUTED, SOUNDING, SR, WIDER, make_network, make_samples
from .test_song_page import rows_of

SRC = "image => image.getAttribute('src')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    ex = fd.explain((make_samples(), SR), make_network(classes=["rock", "jazz"]))
    out = tmp_path_factory.mktemp("trust")
    return ex.save(out, "clicks", trust=True, rules=["guided"], modes=["wiener"])


@pytest.fixture
def song(open_page, folder):
    return open_page(folder / "index.html")


def row_of(folder, name):
    (row,) = [row for row in rows_of(folder) if f"{row['layer']}/{row['feature']}" == name]
    return row


# Verdicts


def test_every_card_has_its_verdict(song, folder):
    for row in rows_of(folder):
        name = f"{row['layer']}/{row['feature']}"
        card = song.page.locator(f'.card:has(h3 a[href="#{name}"])')
        if row["verdict"] == "silent":
            assert card.count() == 0
            continue
        said = card.locator(".verdict").text_content()
        assert said == f"believe it: {row['verdict']}"
        button = card.locator(".play").get_attribute("aria-label")
        assert button.endswith(f", believe it: {row['verdict']}")


def test_layers_stand_beside_the_untrained_network(song, folder):
    rows = rows_of(folder)
    table = song.page.locator(".trust tbody tr")
    said = [row.locator("th, td").all_inner_texts() for row in table.all()]
    assert [row[0] for row in said] == ["pool1", "pool2"]
    for name, *counts, own, control, meaning in said:
        mine = [row for row in rows if row["layer"] == name]
        words = [row["verdict"] for row in mine]
        assert counts == [str(words.count(word)) for word in ("yes", "unsure", "no", "silent")]
        assert own == f"{100 * float(mine[0]['yes_rate']):.0f} %"
        assert control == f"{100 * float(mine[0]['control_yes_rate']):.0f} %"
        assert meaning


def test_a_verdict_filters_and_sorts(song, folder):
    words = {f"{row['layer']}/{row['feature']}": row["verdict"] for row in rows_of(folder)}
    song.page.select_option("#verdict", "no")
    assert song.visible() and {words[name] for name in song.visible()} == {"no"}
    song.page.select_option("#verdict", "")
    song.page.select_option("#sort", "verdict")
    order = ["yes", "unsure", "no"]
    places = [order.index(words[name]) for name in song.visible()]
    assert places == sorted(places)
    song.page.click("#reverse")
    places = [order.index(words[name]) for name in song.visible()]
    assert places == sorted(places, reverse=True)


def test_the_numbers_of_trust_sort_and_filter_as_all_others(song, folder):
    song.page.select_option("#sort", label="steady under noise")
    values = [float(row_of(folder, name)["steadiness"]) for name in song.visible()]
    assert values == sorted(values, reverse=True)


def test_details_say_why_and_what_no_number_proves(open_page, folder):
    page = open_page(folder / "index.html", fragment="#pool2/5")
    row = row_of(folder, "pool2/5")
    assert page.text("#detail-verdict") == f"Believe it? {row['verdict']}: {row['reason']}."
    numbers = page.page.locator("#detail-trust tr").all_inner_texts()
    assert len(numbers) == 10 and all("Does not prove" in one for one in numbers)
    (steady,) = [one for one in numbers if "steadiness" in one]
    assert f"{float(row['steadiness']):.2f}" in steady
    assert "of those of an untrained network" in page.text("#detail-shares")
    silent = open_page(folder / "index.html", fragment="#pool1/2")
    assert "does not answer to this clip" in silent.text("#detail-verdict")


def test_without_trust_the_page_says_nothing_of_it(open_page, song_folder):
    page = open_page(song_folder / "index.html", fragment="#pool2/5")
    shown = ".verdict, .trust, #verdict, #detail-trust, [data-version]"
    assert page.page.locator(shown).count() == 0
    page.press("m")
    assert page.text("#now") == "pool2/5"


# Where the strongest unit looks


def test_pictures_frame_what_the_strongest_unit_sees(open_page, folder):
    page = open_page(folder / "index.html", fragment="#pool2/5")
    row = row_of(folder, "pool2/5")
    assert f"{float(row['unit_start']):.2f} s to {float(row['unit_end']):.2f} s" in page.text(
        "#detail-place"
    )
    picture = page.page.locator("#map-picture").bounding_box()
    frame = page.page.locator("#map-picture + .axes .field").bounding_box()
    start, end = (float(row[key]) / 2.0 for key in ("unit_start", "unit_end"))
    assert (frame["x"] - picture["x"]) / picture["width"] == pytest.approx(start, abs=0.01)
    assert frame["width"] / picture["width"] == pytest.approx(min(1, end) - start, abs=0.01)
    assert page.page.locator(".card.current .field").count() == 1
    page.page.click("#places")
    assert page.page.locator(".field:visible").count() == 0
    assert page.page.locator("#places").get_attribute("aria-pressed") == "false"


# Other rules and modes


def test_another_mode_goes_on_at_the_same_place_and_as_loud(song, folder):
    song.press("l", " ")
    song.wait_for(SOUNDING)
    name = song.visible()[0]
    row = row_of(folder, name)
    song.page.evaluate("sounds[0].currentTime = 1")
    song.page.get_by_role("button", name="wiener", exact=True).first.click()
    song.wait_for("sounds[0].src.includes('/wiener/') && !sounds[0].paused")
    song.wait_for("sounds[0].readyState > 2 && !sounds[0].seeking")
    assert song.page.evaluate("sounds[0].currentTime") >= 0.9
    assert song.text("#now") == f"{name}, wiener"
    manifest = json.loads((folder / "manifest.json").read_text())
    (layer,) = [one for one in manifest["layers"] if one["name"] == row["layer"]]
    rms = layer["versions"]["wiener"]["rms"][row["feature"]]
    volumes = song.page.evaluate("sounds.map(sound => sound.volume)")
    assert volumes[0] * rms == pytest.approx(
        volumes[1] * manifest["audio"]["original_rms"], rel=1e-3
    )
    song.press("a")
    assert song.page.evaluate(MUTED) == [True, False]
    song.press("m")  # back to the first; the original is still what is heard
    song.wait_for("!sounds[0].src.includes('/wiener/')")
    assert song.page.evaluate(MUTED) == [True, False]


def test_pictures_are_of_the_version_that_is_heard(open_page, folder):
    page = open_page(folder / "index.html", fragment="#pool2/5")
    card = page.page.locator(".card.current img").first
    assert card.evaluate(SRC) == "pool2/feature_5.png"
    page.press("m")
    assert card.evaluate(SRC) == "pool2/guided/feature_5.png"
    assert page.page.locator("#map-picture").evaluate(SRC) == "pool2/guided/map_5.png"
    pressed = page.page.locator('.controls [data-version][aria-pressed="true"]').all_inner_texts()
    assert pressed == ["guided"]
    page.press("m", "m")
    assert card.evaluate(SRC) == "pool2/feature_5.png"


def test_rules_and_modes_stand_side_by_side_and_switch(open_page, folder):
    page = open_page(folder / "index.html", fragment="#pool2/5")
    beside = page.page.locator(".beside img")
    assert beside.evaluate_all("images => images.map(image => image.getAttribute('src'))") == [
        "pool2/map_5.png", "pool2/guided/map_5.png",
        "pool2/feature_5.png", "pool2/wiener/feature_5.png",
    ]
    page.wait_for("[...document.querySelectorAll('.beside img')].every(one => one.naturalWidth)")
    page.page.locator(".beside button").nth(1).press("Enter")
    assert page.page.locator("#heard-picture").evaluate(SRC) == "pool2/guided/feature_5.png"
    assert "pool2/5, guided" in page.text("#now")
    page.press("l")
    page.page.click("#detail-play")
    page.wait_for(SOUNDING)
    assert "/guided/" in page.page.evaluate("sounds[0].src")


def test_a_feature_that_is_silent_in_another_mode_says_so(open_page, tmp_path):
    net = make_network()
    arrays = {key: array.copy() for key, array in net.arrays.items()}
    arrays["conv1.weight"][3], arrays["conv1.bias"][3] = -1, 1e4  # its map is negative everywhere
    net = fd.Network(net.layers, arrays, net.input_shape, frontend=net.frontend)
    ex = fd.explain((make_samples(), SR), net, "pool1", [3])
    page = open_page(ex.save(tmp_path, modes=["phase"]) / "index.html")
    assert page.text("#now") == "pool1/3"
    page.press("m")
    assert page.text("#now") == "pool1/3, phase (silent)"


# For everybody


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen_and_all_is_as_large_as_a_thumb(open_page, folder, width):
    page = open_page(
        folder / "index.html", fragment="#pool2/5", width=width, height=800, touch=width < 1000
    )
    assert page.page.evaluate(WIDER) <= 0
    if width < 1000:
        for control in page.page.locator("button:visible, select:visible, input:visible").all():
            box = control.bounding_box()
            assert min(box["width"], box["height"]) >= 44, control.evaluate("one => one.outerHTML")
