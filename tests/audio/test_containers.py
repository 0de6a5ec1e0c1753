"""Files whose headers are wrong, missing or surrounded by other things, and several in one."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError, Frontend, load_clip
from fastdeconv.audio.containers import chunks

SR = 16000
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\x03\x00\x00\x00\x00\x07\x76" + bytes(1014)
APE = (
    b"APETAGEX" + struct.pack("<IIII8x", 2000, 60, 1, 0xA0000000) + b"i" * 28
    + b"APETAGEX" + struct.pack("<IIII8x", 2000, 60, 1, 0x80000000)
)
LYRICS = b"LYRICSBEGIN" + b"w" * 9 + b"000020LYRICS200"


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def encoded(samples, fmt, subtype=None, sr=SR):
    file = io.BytesIO()
    soundfile.write(file, samples, sr, format=fmt, subtype=subtype)
    return file.getvalue()


def loaded(content, sr=SR, frames=None, offset=0.0):
    frontend = Frontend(sr=sr, n_fft=512, hop_length=256, frames=frames)
    return load_clip(io.BytesIO(content), frontend, offset=offset).samples


def with_number(content, position, form, value):
    changed = bytearray(content)
    struct.pack_into(form, changed, position, value)
    return bytes(changed)


def field(content, fmt):
    """Position and format of the size of the sound, and of that of the file."""
    if fmt in ("WAV", "RF64"):
        at = content.find(b"ds64") + 8
        short = (content.find(b"data") + 4, "<I", 4, "<I")
        return (at + 8, "<q", at, "<q") if fmt == "RF64" else short
    if fmt == "AIFF":
        return content.find(b"SSND") + 4, ">I", 4, ">I"
    if fmt == "W64":
        return content.find(b"data\xf3") + 16, "<q", 16, "<q"
    return (content.find(b"data") + 4, ">q", None, None) if fmt == "CAF" else (8, ">I", None, None)


@pytest.mark.parametrize("fmt", ["WAV", "RF64", "AIFF", "W64", "CAF", "AU"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_sizes_that_were_never_filled_in_are_found(fmt, subtype):
    content = encoded(noise(3000), fmt, subtype)
    expected = loaded(content)
    at, form, whole_at, whole_form = field(content, fmt)
    unknown = (0, 0x7FFFF000, 0xFFFFFFFF) if form[1] == "I" else (0, -1, (1 << 63) - 1)
    for value in unknown:
        changed = with_number(content, at, form, value)
        np.testing.assert_array_equal(loaded(changed), expected)
        np.testing.assert_array_equal(loaded(changed, offset=0.1), expected[1600:])
        if whole_at is not None:
            changed = with_number(changed, whole_at, whole_form, unknown[-1])
            np.testing.assert_array_equal(loaded(changed), expected)


def test_an_aiff_codec_does_not_stop_at_a_number_of_frames_that_was_never_filled_in():
    content = encoded(noise(3200), "AIFF", "GSM610")
    expected = loaded(content)
    changed = with_number(content, content.find(b"SSND") + 4, ">I", 0)
    changed = with_number(changed, content.find(b"COMM") + 10, ">I", 0)
    np.testing.assert_array_equal(loaded(changed)[: expected.size], expected)


def test_a_recording_longer_than_its_header_says_is_read_to_its_end():
    content = encoded(noise(3000), "WAV")
    stale = with_number(with_number(content, 40, "<I", 2000), 4, "<I", 2036)
    np.testing.assert_array_equal(loaded(stale), loaded(content))


@pytest.mark.parametrize(
    "rest",
    [
        b"LIST" + struct.pack("<I", 400) + b"INFO" + bytes(range(1, 100)) * 4,
        bytes(500),
        b"\x01\x02\x03",
        ID3V1,
        ID3V2,
        APE,
        LYRICS + ID3V1,
    ],
    ids=["chunk", "padding", "bytes", "id3v1", "id3v2", "ape", "lyrics"],
)
def test_what_stands_behind_the_sound_is_not_heard(rest):
    content = encoded(noise(3000), "WAV")
    expected = loaded(content)
    np.testing.assert_array_equal(loaded(content + rest), expected)
    counted = with_number(content + rest, 4, "<I", len(content + rest) - 8)
    np.testing.assert_array_equal(loaded(counted), expected)


def test_an_empty_chunk_of_sound_before_another_chunk_is_empty():
    content = encoded(noise(0), "WAV") + b"LIST" + struct.pack("<I", 4) + b"INFO"
    with pytest.raises(AudioError, match="holds no samples"):
        loaded(content)


@pytest.mark.parametrize("fmt", ["WAV", "AIFF", "W64", "RF64", "CAF", "FLAC", "OGG"])
def test_a_truncated_file_is_read_as_far_as_it_is_needed(fmt):
    content = encoded(noise(60000), fmt)
    cut = content[: len(content) // 2]
    with pytest.raises(AudioError, match="truncated"):
        loaded(cut)
    np.testing.assert_array_equal(loaded(cut, frames=20), loaded(content, frames=20))


def test_joined_wavs_are_read_through():
    stereo = np.stack([noise(2000), noise(2000, 1)], axis=1)
    parts = [encoded(noise(3000), "WAV"), encoded(stereo, "WAV")]
    expected = np.concatenate([loaded(part) for part in parts])
    np.testing.assert_array_equal(loaded(b"".join(parts)), expected)
    np.testing.assert_array_equal(loaded(b"".join(parts), offset=0.2), expected[3200:])
    with pytest.raises(AudioError, match=r"different rates, 16000 and 8000 Hz"):
        loaded(parts[0] + encoded(noise(1000), "WAV", sr=8000))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_sound_of_more_bytes_than_its_format_can_count_is_read(monkeypatch, subtype):
    content = encoded(np.stack([noise(3000), noise(3000, 1)], 1), "WAV", subtype)
    expected = loaded(content)
    monkeypatch.setattr(chunks, "_largest", lambda size: 5000)
    monkeypatch.setattr(chunks, "_SPLIT", 4000)
    for offset in (0.0, 0.0625, 0.15):
        got = loaded(with_number(content, 40, "<I", 0), offset=offset)
        np.testing.assert_array_equal(got, expected[int(offset * SR) :])


@pytest.mark.parametrize(
    ("fmt", "subtype"),
    [
        ("WAV", "GSM610"), ("WAV", "G721_32"), ("WAV", "NMS_ADPCM_16"), ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"), ("AIFF", "DWVW_16"), ("CAF", "ALAC_16"), ("OGG", "OPUS"),
    ],
)
def test_formats_without_exact_seek_are_read_up_to_an_offset(fmt, subtype):
    content = encoded(noise(9000), fmt, subtype)
    whole = loaded(content)
    for offset in (0.2, 0.0333, 0.5):
        np.testing.assert_array_equal(loaded(content, offset=offset), whole[int(offset * SR) :])


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_gsm_has_as_many_samples_as_its_blocks(blocks):
    assert loaded(encoded(noise(320 * blocks), "WAV", "GSM610")).size == 320 * blocks


@pytest.mark.parametrize("fmt", ["WAV", "FLAC", "AIFF", "OGG"])
@pytest.mark.parametrize("tag", [ID3V2, ID3V2 + ID3V2, APE], ids=["id3", "two", "ape"])
def test_tags_before_any_kind_of_file_are_skipped(fmt, tag):
    content = encoded(noise(3000), fmt)
    np.testing.assert_array_equal(loaded(tag + content), loaded(content))


# --- FLAC --------------------------------------------------------------------------------


def flac(seed=0, n=20000, length=None):
    """A FLAC, and with what its header says of its length."""
    content = encoded(noise(n, seed), "FLAC")
    if length is None:
        return content
    first = content[21] & 0xF0 | length >> 32
    return content[:21] + bytes([first]) + struct.pack(">I", length % (1 << 32)) + content[26:]


@pytest.mark.parametrize("length", [0, 1, 5000])
def test_a_flac_is_read_to_its_end_whatever_length_it_notes(length):
    expected, content = loaded(flac()), flac(length=length)
    np.testing.assert_array_equal(loaded(content), expected)
    np.testing.assert_array_equal(loaded(content + ID3V1), expected)
    np.testing.assert_array_equal(loaded(content, offset=0.7), expected[11200:])
    np.testing.assert_array_equal(loaded(content, frames=10, offset=0.7), expected[11200:13504])
    np.testing.assert_array_equal(
        loaded(content, frames=100), np.pad(expected, (0, 99 * 256 - expected.size))
    )
    with pytest.raises(AudioError, match=r"beyond the end, at 1\.250 s"):
        loaded(content, offset=1.25)


@pytest.mark.parametrize("length", [20001, (1 << 36) - 1])
def test_a_flac_shorter_than_it_notes_is_truncated_where_that_matters(length):
    content = flac(length=length)
    np.testing.assert_array_equal(loaded(content, frames=20), loaded(flac(), frames=20))
    with pytest.raises(AudioError, match=f"20000 samples where there should be {length}"):
        loaded(content)


def test_a_flac_of_unknown_length_is_read_as_far_as_it_goes_but_not_over_damage():
    content, whole = flac(length=0), loaded(flac())
    got = loaded(content[: len(content) * 3 // 4])
    assert got.size >= 12000
    np.testing.assert_array_equal(got, whole[: got.size])
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 255
    with pytest.raises(AudioError, match="damaged"):
        loaded(damaged)


def test_joined_flacs_are_read_through():
    expected = np.concatenate([loaded(flac()), loaded(flac(1))])
    for first in (flac(), flac(length=0), flac(length=77)):
        for between in (b"", ID3V1, ID3V2[:30]):
            np.testing.assert_array_equal(loaded(first + between + flac(1)), expected)
    np.testing.assert_array_equal(loaded(flac() + flac(1), offset=1.3), expected[20800:])


@pytest.mark.parametrize("frames", [None, 20])
def test_a_flac_of_0_hz_is_refused(frames):
    content = bytearray(flac())
    content[18:20], content[20] = b"\0\0", content[20] & 0x0F
    with pytest.raises(AudioError, match=r"0 Hz|not an audio file, or damaged"):
        loaded(bytes(content), frames=frames)


def test_a_flac_with_a_wrong_table_for_seeking_is_read_up_to_an_offset():
    content, whole = flac(), loaded(flac())
    points = b"".join(struct.pack(">QQH", *p) for p in ((0, 0, 4096), (12288, 50, 4096)))
    table = bytes([3]) + len(points).to_bytes(3, "big") + points
    wrong = content[:4] + b"\0" + content[5:42] + table + content[42:]
    for offset in (0.1, 0.7, 1.2):
        got = loaded(wrong, frames=3, offset=offset)
        np.testing.assert_array_equal(got, whole[int(offset * SR) :][: got.size])


# --- other things ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom", "m4a"),
        (b"\xff\xf1\x50\x80\x20\xdf\xfc\xde", "AAC"),
        (ID3V2 + b"\xff\xf1\x50\x80\x20\xdf\xfc\xde", "AAC"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "WMA"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01", "WebM"),
        (b"wvpk\xd0I\0\0\x10\x04", "WavPack"),
        (b"MAC \x96\x0f", "ape"),
        (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
    ],
)
def test_a_kind_of_file_that_is_not_read_is_named_with_what_to_do(content, kind):
    with pytest.raises(AudioError, match=f"{kind}.* is not read; convert it to .*ffmpeg"):
        loaded(content + bytes(range(256)) * 8)


def test_a_file_object_that_gives_less_than_asked_for_is_read():
    class Trickle(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 1000) if size >= 0 else size)

    frontend = Frontend(sr=SR, n_fft=512, hop_length=256)
    for fmt in ("WAV", "FLAC", "OGG"):
        content = encoded(noise(9000), fmt)
        got = load_clip(Trickle(content), frontend).samples
        np.testing.assert_array_equal(got, loaded(content))


def test_more_streams_than_anybody_joins_are_refused(monkeypatch):
    monkeypatch.setattr("fastdeconv.audio.reading._MAX_PARTS", 5)
    part = encoded(noise(100), "WAV")
    assert loaded(part * 5).size == 500
    with pytest.raises(AudioError, match="damaged: has more than 5 streams"):
        loaded(part * 6)


@pytest.mark.parametrize("scale", [1.0, 0.999], ids=["silent", "almost silent"])
def test_channels_that_cancel_each_other_are_refused(scale):
    left = noise(3000)
    stereo = np.stack([left, -scale * left])
    with pytest.raises(AudioError, match="<BytesIO>: its channels cancel each other out"):
        loaded(encoded(stereo.T, "WAV", "FLOAT"))
    frontend = Frontend(sr=SR, n_fft=512, hop_length=256)
    with pytest.raises(AudioError, match="the channels cancel each other out"):
        load_clip((stereo, SR), frontend)
    for heard in (np.stack([left, -0.9 * left]), np.stack([left, 0 * left]), 0 * stereo):
        assert load_clip((heard, SR), frontend).samples.size == 3000


def test_damage_anywhere_is_refused_by_name_or_read():
    rng = np.random.default_rng(1)
    for fmt in ("WAV", "AIFF", "CAF", "W64", "RF64", "AU", "FLAC", "OGG"):
        content = encoded(noise(3000), fmt)
        for _ in range(15):
            first, last = sorted(rng.integers(0, len(content), 2))
            for damaged in (
                content[:first] + content[last:],
                content[:first] + rng.bytes(int(last - first)) + content[last:],
                content[:last] + content[first:],
            ):
                try:
                    assert np.isfinite(loaded(damaged)).all()
                except AudioError as error:
                    assert str(error).startswith("<BytesIO>: ")
