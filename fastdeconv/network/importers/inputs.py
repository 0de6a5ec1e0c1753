"""The inputs that a model declares, and the shape of the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import ParameterError, shown

__all__ = ["Declared", "Given", "declared_inputs", "fixed_shape"]

#: A shape in a file, with a name or None for a size that may vary.
Declared = tuple[int | str | None, ...]
#: A shape from the caller, with None for a size that is taken from the file.
Given = Sequence[int | None]


def declared_inputs(model: Any) -> dict[str, Declared | None]:
    """Names and shapes of the inputs; the shape is None if the file does not give the rank."""
    constants = {tensor.name for tensor in model.graph.initializer}
    shapes: dict[str, Declared | None] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            shapes[value.name] = None
            continue
        sizes: list[int | str | None] = []
        for dim in tensor.shape.dim:
            known = dim.HasField("dim_value") and dim.dim_value > 0
            sizes.append(dim.dim_value if known else (dim.dim_param or None))
        shapes[value.name] = tuple(sizes)
    return shapes


def fixed_shape(name: str, declared: Declared | None, given: Given | None) -> tuple[int, ...]:
    """The shape of an input with a batch of 1: as given, completed from the file.

    Raises
    ------
    ParameterError
        If a size is missing, or the two shapes do not fit.
    """
    if declared is None:
        if given is None or None in given:
            raise ParameterError(
                f"the file does not give the rank of the input {shown(name)}; give "
                "input_shape=(1, C, H, W)"
            )
        return tuple(n for n in given if n is not None)
    text = " x ".join(str(n or "?") for n in declared)
    given = [None] * len(declared) if given is None else list(given)
    if len(given) == len(declared) - 1:
        given = [1, *given]
    if len(given) != len(declared):
        raise ParameterError(
            f"input_shape: found {shown(tuple(given))}, wanted {len(declared)} sizes for the "
            f"input {shown(name)}, {text}, or {len(declared) - 1} without the batch"
        )
    sizes = [said if size is None else size for said, size in zip(declared, given)]
    if len(sizes) > 1 and not isinstance(sizes[0], int):
        sizes[0] = 1
    missing = [str(n or f"axis {i}") for i, n in enumerate(sizes) if not isinstance(n, int)]
    if missing:
        example = ", ".join(str(n or "?") for n in sizes)
        raise ParameterError(
            f"the input {shown(name)} is {text}, where {' and '.join(missing)} may vary; "
            f"give input_shape=({example}) with numbers"
        )
    return tuple(n for n in sizes if isinstance(n, int))
