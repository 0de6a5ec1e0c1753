"""Move a Pad into the convolution or pool after it."""

from __future__ import annotations

from ..graph import Graph, Node

__all__ = ["pad_into_window"]


def pad_into_window(graph: Graph, node: Node) -> bool:
    """A Pad before Conv or AveragePool becomes the padding of that node.

    Only if it pads zeros, neither along the batch nor along the channels, and the node does not
    use `auto_pad`. An average pool must count the zeros (`count_include_pad`) or have no padding
    itself. A max pool pads with minus infinity, so it is not changed.
    """
    if node.op not in ("Conv", "AveragePool"):
        return False
    pad = graph.made_by(node.inputs[0], "Pad")
    if pad is None or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    if node.op == "AveragePool" and node.attributes.get("ceil_mode", 0):
        return False
    if pad.attributes.get("mode", "constant") != "constant" or pad.input(3):
        return False
    value = graph.scalar(pad.input(2)) if pad.input(2) else pad.attributes.get("value", 0.0)
    given = pad.attributes.get("pads")
    if given is None and pad.input(1) in graph.constants:
        given = graph.constants[pad.inputs[1]].reshape(-1).tolist()
    if value != 0 or given is None or min(given) < 0:
        return False
    rank = len(given) // 2
    own = list(node.attributes.get("pads", [0] * 2 * (rank - 2)))
    if given[:2] != [0, 0] or given[rank : rank + 2] != [0, 0] or len(own) != 2 * (rank - 2):
        return False
    if node.op == "AveragePool":
        if any(own) and not node.attributes.get("count_include_pad", 0):
            return False
        # Pools refuse padding that is as large as their window.
        kernel = node.attributes["kernel_shape"]
        added = [a + b for a, b in zip(own, given[2:rank] + given[rank + 2 :])]
        if any(n >= kernel[i % len(kernel)] for i, n in enumerate(added)):
            return False
        node.attributes["count_include_pad"] = 1
    inside = given[2:rank] + given[rank + 2 :]
    node.attributes["pads"] = [int(a + b) for a, b in zip(own, inside)]
    node.attributes["auto_pad"] = "NOTSET"
    node.inputs = [pad.inputs[0], *node.inputs[1:]]
    return True
