"""Archives: round trips, plain archives, and writing whole or not at all."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdeconv.errors import ArchiveError, ParameterError
from fastdeconv.network import archive
from fastdeconv.network.network import Network


def same(a, b):
    assert a.layers == b.layers and a.input_shape == b.input_shape
    facts = ("classes", "output", "name", "license", "citation")
    assert [getattr(a, key) for key in facts] == [getattr(b, key) for key in facts]
    assert a.frontend == b.frontend
    assert list(a.arrays) == list(b.arrays)
    return all(a.arrays[k].tobytes() == b.arrays[k].tobytes() for k in a.arrays)


FRONT = {"kind": "stft", "sr": 11025, "n_fft": 512, "hop_length": 256, "frames": 173}


def test_a_network_comes_back_exactly_as_it_was_saved(record, arrays, tmp_path):
    net = Network(
        record["layers"], arrays, record["input_shape"], frontend=FRONT, name="n\0\x1b",
        classes=["été", "../..", "\u0000"], license="CC0", citation="@misc{a,\n}",
    )
    net.save(tmp_path / "net.npz")
    assert same(Network.load(tmp_path / "net.npz"), net)
    assert same(Network.load(str(tmp_path / "net.npz")), net)
    with open(tmp_path / "net.npz", "rb") as file:
        assert same(Network.load(file), net)
        assert not file.closed


def test_an_archive_is_the_documented_npz(net, tmp_path):
    net.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as file:
        assert set(file.files) == {"network", *net.arrays}
        assert file["network"].shape == () and file["network"].dtype.kind == "U"
        record = json.loads(str(file["network"]))
        assert all(file[k].dtype == np.dtype("<f4") for k in net.arrays)
    assert record["format"] == "fastdeconv-network" and record["version"] == 1
    assert record["input_shape"] == [1, 12, None]
    assert record["layers"][3] == {
        "type": "max_pool2d", "name": "pool1", "kernel_size": [2, 2], "padding": 0,
        "dilation": 1, "ceil_mode": False,
    }


def test_the_record_of_the_documentation_loads(npz):
    text = """
    {"format": "fastdeconv-network", "version": 1, "name": "...",
     "input_shape": [1, 257, 173],
     "frontend": {"kind": "stft", "sr": 11025, "n_fft": 512, "hop_length": 256,
                  "scale": "linear", "frames": 173},
     "layers": [
       {"type": "conv2d", "name": "conv1", "stride": [1, 1], "padding": "same",
        "dilation": [1, 1], "groups": 1, "bias": true},
       {"type": "relu", "name": "relu1"},
       {"type": "max_pool2d", "name": "pool1", "kernel_size": [2, 2], "stride": [2, 2],
        "padding": [0, 0], "ceil_mode": false}],
     "classes": ["..."], "license": "...", "citation": "..."}"""
    arrays = {"conv1.weight": np.ones((1, 1, 3, 3)), "conv1.bias": np.ones(1)}
    net = Network.load(npz(arrays, text))
    assert net.shapes((1, 257, 173))[-1] == (1, 128, 86)
    assert net.frontend.frames == 173


def test_the_same_network_gives_the_same_bytes(net, tmp_path):
    net.save(tmp_path / "a")
    Network.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_writes_exactly_the_path_it_is_given(net, tmp_path):
    net.save(tmp_path / "weights")
    assert os.listdir(tmp_path) == ["weights"]
    assert same(Network.load(tmp_path / "weights"), net)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8", "<i2", ">i8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compressed", [True, False])
def test_members_of_any_real_dtype_and_order_are_read(dtype, order, compressed, record):
    values = np.arange(36).reshape(4, 1, 3, 3)
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    record = {**record, "layers": [{"type": "conv2d", "name": "c", "bias": False}]}
    del record["classes"]
    save(file, **{
        "network": np.array(json.dumps(record)).astype(">U2000"),
        "c.weight": np.array(values, dtype=dtype, order=order),
    })
    assert np.array_equal(Network.load(file).arrays["c.weight"], values)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_npy_header_is_read(version, net, tmp_path, npz, record):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for key, array in {"network": np.array(json.dumps(record)), **net.arrays}.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=version)
            zipped.writestr(key + ".npy", member.getvalue())
    assert same(Network.load(file), net)


# --- plain archives ----------------------------------------------------------------------


def test_a_plain_archive_needs_an_architecture(npz, arrays):
    with pytest.raises(ArchiveError, match=r"'network' is missing.*architecture"):
        Network.load(npz(arrays))


def test_an_architecture_may_be_a_dict_or_a_file(npz, arrays, record, net, tmp_path):
    (tmp_path / "arch.json").write_text(json.dumps(record), encoding="utf-8")
    for architecture in (record, tmp_path / "arch.json", str(tmp_path / "arch.json")):
        assert same(Network.load(npz(arrays), architecture=architecture), net)
    brief = {"input_shape": (1, 12, None), "layers": record["layers"]}
    assert Network.load(npz(arrays), architecture=brief).layers == net.layers


def test_an_architecture_for_an_archive_with_its_own_is_refused(npz, arrays, record):
    for architecture in (record, "choi2016"):
        with pytest.raises(ParameterError, match="its own network"):
            Network.load(npz(arrays, record), architecture=architecture)


def conv(name, **more):
    return {"type": "conv2d", "name": name, "padding": "same", "bias": False, **more}


def numbered(count, start=0):
    """W0, W1, ...: each filled with its number, in an order that is not numeric."""
    keys = sorted((f"W{n}" for n in range(start, start + count)), reverse=True)
    return {key: np.full((2, 2, 3, 3), int(key[1:])) for key in keys}


def test_numbered_arrays_go_to_layers_in_numeric_order(npz):
    layers = [conv(f"layer{n}") for n in range(12)]
    layers.insert(3, {"type": "relu", "name": "relu"})
    net = Network.load(npz(numbered(12)), {"input_shape": [2, None, None], "layers": layers})
    assert [int(a.flat[0]) for a in net.arrays.values()] == list(range(12))


def test_numbered_arrays_must_be_as_many_as_layers_with_weights(npz):
    shape = [2, None, None]
    for count in (1, 3):
        with pytest.raises(ArchiveError, match=f"found {count} arrays.*wanted 2"):
            Network.load(npz(numbered(count)), {
                "input_shape": shape, "layers": [conv("a"), conv("b")]})
    with pytest.raises(ArchiveError, match=r"'a\.bias' of layer 'a'.*missing"):
        Network.load(npz(numbered(1)), {"input_shape": shape, "layers": [conv("a", bias=True)]})


def test_left_over_arrays_of_a_plain_archive_are_refused(npz, arrays, record):
    arrays["W0"] = np.ones(3)
    with pytest.raises(ArchiveError, match="'W0'"):
        Network.load(npz(arrays), record)


def test_choi2016_is_conv_relu_pool_for_each_array(npz):
    arrays = numbered(11)
    arrays["W0"] = np.ones((2, 1, 3, 3))
    net = Network.load(npz(arrays), "choi2016")
    assert [layer.name for layer in net.layers[:4]] == ["conv1", "relu1", "pool1", "conv2"]
    assert net.layers[-1].name == "pool11"
    assert net.layers[0].to_record() == {
        "type": "conv2d", "name": "conv1", "stride": 1, "padding": "same", "dilation": 1,
        "groups": 1, "bias": False,
    }
    assert int(net.arrays["conv11.weight"].flat[0]) == 10
    assert net.input_shape == (1, None, None)
    assert (net.frontend.sr, net.frontend.n_fft, net.frontend.hop_length) == (11025, 512, 256)
    assert (net.frontend.frames, net.frontend.pad_mode) == (173, "reflect")


def test_choi2016_has_the_sizes_of_the_paper(npz):
    arrays = {f"W{n}": np.ones((64, 64 if n else 1, 3, 3)) for n in range(5)}
    shapes = Network.load(npz(arrays), "choi2016").shapes((1, 257, 173))
    assert shapes[2::3] == [(64, 128, 86), (64, 64, 43), (64, 32, 21), (64, 16, 10), (64, 8, 5)]


def test_choi2016_takes_names_of_a_state_dict_and_other_channels(npz):
    arrays = {f"conv{n}.weight": np.full((2, 2, 3, 3), n) for n in (10, 9)}
    net = Network.load(npz(arrays), "choi2016")
    assert [layer.name for layer in net.layers[::3]] == ["conv9", "conv10"]
    assert net.input_shape == (2, None, None) and net.frontend is None


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"W0": np.ones((2, 1, 3, 3)), "b0": np.ones(2)},
        {"W0": np.ones((2, 1, 3, 3)), "W1": np.ones((2, 2))},
        {"W0": np.ones((2, 1, 3, 3)), "conv1.weight": np.ones((2, 1, 3, 3))},
        {"conv1.weight": np.ones((2, 1, 3, 3)), "conv1.bias": np.ones(2)},
        {"W00": np.ones((2, 1, 3, 3))},
        {"W0": np.ones((2, 1, 3, 3)), "W1": np.ones((2, 3, 3, 3))},
    ],
)
def test_choi2016_refuses_other_arrays(npz, arrays):
    with pytest.raises(ArchiveError):
        Network.load(npz(arrays), "choi2016")


@pytest.mark.parametrize("own", [True, False])
def test_true_convolution_flips_every_filter_once(npz, arrays, record, own, net):
    plain = (None, record) if not own else (record, None)
    flipped = Network.load(npz(arrays, plain[0]), plain[1], true_convolution=True)
    for key, array in net.arrays.items():
        wanted = array[:, :, ::-1, ::-1] if key.startswith("conv") and array.ndim == 4 else array
        assert np.array_equal(flipped.arrays[key], wanted)
        assert flipped.arrays[key].flags.c_contiguous


@pytest.mark.parametrize(
    "kwargs", [{"architecture": 3}, {"architecture": []}, {"true_convolution": 1}]
)
def test_arguments_of_a_wrong_type_are_refused(npz, arrays, kwargs):
    with pytest.raises(ParameterError, match=next(iter(kwargs))):
        Network.load(npz(arrays), **kwargs)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"layers": []}', "\xff", '{"input_shape": [1,2,3], "layers": 3}']
)
def test_a_wrong_architecture_file_is_refused(npz, arrays, tmp_path, text):
    (tmp_path / "arch.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArchiveError):
        Network.load(npz(arrays), tmp_path / "arch.json")
    with pytest.raises(FileNotFoundError):
        Network.load(npz(arrays), tmp_path / "nothing.json")


# --- writing -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), MemoryError()])
def test_a_failed_save_leaves_the_old_file_and_no_other(net, tmp_path, monkeypatch, error):
    path = tmp_path / "net.npz"
    path.write_bytes(b"old")

    def fail(file, array, **kwargs):
        raise error

    monkeypatch.setattr(archive.np.lib.format, "write_array", fail)
    wanted = ArchiveError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted):
        net.save(path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["net.npz"]


def test_a_path_that_cannot_be_written_is_refused_by_name(net, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        net.save(tmp_path / "nowhere" / "net.npz")
    assert error.value.filename == str(tmp_path / "nowhere" / "net.npz")
    with pytest.raises(ArchiveError, match="cannot be written"):
        net.save(tmp_path)
    with pytest.raises(ArchiveError, match="cannot be written"):
        net.save("a\0b")
    with pytest.raises(ParameterError, match="path must be"):
        net.save(io.BytesIO())
    assert os.listdir(tmp_path) == [] and not list(tmp_path.parent.glob(".fastdeconv*"))


def test_a_saved_file_has_the_permissions_of_any_new_file(net, tmp_path):
    net.save(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, deadline=None)
@given(name=text, classes=st.lists(text, min_size=2, max_size=2), data=st.data())
def test_any_texts_and_finite_weights_survive_a_round_trip(
    tmp_path_factory, name, classes, data
):
    values = data.draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False),
                                min_size=8, max_size=8))
    weight = np.array(values, np.float32).reshape(2, 1, 2, 2)
    net = Network(
        [{"type": "conv2d", "name": "c", "bias": False}], {"c.weight": weight}, (1, None, 5),
        name=name, classes=classes,
    )
    path = pathlib.Path(tmp_path_factory.mktemp("round")) / "net.npz"
    net.save(path)
    assert same(Network.load(path), net)


def test_half_precision_halves_the_file_and_rounds_the_weights(net, tmp_path):
    net.save(tmp_path / "half.npz", dtype="float16")
    found = Network.load(tmp_path / "half.npz")
    for key, array in net.arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array.astype(np.float16))
    with np.load(tmp_path / "half.npz", allow_pickle=False) as stored:
        assert stored["conv1.weight"].dtype == np.float16


def test_a_weight_that_overflows_half_precision_is_named_and_nothing_written(record, arrays,
                                                                             tmp_path):
    arrays["bn1.bias"][2] = 1e6
    net = Network(record["layers"], arrays, record["input_shape"])
    with pytest.raises(ArchiveError, match=r"'bn1.bias': found 1e\+06, which overflows float16"):
        net.save(tmp_path / "half.npz", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_other_precisions_are_refused(net, tmp_path):
    with pytest.raises(ParameterError, match="dtype must be"):
        net.save(tmp_path / "net.npz", dtype="float64")


def test_how_scores_become_probabilities_is_kept_and_makes_the_archive_version_2(net, tmp_path):
    for output, version in ((None, 1), ("softmax", 2)):
        told = Network(net.layers, net.arrays, net.input_shape, output=output)
        told.save(tmp_path / "net.npz")
        assert Network.load(tmp_path / "net.npz").output == output
        record = json.loads(str(np.load(tmp_path / "net.npz")["network"]))
        assert record["version"] == version


def test_arrays_that_python_2_saved_are_read(npz, arrays, record):
    def as_python_2(data):
        header = data[10 : 10 + int.from_bytes(data[8:10], "little")]
        longs = re.sub(rb"([0-9])(?=[,)])", rb"\1L", header).rstrip()
        longs = longs.ljust(-(-(11 + len(longs)) // 64) * 64 - 11) + b"\n"
        return data[:8] + len(longs).to_bytes(2, "little") + longs + data[10 + len(header) :]

    old = io.BytesIO()
    with zipfile.ZipFile(npz(arrays)) as new, zipfile.ZipFile(old, "w") as file:
        for name in new.namelist():
            file.writestr(name, as_python_2(new.read(name)))
    assert b"(4L,)" in old.getvalue() and b"(4L, 1L, 3L, 3L)" in old.getvalue()
    old.seek(0)
    net = Network(
        record["layers"], arrays, record["input_shape"], classes=record["classes"], name="small"
    )
    assert same(Network.load(old, record), net)


@pytest.mark.parametrize("keys", [("W0", "W2"), ("conv1.weight", "conv3.weight")])
def test_numbered_arrays_with_one_missing_are_refused(npz, keys):
    arrays = dict.fromkeys(keys, np.ones((2, 2, 3, 3)))
    with pytest.raises(ArchiveError, match=r"the array with number \d is missing"):
        Network.load(npz(arrays), "choi2016")
    layers = {"input_shape": [2, None, None], "layers": [conv("a"), conv("b")]}
    with pytest.raises(ArchiveError, match="missing"):
        Network.load(npz(arrays), layers)
