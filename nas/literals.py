"""Literals of Python source, read by `ast` and never evaluated, each with the line that it stands in."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
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


def find_calls(source: str, function: str, parameters: Sequence[str]) -> dict[str, Call]:
    """Every `NAME = function(...)` in Python source, and every `NAME = OTHER` that repeats one, by name.

    They may stand anywhere, a call without a name is found under an empty one, and of two of one name the later counts.
    Raises `ConfigError` where the source is not Python, or a call has not exactly these parameters.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        place = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{place}not Python: {getattr(error, 'msg', error)}") from error
    found: dict[str, Call] = {}
    for names, value in sorted(_statements(tree), key=lambda statement: statement[1].lineno):
        if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == function:
            found.update(dict.fromkeys(names, _call(value, parameters)))
        elif isinstance(value, ast.Name) and value.id in found:
            found.update(dict.fromkeys(names, found[value.id]))
    return found


def pick(calls: Mapping[str, Call], function: str, name: str | None) -> Call:
    """The call of that name, or the only one; raises `ConfigError` that lists them."""
    names = ", ".join(filter(None, calls))
    if not calls:
        raise ConfigError(f"no {function}(...) in this text")
    if name is None and len({call.where for call in calls.values()}) > 1:
        raise ConfigError(f"defines several: {names}; give the name of one")
    if name is not None and name not in calls:
        raise ConfigError(f"defines no '{name}'{nearest(name, calls)}; found: {names or 'one without a name'}")
    return next(iter(calls.values())) if name is None else calls[name]


def token(node: ast.expr) -> Token:
    """A text or a number in the source; raises `ConfigError` for anything else."""
    if isinstance(node, ast.Constant):
        return Token(node.value, f"line {node.lineno}")
    raise ConfigError(f"line {node.lineno}: found '{ast.unparse(node)}', expected a text or a number")


def items(node: ast.expr, what: str, length: int | None = None) -> list[ast.expr]:
    """The items of a list or a tuple, or the numbers of `range(...)`; raises `ConfigError` for anything else."""
    found: list[ast.expr] | None = None
    if isinstance(node, ast.List | ast.Tuple):
        found = node.elts
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "range" and 1 <= len(node.args) <= 2:
        limits = [token(argument).below(1000) for argument in node.args]
        found = [ast.copy_location(ast.Constant(number), node) for number in range(*limits)]
    if found is None or length not in (None, len(found)):
        expected = "a list" if length is None else f"{length} items"
        raise ConfigError(f"line {node.lineno}: '{what}' is {ast.unparse(node)}, expected {expected}")
    return found


def _statements(tree: ast.AST) -> Iterator[tuple[list[str], ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield [target.id for target in node.targets if isinstance(target, ast.Name)], node.value
        elif isinstance(node, ast.Expr):
            yield [""], node.value


def _call(call: ast.Call, parameters: Sequence[str]) -> Call:
    where, expected = f"line {call.lineno}", f"expected {', '.join(parameters)}"
    if len(call.args) > len(parameters):
        raise ConfigError(f"{where}: {len(call.args)} arguments, {expected}")
    given = dict(zip(parameters, call.args, strict=False))
    for keyword in call.keywords:
        name = keyword.arg or f"**{ast.unparse(keyword.value)}"
        if name not in parameters:
            raise ConfigError(f"{where}: '{name}' is no field{nearest(name, parameters)}, {expected}")
        if name in given:
            raise ConfigError(f"{where}: '{name}' is given twice")
        given[name] = keyword.value
    if missing := [name for name in parameters if name not in given]:
        raise ConfigError(f"{where}: '{missing[0]}' is missing, {expected}")
    return Call(given, where)
