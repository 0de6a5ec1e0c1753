"""Arguments that NumPy cannot read: refused in words that name the argument, everywhere."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.arrays import as_array
from fastdeconv.errors import AudioError, FastdeconvError, ParameterError

FRONTEND = fd.Frontend(sr=8000, n_fft=64, hop_length=32)


class Unreadable:
    """Raises what it is told to when NumPy asks for its values, as tensors do."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


@pytest.fixture(scope="module")
def clip():
    return fd.Clip(np.random.default_rng(0).standard_normal(640), 8000, FRONTEND)


@pytest.fixture(scope="module")
def net():
    return fd.Network(
        [{"type": "conv2d", "name": "conv", "bias": False}, {"type": "relu"}],
        {"conv.weight": np.ones((2, 1, 3, 3))}, (1, 33, None), frontend=FRONTEND,
    )


def test_what_numpy_reads_is_taken_without_a_copy():
    array = np.arange(3)
    assert as_array(array, "x") is array
    assert as_array([1, 2, 3], "x").tolist() == [1, 2, 3]


def test_values_behind_a_mask_are_not_taken():
    samples = np.ma.masked_greater(np.linspace(0, 1, 640, dtype=np.float32), 0.5)
    with pytest.raises(ParameterError, match=r"^x has masked values; fill them first"):
        as_array(samples, "x")
    with pytest.raises(AudioError, match=r"^samples has masked values"):
        fd.load_clip((samples, 8000), FRONTEND)
    with pytest.raises(ParameterError, match="masked"):
        as_array([samples, samples], "x")
    assert as_array(samples.filled(0), "x").max() <= 0.5
    assert as_array(np.ma.masked_array([1, 2]), "x").tolist() == [1, 2]


@pytest.mark.parametrize("error", [
    ValueError("no"), TypeError("no"), RuntimeError("no"), BufferError("no"),
    NotImplementedError("no"), AttributeError("no"), OSError("no"), KeyError("no"),
])
def test_whatever_the_conversion_raises_becomes_one_of_ours(error):
    with pytest.raises(ParameterError, match=r"^x cannot be read as an array: '?no'?$"):
        as_array(Unreadable(error), "x")
    with pytest.raises(AudioError):
        as_array(Unreadable(error), "x", AudioError)


def test_a_reason_of_several_lines_or_none_becomes_one_line():
    with pytest.raises(ParameterError, match=r"array: first line\. second line$"):
        as_array(Unreadable(TypeError("first line.\n  second line")), "x")
    with pytest.raises(ParameterError, match=r"array: BufferError$"):
        as_array(Unreadable(BufferError()), "x")


def test_no_memory_stays_what_it_is():
    with pytest.raises(MemoryError):
        as_array(Unreadable(MemoryError()), "x")


CALLS = [
    ("array 'conv.weight'", lambda bad, clip, net: fd.Network(
        net.layers, {"conv.weight": bad}, (1, 33, None)
    )),
    ("samples", lambda bad, clip, net: fd.Clip(bad, 8000, FRONTEND)),
    ("samples", lambda bad, clip, net: fd.load_clip((bad, 8000), FRONTEND)),
    ("samples", lambda bad, clip, net: fd.explain((bad, 8000), net)),
    ("the STFT", lambda bad, clip, net: fd.Clip.from_stft(bad, FRONTEND)),
    ("maps", lambda bad, clip, net: fd.auralise(clip, bad)),
    ("maps", lambda bad, clip, net: fd.describe(clip, bad)),
    ("x", lambda bad, clip, net: net.forward(bad)),
    ("start", lambda bad, clip, net: fd.deconvolve(net.forward(clip.x), "conv", start=bad)),
    ("features", lambda bad, clip, net: fd.deconvolve(net.forward(clip.x), "conv", bad)),
    ("inputs[1]", lambda bad, clip, net: fd.randomised(net, inputs=[clip.x, bad])),
    ("clips[1]", lambda bad, clip, net: fd.feature_evolution({"a": net}, [clip, bad], "conv")),
    ("x", lambda bad, clip, net: fd.ops.conv2d(bad, np.ones((1, 1, 1, 1)))),
    ("weight", lambda bad, clip, net: fd.ops.conv2d(np.ones((1, 1, 2, 2)), bad)),
    ("bias", lambda bad, clip, net: fd.ops.conv2d(
        np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), bad
    )),
    ("switches", lambda bad, clip, net: fd.ops.max_unpool2d(
        np.ones((1, 1, 2, 2)), bad, (4, 4), 2
    )),
]


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_every_argument_that_may_be_an_array_is_named(name, call, clip, net):
    with pytest.raises(FastdeconvError) as caught:
        call(Unreadable(RuntimeError("of another library")), clip, net)
    assert f"{name} cannot be read as an array: of another" in str(caught.value)


def test_tensors_that_numpy_cannot_read():
    torch = pytest.importorskip("torch")
    values = torch.ones(640)
    for tensor in (
        values.clone().requires_grad_(), values.bfloat16(), values.to("meta"), values.to_sparse(),
    ):
        with pytest.raises(AudioError, match=r"^samples cannot be read as an array"):
            fd.Clip(tensor, 8000, FRONTEND)
    assert fd.Clip(values, 8000, FRONTEND).samples.size == 640


class Tensor(Unreadable):
    """A number of another library that cannot be read."""

    def __init__(self):
        super().__init__(RuntimeError("of another library"))

    def __index__(self):
        raise self.error

    __float__ = __index__


@pytest.mark.parametrize(("name", "ask"), [
    ("sr", lambda clip, net: fd.Clip(clip.samples, Tensor(), FRONTEND)),
    ("n_fft", lambda clip, net: fd.Frontend(n_fft=Tensor())),
    ("n_samples", lambda clip, net: FRONTEND.num_frames(Tensor())),
    ("seconds", lambda clip, net: fd.chord_stimuli(seconds=Tensor())),
    ("seed", lambda clip, net: fd.randomised(net, Tensor())),
    ("num_threads", lambda clip, net: fd.auralise(clip, clip.x, num_threads=Tensor())),
    ("num_threads", lambda clip, net: fd.auralise(clip, clip.x, num_threads="4")),
    ("num_threads", lambda clip, net: fd.config(num_threads=1.5).__enter__()),
    ("kernel_size", lambda clip, net: fd.ops.max_pool2d(np.ones((1, 1, 2, 2)), Tensor())),
    ("mode", lambda clip, net: fd.auralise(clip, clip.x, np.array(["mask", "phase"]))),
    ("rule", lambda clip, net: fd.deconvolve(net.forward(clip.x), "conv", rule=clip.x)),
    ("precision", lambda clip, net: fd.deconvolve(net.forward(clip.x), "conv", precision=clip.x)),
    ("algorithm", lambda clip, net: net.forward(clip.x, algorithm=clip.x)),
    ("layer", lambda clip, net: net.layer_index(clip.x)),
    ("trace", lambda clip, net: fd.deconvolve(clip.x, "conv")),
    ("back end", lambda clip, net: fd.auralise(clip, fd.deconvolve(
        net.forward(clip.x), "conv", backend=clip.x))),
    ("ceil_mode", lambda clip, net: fd.ops.max_pool2d(clip.x[None], 1, ceil_mode=clip.x)),
    ("bundled network", lambda clip, net: fd.pretrained(clip.x)),
])
def test_arrays_and_tensors_where_a_number_or_a_name_is_wanted(name, ask, clip, net):
    with pytest.raises(FastdeconvError, match=name):
        ask(clip, net)
