"""Which names a piece of source takes from its module: Python's rules of scope."""

from __future__ import annotations

import ast
import symtable

import pytest

from nas.export.source.references import find_references


def found(code: str) -> set[str]:
    return {".".join(reference.chain) for reference in find_references(ast.parse(code).body).references}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(x, *y, z=d, **w): return x + y + z + w + g", {"d", "g"}),
        ("def f():\n    a = b\n    return a", {"b"}),
        ("def f():\n    global a\n    a = b", {"a", "b"}),
        ("def f():\n    def a(): return b\n    return a()", {"b"}),
        ("def f():\n    for i, (j, k) in m: print(i, j, k)\n    with n as o: o()", {"m", "print", "n"}),
        ("def f():\n    try: g()\n    except E as e: h(e)", {"g", "E", "h"}),
        ("def f(): return [x + y for x in z if (w := x)] + [w]", {"y", "z"}),
        ("def f(): return lambda a, b=c: a + b + d", {"c", "d"}),
        ("def f():\n    import a.b as c, d.e\n    from g import h\n    return c, d, h", set()),
        ("def f(x):\n    match x:\n        case {'a': q, **r}: return q, r\n        case C([*s]): return s", {"C"}),
        ("class A(B, metaclass=M):\n    x = y\n    z = x\n    def f(self): return x", {"B", "M", "y", "x"}),
        ("@d\ndef f(): pass", {"d"}),
        ("def f(a: T) -> U:\n    b: V = a", {"T", "U", "V"}),
        ("def f(): return a.b.c(a.b)[d.e], g().h.i", {"a.b.c", "a.b", "d.e", "g"}),
        ("def f(x): return f'{x}{y:{z}}'", {"y", "z"}),
        ("def f(x): x.a.b = y; del x[z]", {"y", "z"}),
    ],
)
def test_names_from_outside(code: str, names: set[str]) -> None:
    assert found(code) == names


@pytest.mark.parametrize("module", ["ast", "textwrap", "functools", "statistics", "dataclasses", "inspect"])
def test_functions_of_the_standard_library_as_python_sees_them(module: str) -> None:
    import importlib
    import inspect

    text = inspect.getsource(importlib.import_module(module))
    tables = {(t.get_name(), t.get_lineno()): t for t in symtable.symtable(text, module, "exec").get_children()}
    checked = 0
    for node in ast.parse(text).body:
        table = isinstance(node, ast.FunctionDef) and not node.decorator_list and tables.get((node.name, node.lineno))
        if not table:
            continue
        assert isinstance(node, ast.FunctionDef)
        mine = {reference.chain[0] for reference in find_references(node.body).references if not reference.annotation}
        inner, expected = [table], set()
        while inner:
            each = inner.pop()
            expected |= {s.get_name() for s in each.get_symbols() if s.is_global() and s.is_referenced()}
            inner += each.get_children()
        parameters = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        own = {s.get_name() for s in table.get_symbols() if s.is_local()}
        assert expected - parameters <= mine | own, node.name
        checked += 1
    assert checked > 3


def test_members_of_a_class_are_its_own_outside_of_methods() -> None:
    body = ast.parse("a = 1\nb = a\ndef f(self): return a").body
    result = find_references(body, ["a", "b"])
    assert len(result.references) == 1
    assert "a" in result.own


def test_what_is_read_of_self_and_of_others() -> None:
    code = "def f(self, x): return self.a.b + x.c + getattr(x, 'd') + self.e()"
    result = find_references(ast.parse(code).body)
    assert (result.own, result.attributes, result.dynamic) == ({"a", "e"}, {"b", "c", "d"}, False)
    assert find_references(ast.parse("getattr(x, y)").body).dynamic
    assert find_references(ast.parse("vars(x)").body).dynamic


def test_annotations_and_f_strings_are_known_as_such() -> None:
    code = "def f(a: T) -> U: return f'{b}' + c"
    known = {
        r.chain[0]: (r.annotation is not None, r.joined is not None)
        for r in find_references(ast.parse(code).body).references
    }
    assert known == {"T": (True, False), "U": (True, False), "b": (False, True), "c": (False, False)}
