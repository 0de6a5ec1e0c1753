"""The layers a network can have, as plain records: parameters and shapes, no arithmetic.

Every layer is a frozen dataclass. Its fields are the parameters of the archive
format, with PyTorch's defaults, and hold the values as they were written
(``padding`` may be ``"same"``, a stride an int or a pair); lists become tuples
so that a record can be hashed and never changes. Parameters are checked when
the record is made.

Shapes are (C, H, W), with None for a size that is not known. The output of a
flat layer is (C, 1, 1).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ParameterError, shown
from ..kernels.interface import (
    PaddingLike,
    Pair,
    Window,
    conv_output_size,
    conv_window,
    pool_output_size,
    pool_window,
)

__all__ = [
    "ELU",
    "LAYER_TYPES",
    "OUTPUTS",
    "Affine",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "Layer",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "ReLU",
    "Shape",
    "Sigmoid",
    "SlidingLayer",
    "Softmax",
    "Tanh",
    "layer_from_record",
    "layers_from_records",
    "shape_text",
]

#: Types of layers that turn scores into probabilities.
OUTPUTS = ("softmax", "sigmoid")

Arrays = Mapping[str, NDArray[np.float32]]
IntOrPair = int | Pair
Shape = tuple[int | None, int | None, int | None]
Check = Callable[[Any], Any]

# Sizes end up as 32-bit ints in the kernels.
LARGEST_SIZE = 2**31 - 1
# Of kernels, strides, dilations and paddings: far above any use, and small enough
# that checks which walk along the windows of a hostile archive stay quick.
LARGEST_STEP = 2**16


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape for people: ``64 x 128 x ?``."""
    return " x ".join("?" if n is None else str(n) for n in shape)


class _WantedError(Exception):
    """A check failed; the text says what was wanted."""


def _is_int(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _plain(value: Any, levels: int = 2) -> Any:
    """Lists as tuples and numpy ints as ints, down to the pairs of a padding."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and levels:
        return tuple(_plain(item, levels - 1) for item in value)
    return int(value) if isinstance(value, np.integer) else value


def _int(minimum: int) -> Check:
    def check(value: Any) -> int:
        if not _is_int(value) or not minimum <= value <= LARGEST_SIZE:
            raise _WantedError(f"an int of at least {minimum}")
        return int(value)

    return check


def _is_pair(value: Any, minimum: int) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_is_int(n) and minimum <= n <= LARGEST_STEP for n in value)
    )


def _pair(minimum: int) -> Check:
    def check(value: Any) -> Any:
        value = _plain(value)
        if not _is_pair(value if isinstance(value, tuple) else (value, value), minimum):
            raise _WantedError(f"an int or a pair of ints, from {minimum} to {LARGEST_STEP}")
        return value

    return check


def _optional_pair(minimum: int) -> Check:
    check = _pair(minimum)
    return lambda value: None if value is None else check(value)


def _padding(value: Any) -> Any:
    value = _plain(value)
    sides = value if isinstance(value, tuple) else (value, value)
    if value in ("same", "valid") or _is_pair(sides, 0):
        return value
    if len(sides) == 2 and all(_is_pair(side, 0) for side in sides):
        return value
    raise _WantedError(
        f"an int or a pair of ints from 0 to {LARGEST_STEP}, 'same', 'valid' or "
        "((top, bottom), (left, right))"
    )


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _WantedError("true or false")
    return bool(value)


def _optional_flag(value: Any) -> bool | None:
    return None if value is None else _flag(value)


def _number(minimum: float = -math.inf, *, above: float = -math.inf) -> Check:
    """A finite number of at least `minimum` and greater than `above`."""
    limits = f" of at least {minimum:g}" if minimum > -math.inf else ""
    limits += f" above {above:g}" if above > -math.inf else ""

    def check(value: Any) -> float:
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and number >= minimum and number > above:
                return number
        raise _WantedError(f"a finite number{limits}")

    return check


def _name(value: Any) -> str:
    # A slash or a control character could not be kept in an archive, and would
    # be a trap for whoever names a folder after the layer.
    if (
        not isinstance(value, str)
        or not value
        or not value.isprintable()
        or value in (".", "..")
        or "/" in value
        or "\\" in value
    ):
        raise _WantedError("a non-empty string of printable characters without slashes")
    return str(value)


@dataclass(frozen=True)
class Layer:
    """What all layers have: a name, a type, the arrays they need, a shape rule.

    Parameters
    ----------
    name : str
        Not empty, printable, without slashes.

    Raises
    ------
    ParameterError
        If a parameter has a wrong type or value; names the layer and the key.
    """

    type: ClassVar[str] = ""
    #: Beginning of the names given to layers made without one.
    prefix: ClassVar[str] = ""
    _checks: ClassVar[dict[str, Check]] = {}

    name: str

    def __post_init__(self) -> None:
        for key, check in {"name": _name, **self._checks}.items():
            value = getattr(self, key)
            try:
                object.__setattr__(self, key, check(value))
            except _WantedError as wanted:
                raise ParameterError(
                    f"{_label(self.name, self.type)}: {key} must be {wanted}, found {shown(value)}"
                ) from None

    @property
    def label(self) -> str:
        """How messages call this layer."""
        return _label(self.name, self.type)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays this layer needs, as in a PyTorch state dict."""
        return ()

    def check_arrays(self, arrays: Arrays) -> None:
        """Check this layer's arrays among themselves.

        Raises
        ------
        ParameterError
            If one has a wrong shape or value; names the array, found and wanted.
        """

    def input_channels(self, arrays: Arrays) -> int | None:
        """The number of input channels the arrays demand; None if any will do."""
        return None

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        """Shape of the output for an input of `shape`.

        Parameters
        ----------
        shape : (C, H, W)
            None for a size that is not known.
        arrays : mapping of str to array
            The arrays of the network.

        Returns
        -------
        (C, H, W)

        Raises
        ------
        ParameterError
            If the layer cannot take that input.
        """
        self._check_channels(shape, arrays)
        return shape

    def to_record(self) -> dict[str, Any]:
        """The layer as the archive's JSON object; parameters that are None are left out."""
        record: dict[str, Any] = {"type": self.type}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                record[field.name] = value
        return record

    def _check_channels(self, shape: Shape, arrays: Arrays) -> None:
        wanted = self.input_channels(arrays)
        if None in (wanted, shape[0]) or wanted == shape[0]:
            return
        key = self.array_names[0]
        raise ParameterError(
            f"{self.label}: array {key!r} of shape {arrays[key].shape} is for {wanted} input "
            f"channels, but the layer gets {shape[0]}"
        )


def _label(name: Any, type_name: str) -> str:
    return f"layer {shown(name)} ({type_name})"


def _check_shape(key: str, arrays: Arrays, wanted: tuple[int | str, ...]) -> None:
    """Check one array's shape; a string in `wanted` stands for any size but 0."""
    found = arrays[key].shape
    fits = len(found) == len(wanted) and all(
        n > 0 and (isinstance(w, str) or n == w) for n, w in zip(found, wanted)
    )
    if not fits:
        text = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ParameterError(f"array {key!r}: found shape {found}, wanted ({text})")


class SlidingLayer(Layer):
    """A layer with a window that slides over height and width."""

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        """The window, resolved for an input of (height, width) `in_hw`.

        Parameters
        ----------
        in_hw : pair of int
        arrays : mapping of str to array
            The arrays of the network; a convolution's kernel size is its weight's.

        Returns
        -------
        Window
        """
        raise NotImplementedError

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        raise NotImplementedError

    def _slide(
        self, size: tuple[int | None, int | None], arrays: Arrays
    ) -> tuple[int | None, int | None]:
        """(height, width) of the output, one axis at a time where only one is known."""
        if size == (None, None):
            return size
        rows, cols = size
        stand_in = (1 if rows is None else rows, 1 if cols is None else cols)
        window = _free_axes(self.window(stand_in, arrays), rows is None, cols is None)
        try:
            out = self._out_size(stand_in, window)
        except ParameterError as exc:
            raise ParameterError(
                f"{self.label} cannot take an input of {shape_text(size)}: {exc}"
            ) from None
        return (None if rows is None else out[0]), (None if cols is None else out[1])


def _free_axes(window: Window, rows: bool, cols: bool) -> Window:
    """`window` with a single element, which fits any size, along rows or columns."""
    (kh, kw), (sh, sw), (dh, dw), (ph, pw) = window
    if rows:
        kh, sh, dh, ph = 1, 1, 1, (0, 0)
    if cols:
        kw, sw, dw, pw = 1, 1, 1, (0, 0)
    return Window((kh, kw), (sh, sw), (dh, dw), (ph, pw))


@dataclass(frozen=True)
class Conv2d(SlidingLayer):
    """Cross-correlation with zero padding.

    Arrays: ``<name>.weight`` (out, in / groups, kh, kw) and, with `bias`,
    ``<name>.bias`` (out,).

    Parameters
    ----------
    name : str
    stride, dilation : int or pair of int
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
        ``"same"`` is TensorFlow's: output = ceil(input / stride), the odd extra
        row or column at the bottom or right.
    groups : int
    bias : bool
    """

    type: ClassVar[str] = "conv2d"
    prefix: ClassVar[str] = "conv"
    _checks: ClassVar[dict[str, Check]] = {
        "stride": _pair(1), "padding": _padding, "dilation": _pair(1), "groups": _int(1),
        "bias": _flag,
    }

    stride: IntOrPair = 1
    padding: PaddingLike = 0
    dilation: IntOrPair = 1
    groups: int = 1
    bias: bool = True

    @property
    def array_names(self) -> tuple[str, ...]:
        return _weight_names(self.name, self.bias)

    def check_arrays(self, arrays: Arrays) -> None:
        key = f"{self.name}.weight"
        _check_shape(key, arrays, ("out", "in / groups", "height", "width"))
        out = arrays[key].shape[0]
        if out % self.groups:
            raise ParameterError(
                f"array {key!r}: found {out} output channels, wanted a multiple of "
                f"groups={self.groups}"
            )
        if self.bias:
            _check_shape(f"{self.name}.bias", arrays, (out,))

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[1]) * self.groups

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        kernel = arrays[f"{self.name}.weight"].shape[2:]
        return conv_window(
            kernel, in_hw, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        self._check_channels(shape, arrays)
        return (arrays[f"{self.name}.weight"].shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return conv_output_size(in_hw, window)


@dataclass(frozen=True)
class MaxPool2d(SlidingLayer):
    """Max pooling; pads with minus infinity.

    Parameters
    ----------
    name : str
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        None means the kernel size.
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
    dilation : int or pair of int
    ceil_mode : bool
        Round output sizes up (PyTorch's rule) instead of down.
    """

    type: ClassVar[str] = "max_pool2d"
    prefix: ClassVar[str] = "pool"
    _checks: ClassVar[dict[str, Check]] = {
        "kernel_size": _pair(1), "stride": _optional_pair(1), "padding": _padding,
        "dilation": _pair(1), "ceil_mode": _flag,
    }

    kernel_size: IntOrPair
    stride: IntOrPair | None = None
    padding: PaddingLike = 0
    dilation: IntOrPair = 1
    ceil_mode: bool = False

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        return pool_window(
            self.kernel_size, in_hw, stride=self.stride, padding=self.padding,
            dilation=self.dilation,
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return (shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return pool_output_size(in_hw, window, ceil_mode=self.ceil_mode)


@dataclass(frozen=True)
class AvgPool2d(SlidingLayer):
    """Average pooling; pads with zeros.

    Parameters
    ----------
    name : str
    kernel_size : int or pair of int
    stride : int or pair of int, optional
        None means the kernel size.
    padding : int, pair, "same", "valid" or ((top, bottom), (left, right))
    ceil_mode : bool
        Round output sizes up (PyTorch's rule) instead of down.
    count_include_pad : bool, optional
        Whether the zeros of the padding count in the average. By default they do, as in
        PyTorch, but not with ``padding="same"``: that is TensorFlow's word, where they never
        count.
    """

    type: ClassVar[str] = "avg_pool2d"
    prefix: ClassVar[str] = "avg_pool"
    _checks: ClassVar[dict[str, Check]] = {
        "kernel_size": _pair(1), "stride": _optional_pair(1), "padding": _padding,
        "ceil_mode": _flag, "count_include_pad": _optional_flag,
    }

    kernel_size: IntOrPair
    stride: IntOrPair | None = None
    padding: PaddingLike = 0
    ceil_mode: bool = False
    # Never None once made; the annotation says what a reader gets.
    count_include_pad: bool = cast(bool, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: bool | None = self.count_include_pad
        object.__setattr__(
            self, "count_include_pad", self.padding != "same" if given is None else given
        )

    def window(self, in_hw: Pair, arrays: Arrays) -> Window:
        return pool_window(
            self.kernel_size, in_hw, stride=self.stride, padding=self.padding, dilation=1
        )

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return (shape[0], *self._slide(shape[1:], arrays))

    def _out_size(self, in_hw: Pair, window: Window) -> Pair:
        return pool_output_size(in_hw, window, ceil_mode=self.ceil_mode)


@dataclass(frozen=True)
class ReLU(Layer):
    """max(0, x)."""

    type: ClassVar[str] = "relu"
    prefix: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where positive, `negative_slope` x elsewhere.

    Parameters
    ----------
    name : str
    negative_slope : float
    """

    type: ClassVar[str] = "leaky_relu"
    prefix: ClassVar[str] = "leaky_relu"
    _checks: ClassVar[dict[str, Check]] = {"negative_slope": _number()}

    negative_slope: float = 0.01


@dataclass(frozen=True)
class ELU(Layer):
    """x where positive, `alpha` (exp(x) - 1) elsewhere.

    Parameters
    ----------
    name : str
    alpha : float
    """

    type: ClassVar[str] = "elu"
    prefix: ClassVar[str] = "elu"
    _checks: ClassVar[dict[str, Check]] = {"alpha": _number()}

    alpha: float = 1.0


@dataclass(frozen=True)
class Tanh(Layer):
    """Hyperbolic tangent."""

    type: ClassVar[str] = "tanh"
    prefix: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    type: ClassVar[str] = "sigmoid"
    prefix: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Softmax(Layer):
    """Softmax over the channels."""

    type: ClassVar[str] = "softmax"
    prefix: ClassVar[str] = "softmax"


@dataclass(frozen=True)
class BatchNorm2d(Layer):
    """Batch normalisation with stored statistics.

    Arrays, each (C,): ``<name>.weight``, ``.bias``, ``.running_mean``,
    ``.running_var``. The variance is not negative, and the scale
    weight / sqrt(running_var + eps) is finite.

    Parameters
    ----------
    name : str
    eps : float
    """

    type: ClassVar[str] = "batch_norm2d"
    prefix: ClassVar[str] = "bn"
    _checks: ClassVar[dict[str, Check]] = {"eps": _number(0)}

    eps: float = 1e-5

    @property
    def array_names(self) -> tuple[str, ...]:
        suffixes = ("weight", "bias", "running_mean", "running_var")
        return tuple(f"{self.name}.{suffix}" for suffix in suffixes)

    def check_arrays(self, arrays: Arrays) -> None:
        _check_per_channel(self.array_names, arrays)
        key = f"{self.name}.running_var"
        variance = arrays[key].astype(np.float64)
        if variance.min() < 0:
            raise ParameterError(
                f"array {key!r}: found the negative variance {variance.min():g}, "
                "wanted at least 0"
            )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scale = arrays[f"{self.name}.weight"] / np.sqrt(variance + self.eps)
            scale = scale.astype(np.float32)
        if not np.isfinite(scale).all():
            raise ParameterError(
                f"array {key!r}: found a variance so small that the scale "
                f"weight / sqrt(running_var + eps) is infinite, with eps={self.eps:g}"
            )

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[0])


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (k + alpha / size * sum of squares over `size` channels) ** beta, as in PyTorch.

    Parameters
    ----------
    name : str
    size : int
        Number of neighbouring channels.
    alpha, beta, k : float
    """

    type: ClassVar[str] = "local_response_norm"
    prefix: ClassVar[str] = "lrn"
    # k = 0 would make silence 0 / 0.
    _checks: ClassVar[dict[str, Check]] = {
        "size": _int(1), "alpha": _number(0), "beta": _number(), "k": _number(above=0),
    }

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """Mean over height and width: (C, H, W) to (C, 1, 1)."""

    type: ClassVar[str] = "global_avg_pool2d"
    prefix: ClassVar[str] = "global_avg_pool"

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return shape[0], 1, 1


@dataclass(frozen=True)
class GlobalMaxPool2d(Layer):
    """Maximum over height and width: (C, H, W) to (C, 1, 1)."""

    type: ClassVar[str] = "global_max_pool2d"
    prefix: ClassVar[str] = "global_max_pool"

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        return shape[0], 1, 1


@dataclass(frozen=True)
class Dropout(Layer):
    """The identity: a network here is always past its training."""

    type: ClassVar[str] = "dropout"
    prefix: ClassVar[str] = "dropout"


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) to (C * H * W, 1, 1), in the order C, H, W."""

    type: ClassVar[str] = "flatten"
    prefix: ClassVar[str] = "flatten"

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        if shape[0] is None or shape[1] is None or shape[2] is None:
            return None, 1, 1
        return shape[0] * shape[1] * shape[2], 1, 1


@dataclass(frozen=True)
class Linear(Layer):
    """A fully connected layer on a flat input.

    Arrays: ``<name>.weight`` (out, in) and, with `bias`, ``<name>.bias`` (out,).

    Parameters
    ----------
    name : str
    bias : bool
    """

    type: ClassVar[str] = "linear"
    prefix: ClassVar[str] = "fc"
    _checks: ClassVar[dict[str, Check]] = {"bias": _flag}

    bias: bool = True

    @property
    def array_names(self) -> tuple[str, ...]:
        return _weight_names(self.name, self.bias)

    def check_arrays(self, arrays: Arrays) -> None:
        key = f"{self.name}.weight"
        _check_shape(key, arrays, ("out", "in"))
        if self.bias:
            _check_shape(f"{self.name}.bias", arrays, (arrays[key].shape[0],))

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[1])

    def output_shape(self, shape: Shape, arrays: Arrays) -> Shape:
        if shape[1:] != (1, 1):
            raise ParameterError(
                f"{self.label}: the input {shape_text(shape)} is not flat; put a flatten or a "
                "global pooling layer before it"
            )
        self._check_channels(shape, arrays)
        return arrays[f"{self.name}.weight"].shape[0], 1, 1


@dataclass(frozen=True)
class Affine(Layer):
    """A scale and a shift per channel.

    Arrays, each (C,): ``<name>.weight`` and ``<name>.bias``.
    """

    type: ClassVar[str] = "affine"
    prefix: ClassVar[str] = "affine"

    @property
    def array_names(self) -> tuple[str, ...]:
        return _weight_names(self.name, True)

    def check_arrays(self, arrays: Arrays) -> None:
        _check_per_channel(self.array_names, arrays)

    def input_channels(self, arrays: Arrays) -> int | None:
        return int(arrays[f"{self.name}.weight"].shape[0])


def _weight_names(name: str, bias: bool) -> tuple[str, ...]:
    return (f"{name}.weight", f"{name}.bias") if bias else (f"{name}.weight",)


def _check_per_channel(keys: tuple[str, ...], arrays: Arrays) -> None:
    _check_shape(keys[0], arrays, ("channels",))
    for key in keys[1:]:
        _check_shape(key, arrays, arrays[keys[0]].shape)


#: The layer class of every type string of the archive.
LAYER_TYPES: dict[str, type[Layer]] = {
    cls.type: cls
    for cls in (
        Conv2d, ReLU, LeakyReLU, ELU, Tanh, Sigmoid, Softmax, BatchNorm2d, LocalResponseNorm,
        MaxPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, Dropout, Flatten, Linear, Affine,
    )
}


def layer_from_record(record: Any, default_name: str | None = None) -> Layer:
    """The layer that a record of the archive describes.

    Parameters
    ----------
    record : mapping
        ``{"type": ..., "name": ..., parameters...}``.
    default_name : str, optional
        For a record without a name; None: the name is required.

    Returns
    -------
    Layer

    Raises
    ------
    ParameterError
        If the type or a key is unknown, a required key is missing, or a value
        is wrong; names the layer and the key.
    """
    cls = LAYER_TYPES[_record_type(record)]
    values = {key: value for key, value in record.items() if key != "type"}
    if default_name is not None:
        values.setdefault("name", default_name)
    label = f"{_who(values)} ({cls.type})"
    fields = dataclasses.fields(cls)
    known = [field.name for field in fields]
    for key in values:
        if key not in known:
            raise ParameterError(
                f"{label}: unknown key {shown(key)}; there are {', '.join(['type', *known])}"
            )
    for field in fields:
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ParameterError(f"{label}: the key {field.name!r} is missing")
    return cls(**values)


def _who(record: Mapping[str, Any]) -> str:
    return f"layer {shown(record['name'])}" if "name" in record else "layer without a name"


def _record_type(record: Any) -> str:
    if not isinstance(record, Mapping):
        raise ParameterError(f"a layer must be an object with a type, found {shown(record)}")
    if "type" not in record:
        raise ParameterError(f"{_who(record)}: the key 'type' is missing")
    found = record["type"]
    if not isinstance(found, str) or found not in LAYER_TYPES:
        raise ParameterError(
            f"{_who(record)}: unknown type {shown(found)}; there are {', '.join(LAYER_TYPES)}"
        )
    return found


def layers_from_records(records: Any, *, named: bool = False) -> tuple[Layer, ...]:
    """Layers from records, dataclasses or a mixture of both.

    Parameters
    ----------
    records : sequence of mapping or Layer
        At least one.
    named : bool
        Whether a record must have a name. If not, it gets one from its type and
        its place among the layers of that type: ``conv1``, ``relu1``, ``pool1``.

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ParameterError
        If a record is wrong, or two layers have one name.
    """
    if not isinstance(records, (list, tuple)) or not records:
        raise ParameterError(
            f"layers must be a list of at least one layer, found {shown(records)}"
        )
    layers: list[Layer] = []
    seen: dict[str, int] = {}
    count: dict[str, int] = {}
    for place, record in enumerate(records):
        # A class of somebody's own has no arithmetic here, whatever it inherits.
        if isinstance(record, Layer) and type(record) in LAYER_TYPES.values():
            layer = record
        else:
            try:
                kind = _record_type(record)
                number = count.get(kind, 0) + 1
                default = None if named else f"{LAYER_TYPES[kind].prefix}{number}"
                layer = layer_from_record(record, default)
            except ParameterError as exc:
                raise ParameterError(f"layers[{place}]: {exc}") from None
        count[layer.type] = count.get(layer.type, 0) + 1
        if layer.name in seen:
            raise ParameterError(
                f"layers[{seen[layer.name]}] and layers[{place}] have the same name "
                f"{shown(layer.name)}"
            )
        seen[layer.name] = place
        layers.append(layer)
    return tuple(layers)
