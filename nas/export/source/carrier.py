"""Carrying definitions out of their modules: the classes of a network, and the functions and constants these need."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from nas.errors import ExportError
from nas.export.source.origin import FREE, Defined, Definition, Origin, Origins, Refused, Source
from nas.export.source.references import Found, Reference, find_references

OURS = "nas."
"""Modules whose classes guard search spaces by more than their forward pass; only that is carried."""


class Item:
    """One definition that is carried, and the parts of it that are."""

    def __init__(self, key: Defined, source: Source, node: Definition, where: str) -> None:
        self.key, self.source, self.node, self.where = key, source, node, where
        value = vars(sys.modules[key.module]).get(key.name)
        self.value: Any = value
        self.decorators: list[ast.expr] = []
        """Those that are left behind."""
        self.bases: list[ast.expr] = []
        self.parts: list[ast.stmt] = [node]
        self.found = Found((), frozenset(), frozenset(), (), False)
        self.needs: dict[Defined, None] = {}

    @property
    def members(self) -> set[str]:
        """The names of the members that are carried of a class."""
        return {name for part in self.parts for name in member_names(part)}


class Carrier:
    """Collects definitions, from given classes and functions on, until nothing that they refer to is missing.

    Of a class of modules only what the forward pass reaches is carried, and never `__init__`: modules are made from
    what they are, not from what once made them. Raises `ExportError` for what cannot be carried.
    """

    def __init__(self, own: set[str]) -> None:
        self.origins = Origins(own)
        self.items: dict[Defined, Item] = {}
        """In the order of the file: what a definition needs comes before it."""
        self._attributes: set[str] = {"forward"}
        """The names of the attributes that carried code reads, of whatever."""

    def add(self, value: Any, where: str) -> Item:
        """Carry a class or function, for the part `where` of a network."""
        item = self._add(_key(value), where)
        item.value = value
        return item

    def find(self, value: Any) -> Item | None:
        """The item of a class or function, where it is carried."""
        return self.items.get(_key(value))

    def reads(self, cls: type, name: str) -> bool:
        """Whether carried code reads the attribute `name` of objects of a class."""
        items = (item for item in self.items.values() if isinstance(item.value, type))
        family = [item for item in items if issubclass(cls, item.value) or issubclass(item.value, cls)]
        return name in self._attributes or any(name in item.found.own or _is_dynamic(item) for item in family)

    def close(self, more: Callable[[], None]) -> None:
        """Carry all that is needed; `more`, called in every round, adds what values of attributes need."""
        before = None
        while before != (before := [(item.parts, item.found) for item in self.items.values()]):
            for item in list(self.items.values()):
                self._scan(item)
            more()
        items, self.items = self.items, {}
        for key in items:
            self._order(key, items, set())

    def origin(self, item: Item, reference: Reference) -> tuple[Origin, int]:
        """What a reference in an item is, and how many parts of its dotted name name that."""
        return self.origins.resolve(item.key.module, reference.chain)

    def _add(self, key: Defined, where: str) -> Item:
        if key not in self.items:
            self.items[key] = self._item(key, where)
        return self.items[key]

    def _item(self, key: Defined, where: str) -> Item:
        source = self.origins.source(key.module)
        node = source.definition(key.name) if source else None
        where = f"{where}: '{key.name}' of {key.module}"
        if source is None or node is None:
            raise ExportError(f"{where} has no source that can be read: define it in a file")
        return Item(key, source, node, where)

    def _scan(self, item: Item) -> None:
        if is_layer(item.value) and isinstance(item.node, ast.ClassDef):
            self._scan_layer(item, item.node)
        else:
            _check_variables(item, item.value)
            item.decorators = [d for d in getattr(item.node, "decorator_list", []) if self._only_registers(item, d)]
            item.found = find_references(item.parts)
        self._attributes |= item.found.attributes
        self._check_imports(item)
        left = {id(node) for decorator in item.decorators for node in ast.walk(decorator)}
        for reference in item.found.references:
            if reference.annotation is not None or id(reference.nodes[0]) in left:
                continue
            origin, _ = self.origin(item, reference)
            if isinstance(origin, Refused):
                raise ExportError(f"{item.where} uses {origin.reason}; what is exported needs torch alone")
            if isinstance(origin, Defined) and origin != item.key:
                self._add(origin, item.where.partition(": ")[0])
                item.needs[origin] = None

    def _scan_layer(self, item: Item, node: ast.ClassDef) -> None:
        item.parts = [part for part in node.body if self._is_kept(item, part)]
        item.bases = [base for base in node.bases if not self._gives_nothing(item, base)]
        written = {name for part in node.body for name in member_names(part)}
        item.found = find_references([*item.bases, *item.parts], written)
        for name, member in vars(item.value).items():
            if name in item.members:
                _check_variables(item, member)
            elif name not in written and inspect.isfunction(member) and self.reads(item.value, name):
                raise ExportError(f"{item.where} got its method '{name}' from outside its body; write it there")

    def _is_kept(self, item: Item, part: ast.stmt) -> bool:
        """Whether a statement in the body of a class of modules is of the forward pass, or reached by it."""
        names = member_names(part)
        if "__init__" in names or not names:
            return bool(getattr(part, "body", None)) and not names  # an `if` or the like
        special = any(name in dir(nn.Module) or name.startswith("__") for name in names)
        method = isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))
        read = any(self.reads(item.value, name) for name in names)
        return read or (method and special and not item.key.module.startswith(OURS))

    def _gives_nothing(self, item: Item, base: ast.expr) -> bool:
        """Whether a base class of the toolkit is overridden whole, so that `nn.Module` may take its place."""
        found = find_references([base]).references
        origin = self.origin(item, found[0])[0] if found else None
        if not isinstance(origin, Defined) or not origin.module.startswith(OURS):
            return False
        other = self._item(origin, item.where)
        assert isinstance(other.node, ast.ClassDef)
        inherited = {name for part in other.node.body if self._is_kept(other, part) for name in member_names(part)}
        return inherited <= item.members and other.value.__base__ is nn.Module

    def _only_registers(self, item: Item, decorator: ast.expr) -> bool:
        """Whether a decorator of ours or a plugin's left what it decorates as it was."""
        found = find_references([decorator]).references
        origin = self.origin(item, found[0])[0] if found else Refused("")
        if not isinstance(origin, (Defined, Refused)):
            return False
        code = getattr(item.value, "__code__", None)
        first = min(d.lineno for d in item.node.decorator_list)  # type: ignore[union-attr]  # it has a decorator
        return isinstance(item.node, ast.ClassDef) or (code is not None and code.co_firstlineno == first)

    def _check_imports(self, item: Item) -> None:
        for statement in item.found.imports:
            level = getattr(statement, "level", 0)
            names = (
                [statement.module or ""] if isinstance(statement, ast.ImportFrom) else [a.name for a in statement.names]
            )
            for name in names:
                if level or name.partition(".")[0] not in FREE:
                    raise ExportError(
                        f"{item.where} imports '{'.' * level}{name}' when it runs; what is exported needs torch alone"
                    )

    def _order(self, key: Defined, items: dict[Defined, Item], pending: set[Defined]) -> None:
        if key not in self.items and key not in pending:
            pending.add(key)
            for need in items[key].needs:
                self._order(need, items, pending)
            self.items[key] = items[key]


def is_layer(value: object) -> bool:
    """Whether a value is a class of modules."""
    return isinstance(value, type) and issubclass(value, nn.Module)


def _check_variables(item: Item, function: Any) -> None:
    """Raise `ExportError` for a function that uses variables of a function around it."""
    function = inspect.unwrap(getattr(function, "fget", None) or getattr(function, "__func__", function))
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    if variables := sorted({*free} - {"__class__"}):
        raise ExportError(
            f"{item.where} is defined inside a function and uses its variables ({', '.join(variables)}): define it at"
            " the top level of its module"
        )


def _is_dynamic(item: Item) -> bool:
    """Whether all attributes of a class count as read, since its code makes up the names of some."""
    return item.found.dynamic or "__dict__" in item.found.own


def member_names(part: ast.stmt) -> set[str]:
    """The names that a statement in the body of a class gives to members; none for a bare annotation."""
    match part:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
            return {name}
    return set()


def _key(value: Any) -> Defined:
    return Defined(value.__module__, value.__qualname__)
