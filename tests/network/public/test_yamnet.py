"""YAMNet, beside its definition written once more with PyTorch, and its saved graph's constants."""

from __future__ import annotations

import numpy as np
import pytest

import fastdeconv as fd
from fastdeconv.network.public.finding import find_files
from fastdeconv.network.public.recipes import recipe
from fastdeconv.network.public.tensorflow import read_checkpoint

# yamnet.py, _YAMNET_LAYER_DEFS: the stride of every separable convolution.
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def yamnet(x):
    """The values behind every block for a patch (1, 1, frames, bands)."""
    torch = pytest.importorskip("torch")
    arrays = read_checkpoint(*(file.content for file in find_files(recipe("yamnet"))))
    of = "layer-1/layer/_func/_yamnet/layer_with_weights-"

    def get(number, name):
        return torch.tensor(np.array(arrays[f"{of}{number}/{name}"]))

    def block(x, number, stride, depthwise=False):
        kernel = get(number, "depthwise_kernel" if depthwise else "kernel")
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        size = kernel.shape[2]
        sides = []
        for n in reversed(x.shape[2:]):
            total = max((-(-n // stride) - 1) * stride + size - n, 0)
            sides += [total // 2, total - total // 2]
        x = torch.nn.functional.pad(x, sides)
        x = torch.conv2d(x, kernel, None, stride, groups=len(kernel) if depthwise else 1)
        mean, variance, beta = (
            get(number + 1, name) for name in ("moving_mean", "moving_variance", "beta")
        )
        return torch.nn.functional.batch_norm(x, mean, variance, None, beta, eps=1e-4).relu()

    found = {}
    x = found["relu1"] = block(torch.tensor(x), 0, 2)
    for i, stride in enumerate(STRIDES):
        x = found[f"depthwise{i + 2}_relu"] = block(x, 4 * i + 2, stride, depthwise=True)
        x = found[f"relu{i + 2}"] = block(x, 4 * i + 4, 1)
    x = found["embedding"] = x.mean(dim=(2, 3))
    found["classes"] = x @ get(54, "kernel") + get(54, "bias")
    return found


def test_every_block_has_the_values_of_yamnet_py(opened, demo, close):
    net = opened("yamnet")
    clip = fd.load_clip(demo, net.frontend, offset=1.0)
    trace = net.forward(clip.x)
    for layer, values in yamnet(clip.x[None]).items():
        close(trace[layer], values.numpy())


def constants(shape, name):
    """The float32 constant of a shape in the saved graph, which is a Protocol Buffers message."""
    graph = find_files(recipe("yamnet"))[0].place.parent.parent / "saved_model.pb"
    content = graph.read_bytes()
    count = int(np.prod(shape))
    # The field of its raw values is field 4, a string of bytes: its number, its length, and they.
    length, left = b"", 4 * count
    while left:
        length += bytes([left & 0x7F | (0x80 if left > 0x7F else 0)])
        left >>= 7
    start = content.index(b"\x22" + length, content.index(name)) + 1 + len(length)
    return np.frombuffer(content, "<f4", count, start).reshape(shape)


def test_the_input_is_the_saved_graphs(opened, samples, close):
    net = opened("yamnet")
    window = constants((400,), b"tf_op_layer_Mul_3/Mul_3/y")
    bands = constants((257, 64), b"tf_op_layer_MatMul/MatMul/b")
    np.testing.assert_array_equal(net.frontend.filters.T, bands)
    # Its windows lie at the beginning of a transform, ours in the middle of it.
    heard = samples(net)[16000:]
    frames = np.lib.stride_tricks.sliding_window_view(heard[56:], 400)[::160][:96]
    wanted = np.log(np.abs(np.fft.rfft(frames * window, 512)) @ bands + 0.001)
    # In the silent bands the rounding of the graph's window shows, by 1.05e-4.
    close(fd.Clip(heard, 16000, net.frontend).x, wanted, 1.5e-4)
    exact = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    close(window, exact, 1e-6)
    wanted = np.log(np.abs(np.fft.rfft(frames * exact, 512)) @ bands.astype(float) + 0.001)
    close(fd.Clip(heard, 16000, net.frontend).x, wanted, 1e-6)


def test_music_is_music(opened, demo):
    net = opened("yamnet")
    scores = net.forward(fd.load_clip(demo, net.frontend, offset=1.0).x)["classes"].ravel()
    assert net.classes[int(scores.argmax())] == "Music"


def test_features_are_heard(opened, demo):
    net = opened("yamnet")
    explained = fd.explain(demo, net, layers="relu3", features=range(8))
    assert max(np.abs(explained.sound("relu3", k)).max() for k in range(8)) > 1e-3
