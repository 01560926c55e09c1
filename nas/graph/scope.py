"""The parts of one module: which children are drawn, their titles, and their wires."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from nas.graph.dataflow import Box, Flow, Part, Title, Wire
from nas.graph.trace import Port, Value, mapped, values
from nas.space.cell import Cell
from nas.space.mixed import ChosenDepth, Decided, Node, candidates_of

SOURCES = ("input", "frames")
"""Names in `wiring` for the input of a module."""


class Scope:
    """The parts of a module, collected as its `forward` calls them.

    Args:
        module: the module.
        everything: whether children without decisions are parts too.
    """

    def __init__(self, module: nn.Module, everything: bool) -> None:
        self.module, self.everything = module, everything
        self.paths = {child: path for path, child in reversed([*module.named_modules()])}
        self.parts: dict[str, Part] = {}
        self.titles: dict[str, Title] = {}
        self.wires: list[Wire] = []
        self.calls: Counter[str] = Counter()
        self.calling = ""
        """Name of the candidate that is called next; several candidates may share one module."""

    def add(self, child: nn.Module, part: Part, inputs: Any = (), result: Any = None) -> Any:
        """Add a child as a part. Returns the result of the child as values of this scope."""
        path, self.calling = self.calling or self.paths.get(child, type(child).__name__), ""
        self.calls[path] += 1
        key = path if self.calls[path] == 1 else f"{path}#{self.calls[path]}"
        self.parts[key], self.titles[key] = part, self.title(path, child, part)
        for number, value in enumerate(values(inputs)):
            self.wires += [(port, (key, number)) for port in value.ports]
        return mapped(result, lambda value: Value(*((key, port) for _, port in value.ports)))

    def title(self, path: str, child: nn.Module, part: Part) -> Title:
        """Return the title of a child in this scope."""
        if isinstance(self.module, Decided):
            alternatives = isinstance(self.module, Node) or len(candidates_of(self.module)) > 1
            return Title(path, path) if alternatives and not isinstance(self.module, ChosenDepth) else Title()
        bare = isinstance(part, Flow) and isinstance(child, nn.Sequential) and not path.rpartition(".")[2].isdigit()
        return Title() if bare else title_of(path, child, part)


def title_of(path: str, child: nn.Module, part: Part) -> Title:
    """Return the title of a child: its attribute name, or the name of its list and its index."""
    names = path.split(".")
    named = [name for name in names if not name.isdigit()]
    if not names[-1].isdigit():
        return Title(names[-1], names[-1])
    box = part if isinstance(part, Box) else part.frame
    if box is not None and box.cell:
        return Title()
    if not named:
        return Title("", type(child).__name__) if isinstance(part, Flow) else Title()
    return Title(".".join(names[names.index(named[-1]) :]), named[-1])


def alone(flow: Flow, inputs: int, scope: Scope) -> tuple[Part, Mapping[Port, Port]]:
    """Return the only part of a flow that merely passes inputs and outputs through; else the flow itself.

    The second item maps the outputs of the flow to those of the part.
    """
    into = {source: port for source, (name, port) in flow.wires if source[0] == "input" and name != "output"}
    onto = {target: source for source, target in flow.wires if target[0] == "output" and source[0] != "input"}
    if len(flow.parts) != 1 or len(into) + len(onto) != len(flow.wires):
        return flow, {}
    ((name, part),) = flow.parts
    if len(scope.parts) == 1:
        part = scope.parts[name]
    if isinstance(part, Box):
        same = {number for _, number in into} in ({None}, {*range(inputs)})
    else:
        same = all(number == port for (_, number), port in into.items())
    return (part, {left: ("output", port) for left, (_, port) in onto.items()}) if same and onto else (flow, {})


def inputs_of(module: nn.Module) -> dict[str, bool]:
    """Return the names of the required inputs of a module, and whether each is keyword-only."""
    single = {"input": False}
    if isinstance(module, Cell):
        return {f"input {number}": False for number in range(module.inputs)} if module.inputs > 1 else single
    wiring: Any = getattr(module, "wiring", None)
    if wiring is not None:
        named = [source for source, _ in wiring if source.partition(".")[0] in SOURCES]
        if not any("." in source for source in named):
            return dict.fromkeys(named[:1], False) or single
    if isinstance(module, Decided) and not isinstance(module, Node):
        inner = next(iter(candidates_of(module).values()), None)
        return single if inner is None else inputs_of(inner)
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    found = {
        each.name: each.kind == each.KEYWORD_ONLY
        for each in parameters
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) and each.default is each.empty
    }
    return found if len(found) > 1 or any(found.values()) else single


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the children that are drawn if the flow is unknown: all of a `Sequential`, else those with decisions."""
    found: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) and type(child).forward is nn.Module.forward:
            found |= {f"{name}.{inner}": each for inner, each in children_of(child).items()}
        elif isinstance(module, nn.Sequential) or decides(child):
            found[name] = child
    return found


def decides(module: nn.Module) -> bool:
    """Return whether a module is a decision or contains one."""
    return any(isinstance(inner, Decided) for inner in module.modules())
