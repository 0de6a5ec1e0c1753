"""The front end record: what it accepts, completes, refuses and writes."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest

from fastdeconv import Clip, Frontend, ParameterError, load_clip
from fastdeconv.audio.song import load_song

RECORDS = [
    {
        "kind": "stft",
        "sr": 11025,
        "n_fft": 512,
        "hop_length": 256,
        "scale": "linear",
        "frames": 173,
    },
    {"kind": "stft", "sr": 22050.5, "window": ["kaiser", 8.6], "layout": "CTF", "center": False},
    {
        "scale": {"type": "db", "ref": 1.0, "amin": 1e-10, "top_db": None},
        "power": 2.0,
        "normalize": {"type": "standardize", "ddof": 1, "per": "band"},
    },
    {
        "scale": {"type": "log", "base": 10, "gain": 10000, "offset": 1, "floor": 1e-5},
        "normalize": {"type": "range", "low": -1, "high": 1},
    },
    {"kind": "mel", "sr": 16000, "n_fft": 512, "n_mels": 96, "fmax": 8000, "htk": True},
    {"kind": "mel", "norm": None},
    {"kind": "cqt", "fmin": 27.5, "n_bins": 88, "bins_per_octave": 12},
    {"kind": "waveform", "sr": 16000, "frames": 59049},
]


@pytest.mark.parametrize("record", RECORDS)
def test_records_round_trip_through_json(record):
    fe = Frontend.from_record(record)
    written = json.loads(json.dumps(fe.to_record(), allow_nan=False))
    again = Frontend.from_record(written)
    assert again == fe
    assert hash(again) == hash(fe)
    assert again.to_record() == written
    for key, value in record.items():
        assert written[key] == value


def test_sizes_left_out_are_those_of_librosa():
    fe = Frontend()
    assert (fe.sr, fe.n_fft, fe.win_length, fe.hop_length) == (22050, 2048, 2048, 512)
    fe = Frontend(n_fft=512, win_length=400)
    assert fe.hop_length == 100
    assert Frontend(n_fft=512) == Frontend(n_fft=512, win_length=512, hop_length=128)


def test_a_front_end_does_not_change_and_can_be_copied():
    fe = Frontend(scale={"type": "db"}, window=("kaiser", 8.6))
    with pytest.raises(dataclasses.FrozenInstanceError):
        fe.sr = 8000
    assert pickle.loads(pickle.dumps(fe)) == copy.deepcopy(fe) == fe
    assert dataclasses.replace(fe, sr=8000).sr == 8000
    assert fe != Frontend()


def test_a_record_does_not_alias_the_front_end():
    fe = Frontend(scale={"type": "db"})
    fe.to_record()["scale"]["ref"] = 5
    assert fe.scale["ref"] == "max"


def test_numpy_scalars_are_numbers():
    fe = Frontend(sr=np.float32(8000), n_fft=np.int64(256), hop_length=np.uint16(64))
    assert json.loads(json.dumps(fe.to_record()))["n_fft"] == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "stfft"}, "kind must be one of stft, mel.*, found 'stfft'"),
        ({"kind": None}, "kind must be one of"),
        ({"sr": 0}, "sr must be a finite number above 0, found 0"),
        ({"sr": float("nan")}, "sr must be a finite number above 0, found nan"),
        ({"sr": "11025"}, "sr must be a finite number above 0, found '11025'"),
        ({"sr": True}, "sr must be a finite number above 0, found True"),
        ({"sr": 1j}, "sr must be a finite number"),
        ({"sr": 10**400}, "sr must be a finite number"),
        ({"n_fft": 512.0}, r"n_fft must be an int from 2 to 1048576, found 512.0"),
        ({"n_fft": 1}, "n_fft must be an int from 2"),
        ({"n_fft": 10**15}, "n_fft must be an int from 2 to 1048576"),
        ({"n_fft": True}, "n_fft must be an int"),
        ({"hop_length": 0}, "hop_length must be an int from 1"),
        ({"hop_length": -5}, "hop_length must be an int from 1"),
        ({"n_fft": 256, "win_length": 257}, "win_length must be an int from 1 to 256, found 257"),
        ({"window": "hamm1ng"}, "window 'hamm1ng' is not one of scipy's"),
        ({"window": 8.6}, "window must be a name"),
        ({"window": []}, "window must be a name"),
        ({"window": ["kaiser", "x"]}, "window parameter must be a finite number, found 'x'"),
        ({"window": ["general_cosine", [1, 2]]}, "window parameter must be a finite number"),
        ({"window": "hann", "n_fft": 512, "win_length": 2, "center": 1}, "center must be true or"),
        ({"pad_mode": "wrap"}, "pad_mode must be one of constant, edge.*found 'wrap'"),
        ({"power": 0}, "power must be a finite number above 0"),
        ({"power": 11}, "power must be at most 10, found 11"),
        ({"scale": "dB"}, "or a mapping with the type db or log, found 'dB'"),
        ({"scale": None}, "scale must be a mapping with the type db or log, found None"),
        ({"scale": "power", "power": 3}, "goes with power 1 or 2, found power 3"),
        ({"scale": {"ref": 1}}, "scale type must be one of db, log, found None"),
        ({"scale": {"type": "db", "reff": 1}}, "scale db: unknown key 'reff'; it takes amin, ref"),
        ({"scale": {"type": "db", "ref": "min"}}, "scale ref must be 'max' or a number"),
        ({"scale": {"type": "db", "amin": 0}}, "scale amin must be a finite number above 0"),
        ({"scale": {"type": "db", "top_db": -1}}, "scale top_db must be a finite number above 0"),
        ({"scale": {"type": "log", "base": 1}}, "scale base must not be 1"),
        ({"scale": {"type": "log", "floor": 0}}, "scale floor must be a finite number above 0"),
        ({"normalize": "range"}, "normalize must be a mapping with the type range or stand"),
        ({"normalize": {"type": "minmax"}}, "normalize type must be one of range, standardize"),
        ({"normalize": {"type": "range", "low": 1, "high": 1}}, "normalize low must be below high"),
        ({"normalize": {"type": "standardize", "ddof": 2}}, "normalize ddof must be an int from 0"),
        ({"normalize": {"type": "standardize", "per": "frame"}}, "normalize per must be one of"),
        ({"layout": "FT"}, "layout must be one of CFT, CTF, FCT, FTC, TCF, TFC, found 'FT'"),
        ({"frames": 0}, "frames must be an int from 1"),
        ({"frames": 1}, "frames = 1 with these sizes is a clip of 0 samples"),
        ({"frames": 10**7, "hop_length": 1000}, "frames = 10000000 with these sizes is a clip"),
        ({"n_mels": 64}, "n_mels does not belong to a front end of kind 'stft', found 64"),
        ({"kind": "mel", "n_bins": 12}, "n_bins does not belong to a front end of kind 'mel'"),
        ({"kind": "mel", "fmin": 9000, "fmax": 8000}, "fmin must be from 0 to below fmax"),
        ({"kind": "mel", "norm": "l2"}, "norm must be 'slaney', None or a number above 0, fo"),
        ({"kind": "mel", "n_mels": 0}, "n_mels must be an int from 1"),
        ({"kind": "mel", "htk": 1}, "htk must be true or false, found 1"),
        ({"kind": "cqt", "fmin": 0}, "fmin must be a finite number above 0"),
        ({"kind": "cqt", "sr": 8000, "fmin": 4000}, "fmin must be below sr / 2 = 4000"),
        ({"kind": "cqt", "bins_per_octave": 0}, "bins_per_octave must be an int from 1"),
        ({"kind": "cqt", "fmin": 1e-6, "n_bins": 1}, "the 12 filters .* more than 134217728"),
        ({"kind": "cqt", "fmin": 1e-300, "n_bins": 84, "sr": 1e300}, "12 filters"),
        ({"kind": "cqt", "fmin": 99, "n_bins": 9000, "bins_per_octave": 9000}, "9000 filters of"),
        ({"kind": "cqt", "fmin": 99, "n_bins": 8, "bins_per_octave": 9000}, "9000 filters of"),
        ({"kind": "cqt", "n_bins": 16384, "bins_per_octave": 1}, "n_bins must be at most 9, so"),
    ],
)
def test_bad_fields_are_refused_by_name(fields, message):
    with pytest.raises(ParameterError, match=message):
        Frontend(**fields)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "the front end must be a mapping"),
        ("stft", "the front end must be a mapping"),
        ({"kind": "stft", "hop": 256}, "front end of kind 'stft': unknown key 'hop'; it takes bin"),
        ({"kind": "cqt", "n_mels": 64}, "front end of kind 'cqt': unknown key 'n_mels'"),
        ({"n_mels": 128}, "front end of kind 'stft': unknown key 'n_mels'"),
        ({"kind": []}, "kind must be one of"),
        ({3: 4}, "unknown key 3"),
    ],
)
def test_bad_records_are_refused(record, message):
    with pytest.raises(ParameterError, match=message):
        Frontend.from_record(record)


def test_something_that_is_not_a_front_end_is_refused():
    with pytest.raises(ParameterError, match="must be a Frontend, found None"):
        Clip(np.zeros(1000), 22050, None)


def test_the_front_end_of_a_network_that_has_none_is_an_error_that_says_what_to_do():
    for load in (load_clip, load_song):
        with pytest.raises(ParameterError, match=r"give it a front end, Network\(\.\.\., frontend"):
            load((np.zeros(1000), 22050), None)
