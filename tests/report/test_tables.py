from __future__ import annotations

import csv
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdeconv.report.tables import COLUMNS, own_and_theirs, write_csv, write_rows
from fastdeconv.textfiles import read_rows, write_json


def row(**values):
    return dict.fromkeys(COLUMNS, 0) | values


def cells(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return read_rows(file)


def test_numbers_in_the_csv_come_back_exactly(tmp_path):
    rows = [row(layer="pool1", feature=3, energy=0.1 + 0.2, peak=1e-45, gain=1 / 3)]
    write_csv(tmp_path / "a.csv", rows)
    (read,) = rows_of(tmp_path / "a.csv")
    assert list(read) == list(COLUMNS)
    assert [float(read[key]) for key in ("energy", "peak", "gain")] == [0.1 + 0.2, 1e-45, 1 / 3]
    assert read["feature"] == "3"


@pytest.mark.parametrize("name", ['a,"b"', "two\nlines", "노래"])
def test_hostile_layer_names_survive_the_csv(tmp_path, name):
    write_csv(tmp_path / "a.csv", [row(layer=name)])
    assert cells(tmp_path / "a.csv")[1][0] == name


@pytest.mark.parametrize("name", [
    "=1+1", "+A1", "-conv", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "'=1", "-1+1", "--1",
])
def test_text_that_a_spreadsheet_would_compute_is_written_behind_an_apostrophe(tmp_path, name):
    write_rows(tmp_path / "a.csv", [{"layer": name, name: 1}])
    assert cells(tmp_path / "a.csv") == [["layer", f"'{name}"], [f"'{name}", "1"]]
    assert rows_of(tmp_path / "a.csv") == [{"layer": name, name: "1"}]


def test_numbers_stay_numbers_also_negative_ones_and_those_given_as_text(tmp_path):
    write_rows(tmp_path / "a.csv", [{"a": -1.5, "b": -3, "c": "-2", "d": "+4.5e-3", "e": "'tis"}])
    assert cells(tmp_path / "a.csv")[1] == ["-1.5", "-3", "-2", "+4.5e-3", "'tis"]


def test_where_there_is_no_number_the_cell_is_empty(tmp_path):
    write_rows(tmp_path / "a.csv", [{"a": float("nan"), "b": None, "c": 0.0}])
    assert cells(tmp_path / "a.csv")[1] == ["", "", "0.0"]


# The csv module of Python 3.10 knows no null character.
NO_TEXT = "" if sys.version_info >= (3, 11) else "\0"


@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NO_TEXT)),
    column=st.text("=+-@'a\t\n"),
)
def test_any_text_comes_back(tmp_path_factory, name, column):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    write_rows(path, [{"first": "x", column: name}])
    assert rows_of(path) == [{"first": "x", column: name}]


@pytest.mark.parametrize("text", ["", "a,b\n1\n", "a\n1,2\n", 'a\n"1'])
def test_what_is_no_table_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        read_rows(text.splitlines(keepends=True))


def test_a_column_of_the_user_never_takes_the_place_of_another():
    row = own_and_theirs(
        {"stimulus": 1}, {"stimulus": 2, "attribute_stimulus": 3, "file": 4, "Stimulus": 5}
    )
    assert row == {
        "stimulus": 1, "attribute_attribute_stimulus": 2, "attribute_stimulus": 3, "file": 4,
        "Stimulus": 5,
    }


def test_json_keeps_any_name_even_one_that_is_not_valid_text(tmp_path):
    record = {"a": "노래", "b": "\udcff\n"}
    write_json(tmp_path / "a.json", record)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "노래" in text
    assert json.loads(text) == record
