"""The text of what is carried: as it was written, but for names that must differ in a file of its own."""

from __future__ import annotations

import ast
import builtins
import copy
import keyword
import re
import textwrap
from collections.abc import Iterable, Iterator

import nas.errors
from nas.errors import NASError
from nas.export.source.carrier import Carrier, Item, is_layer
from nas.export.source.origin import ERROR, Defined, Imported, Literal, Origin
from nas.export.source.references import Reference

_KINDS = [name for name, value in vars(nas.errors).items() if isinstance(value, type) and issubclass(value, NASError)]
ERRORS = re.compile(rf"\b({'|'.join(_KINDS)})\b")
"""The names of the toolkit's errors, in docstrings too."""

_DIRECTIVES = re.compile(r"(?m) *# *(type: ignore|noqa|fmt:|pragma:).*$")
"""Comments that speak to the tools of the project that the code comes from."""

Edit = tuple[int, int, str]


class Names:
    """Gives everything at the top level of the file a name of its own, the one it had where that is free."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*taken, *dir(builtins), *keyword.kwlist}
        self._given: dict[Defined | Imported, str] = {}
        self._submodules: set[str] = set()

    def give(self, key: Defined | Imported, wanted: str, avoid: Iterable[str] = ()) -> str:
        """The name of `key`: as given before, else `wanted`, with a number where that is taken."""
        if isinstance(key, Imported) and key.submodule:
            self._submodules.add(key.submodule)
        if key not in self._given:
            self._given[key] = self.new(wanted, avoid)
        return self._given[key]

    def reserve(self, key: Imported, name: str) -> None:
        """Import `key` as `name` in any case."""
        self._given[key] = name

    def new(self, wanted: str, avoid: Iterable[str] = ()) -> str:
        """A name that nothing else has."""
        name, number = wanted, 1
        while name in self._taken or name in avoid:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name

    def imports(self) -> list[str]:
        """The import statements, sorted: the standard library's, an empty line, torch's."""
        plain = {f"import {name}" for name in self._submodules}
        grouped: dict[str, list[str]] = {}
        for key, name in self._given.items():
            if not isinstance(key, Imported):
                continue
            base, _, last = (key.module, "", key.attribute) if key.attribute else key.module.rpartition(".")
            if not base:
                plain.add(f"import {last}" if name == last else f"import {last} as {name}")
            elif key.attribute or name == last:
                grouped.setdefault(base, []).append(last if name == last else f"{last} as {name}")
            else:
                plain.add(f"import {key.module} as {name}")
        lines = [
            *sorted(plain),
            *(f"from {base} import {', '.join(sorted(grouped[base]))}" for base in sorted(grouped)),
        ]
        ours = [line for line in lines if re.split(r"[ .]", line)[1] == "torch"]
        return [*(line for line in lines if line not in ours), "", *ours]


def name_all(carrier: Carrier, names: Names) -> None:
    """Name all that is carried or imported."""
    local = {name for item in carrier.items.values() for part in item.parts for name in _stored(part)}
    found = [(*carrier.origin(item, r), r) for item in carrier.items.values() for r in _wanted(carrier, item)]
    # What is called otherwise somewhere gets a name that no function uses for something of its own.
    aliased = {origin for origin, used, r in found if isinstance(origin, Defined) and r.chain[:used] != (origin.name,)}
    for key in carrier.items:
        names.give(key, key.name.rpartition(".")[2], local if key in aliased else ())
    for origin, used, reference in found:
        if isinstance(origin, Imported):
            names.give(origin, reference.chain[used - 1], local if used > 1 else ())


def render_definition(carrier: Carrier, item: Item, names: Names, constructor: str = "") -> str:
    """The source of one definition; `constructor` is the `__init__` of a class of modules."""
    if is_layer(item.value) and isinstance(item.node, ast.ClassDef):
        return _layer(carrier, item, item.node, names, constructor)
    return _definition(carrier, item, names)


def _layer(carrier: Carrier, item: Item, node: ast.ClassDef, names: Names, constructor: str) -> str:
    bases = [_expression(carrier, item, base, names) for base in item.bases]
    bases = bases or [f"{names.give(Imported('torch.nn'), 'nn')}.Module"]
    blocks = []
    if ast.get_docstring(node) is not None:
        blocks.append(ERRORS.sub(ERROR.text, _segment(item, node.body[0], [], 4)))
    methods = [part for part in item.parts if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))]
    values = [part for part in item.parts if part not in methods]
    blocks += [_segment(item, part, list(_edits(carrier, item, part, names)), 4) for part in values]
    blocks += [textwrap.indent(constructor, "    ")] if constructor else []
    blocks += [_segment(item, part, list(_edits(carrier, item, part, names)), 4) for part in methods]
    body = "\n\n".join(blocks) or "    pass"
    return f"class {names.give(item.key, item.key.name)}({', '.join(bases)}):\n{body}"


def _definition(carrier: Carrier, item: Item, names: Names) -> str:
    text = _segment(item, item.node, list(_edits(carrier, item, item.node, names)), 0)
    before, name = item.key.name.rpartition(".")[2], names.give(item.key, item.key.name)
    return re.sub(rf"(?m)^((?:class|def|async def) ){before}\b", rf"\1{name}", text, count=1)


def _segment(item: Item, node: ast.stmt, edits: list[Edit], column: int) -> str:
    """The lines of a statement and the text right below that documents a value, edited, and moved to a column."""
    start, (_, end) = item.source.start(node), item.source.span(node)
    text, position = "", start
    for left, right, new in sorted(edits):
        if left >= position:
            text += item.source.text[position:left] + new
            position = right
    text += item.source.text[position:end]
    text = _DIRECTIVES.sub("", text + item.source.comment(end)) + item.source.documentation(node)
    beyond = node.col_offset - column
    return re.sub(rf"(?m)^ {{1,{beyond}}}", "", text) if beyond > 0 else text


def _expression(carrier: Carrier, item: Item, node: ast.expr, names: Names) -> str:
    start, end = item.source.span(node)
    text, position = "", start
    for left, right, new in sorted(_edits(carrier, item, node, names)):
        text += item.source.text[position:left] + new
        position = right
    return text + item.source.text[position:end]


def _edits(carrier: Carrier, item: Item, within: ast.AST, names: Names) -> Iterator[Edit]:
    source = item.source
    inside = {id(node) for node in ast.walk(within)}
    replaced: dict[ast.JoinedStr, dict[int, ast.AST]] = {}
    kept = {id(reference) for reference in _wanted(carrier, item)}
    for reference in item.found.references:
        if id(reference.nodes[0]) not in inside:
            continue
        if id(reference) not in kept:
            if reference.annotation is not None:
                yield _without_annotation(item, reference)
            continue
        origin, used = carrier.origin(item, reference)
        name = _name(origin, names) or reference.chain[0]
        if name == ".".join(reference.chain[:used]):
            continue
        if reference.joined is None:
            yield *source.span(reference.nodes[used - 1]), name
        else:  # positions inside of f-strings are not to be trusted before Python 3.12
            replaced.setdefault(reference.joined, {})[id(reference.nodes[used - 1])] = ast.Name(name)
    for joined, changes in replaced.items():
        yield *source.span(joined), ast.unparse(copy.deepcopy(joined, dict(changes)))
    for decorator in item.decorators:
        if id(decorator) in inside:
            left, right = source.span(decorator)
            yield source.line(left), source.text.index("\n", right) + 1, ""
    for node in ast.walk(within):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            left, right = source.span(node.body[0])
            yield left, right, ERRORS.sub(ERROR.text, source.text[left:right])


def _name(origin: Origin, names: Names) -> str:
    if isinstance(origin, (Defined, Imported)):
        return names.give(origin, (getattr(origin, "name", "") or "").rpartition(".")[2])
    return origin.text if isinstance(origin, Literal) else ""


def _wanted(carrier: Carrier, item: Item) -> list[Reference]:
    """The references of an item that stay: all but annotations by what is not carried, and what decorates in vain."""
    lost = {id(node) for decorator in item.decorators for node in ast.walk(decorator)}
    lost |= {
        id(r.annotation) for r in item.found.references if r.annotation is not None and not _stays(carrier, item, r)
    }
    return [r for r in item.found.references if id(r.annotation) not in lost and id(r.nodes[0]) not in lost]


def _stays(carrier: Carrier, item: Item, reference: Reference) -> bool:
    origin, _ = carrier.origin(item, reference)
    return origin in carrier.items if isinstance(origin, Defined) else isinstance(origin, (Imported, Literal))


def _without_annotation(item: Item, reference: Reference) -> Edit:
    """The edit that takes an annotation away; a bare one, such as a field, becomes `object`."""
    assert reference.annotation is not None
    left, right = item.source.span(reference.annotation)
    match reference.annotated:
        case ast.arg() as parameter:
            return item.source.span(parameter)[0] + len(parameter.arg), right, ""
        case ast.AnnAssign(target=target, value=value) if value is not None:
            return item.source.span(target)[1], right, ""
        case ast.AnnAssign():
            return left, right, "object"
    arrow = item.source.text.rindex("->", 0, left)
    return len(item.source.text[:arrow].rstrip()), right, ""


def _stored(node: ast.AST) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
