"""Clips of files: formats, partial reading, and every way a file can be bad."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings

import librosa
import numpy as np
import pytest
import soundfile

from fastdeconv import AudioError, Clip, Frontend, load_clip

# librosa.load imports audioread, which imports modules that Python 3.11 and 3.12 deprecate.
pytestmark = pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning")

PAPER = Frontend(sr=11025, n_fft=512, hop_length=256, frames=173)
ANY_LENGTH = Frontend(sr=11025, n_fft=512, hop_length=256)
FORMATS = [
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "PCM_U8"),
    ("wav", "FLOAT"),
    ("wav", "DOUBLE"),
    ("flac", "PCM_16"),
    ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
    ("aiff", "PCM_16"),
]


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def encoded(samples, sr=11025, fmt="wav", subtype=None):
    if fmt.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile does not write {fmt}")
    file = io.BytesIO()
    soundfile.write(file, samples, sr, format=fmt, subtype=subtype)
    return file.getvalue()


def written(path, samples, sr=11025, **options):
    path.write_bytes(encoded(samples, sr, **options))
    return path


@pytest.mark.parametrize(("fmt", "subtype"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_as_by_librosa(tmp_path, fmt, subtype, channels):
    samples = np.stack([noise(20000, seed) for seed in range(channels)], axis=1)
    path = written(tmp_path / f"song.{fmt}", samples, fmt=fmt, subtype=subtype)
    expected, _ = librosa.load(path, sr=None)
    clip = load_clip(path, ANY_LENGTH)
    np.testing.assert_array_equal(clip.samples, expected)
    np.testing.assert_array_equal(load_clip(str(path), ANY_LENGTH).samples, expected)
    with open(path, "rb") as file:
        file.seek(100)
        np.testing.assert_array_equal(load_clip(file, ANY_LENGTH).samples, expected)
        assert not file.closed
    memory = io.BytesIO(path.read_bytes())
    np.testing.assert_array_equal(load_clip(memory, ANY_LENGTH).samples, expected)


@pytest.mark.parametrize("sr", [8000, 11025, 22050, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_are_loaded_as_by_librosa(tmp_path, sr, channels):
    samples = np.stack([noise(sr * 6, seed) for seed in range(channels)], axis=1)
    path = written(tmp_path / "song.wav", samples, sr)
    for offset in (0.0, 0.777):
        expected, _ = librosa.load(path, sr=11025, offset=offset)
        clip = load_clip(path, ANY_LENGTH, offset=offset)
        np.testing.assert_array_equal(clip.samples, expected)
        clip = load_clip(path, PAPER, offset=offset)
        np.testing.assert_allclose(clip.samples, expected[:44032], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fmt", ["wav", "flac", "ogg", "mp3"])
def test_an_offset_cuts_what_comes_before(tmp_path, fmt):
    path = written(tmp_path / f"song.{fmt}", noise(30000), fmt=fmt)
    clip = load_clip(path, ANY_LENGTH, offset=1.3)
    whole = load_clip(path, ANY_LENGTH)
    np.testing.assert_array_equal(clip.samples, whole.samples[int(1.3 * 11025) :])
    # librosa seeks, which is exact in these formats only.
    if fmt in ("wav", "flac"):
        expected, _ = librosa.load(path, sr=None, offset=1.3)
        np.testing.assert_array_equal(clip.samples, expected)


@pytest.mark.parametrize("sr", [11025, 48000])
def test_no_more_is_decoded_than_the_frames_need(tmp_path, monkeypatch, sr):
    path = written(tmp_path / "album.wav", noise(sr * 60), sr)
    decoded = []
    read = soundfile.SoundFile.read

    def counted(self, *args, **kwargs):
        block = read(self, *args, **kwargs)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    load_clip(path, PAPER, offset=10.0)
    assert sum(decoded) < 5 * sr


@pytest.mark.parametrize("fmt", ["wav", "flac", "ogg", "mp3"])
def test_long_files_are_read_in_blocks_without_seams(tmp_path, monkeypatch, fmt):
    monkeypatch.setattr("fastdeconv.audio.reading._BLOCK_VALUES", 1000)
    samples = np.stack([noise(5000), noise(5000, 1)], axis=1)
    path = written(tmp_path / f"song.{fmt}", samples, 22050, fmt=fmt)
    expected, _ = librosa.load(path, sr=None)
    frontend = Frontend(sr=22050, n_fft=512, hop_length=256)
    np.testing.assert_array_equal(load_clip(path, frontend).samples, expected)


def test_silence_loads_without_a_warning(tmp_path):
    path = written(tmp_path / "silence.wav", np.zeros((48000, 2)), 48000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = load_clip(path, PAPER)
    assert not clip.samples.any()
    assert not clip.x.any()


def test_file_names_of_any_kind_are_read(tmp_path):
    for name in ("-song.wav", "naïve 歌.wav", "new\nline.wav", "song.raw", "no extension"):
        path = written(tmp_path / name, noise(3000))
        assert load_clip(path, ANY_LENGTH).samples.size == 3000


def test_a_missing_file_stays_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        load_clip(tmp_path / "missing.wav", PAPER)


@pytest.mark.parametrize(
    "content",
    [
        b"just some text\n" * 100,
        b"RIFF",
        b"fLaC" + bytes(100),
        b"OggS" + bytes(100),
        b"ID3" + bytes(100),
        bytes(5000),
        encoded(noise(100))[:30],
    ],
    ids=["text", "riff", "flac", "ogg", "id3", "zeros", "half a header"],
)
def test_a_file_that_is_not_audio_is_refused_by_name(tmp_path, content):
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"song\.wav: not an audio file, or damaged: .+") as caught:
        load_clip(path, PAPER)
    assert "_io." not in str(caught.value)


def test_samples_without_a_header_are_refused(tmp_path):
    path = tmp_path / "song.raw"
    path.write_bytes(noise(1000).tobytes())
    with pytest.raises(AudioError, match=r"song\.raw: not an audio file"):
        load_clip(path, PAPER)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "song.wav"
    path.touch()
    with pytest.raises(AudioError, match=r"song\.wav: the file is empty"):
        load_clip(path, PAPER)


def test_a_folder_or_a_pipe_is_refused_at_once(tmp_path):
    with pytest.raises(AudioError, match="cannot be opened: a folder, not a regular file"):
        load_clip(tmp_path, PAPER)
    os.mkfifo(tmp_path / "song.wav")
    with pytest.raises(AudioError, match=r"song\.wav: cannot be opened: a pipe"):
        load_clip(tmp_path / "song.wav", PAPER)


def test_a_path_through_a_file_or_with_a_null_byte_is_refused(tmp_path):
    path = written(tmp_path / "song.wav", noise(100))
    with pytest.raises(AudioError, match="cannot be opened"):
        load_clip(path / "song.wav", PAPER)
    with pytest.raises(AudioError, match="cannot be opened"):
        load_clip("song\0.wav", PAPER)


@pytest.mark.parametrize("fmt", ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "caf", "rf64"])
@pytest.mark.parametrize("share", [0.97, 0.5, 0.05])
def test_a_truncated_file_is_refused(tmp_path, fmt, share):
    content = encoded(noise(44100), fmt=fmt)
    path = tmp_path / f"song.{fmt}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AudioError, match=rf"song\.{fmt}: .*(truncated|damaged)"):
        load_clip(path, ANY_LENGTH)


def test_damaged_headers_are_refused_or_read_but_never_break():
    rng = np.random.default_rng(0)
    for fmt in ("wav", "flac", "ogg", "aiff", "au", "caf", "w64", "rf64"):
        content = encoded(noise(3000), fmt=fmt)
        for _ in range(25):
            damaged = bytearray(content)
            for at in rng.integers(0, 200, size=3):
                damaged[at] = rng.integers(256)
            try:
                clip = load_clip(io.BytesIO(damaged), PAPER)
            except AudioError as error:
                assert str(error).startswith("<BytesIO>: ")
            else:
                assert np.isfinite(clip.x).all()


def test_a_file_whose_reading_fails_is_refused():
    class BadDisk(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 5000:
                raise OSError("input/output error")
            return super().read(size)

    for fmt in ("wav", "flac", "mp3"):
        with pytest.raises(AudioError, match=r"<BadDisk>: .*(truncated|damaged)"):
            load_clip(BadDisk(encoded(noise(30000), fmt=fmt)), ANY_LENGTH)


@pytest.mark.parametrize("position", [0.3, 0.6])
def test_a_damaged_flac_is_refused_or_read_but_never_breaks(position):
    content = bytearray(encoded(noise(44100), fmt="flac"))
    at = int(len(content) * position)
    content[at : at + 2000] = bytes(2000)
    try:
        clip = load_clip(io.BytesIO(content), ANY_LENGTH)
    except AudioError as error:
        assert "<BytesIO>" in str(error)
    else:
        assert clip.samples.size == 44100


@pytest.mark.parametrize("claim", [100_000, 1_000_000_000])
def test_a_header_that_claims_more_than_there_is_is_refused(claim):
    content = bytearray(encoded(noise(1000)))
    content[40:44] = struct.pack("<I", claim)
    with pytest.raises(AudioError, match=f"truncated: 2000 bytes where the header says {claim}"):
        load_clip(io.BytesIO(content), ANY_LENGTH)


@pytest.mark.parametrize("claim", [0x7FFFF000, 0xFFFFFFF0, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_as_far_as_it_goes(claim):
    content = bytearray(encoded(noise(1000)))
    content[4:8] = content[40:44] = struct.pack("<I", claim)
    assert load_clip(io.BytesIO(content), ANY_LENGTH).samples.size == 1000


def test_an_mp3_that_does_not_count_its_frames_is_read_as_far_as_it_goes():
    content = encoded(np.concatenate([0 * noise(60000), noise(60000)]), 44100, fmt="mp3")
    header = content.find(b"Xing")
    if header < 0:
        pytest.skip("this libsndfile writes no Xing header")
    second_frame = content.find(content[:2], header)
    without = content[second_frame:]
    assert load_clip(io.BytesIO(without), ANY_LENGTH).samples.size > 10000
    tagged = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    assert load_clip(io.BytesIO(tagged + without), ANY_LENGTH).samples.size > 10000
    with pytest.raises(AudioError, match="truncated"):
        load_clip(io.BytesIO(tagged + content[: len(content) // 3]), ANY_LENGTH)


@pytest.mark.parametrize(("count", "message"), [(0, "holds no samples"), (1, "at least 2 samples")])
def test_a_file_of_no_or_one_sample_is_refused(tmp_path, count, message):
    path = written(tmp_path / "song.wav", noise(count))
    with pytest.raises(AudioError, match=rf"song\.wav: {message}"):
        load_clip(path, PAPER)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_nan_or_inf_says_where(tmp_path, value):
    samples = noise(11025)
    samples[2205] = value
    path = written(tmp_path / "song.wav", samples, subtype="FLOAT")
    with pytest.raises(AudioError, match=rf"song\.wav: sample 2205 \(at 0.200 s\) is {value}"):
        load_clip(path, PAPER)
    with pytest.raises(AudioError, match=r"sample 2205 \(at 0.200 s\)"):
        load_clip(path, PAPER, offset=0.1)
    assert load_clip(path, PAPER, offset=0.5).samples.any()


def test_an_offset_at_or_beyond_the_end_is_refused(tmp_path):
    path = written(tmp_path / "song.wav", noise(11025))
    for offset in (1.0, 5.0, 1e308):
        with pytest.raises(AudioError, match=r"song\.wav: offset .* is beyond the end, at 1.000 s"):
            load_clip(path, PAPER, offset=offset)


def test_errors_after_reading_name_the_file_too(tmp_path):
    path = written(tmp_path / "song.wav", noise(2), 48000)
    with pytest.raises(AudioError, match=r"song\.wav: 2 samples at 48000 Hz are 1 at 11025 Hz"):
        load_clip(path, ANY_LENGTH)
    path = written(tmp_path / "loud.wav", np.full(9000, 3e38, np.float32), subtype="FLOAT")
    with pytest.raises(AudioError, match=r"loud\.wav: the samples are so large"):
        load_clip(path, PAPER)


def test_file_objects_that_cannot_serve_are_refused(tmp_path):
    with pytest.raises(AudioError, match="opened as text"):
        load_clip(io.StringIO("text"), PAPER)
    closed = io.BytesIO(encoded(noise(100)))
    closed.close()
    with pytest.raises(AudioError, match="<BytesIO>: not a readable binary file object"):
        load_clip(closed, PAPER)
    with open(tmp_path / "new.wav", "wb") as file:
        with pytest.raises(AudioError, match=r"new\.wav: not a readable binary file object"):
            load_clip(file, PAPER)

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(AudioError, match="<Pipe>: the file object cannot seek"):
        load_clip(Pipe(b"RIFF"), PAPER)


def test_a_plain_wav_is_loaded_without_librosa_scipy_or_a_resampler(tmp_path):
    path = written(tmp_path / "song.wav", noise(44100))
    code = (
        "import sys, fastdeconv as fd\n"
        "fe = fd.Frontend(sr=11025, n_fft=512, hop_length=256, frames=173)\n"
        "assert 'soundfile' not in sys.modules\n"
        "clip = fd.load_clip(sys.argv[1], fe)\n"
        "fd.auralise(clip, clip.x[None])\n"
        "print(*[m for m in ('librosa', 'scipy', 'soxr', 'numba') if m in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_a_clip_of_a_file_is_the_clip_of_its_samples(tmp_path):
    path = written(tmp_path / "song.flac", noise(50000), fmt="flac")
    samples, sr = soundfile.read(path, dtype="float32")
    clip, other = load_clip(path, PAPER), Clip(samples, sr, PAPER)
    np.testing.assert_array_equal(clip.samples, other.samples)
    np.testing.assert_array_equal(clip.x, other.x)
