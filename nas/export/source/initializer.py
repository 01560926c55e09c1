"""The `__init__` of a class of modules that is given its parts: submodules, parameters, buffers and attributes."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas.errors import ExportError
from nas.export.source.definitions import Names
from nas.export.source.origin import Imported

LINE = 84
"""The columns of a line, less the indentation of a method."""


def write_initializer(
    instances: Sequence[Mapping[str, Any]], refer: Callable[[type], str], names: Names, above: str, *, wraps: bool
) -> str:
    """The source of an `__init__` for modules with these parts.

    Args:
        instances: the parts of each module of the class, by name.
        refer: the text that names a class.
        above: the `__init__` to call first; empty for that of the class above.
        wraps: whether the class is a layer of torch, whose own arguments pass through.

    Raises `ExportError` for a layer of torch whose modules have parts of different names.
    """
    first = f"{above}(self" if above else "super().__init__("
    anything = Imported("typing", "Any")
    if not all(list(parts) == list(instances[0]) and all(map(is_name, parts)) for parts in instances):
        if wraps:
            raise ExportError("have different attributes: give all of them the same")
        return (
            f"def __init__(self, **parts: {names.give(anything, 'Any')}) -> None:\n    {first})\n"
            "    for name, part in parts.items():\n        setattr(self, name, part)"
        )
    parameters = [f"{name}{_annotation([parts[name] for parts in instances], refer, names)}" for name in instances[0]]
    if wraps:
        kind = names.give(anything, "Any")
        parameters = [f"*args: {kind}", *parameters, f"**kwargs: {kind}"]
        first += ", *args, **kwargs" if above else "*args, **kwargs"
    elif parameters:
        parameters = ["*", *parameters]
    head = f"def __init__(self{''.join(f', {each}' for each in parameters)}) -> None:"
    if len(head) > LINE:
        listing = ", ".join(["self", *parameters])
        listing = listing if len(listing) <= LINE - 4 else listing.replace(", ", ",\n    ") + ","
        head = f"def __init__(\n    {listing}\n) -> None:"
    return "\n".join([head, f"    {first})", *(f"    self.{name} = {name}" for name in instances[0])])


def is_name(text: str) -> bool:
    """Whether a text can name a parameter of `__init__`."""
    return text.isidentifier() and not keyword.iskeyword(text) and text != "self"


def _annotation(values: Sequence[Any], refer: Callable[[type], str], names: Names) -> str:
    """`: type` of a parameter; empty where that is not simple."""
    kinds = sorted({_kind(value, refer, names) for value in values}, key=lambda kind: (kind == "None", kind))
    return "" if "" in kinds or kinds == ["None"] else f": {' | '.join(kinds)}"


def _kind(value: Any, refer: Callable[[type], str], names: Names) -> str:
    for kind in (nn.Module, nn.Parameter):
        if isinstance(value, kind):
            return refer(kind)
    if isinstance(value, Tensor):
        return f"{names.give(Imported('torch'), 'torch')}.Tensor"
    plain = (bool, int, float, str, tuple, list, dict)
    return "None" if value is None else type(value).__name__ if type(value) in plain else ""
