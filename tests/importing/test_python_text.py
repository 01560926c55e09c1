"""Literals in Python source: found without evaluating anything, refused with their line."""

from __future__ import annotations

import time

import pytest

from nas.errors import ConfigError
from nas.importing.python_text import find_call, items, token

FIELDS = ("first", "second")


def values(source: str, field: str = "first", name: str | None = None) -> list[object]:
    return [token(item).value for item in find_call(source, "Made", FIELDS, name).items(field)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Made(first=[1, 'a'], second=[])", [1, "a"]),
        ("Made((1, 2), [])", [1, 2]),
        ("x = other.Made([], first=range(2, 5))", None),  # `second` is positional first
        ("x = Made(first=range(2, 5), second=range(2))", [2, 3, 4]),
        ("def main():\n  if True:\n    x = Made(first=[3], second=[])", [3]),
        ("x = Made(first=list(range(2, 4)), second=tuple([]), third=None)", [2, 3]),
        ("{'first': [5], 'second': []}", [5]),
        ('{"other": 1}\nx = {"first": [6], "second": [], "third": null}', [6]),
        ("12:00 (a] x = Made(first=[7], second=[]) don't [", [7]),
        ("12:00\nit's: {'first': [8], 'second': []}, {", [8]),
        ("Made = namedtuple('Made', 'first second')\nx = Made(first=[4], second=[])\ny = x", [4]),
    ],
)
def test_calls_are_found(source: str, expected: list[object] | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="'first' must be given once"):
            values(source)
    else:
        assert values(source) == expected


def test_one_is_picked_by_name_and_the_later_counts() -> None:
    source = "b = Made([2], [])\na = Made([1], [])\nb = Made([3], [])\nc = a"
    assert [values(source, name=name) for name in "abc"] == [[1], [3], [1]]
    with pytest.raises(ConfigError, match=r"got b, a, c[.]"):
        values(source)
    with pytest.raises(ConfigError, match="'d', got b, a, c"):
        values(source, name="d")


def test_of_two_without_a_name_none_is_taken() -> None:
    for source in ("Made([1], [])\nMade([2], [])", "log: Made([1], [])\nlog! Made([2], [])"):
        with pytest.raises(ConfigError, match=r"got unnamed ones in line 1 and 2[.]"):
            values(source.replace("log: ", "").replace("log! ", "; "))
    assert values("Made([1], [])\nx = Made([2], [])", name="x") == [2]


def test_lines_count_from_the_start_of_a_log() -> None:
    with pytest.raises(ConfigError, match=r"line 3: .*got no 'second'"):
        values("1: {\n2: (\n3: Made(first=[])")


@pytest.mark.parametrize("source", ["(" * 100_000, "Made(" * 20_000, "[Made([], [])] {" * 5_000, "x" * 1_000_000 + "("])
def test_long_texts_end_soon(source: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError):
        values(source)
    assert time.process_time() - started < 5


def test_nothing_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"line 2: .*got 'print\(1\)'"):
        values("print(0)\nx = Made([print(1)], [])")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = (", r"line 1: .*got '\(' was never closed"),
        ("x = 1", r"Made\(\.\.\.\), got none"),
        ("\nMade([1])", "line 2: .*first, second, got no 'second'"),
        ("Made([1], [2], [3])", "line 1: .*first, second, got 3"),
        ("Made(frist=[1], second=[])", r"line 1: .*got 'frist' .*'first'"),
        ("Made(**x)", r"line 1: .*got '\*\*x'"),
        ("Made(first=1, second=[])", "line 1: 'first' must be a list, got 1"),
        ("Made(first=range(10**9), second=[])", r"line 1: .*number.*got '10 \*\* 9'"),
        ("Made(first=range(1000000), second=[])", "line 1: .*from 0 to 999, got 1000000"),
    ],
)
def test_errors_name_the_line(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        values(source)


def test_items_of_a_length() -> None:
    (pair,) = find_call("Made([(1, 2, 3)], [])", "Made", FIELDS).items("first")
    assert len(items(pair, "first", 3)) == 3
    with pytest.raises(ConfigError, match=r"line 1: 'first' .*2 items, got \(1, 2, 3\)"):
        items(pair, "first", 2)


def test_tokens_say_what_they_must_be() -> None:
    (number, text) = map(token, find_call("Made([7,\n'skp'], [])", "Made", FIELDS).items("first"))
    assert number.below(8) == 7
    assert text.one_of(["skp"]) == "skp"
    with pytest.raises(ConfigError, match=r"line 1: .*from 0 to 6, got 7"):
        number.below(7)
    with pytest.raises(ConfigError, match=r"line 2: .*skip, conv, got 'skp' .*'skip'"):
        text.one_of(["skip", "conv"])
    with pytest.raises(ConfigError, match=r"line 1: .*skip, got 7"):
        number.one_of(["skip"])
    with pytest.raises(ConfigError, match=r"line 2: .*from 0 to 2, got 'skp'"):
        text.below(3)
