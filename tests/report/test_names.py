from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv.report.names import safe_name, unique_names

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=400)
HOSTILE = st.one_of(
    ANY_TEXT,
    st.lists(
        st.sampled_from(["..", ".", "/", "\\", "-", " ", "\n", "\x1b[m", "CON", "nul.", "é", "가"])
    ).map("".join),
)


@given(HOSTILE)
def test_a_safe_name_is_one_visible_component_that_any_file_system_takes(text):
    name = safe_name(text, "song")
    assert name
    assert not set(name) & set('/\\<>:"|?*')
    assert name[0] not in ".- " and name[-1] not in ". "
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in name)
    assert len(name.encode()) <= 200


@given(HOSTILE)
def test_making_a_safe_name_safe_again_changes_nothing(text):
    name = safe_name(text, "song")
    assert safe_name(name, "song") == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("song", "song"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "fallback"),
        ("", "fallback"),
        ("--help", "help"),
        ("two\nlines", "two_lines"),
        ("노래 ünïcode", "노래 ünïcode"),
        ("u\u0308", "ü"),
        ("con", "_con"),
        ("LPT1.tar", "_LPT1.tar"),
        ("console", "console"),
        ("nul ", "_nul"),
        ("aux" + 200 * " " + "x", "_aux"),
        ("\udcff", "_"),
    ],
)
def test_known_names(text, expected):
    assert safe_name(text, "fallback") == expected


def test_an_over_long_name_is_cut_between_characters():
    assert safe_name("é" * 300, "song") == "é" * 100


@given(st.lists(HOSTILE, max_size=12))
def test_unique_names_never_collide_even_when_case_is_ignored(texts):
    names = unique_names([safe_name(t, "song") for t in texts], taken=["manifest.json"])
    folded = [unicodedata.normalize("NFC", name.casefold()) for name in names]
    assert len(set(folded)) == len(texts)
    assert "manifest.json" not in folded


def test_colliding_names_are_numbered_in_order():
    assert unique_names(["a", "A", "a-2", "b", "a"]) == ["a", "A-2", "a-2-2", "b", "a-3"]
