"""Literals in Python source, parsed by `ast` and never evaluated, each with its line."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nas.errors import ConfigError, nearest


class Token(NamedTuple):
    """A literal and its place in the text, for errors."""

    value: object
    where: str

    def refused(self, expected: str, near: str = "") -> ConfigError:
        """Return the error that this token is not what it must be."""
        return ConfigError(f"{self.where}: value must be {expected}, got {self.value!r}{near}")

    def one_of(self, names: Collection[str]) -> str:
        """Return the token, which must be one of these names; raises `ConfigError` with the nearest name."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.refused(f"one of {', '.join(names)}", nearest(str(self.value), names))
        return self.value

    def below(self, end: int) -> int:
        """Return the token, which must be an integer from 0 to `end - 1`; raises `ConfigError`."""
        if type(self.value) is not int or not 0 <= self.value < end:
            raise self.refused(f"an integer from 0 to {end - 1}")
        return self.value


class Call(NamedTuple):
    """A function call in the text: its arguments by parameter, and its place."""

    arguments: Mapping[str, ast.expr]
    where: str

    def items(self, parameter: str, length: int | None = None) -> list[ast.expr]:
        """Return the items of an argument, which must be a list or a tuple; raises `ConfigError`."""
        return items(self.arguments[parameter], parameter, length)


def find_call(
    text: str,
    function: str,
    fields: Sequence[str],
    name: str | None = None,
    refused: Mapping[str, str] | None = None,
) -> Call:
    """Return the one `NAME = function(...)` in a text, or the one dictionary of the same fields, without evaluating it.

    The text is Python source, JSON, or a log that contains them. `NAME = OTHER` copies the value of the other name. If
    a name has two statements, the later counts. Unknown fields with the value `None` are ignored.

    Args:
        text: the text.
        function: the name of the function, such as `Genotype`.
        fields: the names of its parameters.
        name: the name to return if the text defines several.
        refused: fields that no such call may have, with the reason.

    Raises:
        ConfigError: there is no such statement, there are several and no name is given, or the fields differ.
    """
    found: dict[str, ast.expr] = {}
    unnamed: list[ast.expr] = []
    for names, value in sorted(_statements(text, function), key=lambda statement: statement[1].lineno):
        if isinstance(value, ast.Name):
            found.update(dict.fromkeys(names, found[value.id]) if value.id in found else {})
        elif isinstance(value, ast.Call) or {_text(key) for key in value.keys} & {*fields, *(refused or ())}:
            found.update(dict.fromkeys(names, value))
            unnamed += [] if names else [value]
    listed = ", ".join(found)
    if not found and not unnamed:
        raise ConfigError(f"the text must contain {function}(...), got none")
    if name is not None and name not in found:
        known = listed or "one without a name"
        raise ConfigError(f"the text must define '{name}', got {known}{nearest(name, found)}")
    if name is None and len({*found.values(), *unnamed}) > 1:
        lines = " and ".join(str(value.lineno) for value in unnamed)
        without = f"unnamed ones in line {lines}" if lines else ""
        listed = ", ".join(filter(None, (listed, without)))
        raise ConfigError(
            f"the text must define one {function}, got {listed}. Give the name of one"
            + (f", or write 'NAME = {function}(...)' and give that name" if without else "")
        )
    return _call(found[name] if name is not None else [*found.values(), *unnamed][0], fields, refused or {})


def token(node: ast.expr) -> Token:
    """Return a string or number of the source; raises `ConfigError` for anything else."""
    if isinstance(node, ast.Constant) and not (isinstance(node.value, int) and node.value.bit_length() > 63):
        return Token(node.value, f"line {node.lineno}")
    raise Token(_source(node), f"line {node.lineno}").refused("a string or a number of at most 64 bits")


def items(node: ast.expr, what: str, length: int | None = None) -> list[ast.expr]:
    """Return the items of a list or tuple, or the numbers of `range(...)`; raises `ConfigError` for anything else."""
    found: list[ast.expr] | None = None
    if isinstance(node, ast.Call) and _function(node) in ("list", "tuple") and len(node.args) == 1:
        return items(node.args[0], what, length)
    if isinstance(node, ast.List | ast.Tuple):
        found = node.elts
    elif isinstance(node, ast.Call) and _function(node) == "range" and 1 <= len(node.args) <= 2:
        limits = [token(argument).below(1000) for argument in node.args]
        found = [ast.copy_location(ast.Constant(number), node) for number in range(*limits)]
    if found is None or length not in (None, len(found)):
        expected = "a list" if length is None else f"a list of {length} items"
        raise ConfigError(f"line {node.lineno}: '{what}' must be {expected}, got {_source(node)}")
    return found


def expressions(text: str) -> Iterator[ast.expr]:
    """Yield the Python expression that a text is, or else the bracketed expressions in it."""
    try:
        yield ast.parse(text.strip(), mode="eval").body
    except _NOT_PYTHON:
        yield from (node for _, node in _bracketed(text, r"(?=[(\[])"))


_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
_DEPTH = 200
"""How many brackets Python's parser nests."""
_OPENING = {")": "(", "]": "[", "}": "{"}


def _statements(text: str, function: str) -> Iterator[tuple[list[str], ast.Call | ast.Dict | ast.Name]]:
    """The calls of the function, dictionaries and names in a text, with the names that each is assigned to."""
    try:
        tree = ast.parse(text)
    except _NOT_PYTHON as error:
        found = list(_bracketed(text, rf"\b{re.escape(function)}\s*(?=\()|(?={{)"))
        if not found:
            place = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
            raise ConfigError(f"{place}text must be Python or JSON, got {getattr(error, 'msg', error)}") from error
        statements: Iterable[tuple[list[str], ast.expr]] = found
    else:
        statements = _assignments(tree)
    for names, value in statements:
        if isinstance(value, ast.Dict | ast.Name) or (isinstance(value, ast.Call) and _function(value) == function):
            yield names, value


def _assignments(tree: ast.AST) -> Iterator[tuple[list[str], ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield [target.id for target in node.targets if isinstance(target, ast.Name)], node.value
        elif isinstance(node, ast.Expr):
            yield [], node.value


def _bracketed(text: str, before: str) -> Iterator[tuple[list[str], ast.expr]]:
    """The expressions in a text that start at a match of a pattern and end with the bracket that follows the match.

    Each comes with the name before it: `NAME = ` or `NAME: `.
    """
    closing, opened, depths = dict[int, int](), list[int](), list[int]()
    for place in re.finditer(r"[()\[\]{}]", text):
        if place[0] not in _OPENING:
            opened.append(place.start())
            depths.append(0)
        elif opened and text[opened[-1]] == _OPENING[place[0]]:
            start, depth = opened.pop(), depths.pop() + 1
            if depths:
                depths[-1] = max(depths[-1], depth)
            if depth <= _DEPTH:
                closing[start] = place.end()
        else:
            opened.clear()
            depths.clear()
    end = 0
    for match in re.finditer(before, text):
        start = match.start()
        if start < end or match.end() not in closing:
            continue
        try:
            node = ast.parse(text[start : closing[match.end()]], mode="eval").body
        except _NOT_PYTHON:
            continue
        end = closing[match.end()]
        name = re.search(r"(\w+)\s*[=:]\s*(?:\w+\.)*$", text[max(start - 200, 0) : start])
        yield [name[1]] if name else [], ast.increment_lineno(node, text.count("\n", 0, start))


def _source(node: ast.expr) -> str:
    """The source of an expression; its type if Python cannot write it, as for deep nesting or very long numbers."""
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return type(node).__name__


def _function(call: ast.Call) -> str:
    """The name of the called function, without modules."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _text(key: ast.expr | None) -> object:
    return key.value if isinstance(key, ast.Constant) else None


def _call(value: ast.expr, fields: Sequence[str], refused: Mapping[str, str]) -> Call:
    where, expected = f"line {value.lineno}", f"arguments must be {', '.join(fields)}"
    if isinstance(value, ast.Dict):
        positional, named = [], [(str(_text(key)), item) for key, item in zip(value.keys, value.values, strict=True)]
    else:
        assert isinstance(value, ast.Call)  # `_statements` yields nothing else
        positional = value.args
        named = [(keyword.arg or f"**{_source(keyword.value)}", keyword.value) for keyword in value.keywords]
    if len(positional) > len(fields):
        raise ConfigError(f"{where}: {expected}, got {len(positional)}")
    given = dict(zip(fields, positional, strict=False))
    for name, item in named:
        if name in refused:
            raise ConfigError(f"{where}: '{name}': {refused[name]}")
        if name not in fields and _source(item) not in ("None", "null"):
            raise ConfigError(f"{where}: {expected}, got '{name}'{nearest(name, fields)}")
        if name in given:
            raise ConfigError(f"{where}: '{name}' must be given once, got two")
        given[name] = item
    if missing := [name for name in fields if name not in given]:
        raise ConfigError(f"{where}: {expected}, got no '{missing[0]}'")
    return Call(given, where)
