"""Find the arrays of a Keras layer: in groups by name, in groups by number, in a live model.

=================================  ==========================================================
``.h5`` of Keras 1, 2 and 3        ``<layer>/.../kernel:0``, by name; ``<layer>_W`` in Keras 1
``.keras`` and ``.weights.h5``     ``layers/conv2d_1/vars/0``, by class, number and order
a live model                       ``layer.get_weights()``, by order
=================================  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ArchiveError, shown
from .keras_calls import layer_entries, layer_name
from .keras_hdf5 import arrays_below, attribute, child, read_array

__all__ = ["GroupsByName", "GroupsByNumber", "LiveModel", "Weights"]

Array = NDArray[Any]

# Names of the arrays of a layer in Keras 1, 2 and 3.
_ALIASES = {
    "kernel": ("kernel", "W"),
    "depthwise_kernel": ("depthwise_kernel", "kernel"),
    "bias": ("bias", "b"),
    "moving_mean": ("moving_mean", "running_mean"),
    # In Keras 1, "running_std" is the variance.
    "moving_variance": ("moving_variance", "running_std", "running_var"),
    "alpha": ("alpha", "alphas"),
}
_LAYERS = ("layers", "_layer_checkpoint_dependencies")


class Weights(Protocol):
    """The arrays of the layers of a model."""

    def arrays(self, path: tuple[str, ...], roles: Sequence[str]) -> list[Array]:
        """The arrays of a layer with the given roles, such as ``["kernel", "bias"]``.

        Raises
        ------
        ArchiveError
            If the layer does not have exactly these. The message names the layer, what was found
            and wanted.
        """
        ...

    def names(self, path: tuple[str, ...]) -> list[str]:
        """Names of the arrays of a layer in the file; empty if it stores no names."""
        ...


def _by_order(path: tuple[str, ...], found: Sequence[Any], roles: Sequence[str]) -> Sequence[Any]:
    if len(found) != len(roles):
        raise ArchiveError(
            f"layer {shown('/'.join(path))}: found {len(found)} arrays, wanted {len(roles)} "
            f"({', '.join(roles)})"
        )
    return found


class GroupsByName:
    """Weights in one group for each layer of the outermost model, with arrays by name."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, dict[tuple[str, ...], Any]] = {}

    def _datasets(self, path: tuple[str, ...]) -> dict[str, Any]:
        """The arrays of a layer by name, without the ":0" and numbers that TensorFlow adds."""
        top = path[0]
        if top not in self._known:
            node = self._root
            for part in top.split("/"):
                node = None if node is None else child(node, part)
            self._known[top] = {} if node is None else arrays_below(node)
        found = self._known[top]
        # In a nested model the names of layers are in the paths of the arrays.
        for depth in range(2, len(path) + 1):
            inner = "/".join(path[-(depth - 1):])
            narrowed = {key: value for key, value in found.items() if _is_of(key, inner)}
            if depth > 2 and not narrowed:
                break
            found = narrowed
        named: dict[str, Any] = {}
        for key, value in found.items():
            name = re.sub(r":[0-9]+$", "", key[-1])
            if not name.startswith("param_"):
                name = re.sub(r"(?<=[a-z])_[0-9]+$", "", name)
            if name in named:
                raise ArchiveError(
                    f"layer {shown('/'.join(path))}: found the arrays {shown(named[name].name)} "
                    f"and {shown(value.name)}, wanted one"
                )
            named[name] = value
        return named

    def arrays(self, path: tuple[str, ...], roles: Sequence[str]) -> list[Array]:
        found = self._datasets(path)
        if found and all(re.fullmatch(r"param_[0-9]{1,4}", name) for name in found):
            ordered = sorted(found, key=lambda name: int(name[6:]))
            return [read_array(found[name]) for name in _by_order(path, ordered, roles)]
        taken = [self._role(found, role) for role in roles]
        if None in taken or len(set(taken)) != len(found):
            raise ArchiveError(
                f"layer {shown('/'.join(path))}: found the arrays "
                f"{', '.join(map(shown, sorted(found))) or 'none'}, wanted {', '.join(roles)}"
            )
        return [read_array(found[name]) for name in taken if name is not None]

    @staticmethod
    def _role(found: Mapping[str, Any], role: str) -> str | None:
        for alias in _ALIASES.get(role, (role,)):
            for name in found:
                if name == alias or name.endswith(f"_{alias}"):
                    return name
        return None

    def names(self, path: tuple[str, ...]) -> list[str]:
        self._datasets(path)
        return [key[-1] for key in self._known[path[0]]]


def _is_of(key: tuple[str, ...], layer: str) -> bool:
    """Whether the array at the path `key` belongs to a layer."""
    parent = "/".join(key[:-1])
    # Names of Theano have no scopes: "convolution2d_1_W".
    return parent == layer or parent.endswith(f"/{layer}") or (
        re.fullmatch(re.escape(layer) + r"_[A-Za-z_]+(:[0-9]+)?", key[-1]) is not None
    )


class GroupsByNumber:
    """Weights in groups that are named after the class of a layer and its number."""

    def __init__(self, raw: IO[bytes], root: Any, model: Mapping[str, Any]) -> None:
        self._raw, self._root, self._model = raw, root, model

    def _group(self, path: tuple[str, ...]) -> Any:
        node, model = self._root, self._model
        for name in path:
            entries = layer_entries(model)
            layers = next(filter(None, (child(node, key) for key in _LAYERS)), None)
            group, model = _numbered(entries, name)
            node = None if layers is None else child(layers, group)
            if node is None:
                raise ArchiveError(
                    f"layer {shown('/'.join(path))}: the group {shown(group)} of its arrays is "
                    "missing"
                )
            own = child(node, "vars")
            told = None if own is None else attribute(self._raw, own, "name")
            if told is not None and told != name:
                raise ArchiveError(
                    f"layer {shown('/'.join(path))}: the group {shown(group)} has the arrays of "
                    f"{shown(told)}"
                )
        return node

    def arrays(self, path: tuple[str, ...], roles: Sequence[str]) -> list[Array]:
        group = self._group(path)
        # The group of a TimeDistributed contains that of the inner layer.
        group = child(child(group, "layer") or group, "vars")
        found = [] if group is None else sorted(group, key=lambda key: (len(key), key))
        return [read_array(child(group, key)) for key in _by_order(path, found, roles)]

    def names(self, path: tuple[str, ...]) -> list[str]:
        return []


def _numbered(
    entries: Sequence[Mapping[str, Any]], wanted: str
) -> tuple[str, Mapping[str, Any]]:
    """The name of the group of the layer `wanted`, and the layer's entry."""
    counts: dict[str, int] = {}
    for entry in entries:
        # Operations such as x + y are not layers in Keras and have no group.
        if str(entry.get("module", "")).startswith("keras.src.ops"):
            continue
        group = _snake(entry["class_name"])
        number = counts[group] = counts.get(group, -1) + 1
        if layer_name(entry) == wanted:
            return (f"{group}_{number}" if number else group), entry
    raise ArchiveError(f"there is no layer {shown(wanted)}")


def _snake(name: str) -> str:
    """The snake case of Keras: "ReLU" is "re_lu"."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


class LiveModel:
    """The weights of a model in memory."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def layer(self, path: tuple[str, ...]) -> Any:
        """The layer, or the operation such as x + y, at a path."""
        node = self._model
        for name in path:
            inner = getattr(node, "operations", node.layers)
            node = next((layer for layer in inner if layer.name == name), None)
            if node is None:
                raise ArchiveError(f"there is no layer {shown('/'.join(path))}")
        return node

    def arrays(self, path: tuple[str, ...], roles: Sequence[str]) -> list[Array]:
        found = self.layer(path).get_weights()
        return [np.asarray(array) for array in _by_order(path, found, roles)]

    def names(self, path: tuple[str, ...]) -> list[str]:
        return []
