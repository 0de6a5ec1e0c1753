"""Tables and names that anybody may have written."""

from __future__ import annotations

import io
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.report.atlas import write_atlas
from fastdeconv.report.atlas_excerpts import place_of
from fastdeconv.report.ogg import set_serial
from fastdeconv.report.sounds import encode

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MARKUP = "<script>alert(1)</script>.wav"
NAMES = (
    MARKUP, "\"'&<img src=x onerror=alert(1)>.wav", "%2e%2e%2f.wav", "-rf.wav",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.wav", "a\nb.wav",
)


@pytest.fixture(scope="module")
def surveyed(make_survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    table = folder / "tags.csv"
    table.write_text('track,"</script><b>"\n' + "".join(
        f'"{name.replace(chr(34), 2 * chr(34))}",{i}\n' for i, name in enumerate(NAMES)
    ))
    make_survey(folder, names=NAMES, tags=table)
    return folder


@pytest.fixture
def out(surveyed, tmp_path):
    shutil.copytree(
        surveyed / "out", tmp_path / "out", ignore=shutil.ignore_patterns("index.html", "atlas")
    )
    return tmp_path / "out"


def change(out, name, column, value, row=0):
    """Another value at one place of a table."""
    path = out / f"{name}.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    i = table.column_names.index(column)
    field = table.schema.field(column)
    pq.write_table(table.set_column(i, field, pa.array(values, field.type)), path)


def test_names_are_never_markup(surveyed):
    write_atlas(surveyed / "out", audio_format="wav")
    page = (surveyed / "out" / "index.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 2
    assert "<img src=x" not in page and "</script><b>" not in page
    begin = page.index('id="data">') + len('id="data">')
    data = json.loads(page[begin : page.index("</script>", begin)])
    assert MARKUP in data["tracks"]
    assert "a\\nb.wav" in data["tracks"]  # on one line


def test_the_sounds_of_hostile_names_lie_in_the_folder_of_the_atlas(surveyed):
    write_atlas(surveyed / "out", audio_format="wav")
    names = {path.name for path in (surveyed / "out").iterdir() if path.name[0] != "."}
    assert names == {
        "atlas", "attributes.parquet", "errors.csv", "exemplars.parquet", "features.parquet",
        "index.html", "network.npz", "shards", "survey.json", "tags.parquet", "together.parquet",
        "tracks.parquet",
    }
    assert {path.name for path in (surveyed / "out" / "atlas").iterdir()} == {"pool1"}


@pytest.mark.parametrize("track", ["/etc/passwd", "../secret.wav", "music/../../secret.wav"])
def test_a_track_outside_of_the_root_is_not_read(surveyed, out, track):
    shutil.copy(surveyed / "music" / NAMES[3], surveyed / "secret.wav")
    change(out, "exemplars", "track", track)
    found = write_atlas(out, audio_format="wav")
    assert found.missing == {track: "lies outside the root of the survey"}


def test_a_track_outside_of_the_root_is_read_when_it_may_be(make_survey, tmp_path):
    make_survey(tmp_path)
    survey = json.loads((tmp_path / "out" / "survey.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    survey["root"] = str(tmp_path / "elsewhere")
    (tmp_path / "out" / "survey.json").write_text(json.dumps(survey))
    table = pq.read_table(tmp_path / "out" / "exemplars.parquet")
    tracks = pa.array([f"../music/{track}" for track in table["track"].to_pylist()])
    i = table.column_names.index("track")
    pq.write_table(
        table.set_column(i, table.schema.field("track"), tracks),
        tmp_path / "out" / "exemplars.parquet",
    )
    assert write_atlas(tmp_path / "out", audio_format="wav").excerpts == 0
    assert write_atlas(tmp_path / "out", audio_format="wav", outside=True).excerpts == 5 * 7


def test_names_that_are_not_utf_8_are_found_again(make_survey, tmp_path):
    make_survey(tmp_path, names=("one.wav",))
    shutil.rmtree(tmp_path / "out")
    music = os.fsencode(tmp_path / "music")
    os.rename(os.path.join(music, b"one.wav"), os.path.join(music, b"\xffone.wav"))
    make_survey(tmp_path, names=())
    assert write_atlas(tmp_path / "out", audio_format="wav").excerpts == 5
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "\\\\udcffone.wav" in page


def test_nothing_is_written_through_a_link(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (out / "atlas").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(fd.ParameterError, match="is a link"):
        write_atlas(out, audio_format="wav")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_track_is_placed_below_the_root():
    assert place_of("/music", "a/b.wav", outside=False) == "/music/a/b.wav"
    for track in ("/a", "..", "a/../../b", "\0"):
        with pytest.raises(ValueError, match="outside"):
            place_of("/music", track, outside=False)


@pytest.mark.parametrize("name, column, value, said", [
    ("exemplars", "layer", "pool9", "pool9"),
    ("exemplars", "feature", 6, "6"),
    ("exemplars", "start", float("nan"), "times and score"),
    ("exemplars", "end", -1.0, "times and score"),
    ("features", "feature", 5, "features.parquet"),
    ("together", "other_feature", -1, "together.parquet"),
    ("attributes", "layer", "none", "attributes.parquet"),
    ("tracks", "track", "x" * 5000, "5000 characters"),
    ("tags", "attribute", "x" * 5000, "5000 characters"),
])
def test_a_table_with_a_strange_value_is_refused_by_its_name(out, name, column, value, said):
    change(out, name, column, value)
    with pytest.raises(fd.ParameterError, match=said) as error:
        write_atlas(out, audio_format="wav")
    assert f"{name}.parquet" in str(error.value)
    assert not (out / "index.html").exists()


def test_a_kind_of_association_that_nobody_knows_is_refused(out):
    change(out, "attributes", "kind", "guess")
    with pytest.raises(fd.ParameterError, match=r"attributes\.parquet: .*guess"):
        write_atlas(out, audio_format="wav")


def test_a_long_text_that_a_small_file_repeats_is_refused_before_it_is_unpacked(out):
    table = pq.read_table(out / "tags.parquet")
    long = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(3_000_000, np.int32)), pa.array(["x" * 1000])
    )
    columns = {"track": long, "attribute": long.take(pa.array(np.arange(3_000_000))),
               "number": pa.nulls(3_000_000, pa.float64()),
               "label": pa.nulls(3_000_000, pa.string())}
    bomb = pa.table(columns).cast(pa.schema([
        field if field.type != pa.string() or field.name == "label"
        else pa.field(field.name, pa.dictionary(pa.int32(), pa.string())) for field in table.schema
    ]))
    pq.write_table(bomb, out / "tags.parquet", store_schema=False)
    assert (out / "tags.parquet").stat().st_size < 1 << 20
    with pytest.raises(fd.ParameterError, match=r"tags\.parquet: column 'track' has 3000000000"):
        write_atlas(out, audio_format="wav")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nothing of the kind" * 100])
def test_a_file_that_is_no_table_is_refused_by_its_name(out, content):
    (out / "exemplars.parquet").write_bytes(content)
    with pytest.raises(fd.ParameterError, match=r"exemplars\.parquet"):
        write_atlas(out, audio_format="wav")


def test_a_survey_that_is_not_complete_is_refused(out):
    record = json.loads((out / "survey.json").read_text())
    (out / "survey.json").write_text(json.dumps(record | {"counts": None}))
    with pytest.raises(fd.ParameterError, match="not complete"):
        write_atlas(out)


def test_a_record_of_an_excerpt_that_is_not_ours_is_made_again(out):
    write_atlas(out, audio_format="wav")
    whole = {p.name: p.read_bytes() for p in (out / "atlas" / "pool1").iterdir()}
    for path in sorted((out / "atlas" / "pool1").glob("*.json"))[:3]:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"field": ["</script>", 0, 0, 0]}))
    write_atlas(out, audio_format="wav")
    assert whole == {p.name: p.read_bytes() for p in (out / "atlas" / "pool1").iterdir()}


@given(st.binary(max_size=200))
def test_what_is_no_ogg_file_is_refused(data):
    if data:
        with pytest.raises(ValueError, match="no page of Ogg"):
            set_serial(io.BytesIO(data), 1)


def test_a_cut_ogg_file_is_refused():
    whole = encode(0.1 * np.ones(4000, np.float32), 8000, audio_format="ogg")
    with pytest.raises(ValueError, match="no page of Ogg"):
        set_serial(io.BytesIO(whole[:-3]), 1)
