"""Expressions that build a network, and their text: what occurs more than once becomes a function."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

WIDTH = 88
"""Columns of a line, where that can be."""
LONG = 45
"""The characters from which on an expression that recurs becomes a function."""
TALL = 30
"""The lines of a function's body above which it is divided."""
PARAMETERS = 4
"""The most numbers by which the expressions of one function may differ."""


@dataclass(frozen=True)
class Number:
    """An integer, and what it is: `channels`."""

    value: int
    name: str = field(default="", compare=False)


@dataclass(frozen=True)
class Call:
    """A call, `opening` such as `nn.Conv2d(` and its parts, each behind a prefix such as `bias=`; or a list or dict."""

    opening: str
    parts: tuple[tuple[str, Expression], ...]
    name: str = field(default="", compare=False)
    """What a function that makes it could be called; empty where it should not be one."""

    @property
    def closing(self) -> str:
        """The bracket that ends it."""
        return {"(": ")", "[": "]", "{": "}"}[self.opening[-1]]

    @cached_property
    def shape(self) -> str:
        """The text with its numbers left open: expressions of one shape differ in these alone."""
        return self.opening + ", ".join(prefix + _shape(part) for prefix, part in self.parts) + self.closing

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """All numbers in it, from left to right."""
        return tuple(number for _, part in self.parts for number in _numbers(part))

    @property
    def children(self) -> Iterator[Call]:
        """The calls right below."""
        return (part for _, part in self.parts if isinstance(part, Call))


Expression = str | Number | Call


@dataclass
class _Function:
    name: str
    body: Call
    parameters: dict[int, str]
    """The numbers that vary, by their place among those of the body."""
    holes: list[str]
    """The text of each number of the body."""


class Builder:
    """Writes an expression as functions: one for each that recurs, with the numbers that vary as parameters.

    `new_name` gives a name that nothing else in the file has.
    """

    def __init__(self, root: Call, new_name: Callable[[str], str]) -> None:
        self._root, self._new_name = root, new_name
        self._functions: dict[str, _Function] = {}
        self._instances: dict[str, list[tuple[int, ...]]] = {}
        self._called: dict[str, dict[str, None]] = {}
        kinds: dict[str, Call] = {}
        for node in _calls(root):
            self._instances.setdefault(node.shape, []).append(tuple(number.value for number in node.numbers))
            kinds.setdefault(node.shape, node)
            self._called.setdefault(node.shape, {})[node.name] = None
        uses = Counter(child.shape for node in kinds.values() for child in node.children)
        for shape, node in sorted(kinds.items(), key=lambda item: len(item[0])):  # inner ones first
            self._divide(node)
            if node.name and uses[shape] > 1 and len(shape) > LONG:
                self._make_function(node)

    def functions(self) -> list[str]:
        """The source of each function, inner ones first."""
        return [self._source(function) for function in self._functions.values()]

    def body(self, indent: int = 0) -> str:
        """The text of the whole expression, indented but for its first line."""
        return self._write(self._root, [str(number.value) for number in self._root.numbers], indent, whole=True)

    def _divide(self, node: Call) -> None:
        """Make functions of the largest parts of an expression until it is short enough to read."""
        while self._height(node) >= TALL:
            parts = [(self._height(part), part) for part in self._visible(node) if part.name]
            largest = sorted((each for each in parts if 4 <= each[0] < TALL), key=lambda each: -each[0])
            if not any(self._make_function(part) for _, part in largest):
                return

    def _height(self, node: Call) -> int:
        return self._write(node, ["0"] * len(node.numbers), 4, whole=True).count("\n")

    def _visible(self, node: Call) -> Iterator[Call]:
        """The calls below a node that its text shows."""
        for child in node.children:
            if child.shape not in self._functions:
                yield child
                yield from self._visible(child)

    def _make_function(self, node: Call) -> bool:
        """Make a function of all expressions of this shape; False where they differ by too many numbers."""
        shape, numbers = node.shape, node.numbers
        columns = list(zip(*self._instances[shape], strict=True))
        names: dict[tuple[int, ...], str] = {}
        parameters: dict[int, str] = {}
        holes = [str(number.value) for number in numbers]
        for place, column in enumerate(columns):
            if len(set(column)) == 1:
                continue
            if column not in names:
                wanted = numbers[place].name or "size"
                number = 1 + sum(name.rstrip("_0123456789") == wanted for name in names.values())
                names[column] = wanted if number == 1 else f"{wanted}_{number}"
                parameters[place] = names[column]
            holes[place] = names[column]
        if len(parameters) > PARAMETERS or shape in self._functions:
            return False
        if list(parameters.values()) == ["in_channels"]:
            parameters = dict.fromkeys(parameters, "channels")
            holes = ["channels" if hole == "in_channels" else hole for hole in holes]
        name = self._new_name(_common(list(self._called[shape])))
        self._functions[shape] = _Function(name, node, parameters, holes)
        return True

    def _source(self, function: _Function) -> str:
        parameters = ", ".join(f"{name}: int" for name in function.parameters.values())
        opening = function.body.opening[:-1]
        body = self._write(function.body, function.holes, 4, whole=True)
        return f"def {function.name}({parameters}) -> {opening}:\n    return {body}"

    def _write(self, node: Expression, holes: Sequence[str], indent: int, *, whole: bool = False) -> str:
        if isinstance(node, str):
            return node
        if isinstance(node, Number):
            return holes[0]
        function = None if whole else self._functions.get(node.shape)
        if function is not None:
            return f"{function.name}({', '.join(holes[place] for place in function.parameters)})"
        parts: list[tuple[str, bool]] = []
        start = 0
        for prefix, part in node.parts:
            count = len(_numbers(part))
            text = self._write(part, holes[start : start + count], indent + 4)
            parts.append((prefix + text, not prefix and isinstance(part, Call)))
            start += count
        texts = list(_runs(parts))
        if node.opening == "[" and len(texts) == 1 and texts[0].startswith("*("):
            return f"[{texts[0][2:-1]}]"
        line = node.opening + ", ".join(texts) + node.closing
        if "\n" not in line and indent + len(line) <= WIDTH - 8:
            return line
        pad = " " * indent
        return f"{node.opening}\n" + "".join(f"{pad}    {text},\n" for text in texts) + pad + node.closing


def _common(names: Sequence[str]) -> str:
    """One name for what has several."""
    if len(names) <= 2 and len({name.partition("_")[0] for name in names}) == len(names):
        return "_or_".join(names)
    alike = itertools.takewhile(
        lambda words: len(set(words)) == 1, zip(*(name.split("_") for name in names), strict=False)
    )
    return "_".join(words[0] for words in alike) or "block"


def _runs(parts: list[tuple[str, bool]]) -> Iterator[str]:
    """The texts of parts, three equal ones or more in a row as one."""
    at = 0
    while at < len(parts):
        text, may_repeat = parts[at]
        end = at + 1
        while may_repeat and end < len(parts) and parts[end] == parts[at]:
            end += 1
        if end - at > 2:
            yield f"*({text} for _ in range({end - at}))"
        else:
            yield from (text for _ in range(at, end))
        at = end


def _calls(node: Call) -> Iterator[Call]:
    """A node and all calls below it."""
    yield node
    for child in node.children:
        yield from _calls(child)


def _shape(node: Expression) -> str:
    return node.shape if isinstance(node, Call) else "#" if isinstance(node, Number) else node


def _numbers(node: Expression) -> tuple[Number, ...]:
    return node.numbers if isinstance(node, Call) else (node,) if isinstance(node, Number) else ()
