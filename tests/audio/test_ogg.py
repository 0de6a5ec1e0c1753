"""Ogg: chains of streams, positions that leave samples out or are wrong, pages that are missing."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError

from .conftest import SR, loaded

POLYNOMIAL = 0x04C11DB7
TABLE = []
for _byte in range(256):
    _value = _byte << 24
    for _ in range(8):
        _value = (_value << 1 ^ (POLYNOMIAL if _value >> 31 else 0)) & 0xFFFFFFFF
    TABLE.append(_value)


def sound(n, seed=0, channels=1):
    shape = n if channels == 1 else (n, channels)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def encoded(samples, codec="VORBIS", sr=SR):
    file = io.BytesIO()
    soundfile.write(file, samples, sr, format="OGG", subtype=codec)
    return file.getvalue()


def pages_of(content):
    found, at = [], 0
    while at < len(content):
        count = content[at + 26]
        size = 27 + count + sum(content[at + 27 : at + 27 + count])
        found.append(bytearray(content[at : at + size]))
        at += size
    return found


def joined(pages):
    """A file of the pages, with checksums that fit them."""
    for page in pages:
        page[22:26] = bytes(4)
        value = 0
        for byte in page:
            value = (value << 8 & 0xFFFFFFFF) ^ TABLE[value >> 24 ^ byte]
        page[22:26] = struct.pack("<I", value)
    return b"".join(pages)


def with_serial(content, serial):
    pages = pages_of(content)
    for page in pages:
        page[14:18] = serial
    return joined(pages)


def position(page):
    return int.from_bytes(page[6:14], "little", signed=True)


def moved(content, change, pages=slice(2, None)):
    """The file, with other positions of its pages of sound."""
    changed = pages_of(content)
    for page in changed[pages]:
        page[6:14] = change(position(page)).to_bytes(8, "little", signed=True)
    return joined(changed)


def as_flac_in_ogg(content, serial=b"flac"):
    """A FLAC of libsndfile, with its frames of 4096 samples in pages of Ogg."""
    starts = [at for at in range(42, len(content)) if content[at : at + 2] == b"\xff\xf8"]
    # Only those that are numbered in turn begin a frame.
    frames, metadata = [], content[42:]
    for at in starts:
        if content[at + 4] == len(frames):
            frames.append(at)
    metadata = content[42 : frames[0]]
    packets = [b"\x7fFLAC\x01\x00\x00\x01" + content[:42], metadata]
    packets += [content[a:b] for a, b in zip(frames, [*frames[1:], len(content)])]
    pages = []
    for number, packet in enumerate(packets):
        for first in range(0, len(packet), 255 * 255) or [0]:
            body = packet[first : first + 255 * 255]
            lacing = bytes([255] * (len(body) // 255))
            if len(body) < 255 * 255:
                lacing += bytes([len(body) % 255])
            flags = (first > 0) | (2 if number == 0 else 0)
            head = struct.pack("<4sBBq4sII", b"OggS", 0, flags, 0, serial, len(pages), 0)
            pages.append(bytearray(head + bytes([len(lacing)]) + lacing + body))
    return joined(pages)


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("serials", [(b"aaaa", b"bbbb", b"cccc"), (b"same",) * 3])
def test_a_chain_is_read_through_all_its_streams(codec, serials):
    parts = [sound(30000), sound(20001, 1, channels=2), sound(700, 2)]
    files = [with_serial(encoded(p, codec), serial) for p, serial in zip(parts, serials)]
    expected = np.concatenate([loaded(file) for file in files])
    assert expected.size == 50701
    chain = b"".join(files)
    np.testing.assert_array_equal(loaded(chain), expected)
    for offset in (0.5, 1.875, 1.9, 3.13):
        got = loaded(chain, offset=offset)
        np.testing.assert_array_equal(got, expected[int(offset * SR) :])
    got = loaded(chain, frames=100, offset=1.0)
    np.testing.assert_array_equal(got, expected[SR:][: 99 * 256])
    with pytest.raises(AudioError, match=r"beyond the end, at 3\.169 s"):
        loaded(chain, offset=3.5)


def test_a_stream_of_another_rate_is_refused_where_it_is_wanted():
    first = encoded(sound(30000))
    chain = first + with_serial(encoded(sound(9000), sr=8000), b"next")
    with pytest.raises(AudioError, match="different rates, 16000 and 8000 Hz"):
        loaded(chain)
    np.testing.assert_array_equal(loaded(chain, frames=50), loaded(first, frames=50))


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_stream_without_its_end_is_read_as_far_as_it_goes(codec):
    content = encoded(sound(60000), codec)
    pages = pages_of(content)
    pages[-1][5] &= ~4
    np.testing.assert_array_equal(loaded(joined(pages)), loaded(content))
    got = loaded(joined(pages[:-1]))
    assert got.size >= 40000
    np.testing.assert_array_equal(got, loaded(content)[: got.size])


@pytest.mark.parametrize("dropped", [1, 52, 1000])
def test_samples_that_the_first_page_does_not_count_are_dropped(dropped):
    content = encoded(sound(40000))
    whole = loaded(content)
    changed = moved(content, lambda noted: noted - dropped)
    np.testing.assert_array_equal(loaded(changed), whole[dropped:])
    np.testing.assert_array_equal(loaded(changed, offset=1.5), whole[dropped + 24000 :])
    chain = with_serial(content, b"next") + changed
    np.testing.assert_array_equal(loaded(chain), np.concatenate([whole, whole[dropped:]]))


@pytest.mark.parametrize("shift", [1, 10**6, 10**15])
@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_stream_that_was_tapped_later_on_begins_with_its_first_sample(codec, shift):
    content = encoded(sound(40000), codec)
    changed = moved(content, lambda noted: noted + shift)
    np.testing.assert_array_equal(loaded(changed), loaded(content))


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("noted", [-1, 0, 5, 1 << 61, (1 << 63) - 1, -5])
def test_no_sound_is_lost_to_positions_that_are_wrong(codec, noted):
    content = encoded(sound(60000), codec)
    whole = loaded(content)
    for pages in (slice(2, None), slice(-1, None), slice(3, 4)):
        got = loaded(moved(content, lambda _: noted, pages))
        assert 60000 <= got.size < 61000
        np.testing.assert_array_equal(got[:60000], whole)


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_broken_or_missing_page_is_refused_where_it_is_wanted(codec):
    content = encoded(sound(120_000), codec)
    pages = pages_of(content)
    broken = bytearray(content)
    broken[len(content) // 2] ^= 1
    for damaged in (joined([*pages[:5], *pages[6:]]), bytes(broken)):
        with pytest.raises(AudioError, match=r"damaged: page \d+ of Ogg is broken or missing"):
            loaded(damaged)
        np.testing.assert_array_equal(loaded(damaged, frames=20), loaded(content, frames=20))


@pytest.mark.parametrize("end", [-1, -300])
def test_a_page_that_is_not_all_there_is_refused_where_it_is_wanted(end):
    content = encoded(sound(60000))
    cut = content[:end]
    with pytest.raises(AudioError, match="truncated: the last page of Ogg is not all there"):
        loaded(cut)
    np.testing.assert_array_equal(loaded(cut, frames=20), loaded(content, frames=20))


@pytest.mark.parametrize("kept", [1, 4, 5, 6, 26, 27, 30])
def test_a_page_of_whose_header_the_beginning_is_there_is_refused(kept):
    content = encoded(sound(60000))
    cut = joined(pages_of(content)[:-1]) + pages_of(content)[-1][:kept]
    with pytest.raises(AudioError, match="truncated: the last page of Ogg is not all there"):
        loaded(cut)


def test_other_bytes_around_pages_are_passed_over():
    content = encoded(sound(60000))
    pages, junk = pages_of(content), np.random.default_rng(0).bytes(2000)
    expected = loaded(content)
    for changed in (joined(pages[:4]) + junk + joined(pages[4:]), content + junk):
        np.testing.assert_array_equal(loaded(changed), expected)


def test_one_of_several_streams_at_the_same_time_is_read():
    first = encoded(sound(60000))
    one, other = pages_of(first), pages_of(with_serial(encoded(sound(60000), "OPUS"), b"othe"))
    turns = [page for pair in zip(one, other) for page in pair]
    rest = one[len(other) :] + other[len(one) :]
    np.testing.assert_array_equal(loaded(joined(turns + rest)), loaded(first))


def test_flac_in_ogg_is_read():
    plain = [encoded_flac(sound(20000)), encoded_flac(sound(9000, 1))]
    expected = [loaded(content) for content in plain]
    files = [as_flac_in_ogg(content, serial) for content, serial in zip(plain, (b"one1", b"two2"))]
    np.testing.assert_array_equal(loaded(files[0]), expected[0])
    np.testing.assert_array_equal(loaded(files[0], offset=0.9), expected[0][14400:])
    np.testing.assert_array_equal(loaded(b"".join(files)), np.concatenate(expected))
    with pytest.raises(AudioError, match="truncated"):
        loaded(files[0][: len(files[0]) // 2])


def encoded_flac(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, SR, format="FLAC")
    return file.getvalue()


def test_a_codec_that_is_not_read_is_named():
    pages = pages_of(encoded(sound(9000)))
    pages[0][28:36] = b"Speex   "
    with pytest.raises(AudioError, match="Speex in Ogg is not read; convert it"):
        loaded(joined(pages))


def test_too_many_streams_at_a_time_are_refused():
    first = pages_of(encoded(sound(SR)))[0]
    pages = []
    for serial in range(1001):
        first[14:18] = struct.pack("<I", serial)
        pages.append(bytearray(first))
    with pytest.raises(AudioError, match="damaged: more than 1000 streams of Ogg at a time"):
        loaded(joined(pages))
