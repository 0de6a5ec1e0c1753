"""Every back end, and networks with random weights, for every test of this room."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import fastdeconv
from fastdeconv.kernels.dispatch import bf16_of, get_backend
from fastdeconv.network.layers import layer_from_record

Build = Callable[..., fastdeconv.Network]

IMPLEMENTATIONS = [
    {"backend": "native", "isa": isa} for isa in fastdeconv.available_isas()
] + [{"backend": name} for name in fastdeconv.available_backends() if name != "native"]


@pytest.fixture(scope="session")
def implementations() -> list[dict[str, str]]:
    """Settings for every back end and instruction set."""
    return IMPLEMENTATIONS


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda i: "-".join(i.values()))
def on(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Every back end and instruction set in turn."""
    with fastdeconv.config(**request.param):
        yield request.param


@pytest.fixture(
    params=[i for i in IMPLEMENTATIONS if i["backend"] != "reference"],
    ids=lambda i: "-".join(i.values()),
)
def on_lanes(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Those of them that have lanes: only with lanes is a long clip projected in pieces."""
    with fastdeconv.config(**request.param):
        yield request.param


@pytest.fixture(scope="session")
def bf16_settings() -> dict[str, str]:
    """Settings with which precision="bf16" works, where there are any."""
    settings = {"backend": "native", "isa": "avx512"}
    if settings in IMPLEMENTATIONS:
        with fastdeconv.config(**settings):
            if bf16_of(get_backend()) == "vectors":
                return settings
    pytest.skip("this CPU, or the build, has no AVX512_BF16, or it is no faster than float32")


@pytest.fixture
def bf16(bf16_settings: dict[str, str]) -> Iterator[None]:
    with fastdeconv.config(**bf16_settings):
        yield


WEIGHTLESS = {"out", "kernel"}


def _arrays(
    record: dict[str, Any], size: Sequence[int], rng: np.random.Generator
) -> dict[str, Any]:
    """Random arrays of a layer; He's scale, so that deep activations stay near 1."""
    kind, name, out = record["type"], record["name"], record.get("out")
    channels, groups = size[0], record.get("groups", 1)
    if kind == "conv2d":
        shape = (out, channels // groups, *record["kernel"])
    elif kind == "conv_transpose2d":
        shape = (channels, out // groups, *record["kernel"])
    elif kind == "linear":
        shape = (out, channels)
    else:
        return {f"{name}.{key}": value for key, value in _per_place(record, size, rng)}
    arrays = {f"{name}.weight": rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))}
    if record.get("bias", True):
        arrays[f"{name}.bias"] = rng.normal(size=out) / 4
    return arrays


def _per_place(
    record: dict[str, Any], size: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[str, Any]]:
    """Arrays of numbers for each channel, row or column."""
    kind = record["type"]
    letters = record.get("axes", record.get("axis", "C"))
    shape = [n for letter, n in zip("CHW", size) if letter in letters]
    if kind == "prelu":
        yield "weight", rng.normal(size=record.get("out", size[0]))
    learned = kind in ("layer_norm", "group_norm") or record.get("affine")
    if kind in ("batch_norm2d", "affine") or (learned and record.get("affine", True)):
        yield "weight", rng.normal(size=shape)
        yield "bias", rng.normal(size=shape)
    if kind == "batch_norm2d":
        yield "running_mean", rng.normal(size=shape)
        yield "running_var", rng.uniform(0.5, 2, shape)


@pytest.fixture(scope="session")
def build() -> Build:
    """``build(records, (C, H, W), seed=0)``: a network with random weights.

    Records are those of the archive; a convolution says its ``out`` channels and
    ``kernel``, a linear layer its ``out``, a PReLU with a single slope ``out`` 1.
    """

    def make(
        records: Sequence[dict[str, Any]], shape: tuple[int, int, int], seed: int = 0,
        **arguments: Any,
    ) -> fastdeconv.Network:
        rng = np.random.default_rng(seed)
        layers, arrays, before, sizes = [], {}, "input", {"input": shape}
        for i, record in enumerate(records):
            record = {"name": f"l{i}", **record}
            taken = [sizes[name] for name in record.get("inputs", [before])]
            arrays |= _arrays(record, taken[0], rng)
            kept = {k: v for k, v in record.items() if k not in WEIGHTLESS}
            layers.append(layer_from_record(kept))
            loaded = {k: np.asarray(v, np.float32) for k, v in arrays.items()}
            before = record["name"]
            sizes[before] = layers[-1].joined_shape(taken, loaded)
        # Only a linear layer ties a network to one size.
        fixed = any(layer.type == "linear" for layer in layers)
        return fastdeconv.Network(
            layers, arrays, shape if fixed else (shape[0], None, None), **arguments
        )

    return make


# PyTorch in float64, for what is compared with it


@pytest.fixture(scope="session")
def torch() -> Iterator[Any]:
    """PyTorch, in one thread: handing out such small work costs more than doing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torch")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


@pytest.fixture(scope="session")
def in_torch(torch: Any) -> Callable[[fastdeconv.Network, np.ndarray, str], list[Any]]:
    """``in_torch(net, x, rule)``: the input and the output of every layer, on one graph.

    Of shape (1, C, H, W), float64. What autograd sends back through them follows the rule.
    """

    def run(net: fastdeconv.Network, x: np.ndarray, rule: str) -> list[Any]:
        values = [torch.from_numpy(x.astype(np.float64))[None].requires_grad_()]
        for layer, sources in zip(net.layers, net.sources):
            arrays = {
                key[len(layer.name) + 1 :]: torch.from_numpy(net.arrays[key].astype(np.float64))
                for key in layer.array_names
            }
            compute = _Torch(torch, layer, net.arrays, arrays, rule)
            values.append(compute(*(values[k + 1] for k in sources)))
        return values

    return run


class _Torch:
    """One layer in PyTorch, by methods that have the names of the types."""

    def __init__(self, torch: Any, layer: Any, own: Any, p: dict[str, Any], rule: str) -> None:
        self.torch, self.layer, self.own, self.p, self.rule = torch, layer, own, p, rule
        self.F = torch.nn.functional

    def __call__(self, *inputs: Any) -> Any:
        kind = self.layer.type
        if hasattr(self, kind):
            return getattr(self, kind)(*inputs)
        function = getattr(self.F, kind) if hasattr(self.F, kind) else getattr(self.torch, kind)
        return function(*inputs, **getattr(self.layer, "parameters", {}))

    def _window(self, h: Any) -> tuple[Any, tuple[int, ...]]:
        window = self.layer.window(tuple(h.shape[2:]), self.own)
        (top, bottom), (left, right) = window.padding
        return window, (left, right, top, bottom)

    def _dims(self, letters: str) -> list[int]:
        return [1 + "CHW".index(letter) for letter in sorted(letters)]

    def conv2d(self, h: Any) -> Any:
        window, sides = self._window(h)
        return self.F.conv2d(self.F.pad(h, sides), self.p["weight"], self.p.get("bias"),
                             window.stride, dilation=window.dilation, groups=self.layer.groups)

    def conv_transpose2d(self, h: Any) -> Any:
        layer, weight = self.layer, self.p["weight"]
        _, (left, right, top, bottom) = self._window(h)
        whole = self.F.conv_transpose2d(
            h, weight, self.p.get("bias"), layer.stride, 0, layer.output_padding, layer.groups,
            layer.dilation,
        )
        rows, columns = whole.shape[2:]
        cut = whole[:, :, top : rows - bottom, left : columns - right]
        if (top, left) == (bottom, right):
            own = self.F.conv_transpose2d(
                h, weight, self.p.get("bias"), layer.stride, (top, left), layer.output_padding,
                layer.groups, layer.dilation,
            )
            self.torch.testing.assert_close(cut, own)
        return cut

    def linear(self, h: Any) -> Any:
        return self.F.linear(h[:, :, 0, 0], self.p["weight"], self.p.get("bias"))[:, :, None, None]

    def max_pool2d(self, h: Any) -> Any:
        window, sides = self._window(h)
        padded = self.F.pad(h, sides, value=-self.torch.inf)
        pooled = self.F.max_pool2d(padded, window.kernel, window.stride, dilation=window.dilation,
                                   ceil_mode=self.layer.ceil_mode)
        # With ceil_mode PyTorch, which sees no padding here, may begin a window in it.
        _, rows, columns = self.layer.output_shape(tuple(h.shape[1:]), {})
        return pooled[:, :, :rows, :columns]

    def avg_pool2d(self, h: Any) -> Any:
        window, (left, right, top, bottom) = self._window(h)
        assert (top, left) == (bottom, right)
        return self.F.avg_pool2d(h, window.kernel, window.stride, (top, left),
                                 self.layer.ceil_mode, self.layer.count_include_pad)

    def global_avg_pool2d(self, h: Any) -> Any:
        return self.F.adaptive_avg_pool2d(h, 1)

    def global_max_pool2d(self, h: Any) -> Any:
        return self.F.adaptive_max_pool2d(h, 1)

    def adaptive_avg_pool2d(self, h: Any) -> Any:
        return self.F.adaptive_avg_pool2d(h, self.layer.output_size)

    def adaptive_max_pool2d(self, h: Any) -> Any:
        return self.F.adaptive_max_pool2d(h, self.layer.output_size)

    def reduce_mean(self, h: Any) -> Any:
        return h.mean(self._dims(self.layer.axes), keepdim=True)

    def reduce_max(self, h: Any) -> Any:
        return h.amax(self._dims(self.layer.axes), keepdim=True)

    def batch_norm2d(self, h: Any) -> Any:
        (axis,) = self._dims(self.layer.axis)
        first = h.transpose(1, axis)
        return self.F.batch_norm(
            first, self.p["running_mean"], self.p["running_var"], self.p["weight"],
            self.p["bias"], eps=self.layer.eps,
        ).transpose(1, axis)

    def affine(self, h: Any) -> Any:
        last = self._dims(self.layer.axis)
        order = [dim for dim in range(4) if dim not in last] + last
        moved = h.permute(order) * self.p["weight"] + self.p["bias"]
        return moved.permute([order.index(dim) for dim in range(4)])

    def local_response_norm(self, h: Any) -> Any:
        layer = self.layer
        norm = self.F.local_response_norm(h, layer.size, layer.alpha, layer.beta, layer.k)
        return norm if self.rule == "gradient" else h + (norm - h).detach()

    def layer_norm(self, h: Any) -> Any:
        last = self._dims(self.layer.axes)
        order = [dim for dim in range(4) if dim not in last] + last
        normal = self.F.layer_norm(
            h.permute(order), [h.shape[dim] for dim in last], self.p.get("weight"),
            self.p.get("bias"), self.layer.eps,
        )
        return normal.permute([order.index(dim) for dim in range(4)])

    def group_norm(self, h: Any) -> Any:
        return self._grouped(h, self.layer.groups)

    def instance_norm(self, h: Any) -> Any:
        return self._grouped(h, h.shape[1])

    def _grouped(self, h: Any, groups: int) -> Any:
        # The function of this name in torch.nn.functional refuses groups of one value.
        return self.torch.group_norm(
            h, groups, self.p.get("weight"), self.p.get("bias"), self.layer.eps
        )

    def dropout(self, h: Any) -> Any:
        return self.F.dropout(h, training=False)

    def flatten(self, h: Any) -> Any:
        return h.reshape(1, -1, 1, 1)

    def reshape(self, h: Any) -> Any:
        return h.reshape(1, *self.layer.shape)

    def slice(self, h: Any) -> Any:
        (dim,) = self._dims(self.layer.axis)
        taken = range(h.shape[dim])[self.layer.start : self.layer.stop : self.layer.step]
        return h.index_select(dim, self.torch.tensor(taken))

    def pad(self, h: Any) -> Any:
        (top, bottom), (left, right) = self.layer.padding
        value = {"value": self.layer.value} if self.layer.mode == "constant" else {}
        return self.F.pad(h, (left, right, top, bottom), self.layer.mode, **value)

    def permute(self, h: Any) -> Any:
        return h.permute(0, *(1 + "CHW".index(letter) for letter in self.layer.axes))

    def upsample(self, h: Any) -> Any:
        layer = self.layer
        corners = {} if layer.mode == "nearest" else {"align_corners": layer.align_corners}
        if layer.scales is None:
            return self.F.interpolate(h, layer.size, mode=layer.mode, **corners)
        scale = tuple(map(float, layer.scales))
        return self.F.interpolate(h, scale_factor=scale, mode=layer.mode, **corners)

    def add(self, *inputs: Any) -> Any:
        return sum(inputs)

    def multiply(self, *inputs: Any) -> Any:
        product = inputs[0]
        for h in inputs[1:]:
            product = product * h
        return product

    def maximum(self, *inputs: Any) -> Any:
        return self._first_that(self.torch.gt, inputs)

    def minimum(self, *inputs: Any) -> Any:
        return self._first_that(self.torch.lt, inputs)

    def _first_that(self, beats: Any, inputs: Any) -> Any:
        best = inputs[0]
        for h in inputs[1:]:
            best = self.torch.where(beats(h, best), h, best)
        return best

    def concat(self, *inputs: Any) -> Any:
        return self.torch.cat(inputs, *self._dims(self.layer.axis))

    def softmax(self, h: Any) -> Any:
        return self.torch.softmax(h, dim=1)

    def log_softmax(self, h: Any) -> Any:
        return self.torch.log_softmax(h, dim=1)

    def prelu(self, h: Any) -> Any:
        return self.F.prelu(h, self.p["weight"])

    def power(self, h: Any) -> Any:
        return h**self.layer.exponent

    def relu(self, h: Any) -> Any:
        return self._rectified(h, 0.0, self.torch.inf)

    def clip(self, h: Any) -> Any:
        low = -self.torch.inf if self.layer.min is None else self.layer.min
        high = self.torch.inf if self.layer.max is None else self.layer.max
        if low == 0:
            return self._rectified(h, low, high)
        return self.F.hardtanh(h, low, high)

    def _rectified(self, h: Any, low: float, high: float) -> Any:
        torch, rule = self.torch, self.rule

        class Rectify(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x)
                return x.clamp(low, high)

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                (x,) = ctx.saved_tensors
                if rule != "gradient":
                    grad = grad.clamp(min=0)
                return grad if rule == "deconvnet" else grad * ((x > low) & (x < high))

        return Rectify.apply(h)


@pytest.fixture
def at_the_last_moment(monkeypatch):
    """Bands run no sooner than the ones that wait for them; what is not there yet is NaN."""
    from fastdeconv.kernels import native_forward, native_shared

    def run_stages(stages: Any, num_threads: int) -> None:
        bands = [(stage, i) for stage in stages for i in range(len(stage.edges) - 1)]
        done: set[int] = set()

        def run(number: int) -> None:
            if number not in done:
                stage, i = bands[number]
                for before in range(0 if stage.needs is None else stage.needs[i]):
                    run(before)
                stage.job(stage.edges[i], stage.edges[i + 1])
                done.add(number)

        for number in reversed(range(len(bands))):
            run(number)

    def new_memory(size: int) -> np.ndarray:
        array = np.empty(-(-size // 4), np.float32)
        array[:] = np.nan
        return array.view(np.uint8)

    monkeypatch.setattr(native_forward, "run_stages", run_stages)
    monkeypatch.setattr(native_shared, "new_memory", new_memory)
    monkeypatch.setattr(native_shared, "SPLIT", 1)
