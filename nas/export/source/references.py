"""The names that a piece of source takes from the top level of its module, by Python's rules of scope."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Function = ast.FunctionDef | ast.AsyncFunctionDef
Annotated = ast.arg | ast.AnnAssign | ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, *COMPREHENSIONS)


@dataclass(frozen=True)
class Reference:
    """A dotted name `nodes` = (a, a.b, a.b.c), and the annotation and the f-string that it stands in."""

    chain: tuple[str, ...]
    nodes: tuple[ast.expr, ...]
    annotated: Annotated | None = None
    annotation: ast.expr | None = None
    joined: ast.JoinedStr | None = None


@dataclass(frozen=True)
class Found:
    """What a piece of source refers to."""

    references: tuple[Reference, ...]
    own: frozenset[str]
    """The attributes of `self` that are read."""
    attributes: frozenset[str]
    """All other attributes, `x` of `anything.x`, and all texts, which `getattr` may get."""
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    dynamic: bool
    """Whether attributes are read by names that are made up while running."""


def find_references(nodes: Iterable[ast.AST], members: Iterable[str] = ()) -> Found:
    """What the nodes refer to: functions, or parts of the body of a class that has these members."""
    visitor = _Visitor()
    with visitor.scope({*members}, is_class=True):
        for node in nodes:
            visitor.visit(node)
    own, attributes = frozenset(visitor.own), frozenset(visitor.attributes)
    return Found(tuple(visitor.references), own, attributes, tuple(visitor.imports), visitor.dynamic)


class _Visitor(ast.NodeVisitor):
    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.own: set[str] = set()
        self.attributes: set[str] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.dynamic = False
        self._scopes: list[tuple[set[str], bool]] = []
        self._annotated: tuple[Annotated | None, ast.expr | None] = (None, None)
        self._joined: ast.JoinedStr | None = None

    def visit_Name(self, node: ast.Name) -> None:
        self._refer((node.id,), (node,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain: list[str] = []
        nodes: list[ast.expr] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            of_self = isinstance(inner.value, ast.Name) and inner.value.id == "self"
            (self.own if of_self else self.attributes).add(inner.attr)
            chain.insert(0, inner.attr)
            nodes.insert(0, inner)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._refer((inner.id, *chain), (inner, *nodes))
        else:
            self.visit(inner)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.attributes.add(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(func=ast.Name("getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(), *_]):
                pass
            case ast.Call(func=ast.Name("getattr" | "hasattr" | "setattr" | "vars")):
                self.dynamic = True
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        outer, self._joined = self._joined, self._joined or node
        self.generic_visit(node)
        self._joined = outer

    def visit_Import(self, node: ast.Import) -> None:
        self.imports.append(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports.append(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defaults(node.args)
        with self.scope(_parameters(node.args)):
            self.visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        with self.scope(_bound(node.body), is_class=True):
            for statement in node.body:
                self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node, node.annotation)
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, COMPREHENSIONS):
            targets = {name for part in node.generators for name in _stored(part.target)}
            with self.scope(targets):
                super().generic_visit(node)
        else:
            super().generic_visit(node)

    def _function(self, node: Function) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._defaults(node.args)
        for parameter in _all_parameters(node.args):
            self._annotation(parameter, parameter.annotation)
        self._annotation(node, node.returns)
        with self.scope(_parameters(node.args) | _bound(node.body)):
            for statement in node.body:
                self.visit(statement)

    def _defaults(self, parameters: ast.arguments) -> None:
        for default in (*parameters.defaults, *parameters.kw_defaults):
            if default is not None:
                self.visit(default)

    def _annotation(self, annotated: Annotated, annotation: ast.expr | None) -> None:
        if annotation is not None:
            outer, self._annotated = self._annotated, (annotated, annotation)
            self.visit(annotation)
            self._annotated = outer

    @contextmanager
    def scope(self, names: set[str], is_class: bool = False) -> Iterator[None]:
        """In this context, code sees these names of its own; those of a class are not seen from within its methods."""
        self._scopes.append((names, is_class))
        yield
        self._scopes.pop()

    def _refer(self, chain: tuple[str, ...], nodes: tuple[ast.expr, ...]) -> None:
        inner = len(self._scopes) - 1
        if not any(chain[0] in names for i, (names, is_class) in enumerate(self._scopes) if i == inner or not is_class):
            self.references.append(Reference(chain, nodes, *self._annotated, self._joined))
        elif inner == 0:  # a member of the class, used by another
            self.own.add(chain[0])


def _all_parameters(parameters: ast.arguments) -> list[ast.arg]:
    found = [*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs]
    return [*found, *(each for each in (parameters.vararg, parameters.kwarg) if each is not None)]


def _parameters(parameters: ast.arguments) -> set[str]:
    return {parameter.arg for parameter in _all_parameters(parameters)}


def _stored(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _bound(body: Iterable[ast.AST]) -> set[str]:
    """The names that a body binds in its own scope."""
    bound: set[str] = set()
    outside: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.MatchMapping(rest=str(name)):
                bound.add(name)
            case ast.Global(names=names):
                outside |= set(names)
        if not isinstance(node, SCOPES):
            pending += ast.iter_child_nodes(node)
        elif isinstance(node, COMPREHENSIONS):  # an assignment expression in one binds outside of it
            pending += [n for n in ast.walk(node) if isinstance(n, ast.NamedExpr)]
    return bound - outside
