"""Names of layers: the names of modules in the original model.

A layer is named after the module that it was exported from, such as ``features.3``. The module is
found, in this order, from

1. the name of the layer's weight, ``features.3.weight``;
2. the last scope that PyTorch's newer exporter wrote down;
3. the path in a node's name, ``/features/features.3/conv/Conv``.

If a module is used a second time, its layer is called ``features.3:1``. Operators that a module
applies itself, beside the modules inside it, are named after it and their type: ``block.add``,
``block.relu1``, ``block.relu2``. Operators outside all modules are called ``relu1``, ``relu2``.

If the output of a module is the output of a layer, the module's name is an alias of that layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from .. import layers as nn
from .building import Draft
from .graph import Graph, Node
from .views import View

__all__ = ["layer_names", "module_aliases", "module_of"]

_WITH_WEIGHT = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Linear", "BatchNormalization",
                "PRelu", "InstanceNormalization", "LayerNormalization", "GroupNormalization")
_LONGEST = 120
# Modules inside each other that are looked at; a name of a file may have thousands of dots.
_DEEPEST = 64


def module_of(node: Node, graph: Graph, modules: Collection[str] = ()) -> str:
    """The path of the module that a node belongs to; "" if unknown."""
    return _owner(node, graph) or _scope(node, modules)


def _owner(node: Node, graph: Graph) -> str:
    """The module that owns the weight, from the weight's name."""
    if node.op not in _WITH_WEIGHT:
        return ""
    for name in (node.input(1), graph.origins.get(node.input(1), "")):
        if name.endswith(".weight") and "::" not in name:
            return name[: -len(".weight")]
    return ""


def _scope(node: Node, modules: Collection[str]) -> str:
    if node.scopes:
        return node.scopes[-2] if len(node.scopes) > 1 else ""
    parts = [part for part in node.name.split("/") if part]
    if "/" not in node.name:
        return node.name
    path = ""
    for part in parts[:-1]:
        # In /features/features.3/conv, the second part repeats the path of the first.
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
        again = re.fullmatch(r"(.*)_[0-9]+", path)
        if again and path not in modules and again[1] in modules:
            path = again[1]
    return path


def layer_names(
    drafts: Sequence[Draft], graph: Graph, modules: Collection[str] = ()
) -> list[str]:
    """A name for each draft. All names are different and allowed in an archive."""
    paths = [module_of(draft.node, graph, modules) for draft in drafts]
    inner = {module_of(node, graph, modules) for node in graph.nodes}
    kinds: dict[str, set[str]] = {}
    for path, draft in zip(paths, drafts):
        if not draft.suffix:
            kinds.setdefault(path, set()).add(draft.kind)
    around = {module for path in inner for module in _upward(path) if module != path}
    holders = around.intersection(kinds)
    several = Counter(
        (path, draft.kind) for path, draft in zip(paths, drafts) if not draft.suffix
    )
    counts: Counter[tuple[str, str]] = Counter()
    own: list[str] = []
    for path, draft in zip(paths, drafts):
        if path and len(kinds.get(path, ())) < 2 and path not in holders:
            own.append(path)
            continue
        prefix = nn.LAYER_TYPES[draft.kind].prefix
        if draft.suffix:
            own.append(path or prefix)
            continue
        counts[path, draft.kind] += 1
        alone = path and several[path, draft.kind] == 1
        name = prefix if alone else f"{prefix}{counts[path, draft.kind]}"
        own.append(f"{path}.{name}" if path else name)
    # Helpers are named after their main layer, which comes after them.
    for place in range(len(drafts) - 2, -1, -1):
        if drafts[place].suffix and drafts[place + 1].node is drafts[place].node:
            own[place] = own[place + 1]
    return _distinct([
        f"{name}.{draft.suffix}" if draft.suffix else name for name, draft in zip(own, drafts)
    ])


def _distinct(names: Sequence[str]) -> list[str]:
    """Legal names; a repeated name gets a colon and a number."""
    taken: set[str] = {nn.INPUT}
    found = []
    for name in names:
        name, number = legal(name), 0
        unique = name if name != nn.INPUT else f"{name}_layer"
        while unique in taken:
            number += 1
            unique = f"{name}:{number}"
        taken.add(unique)
        found.append(unique)
    return found


def legal(name: str) -> str:
    """Change a name so that an archive allows it: no slashes, no control characters, not long."""
    name = "".join(c if c.isprintable() else "_" for c in name)
    name = re.sub(r"[/\\]+", ".", name.replace(";", "_"))
    name = re.sub(r"\.{2,}", ".", name).strip(". ")
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST // 2]}_{name[-_LONGEST // 2 :]}"
    return name or "layer"


def module_aliases(
    graph: Graph, views: dict[str, View], names: Sequence[str], drafts: Sequence[Draft],
    modules: Collection[str] = (),
) -> dict[str, tuple[int, View]]:
    """Names of modules that stand for layers.

    Returns
    -------
    dict of str to (int, View)
        For each module with exactly one output: the position of the layer, and how the output
        of the module is read from it.
    """
    values: dict[str, set[str]] = {}
    users: dict[str, set[str]] = {}
    for node in graph.nodes:
        path = module_of(node, graph, modules)
        for name in node.inputs:
            users.setdefault(name, set()).add(path)
        for name in node.outputs:
            # After folding, a batch norm may have the weight of the convolution and its own scope.
            for own in {path, _scope(node, modules)}:
                for module in _upward(own):
                    values.setdefault(module, set()).add(name)
    found = {}
    for module, inside in values.items():
        ends = {
            name for name in inside
            if name in graph.outputs or any(
                user != module and not user.startswith(f"{module}.")
                for user in users.get(name, ())
            )
        }
        if len(ends) != 1 or module in names or legal(module) != module or module == nn.INPUT:
            continue
        view = views.get(ends.pop())
        if view is not None and view.draft >= 0:
            found[module] = view.draft, view
    return found


def _upward(path: str) -> list[str]:
    """The path and those of the modules around it, from the outermost on."""
    parts = path.split(".", _DEEPEST)[:_DEEPEST] if path else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
