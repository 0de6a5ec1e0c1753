"""Messages: bounded, and on one line where they quote a value."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.errors import FastdeconvError, ParameterError, printable, shortened, shown

LONGEST = 1000


def test_a_long_message_keeps_both_ends_and_says_how_long_it_was():
    text = str(ParameterError("song.wav: " + "a" * 50_000 + ", wanted a number"))
    assert len(text) == LONGEST
    assert text.startswith("song.wav: aaa")
    assert text.endswith("aaa, wanted a number")
    assert "50027 characters" in text


def test_a_message_of_usual_length_is_kept_as_it_is():
    assert str(ParameterError("found\n 3")) == "found\n 3"
    assert str(FastdeconvError()) == ""
    assert shortened("a" * LONGEST) == "a" * LONGEST


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(fd.AudioError("b" * 5000)))
    assert isinstance(error, fd.AudioError)
    assert str(error) == str(fd.AudioError("b" * 5000))


def test_a_network_of_many_layers_names_its_ends():
    net = fd.Network(
        [{"type": "relu", "name": f"activation-{i}"} for i in range(2000)], {}, (1, None, None)
    )
    for name in ("missing", "missing" * 1000):
        with pytest.raises(ParameterError, match=r"^no layer 'missing") as caught:
            net.layer_index(name)
        assert len(str(caught.value)) <= LONGEST
        assert "activation-0, " in str(caught.value)
        assert str(caught.value).endswith("activation-1999")


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_is_one_line_without_control_characters(text):
    assert printable(text).isprintable()


def test_printable_shows_what_it_escapes_and_leaves_the_rest():
    assert printable("노래\n\x1b[31m") == "노래\\n\\x1b[31m"


class Odd:
    def __repr__(self):
        raise RuntimeError("no representation")


VALUES = {
    "text": "s" * 10_000,
    "list": list(range(10_000)),
    "dict": {"key": "v" * 10_000},
    "array": np.zeros((50, 50)),
    "int": 10**10_000,
    "object": Odd(),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_quoted_value_is_short_and_on_one_line(value):
    assert len(shown(value)) <= 200
    assert "\n" not in shown(value)
