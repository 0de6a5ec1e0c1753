"""mp3s: how long they are, where they begin, and what is joined or left between their frames."""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError

from . import conftest

if "MP3" not in soundfile.available_formats():
    pytest.skip("this libsndfile does not know mp3", allow_module_level=True)

RATE = 22050
DECODER_DELAY = 529
RATES = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\x03\x00\x00\x00\x00\x07\x76" + bytes(range(256)) * 3 + bytes(246)
APE = (
    b"APETAGEX" + struct.pack("<IIII8x", 2000, 60, 1, 0xA0000000) + b"i" * 28
    + b"APETAGEX" + struct.pack("<IIII8x", 2000, 60, 1, 0x80000000)
)


def sound(n, seed=0, channels=1):
    """Loud, then soft, so that frames differ in size."""
    shape = n if channels == 1 else (n, channels)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(shape)
    samples[n // 2 :] *= 0.05
    return samples.astype(np.float32)


loaded = functools.partial(conftest.loaded, sr=RATE)


def encoded(samples, sr=RATE, mode="VARIABLE"):
    file = io.BytesIO()
    soundfile.write(
        file, samples, sr, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode=mode,
        compression_level=0.5,
    )
    return file.getvalue()


def frames_of(content):
    found, at = [], 0
    while at < len(content):
        head = int.from_bytes(content[at : at + 4], "big")
        version = head >> 19 & 3
        rate = (44100, 48000, 32000)[head >> 10 & 3] // {3: 1, 2: 2, 0: 4}[version]
        bits = RATES[3 if version == 3 else 2][head >> 12 & 15] * 1000
        size = (144 if version == 3 else 72) * bits // rate + (head >> 9 & 1)
        found.append(content[at : at + size])
        at += size
    return found


def without_header(content):
    return b"".join(frames_of(content)[1:])


def header(content):
    return max(content.find(b"Xing"), content.find(b"Info"))


def delay(content):
    """Samples before the sound, of the encoder and the decoder; bare frames keep them."""
    noted = header(content) + 8 + 4 + 4 + 100 + 4 + 21
    return (int.from_bytes(content[noted : noted + 3], "big") >> 12) + DECODER_DELAY


def with_number(content, position, value):
    return content[:position] + struct.pack(">I", value) + content[position + 4 :]


@pytest.mark.parametrize("sr", [44100, 48000, 22050, 16000, 11025, 8000])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
def test_frames_without_a_header_are_all_read(sr, mode):
    samples = sound(sr, channels=1 + (sr == 16000))
    content = encoded(samples, sr, mode)
    frames = frames_of(content)
    expected = loaded(content, sr=sr)
    assert expected.size == sr
    got = loaded(b"".join(frames[1:]), sr=sr)
    assert got.size == (1152 if sr >= 32000 else 576) * (len(frames) - 1)
    np.testing.assert_allclose(got[delay(content) :][:sr], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 20, 10_000, (1 << 32) - 1])
def test_a_wrong_number_of_frames_changes_nothing_but_what_is_left_out_at_the_end(count):
    content = encoded(sound(30000))
    got = loaded(with_number(content, header(content) + 8, count))
    assert 30000 <= got.size <= 30000 + 3 * 576
    np.testing.assert_array_equal(got[:30000], loaded(content))


def test_a_header_of_another_kind_is_no_sound():
    content = encoded(sound(30000), mode="CONSTANT")
    frames = frames_of(content)
    vbri = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 50, len(content), 3, 0, 1, 2, 1)
    first = frames[1][:4] + bytes(32) + vbri + bytes(len(frames[1]))
    bare = b"".join(frames[1:])
    got = loaded(first[: len(frames[1])] + bare)
    np.testing.assert_array_equal(got, loaded(bare))


@pytest.mark.parametrize("offset", [0.0, 0.013, 0.5, 1.0, 1.36])
def test_a_clip_from_an_offset_is_the_rest_of_the_whole(offset):
    content = encoded(sound(30000, channels=2))
    whole = loaded(content)
    np.testing.assert_array_equal(loaded(content, offset=offset), whole[int(offset * 22050) :])
    if offset < 1.3:
        got = loaded(content, frames=4, offset=offset)
        np.testing.assert_array_equal(got, whole[int(offset * 22050) :][:768])


@pytest.mark.parametrize(
    "between", [b"", ID3V1, ID3V2, ID3V1 + ID3V2, APE, bytes(3000), b"not a frame" * 50],
    ids=["nothing", "id3v1", "id3v2", "both", "ape", "zeros", "text"],
)
def test_joined_mp3s_are_as_long_as_their_parts(between):
    first, second = encoded(sound(20000)), encoded(sound(15001, 1), mode="CONSTANT")
    expected = np.concatenate([loaded(first), loaded(second)])
    assert expected.size == 35001
    joined = first + between + second
    np.testing.assert_array_equal(loaded(joined), expected)
    np.testing.assert_array_equal(loaded(joined + between), expected)
    np.testing.assert_array_equal(loaded(between + joined), expected)
    for offset in (0.6, 0.9, 0.95, 1.4):
        got = loaded(joined, offset=offset)
        np.testing.assert_array_equal(got, expected[int(offset * 22050) :])
    bare = [without_header(first), without_header(second)]
    assert loaded(between.join(bare)).size == sum(loaded(part).size for part in bare)


def test_joined_mp3s_may_differ_in_channels_but_not_in_rate():
    first, second = encoded(sound(20000)), encoded(sound(20000, 1, channels=2))
    expected = np.concatenate([loaded(first), loaded(second)])
    np.testing.assert_array_equal(loaded(first + second), expected)
    other = encoded(sound(20000), 44100)
    with pytest.raises(AudioError, match="different rates, 22050 and 44100 Hz"):
        loaded(first + other)
    np.testing.assert_array_equal(loaded(first + other, frames=20), loaded(first, frames=20))


def test_many_joined_mp3s_are_read_as_far_as_wanted():
    part = encoded(sound(2000))
    whole = loaded(part * 40)
    assert whole.size == 80_000
    np.testing.assert_array_equal(loaded(part * 40, frames=300), whole[: 299 * 256])


def test_a_tag_whose_size_is_absurd_is_passed_over():
    content = encoded(sound(20000))
    np.testing.assert_array_equal(
        loaded(b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + content), loaded(content)
    )


def test_frames_that_do_not_tell_their_size_are_all_read():
    frames = frames_of(encoded(sound(22050), mode="CONSTANT"))[1:]
    free = b"".join(frame[:2] + bytes([frame[2] & 0xF]) + frame[3:] for frame in frames)
    np.testing.assert_array_equal(loaded(free), loaded(b"".join(frames)))


def test_a_file_called_like_a_resource_fork_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "._").touch()
    assert loaded(encoded(sound(20000))).size == 20000


def test_a_frame_that_was_lost_is_told_where_a_header_counts_frames():
    content = encoded(sound(60000), mode="CONSTANT")
    frames = frames_of(content)
    lost = b"".join([*frames[:50], bytes(len(frames[50])), *frames[51:]])
    np.testing.assert_array_equal(loaded(lost, frames=50), loaded(content, frames=50))
    for frames_wanted in (None, 150):
        with pytest.raises(AudioError, match=r"damaged: .* frames where the header says"):
            loaded(lost, frames=frames_wanted)


def test_a_truncated_mp3_is_read_as_far_as_it_is_needed():
    content = encoded(sound(60000))
    cut = content[: len(content) * 3 // 4]
    np.testing.assert_array_equal(loaded(cut, frames=50), loaded(content, frames=50))
    with pytest.raises(AudioError, match=r"truncated: .* frames where the header says"):
        loaded(cut)
    bare = without_header(content)
    assert loaded(bare[: len(bare) * 3 // 4] + bytes(2000)).size > 30000


def test_mp3_in_wav_is_read():
    bare = without_header(encoded(sound(20000)))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 22050, 4000, 1, 0, 12, 1, 2, 500, 1, 1393)
    for size in (len(bare), 0):
        wav = b"WAVEfmt " + struct.pack("<I", 30) + form + b"data" + struct.pack("<I", size) + bare
        riff = b"RIFF" + struct.pack("<I", len(wav)) + wav
        np.testing.assert_array_equal(loaded(riff), loaded(bare))
