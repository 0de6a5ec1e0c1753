"""The atlas of a network in a browser."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastdeconv as fd
from fastdeconv.report.atlas import write_atlas

from .conftest import MUTED, PAUSED, SOUNDING, WIDER

MARKUP = "<img src=x onerror=alert(1)>.wav"
NAMES = (*(f"song {i}.wav" for i in range(6)), MARKUP)
SILENT = 2


@pytest.fixture(scope="module")
def out(make_survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    (folder / "tags.csv").write_text(
        "track,tempo,mood\n" + "".join(f"{name},{100 + i},{'ab'[i % 2]}\n"
                                       for i, name in enumerate(NAMES))
    )
    make_survey(folder, names=NAMES, tags=folder / "tags.csv")
    network = fd.Network.load(folder / "out" / "network.npz")
    song = fd.explain(folder / "music" / "song 1.wav", network, "pool1")
    write_atlas(folder / "out")
    song.save(folder / "out" / "songs", audio_format="ogg")
    write_atlas(folder / "out")
    return folder / "out"


@pytest.fixture
def opened(open_page, out):
    return lambda **how: open_page(out / "index.html", **how)


def in_order(one):
    one.page.select_option("#sort", "number")
    return one.visible()


def test_features_that_fire_are_shown_and_twins_and_silent_ones_when_asked(opened):
    one = opened()
    assert in_order(one) == ["pool1/0", "pool1/3", "pool1/4", "pool1/5"]
    assert one.text("#count") == "4 features, 1 twin folded, 1 that never fired hidden"
    one.page.click("#twins")
    one.page.click("#silent")
    assert one.visible() == [f"pool1/{k}" for k in range(6)]
    assert "twin of 0" in one.text('[data-feature="1"] h3')
    assert "never fires" in one.text(f'[data-feature="{SILENT}"] h3')
    assert one.page.locator('[data-feature="0"] .tile').count() == 7


def test_a_click_plays_an_excerpt_and_a_key_the_original(opened):
    one = opened()
    in_order(one)
    one.page.locator('[data-feature="3"] .tile').nth(2).click()
    one.wait_for(SOUNDING)
    assert one.page.evaluate(MUTED) == [False, True]
    assert one.text("#now").startswith("pool1/3 in ")
    one.press("a")
    assert one.page.evaluate(MUTED) == [True, False]
    one.press("a", " ")
    one.wait_for(PAUSED)
    assert one.page.evaluate(MUTED) == [False, True]


def test_the_keys_go_through_features_and_their_excerpts(opened):
    one = opened()
    in_order(one)
    one.press("ArrowRight")
    first = one.text("#now")
    assert first.startswith("pool1/0 in ")
    one.press("j")
    second = one.text("#now")
    assert second.startswith("pool1/0 in ") and second != first
    one.press("k")
    assert one.text("#now") == first
    one.press("ArrowRight")
    assert one.text("#now").startswith("pool1/3 in ")
    one.press("1")
    assert one.page.get_attribute('[data-layer="0"]', "aria-pressed") == "true"
    one.press("/")
    assert one.page.evaluate("document.activeElement.id") == "search"


def test_it_goes_on_with_the_next_excerpt(opened):
    one = opened()
    in_order(one)
    one.press("n")
    one.page.locator('[data-feature="0"] .tile').first.click()
    first = one.text("#now")
    one.wait_for(SOUNDING)
    one.wait_for(f"document.getElementById('now').textContent !== {first!r}")
    assert one.text("#now").startswith("pool1/0 in ")


def test_details_show_excerpts_how_often_what_they_share_and_tags(opened):
    one = opened()
    in_order(one)
    one.press("ArrowRight", "Enter")
    assert one.text("#detail-title") == "pool1/0"
    assert one.page.locator("#detail-excerpts li").count() == 7
    assert one.page.locator("#histogram rect").count() > 0
    assert "of all windows" in one.text("#detail-often-text")
    assert "Twins: pool1/1." in one.text("#detail-marks")
    tags = one.page.locator("#detail-tags tr")
    assert tags.count() == 2
    assert "may be chance" in one.text("#detail-tags") or "<" in one.text("#detail-tags")
    assert "No control was run" in one.text("#detail-tags-text")
    assert "pool1/1 1.00" in one.text("#detail-others")
    frame = one.page.locator("#detail-excerpts .field").first.bounding_box()
    picture = one.page.locator("#detail-excerpts img").first.bounding_box()
    assert picture["x"] - 2 <= frame["x"]
    assert frame["x"] + frame["width"] <= picture["x"] + picture["width"] + 2
    one.press("Escape")
    assert not one.page.locator("#detail").is_visible()


def test_both_pictures_of_an_excerpt_play(opened):
    one = opened(fragment="#pool1/4")
    one.page.locator('#detail-excerpts [data-which="original"]').nth(1).click()
    one.wait_for(SOUNDING)
    assert one.page.evaluate(MUTED) == [True, False]
    one.page.locator('#detail-excerpts [data-which="heard"]').nth(1).click()
    assert one.page.evaluate(MUTED) == [False, True]
    assert not one.page.evaluate(PAUSED)
    one.page.locator('#detail-excerpts [data-which="heard"]').nth(1).click()
    one.wait_for(PAUSED)


def test_a_song_is_found_with_its_page_and_its_features(opened):
    one = opened()
    one.page.fill("#search", "song 1")
    assert one.text("#songs-title") == "1 song"
    assert "1 of 7 found" in one.text("#grid .card")
    one.page.click("#songs-found a")
    one.wait_for("location.pathname.endsWith('songs/song%201/index.html')")
    assert one.text("h1") == "song 1"
    one.page.locator('a[href*="#search="]').click()
    one.wait_for("location.pathname.endsWith('out/index.html')")
    assert one.page.input_value("#search") == "song 1.wav"
    assert one.text("#songs-title") == "1 song"


def test_a_feature_of_a_song_leads_to_the_same_feature_in_the_atlas(open_page, out):
    one = open_page(out / "songs" / "song 1" / "index.html", fragment="#pool1/4")
    one.page.click("text=This feature in the atlas")
    one.wait_for("location.pathname.endsWith('out/index.html')")
    assert one.text("#detail-title") == "pool1/4"


def test_a_search_that_finds_nothing_says_so_and_escape_ends_it(opened):
    one = opened()
    one.page.fill("#search", "no such thing")
    assert one.visible() == [] and one.page.locator("#nothing").is_visible()
    one.press("Escape")
    assert len(one.visible()) == 4


def test_a_tag_is_filtered_by(opened):
    one = opened()
    one.page.select_option("#tag", label="tempo")
    assert one.page.input_value("#sort") == "tag"
    one.page.select_option("#tag", label="any")
    assert len(one.visible()) == 4


def test_names_are_text(opened):
    one = opened(fragment="#pool1/4")
    assert MARKUP in one.text("#detail-excerpts")
    assert one.page.locator('img[src="x"]').count() == 0


def test_the_page_fits_a_phone(opened):
    one = opened(width=360, height=740, touch=True)
    assert one.page.evaluate(WIDER) == 0
    one.page.locator("#grid .tile").first.tap()
    one.wait_for(SOUNDING)


def test_verdicts_stand_on_excerpts_cards_and_details(open_page, out, tmp_path):
    shutil.copytree(out, tmp_path / "out", copy_function=shutil.copy2)
    with ThreadPoolExecutor(2) as executor:
        found = write_atlas(tmp_path / "out", root=out.parent / "music", trust=True,
                            executor=executor)
    assert found.judged == found.excerpts
    one = open_page(tmp_path / "out" / "index.html", width=1600)
    in_order(one)
    words = one.page.eval_on_selector_all(
        '[data-feature="3"] .tile .verdict', "marks => marks.map(mark => mark.dataset.verdict)"
    )
    assert len(words) == 7 and set(words) <= {"yes", "unsure", "no", "silent"}
    said = ", ".join(
        f"{word} {words.count(word)}" for word in ("yes", "unsure", "no", "silent") if word in words
    )
    assert f"believe: {said}; untrained: yes" in one.text('[data-feature="3"]')
    assert one.text('[data-feature="3"] .tile .verdict') in "✓?✗–"
    one.page.click('[data-feature="3"] h3 a')
    assert one.text("#detail-believed").startswith(f"To be believed: {said} of 7 excerpts; of all")
    assert f"to be believed: {words[0]} (" in one.text("#detail-excerpts .told")
    one.page.select_option("#sort", "believed")
    heights = one.page.eval_on_selector_all(
        "#grid .nine", "nines => nines.map(nine => nine.offsetHeight)"
    )
    assert len(set(heights)) == 1
    assert one.page.evaluate(WIDER) <= 0
