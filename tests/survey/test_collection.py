"""What the tracks of a collection are, and how they are cut into shards."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdeconv as fd
from fastdeconv.survey.collection import (
    Track,
    path_of,
    read_collection,
    shards_of,
    track_of,
)

NAMES = st.binary(min_size=1, max_size=30).filter(lambda b: b"\0" not in b and b"/" not in b)


def names(collection):
    return [track.name for track in collection.tracks]


@given(NAMES | st.sampled_from([rb"\udcff", rb"\udc5c", b"\\udc\xff", b"\\"]))
def test_every_file_name_is_text_and_comes_back(raw):
    path = os.fsdecode(raw)
    track = track_of(path)
    track.encode("utf-8")
    assert os.fsencode(path_of(track)) == raw


@given(st.lists(NAMES, unique=True))
def test_no_two_names_become_one(raws):
    assert len({track_of(os.fsdecode(raw)) for raw in raws}) == len(raws)


def test_a_folder_has_sounds_of_all_kinds_and_of_folders_in_it(tmp_path):
    root = tmp_path / "music"
    for name in ("b.MP3", "a/one.wav", "a/cover.jpg", ".hidden.wav", ".git/x.wav", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "out").mkdir()
    (root / "out/feature.wav").write_text("x")
    (root / "a/loop").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/far.flac").write_text("x")
    found = read_collection(root, root / "out")
    assert names(found) == ["a/one.wav", "b.MP3", "linked/far.flac"]
    assert found.left_aside == 2
    assert found.root == str(root)


def test_a_folder_that_cannot_be_listed_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.wav").write_text("x")
    real = os.listdir

    def listdir(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr(os, "listdir", listdir)
    assert names(read_collection(tmp_path, tmp_path / "out")) == ["a.wav", "closed"]
    monkeypatch.setattr(os, "listdir", lambda place: listdir("closed"))
    with pytest.raises(fd.ParameterError, match="cannot be listed: Permission denied"):
        read_collection(tmp_path, tmp_path / "out")


def test_an_empty_folder_says_what_it_has(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(fd.ParameterError, match=r"no sound in this folder.*1 file.*\.mp3"):
        read_collection(tmp_path, tmp_path / "out")


def test_lists_are_relative_to_their_folder(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfb.wav\r\na.wav\n\n#c.wav\nb.wav\n./d\xff.wav")
    found = read_collection(tmp_path / "list.txt", tmp_path / "out")
    assert names(found) == ["#c.wav", "a.wav", "b.wav", r"d\udcff.wav"]
    assert found.root == str(tmp_path)
    assert all(track.size is None for track in found.tracks)
    (tmp_path / "list.m3u").write_text("#EXTM3U\na.wav\n")
    assert names(read_collection(tmp_path / "list.m3u", tmp_path / "out")) == ["a.wav"]


def test_tables_name_their_column(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text('genre,file\nrock,"x, y.wav"\njazz,z.wav\n')
    assert names(read_collection(table, tmp_path / "out")) == ["x, y.wav", "z.wav"]
    table.write_text("genre,title\nrock,x\n")
    with pytest.raises(fd.ParameterError, match="one of the columns track, file, path, found 'ge"):
        read_collection(table, tmp_path / "out")
    table.write_text("track\n")
    with pytest.raises(fd.ParameterError, match="no tracks"):
        read_collection(table, tmp_path / "out")


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_lists_in_utf16_are_refused(tmp_path, name, encoding):
    (tmp_path / name).write_bytes("\ufefftrack\na.wav\n".encode(encoding))
    with pytest.raises(fd.ParameterError, match=rf"{name}: the text is UTF-16; save it as UTF-8"):
        read_collection(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_list_that_is_no_text_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"track\nRIFF\x24\0\0\0WAVEfmt ")
    with pytest.raises(fd.ParameterError, match=rf"{name}: not a text file"):
        read_collection(tmp_path / name, tmp_path / "out")


def test_paths_are_relative_to_the_present_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read_collection([tmp_path / "b.wav", "a.wav"], tmp_path / "out")
    assert names(found) == [str(tmp_path / "b.wav"), "a.wav"]
    assert found.root == str(tmp_path)
    with pytest.raises(fd.ParameterError, match="found 3"):
        read_collection([3], tmp_path)
    with pytest.raises(fd.ParameterError, match="found 7"):
        read_collection(7, tmp_path)


def test_a_sound_alone_is_a_collection(tmp_path):
    (tmp_path / "a.wav").write_text("x")
    assert names(read_collection(str(tmp_path / "a.wav"), tmp_path / "out")) == ["a.wav"]


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_collection(tmp_path / "nowhere", tmp_path / "out")


@given(st.sets(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=200), st.booleans())
def test_shards_are_the_tracks_in_order_and_few_change(found, rows):
    tracks = [Track(name, 1, 1) for name in sorted(found)]
    shards = shards_of(tracks, rows=rows)
    assert [track for shard in shards for track in shard.tracks] == tracks
    fewer = shards_of(tracks[1:], rows=rows)
    digests = {shard.digest for shard in shards}
    begins = {shard.tracks[0] for shard in shards}
    # Behind the first place where both begin a shard they are the same.
    common = [i for i, shard in enumerate(fewer) if shard.tracks[0] in begins]
    assert all(shard.digest in digests for shard in fewer[common[0] if common else len(fewer):])


def test_size_and_time_are_part_of_a_shard():
    one, other = ([Track("a", size, 1)] for size in (1, 2))
    assert shards_of(one, rows=True)[0].digest != shards_of(other, rows=True)[0].digest
