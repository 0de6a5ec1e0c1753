"""`from_torch`: ten networks of the kinds people have, and what is promised of a module."""

from __future__ import annotations

import collections
import logging
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastdeconv as fd

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812


def conv_bn(i: int, o: int, *, k: Any = 3, act: Any = nn.ELU, **more: Any) -> list[nn.Module]:
    return [nn.Conv2d(i, o, k, padding="same" if "stride" not in more else 1, **more),
            nn.BatchNorm2d(o), act()]


class Paper(nn.Module):
    """Convolution, batch norm, ELU, pool."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *conv_bn(1, 6), nn.MaxPool2d((2, 2)), nn.Dropout(),
            *conv_bn(6, 8), nn.MaxPool2d((2, 3)), nn.Dropout(),
        )
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: Any) -> Any:
        return torch.sigmoid(self.head(self.features(x).flatten(1)))


class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(o, o, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.downsample = (
            nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.BatchNorm2d(o)) if stride > 1 else None
        )

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.layer1 = nn.Sequential(Block(6, 6, 1), Block(6, 8, 2))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.layer1(self.stem(x)), 1), 1))


class Excite(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(n, 4, 1), nn.Conv2d(4, n, 1)

    def forward(self, x: Any) -> Any:
        gate = F.silu(self.down(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.up(gate))


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, 2, 1), nn.Hardswish(), nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12),
            nn.SiLU(), nn.Conv2d(12, 12, 5, 1, 2, groups=12), nn.ReLU6(), Excite(12),
            nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8),
        )

    def forward(self, x: Any) -> Any:
        return self.features(x)


class Recurrent(nn.Module):
    """Batch norm on frequency, convolutions, and a GRU that nobody can import."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16)
        self.conv1, self.conv2 = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.gru = nn.GRU(6 * 4, 8, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.elu(self.conv2(x)), 2)
        x = x.permute(0, 3, 1, 2).flatten(2)
        return self.fc(self.gru(x)[0][:, -1])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(9, 2, 3, padding=1)

    def forward(self, x: Any) -> Any:
        skip = F.leaky_relu(self.down(x), 0.2)
        y = torch.relu(self.up(F.relu(self.inner(F.max_pool2d(skip, 2)))))
        y = F.interpolate(F.avg_pool2d(y, 2), scale_factor=2, mode="nearest") + y
        y = F.pad(y, (0, skip.shape[3] - y.shape[3], 0, skip.shape[2] - y.shape[2]))
        return torch.sigmoid(self.last(torch.cat([y, skip], 1))) * x


class NextBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dw = nn.Conv2d(6, 6, 5, padding=2, groups=6)
        self.norm = nn.LayerNorm(6, eps=1e-6)
        self.wide, self.act, self.narrow = nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)
        self.gamma = nn.Parameter(0.3 + torch.rand(6))

    def forward(self, x: Any) -> Any:
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.narrow(self.act(self.wide(y)))).permute(0, 3, 1, 2)


class Next(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, (4, 4), stride=4)
        self.blocks = nn.Sequential(NextBlock(), NextBlock())
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


class Samples(nn.Module):
    """A 1-D network on the waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 6, 3, stride=3), nn.BatchNorm1d(6), nn.ReLU(),
            nn.Conv1d(6, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3),
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.fc(self.features(x).mean(-1))


class Bands(nn.Module):
    """Conv1d with mel bins as channels, and two kinds of pooling over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 8, 4, padding=2))
        self.prelu = nn.PReLU(8)
        self.conv2 = nn.Conv1d(8, 6, 3, padding=2, dilation=2)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Any) -> Any:
        y = torch.tanh(self.conv2(self.prelu(self.conv(x))))
        return F.log_softmax(self.fc(torch.cat([y.amax(2), y.mean(2)], 1)), 1)


class Functional(nn.Module):
    """One ReLU for everything, functions in place, weights used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.d = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        x = self.relu(self.c(x))
        x = self.relu(self.d(x) * 0.7 - 0.1)
        x = F.relu_(self.d(x)).clamp(min=0.05)
        return F.softplus(x) / 2 + torch.abs(x) ** 2


class Pooled(nn.Module):
    """Maxima and means over chosen axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.GroupNorm(3, 6)
        self.fc1, self.fc2 = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = F.mish(self.norm(self.conv(x)))
        rows = torch.amax(x, dim=2)
        both = torch.cat([rows.mean(-1), rows.max(-1).values], -1)
        return self.fc2(F.dropout(F.selu(self.fc1(both)), 0.5, self.training))


#: Network, shape of an input, the layer to end with, and some layers that must be there.
NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...], str | None, list[str]]] = {
    "paper": (Paper, (1, 16, 24), None, ["features.0", "features.1", "features.2", "features.3",
                                         "features.5", "features.8", "head", "sigmoid1"]),
    "residual": (Residual, (1, 12, 14), None,
                 ["stem", "layer1.0.conv1", "layer1.0.relu", "layer1.0.add", "layer1.0.relu:1",
                  "layer1.1.downsample.1", "fc"]),
    "mobile": (Mobile, (1, 14, 18), None,
               ["features.1", "features.4", "features.6", "features.7.down",
                "features.7.silu", "features.7.multiply", "features.9"]),
    "recurrent": (Recurrent, (1, 16, 20), "conv2",
                  ["norm", "conv1", "relu1", "pool1", "conv2"]),
    "u": (UNet, (1, 10, 14), None, ["down", "leaky_relu1", "up", "upsample1", "concat1", "last"]),
    "next": (Next, (1, 16, 20), None,
             ["blocks.0.dw", "blocks.0.norm", "blocks.0.wide", "blocks.1.act", "blocks.1.add",
              "norm", "head"]),
    "samples": (Samples, (1, 81), None, ["features.0", "features.4", "features.6", "fc"]),
    "bands": (Bands, (16, 20), None, ["conv", "prelu", "conv2", "tanh1", "fc", "log_softmax1"]),
    "functional": (Functional, (1, 9, 11), None, ["c", "relu", "d", "relu:1", "d:1", "relu1"]),
    "pooled": (Pooled, (1, 10, 13), None, ["conv", "norm", "mish1", "fc1", "selu1", "fc2"]),
}


def module_of(cls: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = cls().eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(-1.5, 1.5)
                part.bias.normal_(0, 0.3)
    return module


@pytest.fixture(params=NETWORKS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, fd.Network, Any, list[str]]:
    cls, shape, outputs, names = NETWORKS[request.param]
    module = module_of(cls)
    net = fd.from_torch(module, shape, outputs=outputs)
    return module, net, torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)), names


def captured(module: nn.Module, x: Any) -> tuple[Any, dict[str, Any]]:
    """The output, and what every module put out the first time, all with gradients."""
    told: dict[str, Any] = {}
    handles = []
    for path, part in module.named_modules():
        def hook(part: Any, given: Any, out: Any, path: str = path) -> Any:
            if isinstance(out, torch.Tensor):
                told.setdefault(path, out)
                return out.clone()  # what follows in place does not reach the one kept
            return None
        handles.append(part.register_forward_hook(hook))
    out = module(x)
    for handle in handles:
        handle.remove()
    return out, told


def test_layers_have_the_names_of_modules(case: Any) -> None:
    _, net, _, names = case
    found = [layer.name for layer in net.layers]
    assert [name for name in found if name in names] == names


def test_activations_are_those_of_the_modules(case: Any) -> None:
    module, net, x, _ = case
    with torch.no_grad():
        out, told = captured(module, x)
    shape = tuple(n or m for n, m in zip(net.input_shape, net_input(net, x).shape))
    trace = net.forward(net_input(net, x).reshape(shape))
    compared = 0
    for name, value in told.items():
        if name and (name in net.aliases or any(layer.name == name for layer in net.layers)):
            found, wanted = trace[name].reshape(-1), value.numpy().reshape(-1)
            if name.startswith("blocks") and trace[name].ndim == 3 and value.shape[-1] != (
                trace[name].shape[-1]
            ):
                wanted = value.movedim(-1, 1).numpy().reshape(-1)
            np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
            compared += 1
    assert compared >= 2
    if "gru" not in dict(module.named_children()):
        found = trace[net.layers[-1].name].reshape(-1)
        np.testing.assert_allclose(found, out.numpy().reshape(-1),
                                   atol=1e-4 * float(out.abs().max()))


def net_input(net: fd.Network, x: Any) -> np.ndarray:
    """The network's input: (C, W) is (C, 1, W)."""
    array = x[0].numpy()
    return array[:, None] if array.ndim == 2 else array


def test_the_gradient_rule_is_autograd(case: Any) -> None:
    module, net, x, names = case
    x = x.clone().requires_grad_(True)
    _, told = captured(module, x)
    trace = net.forward(net_input(net, x.detach()))
    wanted_of = {name: told[name] for name in names if name in told and ":" not in name}
    name = list(wanted_of)[-1]
    value = wanted_of[name]
    planes = value[0] if value.dim() > 1 else value
    if trace[name].shape[0] != planes.shape[0]:
        planes = planes.movedim(-1, 0)
    assert planes.shape[0] == trace[name].shape[0]
    features = list(range(min(3, planes.shape[0])))
    maps = fd.deconvolve(trace, name, features, rule="gradient")
    for k in features:
        plane = planes[k]
        (wanted,) = torch.autograd.grad((plane * plane.detach()).sum(), x, retain_graph=True)
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(maps[k].reshape(-1), wanted.numpy().reshape(-1),
                                   atol=1e-4 * scale)


def test_which_widths_may_vary(case: Any) -> None:
    module, net, x, _ = case
    c, h, w = net_input(net, x).shape
    assert net.input_shape == (c, h, w if isinstance(module, Paper) else None)


class Adaptive(nn.Module):
    def forward(self, x: Any) -> Any:
        return F.adaptive_avg_pool2d(torch.relu(x), (2, 2))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.conv(x)).flatten(2).transpose(1, 2)
        return self.fc(self.attention(x, x, x)[0].mean(1))


def test_what_one_exporter_takes_apart_the_other_may_not(capfd: Any) -> None:
    net = fd.from_torch(Adaptive(), (3, 6, 8))
    assert [layer.type for layer in net.layers] == ["relu", "avg_pool2d"]
    assert net.input_shape == (3, 6, 8)
    with pytest.raises(fd.ParameterError, match=r"in the module 'attention' cannot be a layer: it "
                       r"multiplies two computed matrices.*from_torch\(..., outputs='relu1'\)"):
        fd.from_torch(Attention(), (1, 5, 6))
    assert capfd.readouterr() == ("", "")


class Spread(nn.Module):
    """The size of the input is in a number: n / (n - 1)."""

    def forward(self, x: Any) -> Any:
        return torch.relu(x).var((2, 3))


def test_a_size_that_hides_in_a_number_is_kept() -> None:
    assert fd.from_torch(Spread(), (3, 6, 8)).input_shape == (3, 6, 8)


def test_what_cannot_be_imported_is_said_with_what_can() -> None:
    with pytest.raises(fd.ParameterError) as error:
        fd.from_torch(module_of(Recurrent), (1, 16, 20))
    text = str(error.value)
    assert text.startswith("Recurrent: node ")
    assert "in the module 'gru' cannot be a layer" in text
    assert "from_torch(..., outputs='pool2')" in text
    with pytest.raises(fd.ParameterError, match="no layer 'conv9'; there are norm, conv1"):
        fd.from_torch(module_of(Recurrent), (1, 16, 20), outputs="conv9")


def test_the_module_is_left_as_it_was() -> None:
    module = module_of(Paper)
    module.train()
    module.features[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fd.from_torch(module, torch.zeros(1, 1, 16, 24))
    assert module.training and not module.features[1].training and module.head.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks for part in module.modules())
    assert all(p.requires_grad for p in module.parameters())


def test_the_older_exporter_gives_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export

    def failing(*args: Any, **keywords: Any) -> Any:
        if keywords.get("dynamo"):
            raise RuntimeError("no such thing")
        return export(*args, **keywords)

    for key in ("residual", "functional"):
        cls, shape, _, names = NETWORKS[key]
        newer = fd.from_torch(module_of(cls), shape)
        monkeypatch.setattr(torch.onnx, "export", failing)
        older = fd.from_torch(module_of(cls), shape)
        monkeypatch.undo()
        found = [layer.name for layer in older.layers]
        assert [name for name in found if name in names] == names
        assert [layer.type for layer in older.layers] == [layer.type for layer in newer.layers]


def test_a_sum_over_channels_leaves_the_width_free() -> None:
    class Unit(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.conv, self.dim = nn.Conv2d(1, 4, 3), dim

        def forward(self, x: Any) -> Any:
            return F.normalize(self.conv(x), dim=self.dim)

    assert fd.from_torch(Unit(1), (1, 9, 11)).input_shape == (1, 9, None)
    assert fd.from_torch(Unit(3), (1, 9, 11)).input_shape == (1, 9, 11)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 6])
def test_power_pools_send_finite_values_back_from_silence(p: float) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.LPPool2d(p, 2), nn.Conv2d(4, 3, 3))
    x = torch.randn(1, 1, 12, 20).abs() + 0.1
    if p > 1:
        x[..., 8:] = -100  # which no filter lets through
        module[0].weight.data.abs_()
    net = fd.from_torch(module, (1, 12, 20))
    x.requires_grad_()
    trace = net.forward(x.detach().numpy()[0])
    found = fd.deconvolve(trace, "3", rule="gradient", start="one")
    for k, map_ in enumerate(found):
        (wanted,) = torch.autograd.grad(module(x)[0, k].sum(), x)
        np.testing.assert_allclose(map_, wanted[0], atol=1e-5 * float(wanted.abs().max()))
    if p > 1:
        assert (trace["1"][:, :, 8:] == 0).all()
        assert np.isfinite(fd.deconvolve(trace, "3", rule="deconvnet", start="one")).all()


def test_unpooling_is_refused_by_name_and_the_pool_can_be_kept() -> None:
    class Unpooling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, return_indices=True)
            self.back = nn.MaxUnpool2d(2)

        def forward(self, x: Any) -> Any:
            return self.back(*self.pool(self.conv(x)))

    with pytest.raises(fd.ParameterError, match=r"MaxUnpool2d .* the layers are conv, pool"):
        fd.from_torch(Unpooling(), (1, 12, 22))
    assert fd.from_torch(Unpooling(), (1, 12, 22), outputs="pool").layers[-1].name == "pool"


def test_arguments_that_are_wrong() -> None:
    module = module_of(Paper)
    with pytest.raises(fd.ParameterError, match=r"must be a torch.nn.Module, found \{\}"):
        fd.from_torch({}, (1, 16, 24))
    with pytest.raises(fd.ParameterError, match=r"cannot take an input of shape \(1, 3, 16, 24\)"):
        fd.from_torch(module, (3, 16, 24))
    with pytest.raises(fd.ParameterError, match="sequence of positive ints"):
        fd.from_torch(module, (1, 16, None))
    with pytest.raises(fd.ParameterError, match="outputs must be a string"):
        fd.from_torch(module, (1, 16, 24), outputs=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["half", "bfloat16", "double"])
def test_other_precisions(kind: str) -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    dtype = getattr(module, kind)()[0].weight.dtype
    net = fd.from_torch(module, (1, 8, 9), classes=["a", "b", "c"], name="mine")
    assert (net.name, net.classes) == ("mine", ("a", "b", "c"))
    assert [layer.name for layer in net.layers] == ["0", "1", "2"]
    assert net.layer_index("3") == 2
    assert module[0].weight.dtype == dtype


def test_modules_that_wrap_others() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of its age
        compiled = torch.compile(module, backend="eager")
        scripted = torch.jit.script(module)
    for wrapped in (nn.DataParallel(module), compiled):
        net = fd.from_torch(wrapped, (1, 8, 9))
        assert [layer.name for layer in net.layers] == ["0", "1", "2"]
    net = fd.from_torch(scripted, (1, 8, 9))
    assert [layer.type for layer in net.layers] == ["conv2d", "batch_norm2d", "relu"]


class BandsAsChannels(nn.Module):
    """Bands are channels, frames rows, and there is one column."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 4, (3, 1), padding=(1, 0))

    def forward(self, x: Any) -> Any:
        return self.conv(x.permute(0, 2, 3, 1)).mean(2)


def test_rows_vary_where_they_are_time() -> None:
    net = fd.from_torch(BandsAsChannels(), (1, 12, 20))
    assert net.input_shape == (12, None, 1)
    assert net.forward(np.ones((12, 31, 1)))["conv"].shape == (4, 31, 1)


def test_an_input_that_does_not_fit_into_the_memory_is_an_error_of_ours():
    with pytest.raises(fd.ParameterError, match="the module cannot take an input of shape"):
        fd.from_torch(torch.nn.Conv2d(1, 1, 3), (1, 2**30, 2**30))


class Several(nn.Module):
    """Two outputs, as `kind` gives them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(1, 3, 3)
        self.genre, self.mood = nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.conv(x)).mean((2, 3))
        found = {"of genre": self.genre(x), "of mood": self.mood(x)}
        if self.kind == "dict":
            return found
        if self.kind == "named":
            return collections.namedtuple("Scores", ["first", "second"])(*found.values())
        return tuple(found.values())


@pytest.mark.parametrize(("kind", "names"), [
    ("dict", ("of genre", "of mood")), ("named", ("first", "second")), ("tuple", ("genre", "mood")),
])
def test_an_output_is_chosen_by_the_name_that_the_module_gives_it(kind, names):
    module = Several(kind)
    with pytest.raises(fd.ParameterError, match=f"outputs '{names[0]}', '{names[1]}', and a "
                       rf"network has one; choose it with from_torch\(..., outputs='{names[0]}'"):
        fd.from_torch(module, (1, 8, 9))
    net = fd.from_torch(module, (1, 8, 9), outputs=names[1])
    assert net.layers[-1].name == "mood"
    assert net.forward(np.ones((1, 8, 9)))["mood"].shape == (2, 1, 1)


class Crossed(Several):
    """Each output has the name of the other's module."""

    def forward(self, x: Any) -> Any:
        found = super().forward(x)
        return {"mood": found["of genre"], "genre": torch.sigmoid(found["of mood"])}


def test_a_key_is_that_output_also_where_a_module_has_its_name():
    module = Crossed("dict")
    x = torch.randn(1, 1, 8, 9)
    for key, want in module.eval()(x).items():
        net = fd.from_torch(module, (1, 8, 9), outputs=key)
        found = net.forward(x[0].numpy())[net.layers[-1].name]
        np.testing.assert_allclose(found[:, 0, 0], want[0].detach(), rtol=1e-5, atol=1e-6)


def test_imports_on_several_threads_leave_stderr_and_logging_as_they_were():
    before = sys.stderr, logging.root.manager.disable
    with ThreadPoolExecutor(3) as pool:
        nets = list(pool.map(lambda _: fd.from_torch(nn.Conv2d(1, 2, 3), (1, 8, 9)), range(6)))
    assert [net.input_shape for net in nets] == 6 * [nets[0].input_shape]
    assert (sys.stderr, logging.root.manager.disable) == before


@pytest.mark.parametrize("kind", ["program", "its module"])
def test_a_program_of_torch_export(kind):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()).eval()
    program = torch.export.export(module, (torch.zeros(1, 1, 8, 9),))
    net = fd.from_torch(program if kind == "program" else program.module(), (1, 8, 9))
    x = np.random.default_rng(0).normal(size=(1, 8, 9)).astype(np.float32)
    wanted = module(torch.from_numpy(x)[None]).detach().numpy()[0]
    np.testing.assert_allclose(net.forward(x)[net.layers[-1].name], wanted, rtol=1e-5, atol=1e-6)


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Identity()
        self.fc._packed_params = nn.Identity()
        self.fc._packed_params.register_buffer("dtype", torch.zeros(1))


class Choosing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)

    def forward(self, x: Any) -> Any:
        return self.conv(x / 7 if x.abs().max() > 1 else x)


class Dropping(Choosing):
    def forward(self, x: Any) -> Any:
        return F.dropout(self.conv(x), 0.5)


class Batches(Choosing):
    def forward(self, x: Any) -> Any:
        return self.conv(x["x"])


class Lengths(Choosing):
    def forward(self, x: Any, lengths: Any) -> Any:
        return self.conv(x) * lengths


@pytest.mark.parametrize(("module", "said"), [
    (Quantised, r"quantised \('fc._packed_params.dtype'\); import the module in floating"),
    (lambda: nn.Conv2d(1, 3, 3, device="meta"), "have no values .*'weight' is on .*'meta'"),
    (Dropping, r"after training; F.dropout needs training=self.training. .*outputs='conv'"),
    (Batches, "Its forward must take one tensor and nothing else"),
    (Lengths, "missing 1 required positional argument: 'lengths'.*takes a dict or several"),
    (Choosing, r"exports it wrongly: this happens where a forward decides by values .*`if`"),
])
def test_modules_that_cannot_be_imported_are_told_why(module, said, capfd):
    with pytest.raises(fd.FastdeconvError, match=said):
        fd.from_torch(module(), (1, 8, 9))
    assert "GraphModule" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("frontend", "frames"), [
    ({"n_mels": 16}, 12), ({"n_mels": 16, "frames": 12}, 12),
    ({"n_mels": 8, "layout": "CTF"}, None), ({"n_mels": 12, "layout": "CTF"}, 16),
])
def test_a_front_end_gives_as_many_frames_as_a_network_of_fixed_width_takes(frontend, frames):
    """Unless its rows do not fit: then its layout may be wrong, not the number of frames."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 10, 3))
    fields = {"kind": "mel", "sr": 8000, "n_fft": 256, **frontend}
    net = fd.from_torch(module, (1, 16, 12), frontend=fields)
    assert net.frontend is not None and net.frontend.frames == frames
