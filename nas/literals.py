"""Literals of Python source, read by `ast` and never evaluated, each with the line that it stands in."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from nas.errors import ConfigError, nearest


class Token(NamedTuple):
    """A literal, and where it stands: what an error names."""

    value: object
    where: str

    def refused(self, expected: str) -> ConfigError:
        """The error that this token is not what was expected."""
        return ConfigError(f"{self.where}: found {self.value!r}, expected {expected}")

    def one_of(self, names: Collection[str]) -> str:
        """The token, which must be one of some names; raises `ConfigError` with the nearest."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.refused(f"one of {', '.join(names)}{nearest(str(self.value), names)}")
        return self.value

    def below(self, end: int) -> int:
        """The token, which must be a number from 0 to `end - 1`; raises `ConfigError`."""
        if type(self.value) is not int or not 0 <= self.value < end:
            raise self.refused(f"a number from 0 to {end - 1}")
        return self.value


class Call(NamedTuple):
    """A call of a function: its arguments by the names of its parameters, and where it stands."""

    arguments: Mapping[str, ast.expr]
    where: str

    def items(self, parameter: str, length: int | None = None) -> list[ast.expr]:
        """The items of an argument, which must be a list or a tuple; raises `ConfigError`."""
        return items(self.arguments[parameter], parameter, length)


def pick(
    text: str,
    function: str,
    fields: Sequence[str],
    name: str | None = None,
    refused: Mapping[str, str] | None = None,
) -> Call:
    """The one `NAME = function(...)`, or dictionary of the same fields, in a text; nothing in it is evaluated.

    The text is Python source, JSON, or anything around them, such as a log. `NAME = OTHER` repeats what stands under
    the other name, and of two statements of one name the later counts. Further fields that are `None` are left out.

    Args:
        text: the text.
        function: the name of the function, such as `Genotype`.
        fields: the names of its parameters.
        name: which of several.
        refused: fields that no such call may have, with the reason.

    Raises `ConfigError` if there is no such statement, or several and no name, or if one has not exactly these fields.
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
        raise ConfigError(f"no {function}(...) in this text")
    if name is not None and name not in found:
        raise ConfigError(f"defines no '{name}'{nearest(name, found)}; found: {listed or 'one without a name'}")
    if name is None and len({*found.values(), *unnamed}) > 1:
        lines = " and ".join(str(value.lineno) for value in unnamed)
        without = f"those without a name, in line {lines}" if lines else ""
        raise ConfigError(
            f"defines several: {', '.join(filter(None, (listed, without)))}; give the name of one"
            + (f", or write 'NAME = {function}(...)' and give that name" if without else "")
        )
    return _call(found[name] if name is not None else [*found.values(), *unnamed][0], fields, refused or {})


def token(node: ast.expr) -> Token:
    """A text or a number in the source; raises `ConfigError` for anything else."""
    if isinstance(node, ast.Constant) and not (isinstance(node.value, int) and node.value.bit_length() > 63):
        return Token(node.value, f"line {node.lineno}")
    raise ConfigError(f"line {node.lineno}: found '{_source(node)}', expected a text or a number of at most 64 bits")


def items(node: ast.expr, what: str, length: int | None = None) -> list[ast.expr]:
    """The items of a list or a tuple, or the numbers of `range(...)`; raises `ConfigError` for anything else."""
    found: list[ast.expr] | None = None
    if isinstance(node, ast.Call) and _function(node) in ("list", "tuple") and len(node.args) == 1:
        return items(node.args[0], what, length)
    if isinstance(node, ast.List | ast.Tuple):
        found = node.elts
    elif isinstance(node, ast.Call) and _function(node) == "range" and 1 <= len(node.args) <= 2:
        limits = [token(argument).below(1000) for argument in node.args]
        found = [ast.copy_location(ast.Constant(number), node) for number in range(*limits)]
    if found is None or length not in (None, len(found)):
        expected = "a list" if length is None else f"{length} items"
        raise ConfigError(f"line {node.lineno}: '{what}' is {_source(node)}, expected {expected}")
    return found


def expressions(text: str) -> Iterator[ast.expr]:
    """The Python expression that a text is, or those in brackets that stand in it; none for anything else."""
    try:
        yield ast.parse(text.strip(), mode="eval").body
    except _NOT_PYTHON:
        yield from (node for _, node in _bracketed(text, r"(?=[(\[])"))


_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
_DEPTH = 200
"""How deeply Python's parser nests brackets."""
_OPENING = {")": "(", "]": "[", "}": "{"}


def _statements(text: str, function: str) -> Iterator[tuple[list[str], ast.Call | ast.Dict | ast.Name]]:
    """Calls of the function, dictionaries and names, with the names that each is assigned to."""
    try:
        tree = ast.parse(text)
    except _NOT_PYTHON as error:
        found = list(_bracketed(text, rf"\b{re.escape(function)}\s*(?=\()|(?={{)"))
        if not found:
            place = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
            raise ConfigError(f"{place}not Python: {getattr(error, 'msg', error)}") from error
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
    """The expressions in a text that begin where a pattern matches and end with the bracket right behind the match.

    Each has the name that stands before it: `NAME = ` or `NAME: `.
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
    """The source of an expression, as far as Python writes it: not of deep ones, nor of numbers with many digits."""
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return type(node).__name__


def _function(call: ast.Call) -> str:
    """The name of the function that is called, without the modules before it."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _text(key: ast.expr | None) -> object:
    return key.value if isinstance(key, ast.Constant) else None


def _call(value: ast.expr, fields: Sequence[str], refused: Mapping[str, str]) -> Call:
    where, expected = f"line {value.lineno}", f"expected {', '.join(fields)}"
    if isinstance(value, ast.Dict):
        positional, named = [], [(str(_text(key)), item) for key, item in zip(value.keys, value.values, strict=True)]
    else:
        assert isinstance(value, ast.Call)  # as `_statements` finds them
        positional = value.args
        named = [(keyword.arg or f"**{_source(keyword.value)}", keyword.value) for keyword in value.keywords]
    if len(positional) > len(fields):
        raise ConfigError(f"{where}: {len(positional)} arguments, {expected}")
    given = dict(zip(fields, positional, strict=False))
    for name, item in named:
        if name in refused:
            raise ConfigError(f"{where}: '{name}': {refused[name]}")
        if name not in fields and _source(item) not in ("None", "null"):
            raise ConfigError(f"{where}: '{name}' is no field{nearest(name, fields)}, {expected}")
        if name in given:
            raise ConfigError(f"{where}: '{name}' is given twice")
        given[name] = item
    if missing := [name for name in fields if name not in given]:
        raise ConfigError(f"{where}: '{missing[0]}' is missing, {expected}")
    return Call(given, where)
