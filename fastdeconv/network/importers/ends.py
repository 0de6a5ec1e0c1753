"""Find the last layer of an imported network, and explain why if it cannot be imported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ...errors import ArchiveError, ParameterError, shown
from .advising import Call
from .building import Builder, Draft, Lost
from .frontends import Recognised, begins_with_stft
from .inputs import Given
from .names import module_of
from .verifying import Witness
from .views import View

__all__ = ["Heard", "NotReachedError", "Wishes", "ancestors", "last_layer"]


class NotReachedError(ParameterError):
    """The last layer depends on an operator that cannot become a layer."""


class Heard(NamedTuple):
    """A front end that was found in a model, and the model's values for a test sound."""

    found: Recognised
    value: Callable[[str], NDArray[Any]]
    """Takes the name of a value of the model, and computes it for the test sound."""


@dataclass(frozen=True)
class Wishes:
    """The arguments of the caller, and the call for messages.

    Raises
    ------
    ParameterError
        If `inputs` or `outputs` is not a string.
    """

    call: Call
    input_shape: Given | None = None
    inputs: str | None = None
    outputs: str | None = None
    frontend: Any = None
    classes: Sequence[str] | None = None
    name: str | None = None
    modules: Collection[str] = ()
    witness: Witness | None = None
    heard: Heard | None = None
    output_names: Sequence[str] | None = None
    """What the original calls its outputs, if it names them; None: as the graph does."""

    def __post_init__(self) -> None:
        for key in ("inputs", "outputs"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, str):
                raise ParameterError(f"{key} must be a string or None, found {shown(value)}")


def last_layer(
    builder: Builder, names: list[str], aliases: Mapping[str, tuple[int, View]],
    wishes: Wishes,
) -> int:
    """The position of the last layer of the network.

    Raises
    ------
    ParameterError
        If there is no such layer or output, or several outputs and none is chosen.
    NotReachedError
        If it depends on an operator that cannot become a layer.
    ArchiveError
        If the output does not depend on the input.
    """
    graph, wanted = builder.graph, wishes.outputs
    called = _called(builder, names, wishes)
    if wanted is not None:
        # A key of the result is that result, also where a module has the same name.
        is_key = len(called) > 1 and wanted in called
        if wanted in names and not is_key:
            return names.index(wanted)
        if wanted in aliases and not is_key:
            return aliases[wanted][0]
        if wanted in called:
            wanted = graph.outputs[called.index(wanted)]
        for node in graph.nodes:
            if wanted == node.name and node.outputs:
                wanted = node.outputs[0]
        if wanted in builder.views and builder.views[wanted].draft >= 0:
            return builder.views[wanted].draft
        if wanted in builder.lost:
            raise _not_reached(builder, names, builder.lost[wanted], wishes)
        for node in graph.nodes:
            inside = module_of(node, graph, wishes.modules)
            if inside == wanted or inside.startswith(f"{wanted}."):
                for name in node.outputs:
                    if name in builder.lost:
                        raise _not_reached(builder, names, builder.lost[name], wishes)
        raise ParameterError(
            f"outputs: there is no layer {shown(wanted)}; there are {', '.join(names)}"
        )
    if len(graph.outputs) > 1:
        raise ParameterError(
            f"the model has the outputs {', '.join(map(shown, called))}, and a network "
            f"has one; choose it with {wishes.call.with_argument('outputs', called[0])}"
        )
    (output,) = graph.outputs
    if output in builder.lost:
        raise _not_reached(builder, names, builder.lost[output], wishes)
    if output not in builder.views or builder.views[output].draft < 0:
        raise ArchiveError(f"the output {shown(output)} is not computed from the input by a layer")
    return builder.views[output].draft


def _called(builder: Builder, names: Sequence[str], wishes: Wishes) -> list[str]:
    """What the outputs of the model are called: by the original, or after their last layers."""
    outputs = builder.graph.outputs
    if wishes.output_names is None:
        return list(outputs)
    if len(wishes.output_names) == len(outputs):
        return list(wishes.output_names)
    ends = [builder.views[name].draft if name in builder.views else -1 for name in outputs]
    if len(set(ends)) < len(ends):
        return list(outputs)
    return [names[end] if end >= 0 else name for end, name in zip(ends, outputs)]


def _not_reached(
    builder: Builder, names: list[str], lost: Lost, wishes: Wishes
) -> NotReachedError:
    """The error that names the operator, the layers below it, and the call to import these."""
    node = lost.node
    module = module_of(node, builder.graph, wishes.modules)
    where = f" in the module {shown(module)}" if module and module != node.name else ""
    text = f"node {shown(node.name or node.outputs[0])} ({node.op}){where} cannot be a layer: "
    text += lost.reason
    if begins_with_stft(builder.graph):
        text += (
            ". The model makes a spectrogram of samples: with frontend={'sr': ...}, its sample "
            "rate, that becomes the front end"
        )
    # Of a node with several outputs, the first may be computed.
    below = [
        builder.views[name].draft for name in (*node.inputs, *node.outputs)
        if name in builder.views
    ]
    ends = [place for place in below if place >= 0]
    if not ends:
        return NotReachedError(f"{text}. No layer comes before it")
    reach = ancestors(builder.drafts, *ends)
    some = [names[i] for i in reach if not builder.drafts[i].suffix] or [names[i] for i in reach]
    # A layer before the module is a better end than one inside it.
    before = [name for name in some if not module or not f"{name}.".startswith(f"{module}.")]
    last = (before or some)[-1]
    return NotReachedError(
        f"{text}. What comes before it can be imported: "
        f"{wishes.call.with_argument('outputs', last)}; the layers are {', '.join(some)}"
    )


def ancestors(drafts: Sequence[Draft], *lasts: int) -> list[int]:
    """Positions of the layers `lasts` and of all layers that they depend on, in order."""
    needed: set[int] = set()
    waiting = [place for place in lasts if place >= 0]
    while waiting:
        place = waiting.pop()
        if place not in needed:
            needed.add(place)
            waiting += [k for k in drafts[place].inputs if k >= 0]
    return sorted(needed)
