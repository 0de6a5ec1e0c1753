from __future__ import annotations

import csv
import json

import pytest

from fastdeconv.report.tables import COLUMNS, write_csv, write_json


def row(**values):
    return dict.fromkeys(COLUMNS, 0) | values


def test_numbers_in_the_csv_come_back_exactly(tmp_path):
    rows = [row(layer="pool1", feature=3, energy=0.1 + 0.2, peak=1e-45, gain=1 / 3)]
    write_csv(tmp_path / "a.csv", rows)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert list(read) == list(COLUMNS)
    assert [float(read[key]) for key in ("energy", "peak", "gain")] == [0.1 + 0.2, 1e-45, 1 / 3]
    assert read["feature"] == "3"


@pytest.mark.parametrize("name", ['a,"b"', "two\nlines", "노래"])
def test_hostile_layer_names_survive_the_csv(tmp_path, name):
    write_csv(tmp_path / "a.csv", [row(layer=name)])
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert [read["layer"] for read in csv.DictReader(file)] == [name]


def test_json_keeps_any_name_even_one_that_is_not_valid_text(tmp_path):
    record = {"a": "노래", "b": "\udcff\n"}
    write_json(tmp_path / "a.json", record)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "노래" in text
    assert json.loads(text) == record
