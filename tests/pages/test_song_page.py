"""The page of a song, used as a person uses it: eyes, ears, mouse and keyboard."""

from __future__ import annotations

import csv
import functools
import http.server
import json
import os
import shutil
import threading

import pytest

import fastdeconv as fd
from fastdeconv.report import listening
from fastdeconv.report.web import render

from .conftest import MUTED, PAUSED, SOUNDING, SR, WIDER, make_network, make_samples

SEEK = """share => {
    const slider = document.getElementById("seek");
    slider.value = share;
    slider.dispatchEvent(new Event("input"));
}"""
HEADS = "document.querySelectorAll('.playhead').length"
# Presses a key and says by how much that moved the sound.
PRESSED = """key => {
    const before = sounds[0].currentTime;
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    return sounds[0].currentTime - before;
}"""
# Keeps everything that the player says from now on.
LISTEN = """() => {
    window.said = [];
    const now = document.getElementById("now");
    new MutationObserver(() => said.push(now.textContent)).observe(now, { childList: true });
}"""


@pytest.fixture
def song(open_page, song_folder):
    return open_page(song_folder / "index.html")


def rows_of(folder):
    with (folder / "features.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Opening


def test_the_page_opens_from_a_disk_without_complaint_and_shows_what_was_computed(song):
    assert song.text("h1") == "clicks"
    facts = song.text(".facts")
    for fact in ("clicks.wav", "tiny", "rock", "deconvnet", "11025 Hz", fd.__version__):
        assert fact in facts


def test_the_top_says_in_two_sentences_what_is_seen_and_what_to_do(song):
    intro = " ".join(song.text(".intro").split())
    assert intro.count(". ") == 1 and intro.endswith(".")
    assert "features, a small detector" in intro and "Press ▶" in intro


@pytest.fixture
def page_with(open_page, monkeypatch, tmp_path):
    """The page of a song that is given more to show."""
    def open_it(**more):
        monkeypatch.setattr(
            listening, "render", lambda page, scripts, own: render(page, scripts, {**own, **more})
        )
        explanation = fd.explain((make_samples(), SR), make_network(), layers="pool1")
        return open_page(explanation.save(tmp_path) / "index.html", width=390)
    return open_it


def test_a_notice_and_the_scores_of_the_classes_are_shown(page_with):
    rows = [("rock <i>", "1.20", "82 %"), ("j" * 300, "−0.31", "")]
    page = page_with(notices=["Only <b> of it."], scores={"note": "What they mean.", "rows": rows})
    assert page.text("header .notice") == "Only <b> of it."
    assert page.text(".scores .hint") == "What they mean."
    heads = page.page.locator(".scores thead th").all_inner_texts()
    assert heads == ["class", "score", "probability"]
    cells = page.page.locator(".scores tbody tr > *").all_inner_texts()
    assert cells == [cell for row in rows for cell in row]
    assert page.page.evaluate(WIDER) <= 0


def test_scores_without_probabilities_have_no_column_for_them(page_with):
    page = page_with(scores={"note": "", "rows": [("rock", "1.20", ""), ("jazz", "0.31", "")]})
    assert page.page.locator(".scores thead th").all_inner_texts() == ["class", "score"]
    assert page.page.locator(".scores td").count() == 2


def test_without_a_notice_or_scores_there_is_no_place_for_them(page_with):
    page = page_with(notices=[], scores=None)
    assert page.page.locator(".notice, .scores").count() == 0


def test_every_picture_that_comes_into_sight_is_there(song):
    song.page.evaluate("document.querySelectorAll('img').forEach(img => img.loading = 'eager')")
    song.wait_for("[...document.images].filter(i => i.getAttribute('src')).every(i => i.complete)")
    broken = "[...document.images].filter(i => i.getAttribute('src') && !i.naturalWidth).length"
    assert song.page.evaluate(broken) == 0
    stages = song.page.locator(".strip > figure figcaption").all_inner_texts()
    assert stages == ["input", "pool1", "pool2"]


def test_features_come_in_the_order_to_listen_in_and_silent_ones_at_the_end(song, song_folder):
    rows = [row for row in rows_of(song_folder) if row["label"] != "silent" and not row["twin_of"]]
    rows.sort(key=lambda row: (int(row["rank"]), row["layer"]))
    assert song.visible() == [f"{row['layer']}/{row['feature']}" for row in rows]
    silent = song.text(".silent")
    assert "pool1: 2" in " ".join(silent.split())


def test_twins_are_folded_under_the_one_that_stands_for_them(song):
    assert "1 twin folded" in song.text("#count")
    button = song.page.locator(".twins")
    assert button.inner_text() == "+ 1 twin"
    before = song.visible()
    button.click()
    after = song.visible()
    (twin,) = set(after) - set(before)
    # Features 0 and 1 are alike; the louder one stands for both.
    assert (twin, after[after.index(twin) - 1]) == ("pool1/0", "pool1/1")
    button.click()
    assert song.visible() == before


def test_the_axes_name_hertz_and_seconds_on_every_picture_in_sight(song):
    card = song.page.locator(".card:not([hidden])").first
    card.scroll_into_view_if_needed()
    card.locator(".axes").wait_for(state="attached")
    assert card.locator(".hz").all_text_contents() == ["50", "100", "200", "500", "1k", "2k", "5k"]
    assert card.locator(".s").all_text_contents() == ["0.5", "1", "1.5"]


# Listening


@pytest.mark.parametrize(("fragment", "button"), [
    ("", "toggle"), ("", "ab"), ("#pool2/5", "toggle"), ("#pool1/2", "ab"),  # the last is silent
])
def test_play_and_compare_can_be_used_at_once(open_page, song_folder, fragment, button):
    page = open_page(song_folder / "index.html", fragment=fragment)
    wanted = fragment.removeprefix("#") or page.visible()[0]
    assert page.text("#now") == wanted
    assert page.page.locator(".playhead:visible").count() == 0
    page.press("l")
    page.page.click(f"#{button}")
    page.wait_for(SOUNDING)
    assert page.page.evaluate(MUTED) == [button == "ab", button == "toggle"]
    assert wanted in page.text("#now") and ("original" in page.text("#now")) == (button == "ab")
    if not fragment:
        page.press("ArrowRight")  # goes on from what sounds
        assert page.text("#now") == page.visible()[1]


def test_space_plays_what_a_link_opened_and_leaves_the_focus_there(open_page, song_folder):
    page = open_page(song_folder / "index.html", fragment="#pool2/5")
    page.press("l", " ")
    page.wait_for(SOUNDING)
    assert page.text("#now") == "pool2/5"
    assert page.page.evaluate("document.activeElement.id") == "detail"


def test_a_place_can_be_chosen_before_a_sound_is_played(song):
    song.page.evaluate(SEEK, 0.5)
    assert song.text("#time") == "1.0 s"
    song.page.evaluate("sounds[0].onplaying = () => { window.began = sounds[0].currentTime; }")
    song.press(" ")
    song.wait_for("window.began !== undefined")
    assert song.page.evaluate("began") >= 1


def test_a_click_plays_a_feature_and_its_playhead_moves(song):
    song.press("l")
    card = song.page.locator(".card:not([hidden])").nth(1)
    card.locator(".play").click()
    song.wait_for(SOUNDING)
    assert song.text("#now") == song.visible()[1]
    assert card.locator(".play").get_attribute("aria-pressed") == "true"
    place = card.locator(".playhead").evaluate("head => head.style.left")
    song.wait_for(f"document.querySelector('.playhead').style.left !== '{place}'")
    card.locator(".play").click()
    assert song.page.evaluate(PAUSED)
    assert card.locator(".play").get_attribute("aria-pressed") is None


def test_only_one_sound_and_one_playhead_at_a_time(song):
    song.press("l")
    for i in (0, 2):
        song.page.locator(".card:not([hidden]) .play").nth(i).click()
        song.wait_for(SOUNDING)
    assert song.page.evaluate(HEADS) == 1
    assert song.page.locator('.play[aria-pressed="true"]').count() == 1
    song.page.locator("[data-original]").click()
    song.wait_for("document.getElementById('now').textContent === 'original'")
    assert song.page.locator('.card .playhead').count() == 0


@pytest.mark.parametrize("key", ["a", "B"])
def test_switching_to_the_original_keeps_the_place_and_matches_the_level(song, song_folder, key):
    song.press("l", " ")
    song.wait_for(SOUNDING)
    assert song.page.evaluate(MUTED) == [False, True]
    assert abs(song.page.evaluate(PRESSED, key)) < 0.05
    assert song.page.evaluate(MUTED) == [True, False]
    assert "original" in song.text("#now")
    song.wait_for("Math.abs(sounds[0].currentTime - sounds[1].currentTime) < 0.15")
    assert not song.page.evaluate(PAUSED)
    # As loud as each other: rms as written times volume.
    name = song.visible()[0]
    (row,) = [r for r in rows_of(song_folder) if f"{r['layer']}/{r['feature']}" == name]
    audio = json.loads((song_folder / "manifest.json").read_text())["audio"]
    rms = float(row["gain"]) * (float(row["energy"]) / audio["samples"]) ** 0.5
    volumes = song.page.evaluate("sounds.map(sound => sound.volume)")
    assert volumes[0] * rms == pytest.approx(volumes[1] * audio["original_rms"], rel=1e-3)
    assert max(volumes) == 1
    song.press(key)
    assert song.page.evaluate(MUTED) == [False, True]


def test_a_loop_begins_again_and_without_it_the_sound_ends(song):
    song.press("l", " ")
    song.wait_for(SOUNDING)
    song.page.evaluate(SEEK, 0.95)
    song.wait_for("document.getElementById('time').textContent < '1.0'")
    assert song.text("#toggle") == "❚❚"
    song.press("l")
    song.page.evaluate(SEEK, 0.95)
    song.wait_for("document.getElementById('toggle').textContent === '▶'")


def test_the_next_feature_follows_by_itself_where_that_is_asked_for(song):
    first, second = song.visible()[:2]
    song.page.evaluate(LISTEN)
    song.press("n", " ")
    assert song.page.locator("#onward").get_attribute("aria-pressed") == "true"
    song.wait_for(SOUNDING)
    song.page.evaluate(SEEK, 0.95)
    song.wait_for(f"said.includes('{second}')")
    assert list(dict.fromkeys(song.page.evaluate("said")))[:2] == [first, second]
    song.wait_for(SOUNDING)


def test_no_sound_is_loaded_before_it_is_asked_for(song):
    loaded = "performance.getEntriesByType('resource').filter(r => /wav/.test(r.name)).length"
    assert song.page.evaluate(loaded) == 0


# The keyboard


def test_arrows_move_and_take_the_sound_along(song):
    song.press("l", " ")
    song.wait_for(SOUNDING)
    first, second = song.visible()[:2]
    song.press("ArrowRight")
    song.wait_for(f"document.getElementById('now').textContent === '{second}'")
    song.press("ArrowLeft")
    song.wait_for(f"document.getElementById('now').textContent === '{first}'")
    columns = song.page.evaluate(
        "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
    )
    song.press("ArrowDown")
    song.wait_for(f"document.getElementById('now').textContent === '{song.visible()[columns]}'")


def test_numbers_choose_the_layer(song):
    song.press("2")
    assert {name.split("/")[0] for name in song.visible()} == {"pool2"}
    assert song.page.locator('[data-layer="1"]').get_attribute("aria-pressed") == "true"
    song.press("0")
    assert {name.split("/")[0] for name in song.visible()} == {"pool1", "pool2"}


def test_keys_typed_into_a_field_stay_there(song):
    song.page.select_option("#bounded", label="centroid (Hz)")
    song.page.fill("#least", "")
    song.page.locator("#least").press_sequentially("2")
    assert song.page.locator('[data-layer=""]').get_attribute("aria-pressed") == "true"


def test_everything_can_be_reached_with_the_tab_key(song):
    reached = set()
    for _ in range(60):
        song.press("Tab")
        reached.add(song.page.evaluate(
            "document.activeElement.id || document.activeElement.className || "
            "document.activeElement.tagName"
        ))
    assert {"label", "sort", "reverse", "bounded", "play picture", "loop"} <= reached


# Sorting and filtering


@pytest.mark.parametrize(("name", "key"), [("centroid", "centroid"), ("onset", "onset")])
def test_sorting_puts_the_largest_first_and_can_be_turned_around(song, song_folder, name, key):
    song.page.select_option("#sort", label=name)
    values = {f"{r['layer']}/{r['feature']}": float(r[key]) for r in rows_of(song_folder) if r[key]}
    shown = [values[feature] for feature in song.visible()]
    assert shown == sorted(shown, reverse=True) and len(shown) > 5
    song.page.click("#reverse")
    assert [values[feature] for feature in song.visible()] == sorted(shown)


def test_a_label_filters(song, song_folder):
    labels = {f"{r['layer']}/{r['feature']}": r["label"].split(", ") for r in rows_of(song_folder)}
    song.page.select_option("#label", index=1)
    chosen = song.page.locator("#label").input_value()
    assert song.visible()
    assert all(chosen in labels[feature] for feature in song.visible())
    song.page.select_option("#label", value="none")
    assert all(labels[feature] == [""] for feature in song.visible())


def test_a_number_filters_in_the_unit_it_is_shown_in(song, song_folder):
    song.page.select_option("#bounded", label="below 200 Hz (%)")
    song.page.fill("#least", "10")
    song.page.fill("#most", "50")
    rows = [row for row in rows_of(song_folder) if row["low"]]
    low = {f"{row['layer']}/{row['feature']}": float(row["low"]) for row in rows}
    assert song.visible()
    assert all(0.1 <= low[feature] <= 0.5 for feature in song.visible())
    wanted = sum(0.1 <= share <= 0.5 for share in low.values())
    assert len(song.visible()) >= wanted - 1  # one twin is folded


# One feature in detail


def test_a_link_opens_a_feature_and_says_all_its_numbers(open_page, song_folder):
    page = open_page(song_folder / "index.html", fragment="#pool2/5")
    assert page.text("#detail-title") == "pool2/5"
    numbers = page.page.locator("#detail-numbers tr").all_inner_texts()
    assert len(numbers) == 22 and "centroid" in " ".join(numbers)
    (row,) = [r for r in rows_of(song_folder) if (r["layer"], r["feature"]) == ("pool2", "5")]
    assert f"{float(row['centroid']):.0f} Hz" in " ".join(numbers)
    for picture in ("clip-picture", "map-picture", "heard-picture"):
        page.wait_for(f"document.getElementById('{picture}').naturalWidth > 0")
    points = page.page.get_attribute("#spectrum .heard", "points").split()
    assert len(points) > 100


def test_the_details_follow_the_keys_and_close_with_escape(song):
    first, second = song.visible()[:2]
    song.press("ArrowRight", "Enter")
    assert song.text("#detail-title") == first
    assert song.page.url.endswith(f"#{first}")
    song.press("ArrowRight")
    assert song.text("#detail-title") == second
    song.press(" ")
    song.wait_for(SOUNDING)
    assert song.page.locator(".detail .playhead").count() == 3
    song.press("Escape")
    assert song.page.locator("#detail").is_hidden()
    assert "#" not in song.page.url
    assert song.page.evaluate("document.activeElement.className") == "play picture"


def test_the_details_have_buttons_for_a_thumb(open_page, song_folder):
    page = open_page(
        song_folder / "index.html", fragment="#pool2/5", width=390, height=844, touch=True
    )
    play, compare = page.page.locator("#detail-play"), page.page.locator("#detail-ab")
    page.page.tap("#loop")
    play.tap()
    page.wait_for(SOUNDING)
    assert page.page.get_by_role("button", name="Pause pool2/5").inner_text() == "❚❚ Pause"
    compare.tap()
    assert page.page.evaluate(MUTED) == [True, False]
    assert compare.get_attribute("aria-pressed") == "true"
    play.tap()
    assert page.page.evaluate(PAUSED)
    assert page.page.get_by_role("button", name="Play pool2/5", exact=True).inner_text() == "▶ Play"
    assert page.page.evaluate(WIDER) <= 0


def test_the_buttons_of_the_details_are_pressed_with_the_keyboard(open_page, song_folder):
    page = open_page(song_folder / "index.html", fragment="#pool2/5")
    page.press("l", "Tab", "Tab", " ")  # past the button that closes
    page.wait_for(SOUNDING)
    assert page.text("#now") == "pool2/5"
    page.press("Tab", "Enter")
    assert page.page.evaluate(MUTED) == [True, False]
    assert page.text("#detail-title") == "pool2/5"


@pytest.mark.parametrize("button", ["detail-play", "detail-ab"])
def test_the_buttons_of_the_details_act_on_what_is_shown_whatever_sounds(song, button):
    first, second = song.visible()[:2]
    song.press("l", " ")
    song.wait_for(SOUNDING)
    song.page.locator(".card:not([hidden]) h3 a").nth(1).click()
    assert song.text("#detail-title") == second
    assert song.text("#now") == first
    assert song.text("#detail-play") == "▶ Play"
    song.page.click(f"#{button}")
    assert song.text("#now").removeprefix("original (instead of ").removesuffix(")") == second
    assert song.page.evaluate(MUTED) == [button == "detail-ab", button == "detail-play"]
    song.wait_for("document.getElementById('detail-play').textContent === '❚❚ Pause'")


def test_a_link_to_a_twin_unfolds_it_and_one_to_a_silent_feature_says_so(open_page, song_folder):
    twin = open_page(song_folder / "index.html", fragment="#pool1/0")
    assert "pool1/0" in twin.visible()
    assert twin.text("#detail-twins") == "Twin of pool1/1."
    silent = open_page(song_folder / "index.html", fragment="#pool1/2")
    assert silent.text("#detail-label") == "silent"


@pytest.mark.parametrize("fragment", ["#pool9/1", "#pool1/99", "#%", "#pool1", "#<b>"])
def test_a_link_to_nothing_opens_nothing(open_page, song_folder, fragment):
    page = open_page(song_folder / "index.html", fragment=fragment)
    assert page.page.locator("#detail").is_hidden()
    assert page.visible()


def test_the_back_button_and_links_inside_the_page_work(song):
    song.page.locator(".six a").first.click()
    title = song.text("#detail-title")
    assert song.page.url.endswith(f"#{title}")


# Elsewhere, and with names nobody checked


def test_the_page_works_from_a_web_server_too(open_page, song_folder):
    handler = functools.partial(
        type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}),
        directory=song_folder,
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = open_page(f"http://127.0.0.1:{server.server_port}/index.html")
        page.press(" ")
        page.wait_for(SOUNDING)
        asked = page.page.evaluate("performance.getEntriesByType('resource').map(r => r.name)")
        page.page.close()
        server.shutdown()
    page.complaints = [c for c in page.complaints if "127.0.0.1" not in c]
    assert asked and all("127.0.0.1" in name for name in asked)


HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}'


def test_hostile_names_stay_text(open_page, tmp_path):
    net = make_network(("pool<script><b>", "p'\"&#x2F;"), classes=[HOSTILE, "b"], name=HOSTILE)
    folder = fd.explain((make_samples(), SR), net).save(tmp_path, HOSTILE)
    page = open_page(folder / "index.html")
    assert page.page.locator("header b, header script, main b.x, img[src=x]").count() == 0
    assert "{{7*7}}" in page.text(".facts") and "<script>alert(2)</script>" in page.text(".facts")
    names = page.visible()
    assert any(name.startswith("pool<script><b>/") for name in names)
    page.page.locator(".card:not([hidden]) h3 a").first.click()
    assert page.text("#detail-title") == names[0]
    page.press(" ")
    page.wait_for(SOUNDING)


def test_a_song_of_another_alphabet_with_odd_signs_finds_its_files(open_page, tmp_path):
    samples = make_samples()
    explanation = fd.explain((samples, SR), make_network(("a b#c%", "노래?x")))
    page = open_page(explanation.save(tmp_path, "100% #노래 & more").joinpath("index.html"))
    assert page.text("h1") == "100% #노래 & more"
    page.press("2", " ")
    page.wait_for(SOUNDING)
    assert page.text("#now").startswith("노래?x/")
    page.wait_for("document.querySelector('.card:not([hidden]) img').naturalWidth > 0")


def test_long_names_are_no_wider_than_a_phone(open_page, tmp_path):
    layer = "features.0.block." + 90 * "x"
    net = make_network((layer, "pool2"), classes=[120 * "c", "b"], name=120 * "n")
    explanation = fd.explain((make_samples(), SR), net)
    folder, _ = (explanation.save(tmp_path, name) for name in (120 * "s", "short"))
    for page in (folder / "index.html", fd.overview(tmp_path)):
        opened = open_page(page, fragment=f"#{layer}/1", width=390, touch=True)
        opened.page.locator("#detail, #across").wait_for()
        assert opened.page.evaluate(WIDER) <= 0
        ticks = opened.page.locator(".hz:visible").first
        assert ticks.evaluate("tick => tick.offsetHeight") < 15  # one line


@pytest.mark.parametrize("audio_format", ["flac", "ogg"])
def test_other_sound_formats_play(open_page, tmp_path, audio_format):
    explanation = fd.explain((make_samples(), SR), make_network(), layers="pool2")
    page = open_page(explanation.save(tmp_path, audio_format=audio_format) / "index.html")
    page.press(" ")
    page.wait_for(SOUNDING)


def test_a_missing_sound_is_said_and_played_once_it_is_there(open_page, song_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(song_folder, copy)
    page = open_page(copy / "index.html")
    for path in copy.glob("pool*/*.wav"):
        os.remove(path)
    page.press(" ")
    page.wait_for("document.getElementById('now').textContent.includes('cannot play')")
    shutil.copytree(song_folder, copy, dirs_exist_ok=True)
    page.page.locator(".card:not([hidden]) .play").first.click()
    page.wait_for(SOUNDING)
    assert page.text("#now") == page.visible()[0]
    page.complaints.clear()


def test_a_page_without_features_and_a_silent_one_open(open_page, tmp_path):
    empty = fd.explain((make_samples(), SR), make_network(), features=[])
    page = open_page(empty.save(tmp_path, "empty") / "index.html")
    assert page.text("#count") == "0 shown"
    silent = fd.explain((0 * make_samples(), SR), make_network())
    page = open_page(silent.save(tmp_path, "silent") / "index.html")
    assert page.text("#count") == "0 shown"
    assert "pool2: 0, 1, 2, 3, 4, 5, 6, 7" in " ".join(page.text(".silent").split())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(open_page, song_folder, width, scheme):
    page = open_page(song_folder / "index.html", width=width, height=800, scheme=scheme)
    assert page.page.evaluate(WIDER) <= 0
    page.press("ArrowRight", "Enter")
    box = page.page.locator("#detail").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_all_that_is_pressed_on_a_phone_is_as_large_as_a_thumb(open_page, song_folder):
    page = open_page(song_folder / "index.html", fragment="#pool2/5", width=390, touch=True)
    for control in page.page.locator("button:visible, select:visible, input:visible").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 44, control.evaluate("one => one.outerHTML")


def test_text_stands_out_from_its_ground(open_page, song_folder):
    """WCAG AA: a contrast of 4.5 for the colours that text has."""
    for scheme in ("light", "dark"):
        page = open_page(song_folder / "index.html", scheme=scheme)
        colours = page.page.evaluate("""() => {
            const style = getComputedStyle(document.documentElement);
            return ["page", "card", "ink", "soft", "accent", "mark"].map(
                (name) => style.getPropertyValue(`--${name}`).trim());
        }""")
        *grounds, ink, soft, accent, mark = map(luminance, colours)
        for ground in grounds:
            for text in (ink, soft, accent, mark):
                lighter, darker = max(ground, text), min(ground, text)
                assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
