"""Activations: one class for each row of `fastdeconv.kernels.activations`, and softmax.

Softmax is not in that table, because each of its values depends on all channels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from ...kernels.activations import ACTIVATIONS, Activation, Parameter
from .base import Arrays, Layer, check_shape
from .checks import Check, choice, number, optional

__all__ = ["ACTIVATION_TYPES", "Elementwise", "LogSoftmax", "ReLU", "Softmax"]


@dataclass(frozen=True)
class Elementwise(Layer):
    """An activation: a function that is applied to each value separately."""

    row: ClassVar[Activation]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its row's functions, without values and weight."""
        return {key: getattr(self, key) for key in self.row.parameters}

    def steepest(self, arrays: Arrays) -> float:
        """The largest absolute value of its derivative."""
        given = self.parameters
        if self.row.has_weight:
            given["weight"] = arrays[f"{self.name}.weight"]
        return self.row.steepest(**given)

    @property
    def array_names(self) -> tuple[str, ...]:
        return (f"{self.name}.weight",) if self.row.has_weight else ()

    def check_arrays(self, arrays: Arrays) -> None:
        for key in self.array_names:
            check_shape(key, arrays, ("channels or 1",))

    def input_channels(self, arrays: Arrays) -> int | None:
        for key in self.array_names:
            if len(arrays[key]) > 1:
                return len(arrays[key])
        return None


def _check_of(parameter: Parameter) -> Check:
    if parameter.choices:
        return choice(*parameter.choices)
    check = number(above=parameter.above)
    return optional(check) if parameter.default is None else check


def _class_of(row: Activation) -> type[Elementwise]:
    """Make the layer class of a row."""
    parameters = ["name : str", *(f"{key} : see above" for key in row.parameters)]
    cls: Any = dataclasses.make_dataclass(
        row.title,
        [(key, Any, parameter.default) for key, parameter in row.parameters.items()],
        bases=(Elementwise,),
        frozen=True,
        namespace={
            "type": row.name,
            "prefix": row.name,
            "row": row,
            "_checks": {key: _check_of(parameter) for key, parameter in row.parameters.items()},
            "__doc__": "\n".join([f"{row.formula}.", "", "Parameters", "----------", *parameters]),
            "__module__": __name__,
        },
    )
    made: type[Elementwise] = cls
    return made


#: The classes by type. They are also names of this module: `ReLU`, `LeakyReLU`, `GELU`, ...
ACTIVATION_TYPES: dict[str, type[Elementwise]] = {
    name: _class_of(row) for name, row in ACTIVATIONS.items()
}
globals().update({cls.__name__: cls for cls in ACTIVATION_TYPES.values()})
ReLU = ACTIVATION_TYPES["relu"]


@dataclass(frozen=True)
class Softmax(Layer):
    """Softmax over the channels."""

    type: ClassVar[str] = "softmax"
    prefix: ClassVar[str] = "softmax"


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """Logarithm of the softmax over the channels."""

    type: ClassVar[str] = "log_softmax"
    prefix: ClassVar[str] = "log_softmax"
