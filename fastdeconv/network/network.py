"""`Network`: a graph of layers and their weights, checked when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import as_array
from ..errors import ParameterError, shown
from .fields import receptive_fields
from .layers import (
    LARGEST_SIZE,
    OUTPUTS,
    AdaptivePool,
    Add,
    AvgPool2d,
    Dropout,
    Elementwise,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Layer,
    LocalResponseNorm,
    LogSoftmax,
    Maximum,
    MaxPool2d,
    Minimum,
    Multiply,
    Normalisation,
    Pad,
    Scaling,
    Shape,
    Softmax,
    Upsample,
    layers_from_records,
    resolve_inputs,
    shape_text,
    sources_of,
)

if TYPE_CHECKING:
    from ..audio.frontend import Frontend
    from ..deconvnet.trace import Trace

__all__ = ["Network"]

_KEYWORDS = ("frontend", "classes", "output", "name", "license", "citation", "aliases")
# Layers that take any number of channels and do not change it.
_KEEP_CHANNELS = (
    Elementwise, Softmax, LogSoftmax, Normalisation, LocalResponseNorm, MaxPool2d, AvgPool2d,
    AdaptivePool, GlobalAvgPool2d, GlobalMaxPool2d, Dropout, Pad, Upsample, Add, Multiply,
    Maximum, Minimum, Scaling,
)
_SHOWN_OF_FRONTEND = (
    "kind", "sr", "n_fft", "hop_length", "n_mels", "n_bins", "scale", "normalize", "layout",
    "frames",
)


@cache
def _forward() -> Callable[[Network, ArrayLike, str], Trace]:
    # Imported inside the function: deconvnet imports this module. And once: after a pass, which
    # leaves nothing in the caches, an import of what is there takes 17 us.
    from ..deconvnet.trace import forward

    return forward


class Network:
    """A trained network: layers, weights, and the meaning of its input and output.

    Everything is checked when it is made: parameters and names; that every layer can take the
    outputs of its inputs; that every array exists, has the right shape, is finite and
    belongs to a layer. So every network that exists can run.

    Treat a network as immutable; its arrays are read-only.

    Parameters
    ----------
    layers : sequence of dict or Layer
        In an order in which they can be computed. The output of the last one is the
        output of the network. Dicts are layer records of the archive format,
        ``{"type": "conv2d", "name": "conv1", "padding": "same"}``. A record without a
        name gets one from its type and its number among the layers of that type
        (``conv1``, ``relu1``, ``pool1``). ``"inputs": ["conv1", "relu3"]`` names the inputs of a
        layer ("input" is the input of the network); without it, the input is the
        layer before it.
    arrays : mapping of str to array
        Named as in a PyTorch state dict: ``conv1.weight`` (out, in / groups, kh,
        kw), ``conv1.bias`` (out,), ``bn1.weight``, ``.bias``, ``.running_mean``,
        ``.running_var`` (C,), ``fc1.weight`` (out, in), ``fc1.bias`` (out,). They may have
        any float or int dtype, byte order and memory order; they are copied to
        float32.
    input_shape : (C, H, W)
        None for a height or width that may vary. C may be None if the arrays
        determine it.
    frontend : Frontend or dict, optional
        How a clip becomes an input; a dict is a front end's record.
    classes : sequence of str, optional
        Names of the outputs, one for each output channel of the last layer.
    output : {"softmax", "sigmoid"}, optional
        How scores become probabilities, if the network itself does not compute them. It does not
        change the computation; it only adds probabilities where scores are shown.
    name, license, citation : str, optional
    aliases : mapping of str to str, optional
        From other names of layers to their names. An alias may be used wherever a layer is
        named.

    Attributes
    ----------
    layers : tuple of Layer
        ``layers[i].inputs`` are the names of its inputs.
    sources : tuple of tuple of int
        The same as positions in `layers`; -1 is the network's input.
    arrays : dict of str to array
        float32, C-contiguous, read-only.
    input_shape : tuple
        (C, H, W) with None for sizes that may vary; C is filled in from the arrays.
    frontend : Frontend or None
    classes : tuple of str or None
    output : str or None
    name, license, citation : str or None
    aliases : dict of str to str
    receipt : str or None
        What an imported network was compared with, and how well it agreed. Archives do not keep
        it.

    Raises
    ------
    ParameterError
        If anything does not fit. The message names the layer or array, what was found and
        what was wanted.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdeconv as fd
    >>> net = fd.Network(
    ...     [
    ...         {"type": "conv2d", "name": "conv1", "padding": "same", "bias": False},
    ...         {"type": "relu", "name": "relu1"},
    ...         {"type": "max_pool2d", "name": "pool1", "kernel_size": 2},
    ...     ],
    ...     {"conv1.weight": np.ones((4, 1, 3, 3))},
    ...     input_shape=(1, 257, None),
    ... )
    >>> net
    <Network: 3 layers, input 1 x 257 x ?, output 4 x 128 x ?>
    >>> net.shapes((1, 257, 173))
    [(4, 257, 173), (4, 257, 173), (4, 128, 86)]
    """

    layers: tuple[Layer, ...]
    sources: tuple[tuple[int, ...], ...]
    arrays: dict[str, NDArray[np.float32]]
    input_shape: Shape
    frontend: Frontend | None
    classes: tuple[str, ...] | None
    output: Literal["softmax", "sigmoid"] | None
    name: str | None
    license: str | None
    citation: str | None
    aliases: dict[str, str]
    receipt: str | None = None

    def __init__(
        self,
        layers: Sequence[Mapping[str, Any] | Layer],
        arrays: Mapping[str, ArrayLike],
        input_shape: Sequence[int | None],
        *,
        frontend: Frontend | Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        output: Literal["softmax", "sigmoid"] | None = None,
        name: str | None = None,
        license: str | None = None,
        citation: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.layers = resolve_inputs(layers_from_records(layers))
        self.sources = sources_of(self.layers)
        if not isinstance(arrays, Mapping):
            raise ParameterError(f"arrays must be a dict, found {shown(arrays)}")
        check_array_names(self.layers, arrays)
        self.arrays = {
            key: as_float32(key, arrays[key]) for layer in self.layers for key in layer.array_names
        }
        for array in self.arrays.values():
            array.setflags(write=False)
        for layer in self.layers:
            layer.check_arrays(self.arrays)
        self.input_shape = self._resolve_input(_declared_shape(input_shape))
        self._shapes = self._all_shapes(self.input_shape)
        self._latest_shapes: tuple[Shape | None, list[tuple[int, int, int]]] = (None, [])
        self.frontend = _as_frontend(frontend)
        self.name = _text("name", name)
        self.license = _text("license", license)
        self.citation = _text("citation", citation)
        self.classes = _class_names(classes, self._shapes[-1][0])
        self.output = _output(output, self.layers[-1])
        self.aliases = _alias_names(aliases, [layer.name for layer in self.layers])

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | IO[bytes],
        architecture: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        true_convolution: bool = False,
    ) -> Network:
        """Read a network from an ``.npz`` archive.

        Nothing is unpickled, and sizes are compared with limits and with
        the real bytes before memory is allocated.

        Parameters
        ----------
        path : str, path or binary file object
            A file object must be seekable; it is left open.
        architecture : dict, path or "choi2016", optional
            For a plain archive, which has no key ``network``: the JSON record of the network
            as a dict, or the path of a JSON file (``format``, ``version`` and the
            names of layers may be left out). The arrays have the names of a
            PyTorch state dict (``conv1.weight``), or the names ``W0``, ``W1``,
            ... ``W10`` and belong to the layers with weights in numeric order.

            ``"choi2016"`` is the network of arXiv 1607.02444: for every array of rank 4,
            called ``W0``, ``W1``... or ``conv1.weight``..., a convolution
            ("same", no bias), ReLU and 2 x 2 max pooling, named ``conv1``,
            ``relu1``, ``pool1``. With one input channel it gets the front end of
            the 2015 script: 11,025 Hz, STFT of 512 with hop 256, linear
            magnitude, 173 frames, and ``pad_mode="reflect"``, the padding of that
            time. Its weights, trained with Theano, need ``true_convolution=True``.
        true_convolution : bool
            Whether the filters are those of a true convolution. They are then flipped along
            height and width.

        Returns
        -------
        Network

        Raises
        ------
        ArchiveError
            If the archive is damaged, unsafe, over a limit, or is not a
            network. The message names the file, the key, what was found and what was wanted.
        ParameterError
            If an argument has a wrong type, or `architecture` is given for an
            archive with its own record.
        FileNotFoundError
            If there is no such file.
        """
        from .archive import read_archive

        return read_archive(path, architecture, true_convolution)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        dtype: Literal["float32", "float16"] = "float32",
    ) -> None:
        """Write the network to an ``.npz`` archive.

        The same network always gives the same bytes, and `load` restores it exactly (in
        float32). A half-written file is never left behind.

        Parameters
        ----------
        path : str or path
            The file to write; no suffix is added.
        dtype : {"float32", "float16"}
            Half precision halves the size of the file and rounds the weights to 11 bits, which is
            enough for checkpoints that are only looked at.

        Raises
        ------
        ArchiveError
            If the file cannot be written, would exceed the limits of `load`, or a weight
            overflows `dtype`.
        FileNotFoundError
            If the folder does not exist.
        """
        from .archive import write_archive

        write_archive(self, path, dtype)

    def forward(
        self, x: ArrayLike, *, algorithm: Literal["auto", "direct", "winograd"] = "auto"
    ) -> Trace:
        """Run the network on one input, and keep what a pass back needs.

        Parameters
        ----------
        x : array, shape (C, H, W)
            Finite real numbers, which are converted to float32. `shapes` must accept the shape.
        algorithm : {"auto", "direct", "winograd"}
            How to compute 3 x 3 convolutions that are followed by a 2 x 2 max pool, with
            at most a batch norm and a ReLU between them. All other layers, and all back ends
            except the native one, use "direct".

            ``"direct"`` adds the products in one fixed order.

            ``"auto"`` needs about half of the multiplications (Winograd's F(2 x 2, 3 x 3)). It is
            used wherever it cannot change a switch: every maximum is at the same place as with
            direct sums of the same layer input, and flat input (silence, padding) keeps its exact
            ties, of which the first wins.

            ``"winograd"`` needs the fewest multiplications (F(4 x 4, 3 x 3)) without that
            guarantee. Where values are equal or almost equal, rounding decides which is the
            maximum, and maps of flat input can change by much more than rounding.

        Returns
        -------
        Trace
            ``trace["pool3"]`` is the activation of a layer, (C, H, W) float32;
            ``trace.switches("pool3")`` is the position of each maximum in its window.

        Raises
        ------
        ParameterError
            If the network cannot take `x`, `x` contains NaN or Inf, or `algorithm` is
            unknown.

        Examples
        --------
        >>> import numpy as np, fastdeconv as fd
        >>> net = fd.pretrained("choi5-genre")
        >>> trace = net.forward(np.zeros((1, 257, 173)))
        >>> trace["pool3"].shape, trace.switches("pool3").dtype
        ((64, 32, 21), dtype('uint8'))
        """
        return _forward()(self, x, algorithm)

    def shapes(self, input_shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """Output shapes of all layers for an input of a given shape.

        Parameters
        ----------
        input_shape : (C, H, W)

        Returns
        -------
        list of (C, H, W)
            One for each layer; (C, 1, 1) for flat layers.

        Raises
        ------
        ParameterError
            If the network cannot take that input. The message names the layer and the sizes.
        """
        # Kept, because every pass asks for the shapes, and most inputs have the same size.
        known, shapes = self._latest_shapes
        if (
            isinstance(input_shape, tuple) and [*map(type, input_shape)] == [int] * 3
            and known == input_shape
        ):
            return list(shapes)
        shape = _declared_shape(input_shape)
        if None in shape:
            raise ParameterError(f"input_shape must be three ints, found {shown(input_shape)}")
        if any(want not in (None, n) for n, want in zip(shape, self.input_shape)):
            raise ParameterError(
                f"the network takes an input of {shape_text(self.input_shape)}, "
                f"found {shape_text(shape)}"
            )
        shapes = [(c or 0, h or 0, w or 0) for c, h, w in self._all_shapes(shape)]
        self._latest_shapes = shape, shapes
        return list(shapes)

    def layer_index(self, name: str) -> int:
        """Position of a layer in `layers`.

        Parameters
        ----------
        name : str
            Its name, or an alias.

        Returns
        -------
        int

        Raises
        ------
        ParameterError
            If there is no such layer. The message lists all layers.
        """
        names = [layer.name for layer in self.layers]
        own = name if not isinstance(name, str) or name in names else self.aliases.get(name)
        if not isinstance(own, str):
            raise ParameterError(f"no layer {shown(name)}; there are {', '.join(names)}")
        return names.index(own)

    @property
    def known_shapes(self) -> list[Shape]:
        """Output shapes of all layers, with None for sizes that depend on the input."""
        return list(self._shapes)

    @property
    def is_chain(self) -> bool:
        """Whether the only input of every layer is the layer before it."""
        return all(taken == (i - 1,) for i, taken in enumerate(self.sources))

    @property
    def pooling_layers(self) -> list[str]:
        """Names of the max-pooling layers, in order."""
        return [layer.name for layer in self.layers if isinstance(layer, MaxPool2d)]

    def summary(self) -> None:
        """Print the table of `describe`."""
        print(self.describe())

    def describe(self) -> str:
        """A table of the network: layers, output shapes, parameters, receptive fields.

        - parameters: number of weights and biases, without running statistics.
        - field: rows x columns of the input that one output depends on, if it is not at an edge.
        - jump: distance in the input between neighbouring outputs.
        - way back: how the layer is computed in a pass back on the present back end, either in
          the lanes of the vector unit, which is fast, or on its own, which is as exact but
          slower. If this depends on the rule, it names the rules.
        - takes: the inputs of the layer, if the network is not a chain.

        Returns
        -------
        str
        """
        # Imported inside the function: deconvnet imports this module.
        from ..deconvnet.speed import speeds

        head: list[str] = ["layer", "type", "output", "parameters", "field", "jump", "way back"]
        if not self.is_chain:
            head.append("takes")
        rows = [head]
        fields = receptive_fields(self.layers, self.sources, self.arrays)
        for layer, shape, reach, speed in zip(self.layers, self._shapes, fields, speeds(self)):
            count = self._count_parameters([layer])
            row = [layer.name, layer.type, shape_text(shape), f"{count:,}" if count else "-"]
            row += [*reach.texts, speed]
            rows.append(row if self.is_chain else [*row, ", ".join(layer.inputs)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        # Numbers are aligned to the right, everything else to the left.
        marks = "<<<><<<<"
        lines = [
            "  ".join(f"{cell:{m}{w}}" for cell, m, w in zip(row, marks, widths)).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([f"network {_title(self.name)}", "", *lines, "", *self._facts()])

    def _facts(self) -> list[str]:
        facts = [
            ("parameters", f"{self._count_parameters(self.layers):,}"),
            ("input", shape_text(self.input_shape)),
        ]
        if self.frontend is not None:
            record = self.frontend.to_record()
            keys = [key for key in _SHOWN_OF_FRONTEND if record.get(key) is not None]
            facts.append(("front end", ", ".join(f"{key} {record[key]}" for key in keys)))
        if self.classes is not None:
            names = ", ".join(map(_title, self.classes[:10]))
            more = ", ..." if len(self.classes) > 10 else ""
            facts.append(("classes", f"{len(self.classes)}: {names}{more}"))
        if self.output is not None:
            facts.append(("output", f"scores; {self.output} makes them probabilities"))
        if self.license is not None:
            facts.append(("license", _title(self.license)))
        return [f"{key + ':':<12}{value}" for key, value in facts]

    def _count_parameters(self, layers: Iterable[Layer]) -> int:
        return sum(
            self.arrays[key].size
            for layer in layers
            for key in layer.array_names
            if not key.endswith((".running_mean", ".running_var"))
        )

    def _resolve_input(self, shape: Shape) -> Shape:
        """`shape`, with C filled in from the first layer whose arrays determine it."""
        if shape[0] is not None:
            return shape
        # Layers whose output has as many channels as the network's input.
        same = {-1}
        for i, (layer, taken) in enumerate(zip(self.layers, self.sources)):
            if not same.issuperset(taken):
                continue
            channels = layer.input_channels(self.arrays)
            if channels is not None:
                return (channels, *shape[1:])
            if isinstance(layer, _KEEP_CHANNELS):
                same.add(i)
        return shape

    def _all_shapes(self, shape: Shape) -> list[Shape]:
        """Output shapes of all layers, with None for unknown sizes."""
        shapes = {-1: shape}
        for i, (layer, taken) in enumerate(zip(self.layers, self.sources)):
            shapes[i] = layer.joined_shape([shapes[k] for k in taken], self.arrays)
        del shapes[-1]
        return [*shapes.values()]

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {shown(self.name)}"
        return (
            f"<Network{name}: {len(self.layers)} layers, input {shape_text(self.input_shape)}, "
            f"output {shape_text(self._shapes[-1])}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By __init__, because arrays are writable after unpickling.
        keywords = {key: getattr(self, key) for key in _KEYWORDS}
        return partial(Network, **keywords), (self.layers, self.arrays, self.input_shape)


def check_array_names(layers: Sequence[Layer], found: Iterable[Any]) -> None:
    """Refuse missing arrays and arrays that belong to no layer.

    Raises
    ------
    ParameterError
        If there are any. The message names the first few.
    """
    wanted = {key: layer for layer in layers for key in layer.array_names}
    names = set(found)
    for key, layer in wanted.items():
        if key not in names:
            raise ParameterError(f"array {key!r} of {layer.label} is missing")
    left = [shown(key) for key in names if key not in wanted]
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        raise ParameterError(
            f"no layer uses the array {', '.join(sorted(left)[:5])}{more}"
        )


def as_float32(key: str, value: ArrayLike) -> NDArray[np.float32]:
    """A C-contiguous float32 copy of an array of any float or int dtype.

    Raises
    ------
    ParameterError
        If the array does not hold real numbers, or a number is not finite in float32.
    """
    array = as_array(value, f"array {key!r}")
    if array.dtype.kind not in "fiu":
        raise ParameterError(
            f"array {key!r}: found dtype {shown(str(array.dtype))}, wanted float or int"
        )
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        result = np.array(array, dtype=np.float32, order="C", subok=False)
    bad = ~np.isfinite(result)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        why = "overflows float32" if np.isfinite(array[place]) else "is not finite"
        raise ParameterError(
            f"array {key!r}: found {float(array[place])!r} at {place}, which {why}"
        )
    return result


def _declared_shape(value: Any) -> Shape:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        sizes = [_size(n) for n in value]
        if 0 not in sizes:
            return sizes[0], sizes[1], sizes[2]
    raise ParameterError(
        "input_shape must be (C, H, W), each a positive int or None (null), "
        f"found {shown(value)}"
    )


def _size(value: Any) -> int | None:
    """`value` if it is a positive int or None; 0 for anything else."""
    if value is None:
        return None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value) if 0 < value <= LARGEST_SIZE else 0
    return 0


def _as_frontend(value: Any) -> Frontend | None:
    if value is None:
        return None
    # Imported inside the function: a network without a front end need not load `audio`.
    from ..audio.frontend import Frontend

    if isinstance(value, Frontend):
        return value
    if not isinstance(value, Mapping):
        raise ParameterError(
            f"frontend must be a Frontend, a dict or None (null), found {shown(value)}"
        )
    try:
        return Frontend.from_record(dict(value))
    except ParameterError as exc:
        raise ParameterError(f"frontend: {exc}") from None


def _text(key: str, value: Any) -> str | None:
    """Check an optional string, which must be valid in UTF-8."""
    if value is None:
        return None
    if isinstance(value, str) and _encodable(value):
        return str(value)
    raise ParameterError(f"{key} must be a string or None (null), found {shown(value)}")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _class_names(value: Any, channels: int | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise ParameterError(f"classes must be a list of strings, found {shown(value)}")
    for i, item in enumerate(value):
        if not isinstance(item, str) or not _encodable(item):
            raise ParameterError(f"classes[{i}] must be a string, found {shown(item)}")
    if channels is not None and len(value) != channels:
        raise ParameterError(
            f"classes: found {len(value)} names, wanted {channels}, one for each output "
            "channel of the last layer"
        )
    return tuple(value)


def _alias_names(value: Any, names: Sequence[str]) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ParameterError(f"aliases must be a dict or None (null), found {shown(value)}")
    for alias, name in value.items():
        if not isinstance(alias, str) or not _encodable(alias) or not alias:
            raise ParameterError(f"aliases: found the name {shown(alias)}, wanted a string")
        if alias in names:
            raise ParameterError(f"aliases: {shown(alias)} is a layer; an alias must be new")
        if name not in names:
            raise ParameterError(
                f"aliases: {shown(alias)} stands for {shown(name)}, which is not a layer"
            )
    return {str(alias): str(name) for alias, name in value.items()}


def _output(value: Any, last: Layer) -> Any:
    if value is None:
        return None
    if not isinstance(value, str) or value not in OUTPUTS:
        raise ParameterError(
            f"output must be one of {', '.join(OUTPUTS)} or None (null), found {shown(value)}"
        )
    if last.type in OUTPUTS:
        raise ParameterError(
            f"output: found {value!r}, but {last.label} already gives probabilities; leave it out"
        )
    return value


def _title(text: str | None) -> str:
    """A string of the network for a terminal, escaped if it has unprintable characters."""
    if text is None:
        return "(without a name)"
    return text if text.isprintable() else repr(text)
