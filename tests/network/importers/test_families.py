"""Networks of the kinds that people in audio use, from PyTorch to maps, against autograd.

Under the rules "deconvnet" and "guided" the module itself is computed with a ReLU that sends back
what the rule says, in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

pytestmark = pytest.mark.filterwarnings("ignore")


class Of(nn.Module):
    """A module that computes what a function makes of it and an input."""

    def __init__(self, compute: Callable[[Any, Any], Any], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.compute(self, x)


def conv(i: int, o: int, k: Any = 3, **more: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(i, o, k, padding="same", **more), nn.BatchNorm2d(o), nn.ReLU())


def parameter(*shape: int, low: float = -1.0) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(low, 1.0))


def unet(m: Any, x: Any) -> Any:
    skip = m.a(x)
    y = m.b(F.max_pool2d(skip, 2))
    y = F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
    return torch.sigmoid(m.c(torch.cat([skip, y], 1))) * x


def corners(m: Any, x: Any) -> Any:
    y = m.up(m.b(F.max_pool2d(m.a(x), 2)))
    return m.c(F.pad(y, [0, x.size(3) - y.size(3), 0, x.size(2) - y.size(2)]))


def maxout(m: Any, x: Any) -> Any:
    a, b = m.a(x).chunk(2, 1)
    x = m.b(torch.max(a, b))
    n, c, h, w = x.shape
    return m.c(x.view(n, c // 2, 2, h, w).max(2)[0])


def shuffled(m: Any, x: Any) -> Any:
    a, b = m.a(x).chunk(2, 1)
    x = torch.cat([a, m.b(b)], 1)
    n, c, h, w = x.shape
    return m.c(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def broadcast(m: Any, x: Any) -> Any:
    """Batch norm of parts of the spectrum, and a branch of means over frequency."""
    x = m.a(x)
    n, c, f, t = x.shape
    y = m.norm(x.view(n, c * 4, f // 4, t)).view(n, c, f, t)
    return F.relu(x + y + m.b(y.mean(2, keepdim=True)))


def selective(m: Any, x: Any) -> Any:
    x = m.a(x)
    both = torch.stack([m.b(x), m.c(x)], 1)
    z = F.relu(m.squeeze(both.sum(1).mean((2, 3))))
    gates = torch.softmax(torch.stack([m.one(z), m.two(z)], 1), 1)
    return (both * gates[..., None, None]).sum(1)


def by_frequency(m: Any, x: Any) -> Any:
    """Four filters mixed by an attention of every band."""
    x = m.a(x)
    gates = torch.softmax(m.gate(x.mean(3)), 1)
    y = m.b(x).view(1, 4, 5, x.shape[2], x.shape[3])
    return (y * gates[:, :, None, :, None]).sum(1)


def bands(m: Any, x: Any) -> Any:
    y = torch.einsum("bcft,fk->bckt", m.a(x), m.filters)
    return torch.einsum("bckt,ckm->bcmt", F.relu(y), m.each)


def codec(m: Any, x: Any) -> Any:
    x = F.elu(m.a(F.pad(x, (3, 1), "reflect")))
    return m.up(x + m.b(F.pad(x, (2, 0), "replicate")))[..., 1:-2]


def snake(m: Any, x: Any) -> Any:
    x = m.a(x[:, 0])
    return x + torch.sin(m.slope * x).pow(2) / m.slope


def attention(m: Any, x: Any) -> Any:
    x = m.a(x).mean(2).transpose(1, 2)
    weights = torch.softmax(m.score(x), 1)
    return m.head(torch.bmm(weights.transpose(1, 2), x).flatten(1))


def placed(m: Any, x: Any) -> Any:
    """Where a band lies as a channel, and numbers for each channel and band."""
    rows = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, 1).expand_as(x)
    return m.b(m.a(torch.cat([x, rows], 1)) * m.scale + m.shift)


SHAPE = (1, 12, 20)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "bilinear decoder": (
        lambda: Of(unet, a=conv(1, 4), b=conv(4, 6), c=nn.Conv2d(10, 1, 1)), (1, 11, 13)),
    "aligned corners": (
        lambda: Of(corners, a=conv(1, 4), b=conv(4, 6), c=conv(6, 3),
                   up=nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        (1, 11, 13)),
    "maxout": (lambda: Of(maxout, a=nn.Conv2d(1, 8, 3), b=conv(4, 6), c=nn.Conv2d(3, 2, 3)), SHAPE),
    "channel shuffle": (lambda: Of(shuffled, a=conv(1, 8), b=conv(4, 4, groups=4), c=conv(8, 3)),
                        SHAPE),
    "sub-spectral norm": (
        lambda: Of(broadcast, a=conv(1, 3), norm=nn.BatchNorm2d(12), b=conv(3, 3, (1, 3))), SHAPE),
    "selective kernels": (
        lambda: Of(selective, a=conv(1, 6), b=conv(6, 6), c=conv(6, 6, dilation=2),
                   squeeze=nn.Linear(6, 3), one=nn.Linear(3, 6), two=nn.Linear(3, 6)), SHAPE),
    "frequency dynamic": (
        lambda: Of(by_frequency, a=conv(1, 4), b=nn.Conv2d(4, 20, 3, padding=1),
                   gate=nn.Conv1d(4, 4, 3, padding=1)), SHAPE),
    "filters by einsum": (
        lambda: Of(bands, a=nn.Conv2d(1, 3, 3, padding=1), filters=parameter(12, 7),
                   each=parameter(3, 7, 4)), SHAPE),
    "codec": (
        lambda: Of(codec, a=nn.Conv1d(1, 6, 5, 3), b=nn.Conv1d(6, 6, 3),
                   up=nn.ConvTranspose1d(6, 2, 5, 3)), (1, 40)),
    "snake": (lambda: Of(snake, a=nn.Conv1d(12, 4, 3), slope=parameter(1, 4, 1, low=0.5)), SHAPE),
    "attention over time": (
        lambda: Of(attention, a=conv(1, 5), score=nn.Linear(5, 2), head=nn.Linear(10, 3)), SHAPE),
    "places and tables": (
        lambda: Of(placed, a=conv(2, 4), b=nn.Conv2d(4, 3, 3), scale=parameter(4, 12, 1),
                   shift=parameter(4, 1, 20)), SHAPE),
    "adaptive pools": (
        lambda: nn.Sequential(conv(1, 4), nn.AdaptiveMaxPool2d((9, 7)), conv(4, 5),
                              nn.AdaptiveAvgPool2d((4, 3)), nn.Flatten(), nn.Linear(60, 3)), SHAPE),
    "unit vectors": (
        lambda: Of(lambda m, x: m.b(F.normalize(m.a(x), dim=1)), a=nn.Conv2d(1, 4, 3),
                   b=nn.Conv2d(4, 3, 3)), SHAPE),
    "batch norm of the clip": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False),
                              nn.ReLU(), nn.Conv2d(4, 3, 3)), SHAPE),
    "pixel shuffles": (
        lambda: nn.Sequential(nn.PixelUnshuffle(2), conv(4, 8), nn.PixelShuffle(2), conv(2, 3)),
        SHAPE),
}


@contextmanager
def rectified(rule: str) -> Iterator[None]:
    """Modules and functions called ReLU follow the rule."""

    class Rectify(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            grad = grad if rule == "gradient" else grad.clamp(min=0)
            return grad if rule == "deconvnet" else grad * (x > 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", lambda x, inplace=False: Rectify.apply(x))
        yield


def module_of(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = make().eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                if part.running_mean is not None:
                    part.running_mean.normal_(0, 0.2)
                    part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(-1.5, 1.5)
                part.bias.normal_(0, 0.3)
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_this_kind_comes_whole(name: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    module = module_of(make)
    net = fd.from_torch(module, shape)
    exact = copy.deepcopy(module).double()
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = x.float().double().requires_grad_()
    planes = x.detach().numpy()[0].astype(np.float32).reshape(
        [m if n is None else n for n, m in zip(net.input_shape, (*shape[:-1], 1, shape[-1])[-3:])]
    )
    last = net.layers[-1].name
    net.save(tmp_path / "net.npz")
    again = fd.Network.load(tmp_path / "net.npz")
    assert again.layers == net.layers
    assert np.array_equal(again.forward(planes)[last], net.forward(planes)[last])
    for rule in ("deconvnet", "guided", "gradient"):
        with rectified(rule):
            out = exact(x)
        for backend, tolerance in (("reference", 1e-5), (None, 1e-4)):
            with fd.config(**({} if backend is None else {"backend": backend})):
                trace = net.forward(planes)
                found = trace[last].reshape(-1)
                wanted = out.detach().numpy().reshape(-1)
                assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
                start = np.random.default_rng(0).normal(size=trace[last].shape)
                maps = fd.deconvolve(trace, last, rule=rule, start=start)
            for k, map_ in enumerate(maps):
                seed = np.zeros(start.shape)
                seed[k] = start[k]
                given = torch.from_numpy(seed.reshape(out.shape))
                (grad,) = torch.autograd.grad(out, x, given, retain_graph=True)
                grad = grad.numpy().reshape(map_.shape)
                assert np.abs(map_ - grad).max() <= tolerance * max(np.abs(grad).max(), 1e-9)
