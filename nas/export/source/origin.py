"""Where the names of a module come from, told from its source: an import, a definition, a constant."""

from __future__ import annotations

import ast
import bisect
import builtins
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from nas.errors import NASError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
FREE = frozenset({*sys.stdlib_module_names, "torch"})
"""The packages that an exported file may import."""


class Source:
    """The text of one module, its syntax tree, and what binds each name at its top level."""

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__
        self.text = inspect.getsource(module)
        self.tree = ast.parse(self.text)
        self.bindings: dict[str, list[ast.AST]] = {}
        for name, node in _bindings(self.tree.body):
            self.bindings.setdefault(name, []).append(node)
        self.lines = [f"{line}\n" for line in self.text.split("\n")]
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The positions in the text where a node begins and ends, decorators left out."""
        assert isinstance(node, (ast.stmt, ast.expr, ast.arg))
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def start(self, node: ast.stmt) -> int:
        """Where the line of a statement begins, its decorators and the comments right above included."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        line = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        while line > 1 and self.lines[line - 2].lstrip().startswith("#"):
            line -= 1
        return self._starts[line - 1]

    def comment(self, position: int) -> str:
        """The comment that ends the line of `position`."""
        rest = self.text[position : self.text.find("\n", position)]
        return rest if rest.lstrip().startswith("#") else ""

    def documentation(self, node: ast.stmt) -> str:
        """The text right below an assignment at the top level that says what it is."""
        body = self.tree.body
        below = body[body.index(node) + 1] if node in body[:-1] else None
        match node, below:
            case ((ast.Assign() | ast.AnnAssign()), ast.Expr(value=ast.Constant(value=str()))):
                assert below is not None
                return "\n" + self.text[slice(*self.span(below))]
        return ""

    def line(self, position: int) -> int:
        """The position where the line of `position` begins."""
        return self._starts[bisect.bisect_right(self._starts, position) - 1]

    def definition(self, qualname: str) -> Definition | None:
        """The only definition of a name at the top level, or of a class or function inside others."""
        body: list[ast.stmt] = self.tree.body
        found: Definition | None = None
        for part in qualname.replace(".<locals>", "").split("."):
            nodes = [node for name, node in _bindings(body) if name == part]
            if len(nodes) != 1 or not isinstance(nodes[0], DEFINITIONS):
                return None
            found = nodes[0]
            body = getattr(found, "body", [])
        return found

    def _at(self, line: int, column: int) -> int:
        """`ast` counts columns in bytes."""
        return self._starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())


@dataclass(frozen=True)
class Imported:
    """A name that an import from the standard library or torch gives: `module`, or what `attribute` is in it."""

    module: str
    attribute: str = ""
    submodule: str = field(default="", compare=False)
    """Of `import a.b`, which names `a`, the whole."""


@dataclass(frozen=True)
class Defined:
    """A name that a module of ours or of a plugin defines, under `name` at its top level."""

    module: str
    name: str


@dataclass(frozen=True)
class Package:
    """A name that stands for a module whose definitions are carried."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A name, bound in more than one way, whose value is plain data."""

    text: str


@dataclass(frozen=True)
class Refused:
    """A name that cannot be carried, and why."""

    reason: str


BUILTIN = Literal("")
ERROR = Literal("ValueError")
"""What the toolkit's own errors become."""

Origin = Imported | Defined | Package | Literal | Refused


class Origins:
    """Resolves names; `own` are the top-level packages whose source is carried."""

    def __init__(self, own: Set[str]) -> None:
        self.own = own
        self._sources: dict[str, Source] = {}

    def source(self, module: str) -> Source | None:
        """The source of an imported module; None where there is none."""
        if module not in self._sources:
            try:
                self._sources[module] = Source(sys.modules[module])
            except (KeyError, OSError, TypeError):
                return None
        return self._sources[module]

    def resolve(self, module: str, chain: tuple[str, ...]) -> tuple[Origin, int]:
        """What the dotted name `chain` is in `module`, and how many of its parts name that."""
        origin = self._name(module, chain[0])
        used = 1
        while isinstance(origin, Package) and used < len(chain):
            inner = f"{origin.name}.{chain[used]}"
            origin = Package(inner) if inner in sys.modules else self._name(origin.name, chain[used])
            used += 1
        if isinstance(origin, Package):
            origin = Refused(f"the module '{origin.name}' as a value")
        return origin, used

    def _name(self, module: str, name: str) -> Origin:
        source = self.source(module)
        nodes = source.bindings.get(name, []) if source else []
        values = vars(sys.modules[module]) if module in sys.modules else {}
        if len(nodes) == 1:
            return self._bound(module, name, nodes[0])
        if name in values:
            return self._value(name, values[name])
        if hasattr(builtins, name):
            return BUILTIN
        return Refused(f"'{name}', which {module} does not define")

    def _bound(self, module: str, name: str, node: ast.AST) -> Origin:
        if isinstance(node, ast.Import):
            alias = next(a for a in node.names if name in (a.asname, a.name.partition(".")[0]))
            return self._module(alias.name) if alias.asname else self._module(name, alias.name)
        if isinstance(node, ast.ImportFrom):
            alias = next(a for a in node.names if name == (a.asname or a.name))
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), _package(module))
            root = base.partition(".")[0]
            if root not in FREE | self.own:
                return Refused(f"'{name}' of {base}")
            if isinstance(vars(sys.modules[base]).get(alias.name), ModuleType):
                return self._module(f"{base}.{alias.name}")
            return Imported(base, alias.name) if root in FREE else self._name(base, alias.name)
        value = vars(sys.modules[module]).get(name)
        if isinstance(value, type) and issubclass(value, NASError) and value.__module__ == "nas.errors":
            return ERROR
        if isinstance(node, DEFINITIONS):
            return Defined(module, name)
        return self._value(name, value)

    def _module(self, name: str, submodule: str = "") -> Origin:
        root = name.partition(".")[0]
        if root in FREE:
            return Imported(name, submodule=submodule)
        return Package(name) if root in self.own else Refused(f"'{name}'")

    def _value(self, name: str, value: Any) -> Origin:
        """For names that are bound more than once, or by `*`: what they are now."""
        if isinstance(value, ModuleType):
            return self._module(value.__name__)
        home, inside = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
        if isinstance(home, str) and home in sys.modules and inside and "." not in inside:
            root = home.partition(".")[0]
            if root in FREE and getattr(sys.modules[home], inside, None) is value:
                return Imported(home, inside)
            source = self.source(home)
            if root in self.own and source and len(source.bindings.get(inside, [])) == 1:
                return Defined(home, inside)
        text = repr(value)
        try:
            plain = ast.literal_eval(text) == value
        except (ValueError, SyntaxError):
            plain = False
        return Literal(text) if plain else Refused(f"'{name}', which is defined in more than one way")


def _package(module: str) -> str:
    return getattr(sys.modules.get(module), "__package__", None) or module.rpartition(".")[0]


def _bindings(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    for node in _statements(body):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node
            case ast.Import():
                yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
            case ast.ImportFrom():
                yield from ((alias.asname or alias.name, node) for alias in node.names)
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name, node
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, node
            case ast.Assign() | ast.AugAssign() | ast.For():
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                yield from ((name, ast.Pass()) for name in names)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, also those under `if`, `try` and the like."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)
