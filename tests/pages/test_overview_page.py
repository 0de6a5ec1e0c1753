"""The page of several songs: finding songs and features, and one feature in all of them."""

from __future__ import annotations

import pytest

import fastdeconv as fd

from .conftest import MUTED, SOUNDING, SR, WIDER, make_network, make_samples

NAMES = ("<i>first</i>", "100% second", "third")


@pytest.fixture(scope="module")
def songs_page(tmp_path_factory):
    out = tmp_path_factory.mktemp("songs")
    for seed, name in enumerate(NAMES):
        fd.explain((make_samples(seed), SR), make_network()).save(out, name)
    return fd.overview(out)


@pytest.fixture
def songs(open_page, songs_page):
    return open_page(songs_page)


def cards(page, grid, part="h3"):
    selector = f"#{grid} .card:not([hidden]) {part}"
    return page.page.locator(selector).all_inner_texts()


def listed(page):
    return page.page.locator("#features a").all_inner_texts()


def test_every_song_is_there_with_a_link_to_its_page(songs):
    # Names are those of folders, in which some signs are not allowed.
    assert cards(songs, "songs") == ["100% second", "_i_first__i_", "third"]
    assert songs.text("#count") == "3 songs, 14 features"
    songs.page.locator("#songs h3 a").first.click()
    assert songs.text("h1") == "100% second"


def test_the_top_says_in_two_sentences_what_is_seen_and_what_to_do(songs):
    intro = " ".join(songs.text(".intro").split())
    assert intro.count(". ") == 1 and intro.endswith(".")
    assert "features, small detectors" in intro and "press ▶" in intro


def test_what_has_the_focus_is_never_behind_the_player(open_page, songs_page):
    songs = open_page(songs_page, height=500)
    links = songs.page.locator("#features a").count()
    for _ in range(links):
        songs.press("Tab")
        songs.wait_for(
            "document.activeElement.getBoundingClientRect().bottom"
            " <= document.querySelector('.transport').getBoundingClientRect().top"
        )
    # Those that were below the player when the page was opened have had the focus, too.
    assert songs.page.evaluate("scrollY") > 0


def test_a_song_plays_at_once(songs):
    assert songs.page.locator("#toggle").is_enabled()
    songs.press("l", " ")
    songs.wait_for(SOUNDING)
    assert songs.text("#now") == cards(songs, "songs")[0]
    assert songs.page.locator("#ab").is_disabled()  # an original has no other


def test_a_link_makes_a_feature_ready_to_be_compared(open_page, songs_page):
    page = open_page(songs_page, fragment="#pool2/3")
    name = f"pool2/3 in {cards(page, 'instances')[0]}"
    assert page.text("#now") == name
    page.press("l")
    page.page.click("#ab")
    page.wait_for(SOUNDING)
    assert page.page.evaluate(MUTED) == [True, False]
    assert page.text("#now") == f"original (instead of {name})"


def test_a_feature_that_is_opened_again_shows_where_it_is(open_page, songs_page):
    page = open_page(songs_page, fragment="#pool2/3")
    page.press("l", " ")
    page.wait_for(SOUNDING)
    page.press("Escape")
    assert page.page.locator(".playhead:visible").count() == 0
    page.page.click("#features a >> text=pool2/3")
    page.page.locator("#instances .playhead").wait_for()
    assert page.page.locator('#instances .play[aria-pressed="true"]').count() == 1


def test_a_search_finds_songs_and_features(songs):
    songs.page.fill("#search", "third")
    assert cards(songs, "songs") == ["third"]
    songs.page.fill("#search", "pool2/")
    assert listed(songs) and all(name.startswith("pool2/") for name in listed(songs))
    songs.page.fill("#search", "pool1/2")
    assert listed(songs) == ["pool1/2"]
    songs.page.fill("#search", "silent")
    assert listed(songs)[0] == "pool1/2"  # in all songs; others in some


def test_features_whose_label_is_the_same_in_most_songs_come_first(songs):
    agreed = [
        max((int(part.split()[-1].split("/")[0]) for part in said.split(", ") if part
             and not part.startswith("silent")), default=0)
        for said in songs.page.locator("#features span").all_inner_texts()
    ]
    assert agreed == sorted(agreed, reverse=True)


def test_one_feature_is_seen_and_heard_in_every_song(songs):
    songs.press("l")
    songs.page.click("#features a >> text=pool2/3")
    assert songs.text("#across-title") == "pool2/3 in every song"
    assert cards(songs, "instances") == cards(songs, "songs")
    for i in range(2):
        songs.page.locator("#instances .play").nth(i).click()
        songs.wait_for(SOUNDING)
        assert songs.text("#now") == f"pool2/3 in {cards(songs, 'instances')[i]}"
    assert songs.page.locator(".playhead").count() == 1
    songs.press("a")
    assert songs.text("#now").startswith("original (instead of pool2/3")
    songs.press("ArrowRight")
    songs.wait_for("document.getElementById('now').textContent === 'pool2/3 in third'")


def test_keys_go_through_the_features_that_were_found(songs):
    songs.page.fill("#search", "pool2")
    found = listed(songs)
    songs.page.locator("#features a").first.click()
    assert songs.text("#across-title") == f"{found[0]} in every song"
    songs.press("n", "n", "p")
    assert songs.text("#across-title") == f"{found[1]} in every song"
    songs.press("Escape")
    assert songs.page.locator("#across").is_hidden()
    assert "#" not in songs.page.url


def test_a_link_opens_a_feature_and_leads_on_to_it_in_one_song(open_page, songs_page):
    page = open_page(songs_page, fragment="#pool2/3")
    assert page.text("#across-title") == "pool2/3 in every song"
    page.page.locator("#instances h3 a").nth(1).click()
    assert page.text("#detail-title") == "pool2/3"
    page.page.click("#ab")
    page.wait_for(SOUNDING)
    assert page.text("#now") == "original (instead of pool2/3)"


def test_a_silent_feature_is_said_to_be_silent(open_page, songs_page):
    page = open_page(songs_page, fragment="#pool1/2")
    assert cards(page, "instances", ".label") == ["silent"] * 3


def test_every_picture_is_there(songs):
    songs.page.click("#features a >> text=pool2/3")
    assert songs.text("#across-title") == "pool2/3 in every song"
    songs.page.evaluate("document.querySelectorAll('img').forEach(img => img.loading = 'eager')")
    songs.wait_for("[...document.images].every(i => i.complete)")
    assert songs.page.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0
    assert songs.page.locator("img").count() == 6


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(open_page, songs_page, width):
    page = open_page(songs_page, fragment="#pool2/3", width=width)
    assert page.page.evaluate(WIDER) <= 0
