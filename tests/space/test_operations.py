"""Candidate operations: registered factories and named sets of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.registry import kind
from nas.space.operations import OperationSet, factory, operation, registered_operations, sets


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test registers into dictionaries of its own."""
    registered_operations()  # the package's own register once: before the dictionaries are exchanged
    for each in ("operation", "operation set"):
        monkeypatch.setattr(kind(each), "_registered", {})
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    operation("conv")(conv)
    operation("pool")(pool)
    operation("anything")(anything)


def conv(channels: int, *, kernel: int = 3, dilation: int = 1) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel, dilation=dilation)


def pool(channels: int, kernel: int = 3) -> nn.Module:
    return nn.MaxPool2d(kernel)


def anything(channels: int, **arguments: Any) -> nn.Module:
    return nn.Identity()


def test_factories_are_found_by_name() -> None:
    assert factory("conv") is conv
    assert list(registered_operations()) == ["anything", "conv", "pool"]
    with pytest.raises(UnknownNameError, match=r"unknown operation 'con' \(did you mean 'conv'\?\).*--import MODULE"):
        factory("con")


def test_a_name_is_registered_once() -> None:
    operation("conv")(conv)  # such as a module imported again
    with pytest.raises(ConfigError, match=r"'conv' is registered twice: by .*:conv and by .*:pool"):
        operation("conv")(pool)
    assert factory("conv") is conv
    with pytest.raises(ConfigError, match="registered twice"):
        operation("conv")(partial(conv, kernel=5))


def test_a_set_is_an_ordered_mapping() -> None:
    chosen = OperationSet({"b": conv, "a": pool})
    assert list(chosen) == ["b", "a"]
    assert len(chosen) == 2
    assert chosen["a"] is pool
    assert "a" in chosen
    assert "c" not in chosen
    assert chosen.get("c") is None
    assert chosen == OperationSet({"b": conv, "a": pool})
    assert repr(chosen) == "OperationSet(b, a)"
    with pytest.raises(UnknownNameError, match="unknown candidate operation 'c'"):
        chosen["c"]


def test_add_names_the_candidate_after_its_function() -> None:
    chosen = OperationSet()
    assert chosen.add(conv) is conv
    assert dict(chosen) == {"conv": conv}
    with pytest.raises(ConfigError, match=r"got 'conv' again \(conv\)"):
        chosen.add(conv)


def test_a_set_does_not_share_its_mapping() -> None:
    given = {"a": conv}
    chosen = OperationSet(given)
    given["b"] = pool
    chosen.add(anything)
    assert list(chosen) == ["a", "anything"]
    assert list(given) == ["a", "b"]


def test_bind_gives_functions_without_arguments() -> None:
    bound = OperationSet({"five": partial(conv, kernel=5), "one": conv}).bind(4, dilation=2)
    five, one = bound["five"](), bound["one"]()
    assert isinstance(five, nn.Conv2d)
    assert isinstance(one, nn.Conv2d)
    assert (five.in_channels, five.kernel_size, five.dilation) == (4, (5, 5), (2, 2))
    assert one.kernel_size == (3, 3)
    assert bound["one"]() is not one


def test_bind_refuses_what_a_candidate_does_not_take() -> None:
    message = r"candidate operation 'one' must take .* \(4, stride=2, affine=False\): .*'affine'"
    with pytest.raises(ConfigError, match=message):
        OperationSet({"one": lambda channels, *, stride: nn.Identity()}).bind(4, stride=2, affine=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OperationSet([conv]), "set of candidate operations must .*, got list"),
        (lambda: OperationSet(conv), "set of candidate operations must .*, got function"),
        (lambda: OperationSet({"x": nn.ReLU()}), "candidate operation 'x' must be a function .*, got ReLU"),
        (lambda: OperationSet({"x": "conv"}), "candidate operation 'x' must be a function .*, got str"),
        (lambda: OperationSet() | {"x": None}, "candidate operation 'x' must be a function .*, got NoneType"),
        (lambda: OperationSet() | [conv], "set of candidate operations must .*, got list"),
        (lambda: OperationSet().add(nn.ReLU()), "candidate operation 'ReLU' must be a function .*, got ReLU"),
        (lambda: operation("x")(nn.ReLU()), "operation 'x' must be a function .*, got ReLU"),
        (lambda: operation(conv), r"@operation must be given a name; write @operation\('name'\)"),
        (lambda: OperationSet({"x": partial(conv, 1, 2)}).bind(4), "'x' must take .*partial.*`nas show SPACE`"),
        (lambda: OperationSet({"x": conv}).only(["x"]), r"unknown candidate operation '\['x'\]'"),
    ],
)
def test_what_is_no_set_and_no_operation(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_mapping_of_functions_is_a_set() -> None:
    assert dict(OperationSet.of({"a": conv, "b": pool})) == {"a": conv, "b": pool}


def test_sets_are_changed_by_name() -> None:
    chosen = OperationSet({"a": conv, "b": pool, "c": anything})
    assert list(chosen.only("c", "a")) == ["c", "a"]
    assert list(chosen.without("b")) == ["a", "c"]
    assert dict(chosen | {"a": pool, "d": conv}) == {"a": pool, "b": pool, "c": anything, "d": conv}
    assert list(chosen) == ["a", "b", "c"]
    for change in (chosen.only, chosen.without):
        with pytest.raises(UnknownNameError):
            change("x")


def test_a_set_is_registered_once() -> None:
    chosen = OperationSet({"a": conv}).register("mine")
    assert OperationSet.of("mine") is chosen
    again = OperationSet({"a": conv}).register("mine")
    assert OperationSet.of("mine") is again
    assert sets() == {"mine": again}
    with pytest.raises(ConfigError, match=f"'mine' .* {__name__}:mine and by another:mine"):
        kind("operation set").add("mine", chosen, "another:mine")
    assert OperationSet.of("mine") is again


def test_of_takes_sets_names_mappings_and_files(tmp_path: Path) -> None:
    chosen = OperationSet({"a": conv})
    assert OperationSet.of(chosen) is chosen
    made = OperationSet.of({"a": {"factory": "conv"}, "b": {"factory": "conv", "kernel": 5}})
    assert made["a"] is conv
    assert made.bind(2)["b"]().kernel_size == (5, 5)
    path = tmp_path / "set.yaml"
    path.write_text("operations:\n  b: {factory: conv, kernel: 5}\n  a: {factory: pool}\n", encoding="utf-8")
    loaded = OperationSet.of(str(path))
    assert list(loaded) == ["b", "a"]
    assert loaded.bind(2)["b"]().kernel_size == (5, 5)
    with pytest.raises(UnknownNameError, match=r"unknown operation set 'set'.*operation set"):
        OperationSet.of("set")
    for other in (5, None, ["a"]):
        with pytest.raises(UnknownNameError):
            OperationSet.of(other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "set.yaml: Expected 'mapping', got 'null'"),
        ("operations: {a: conv}", "set.yaml: operations[...]: Expected 'mapping', got 'str'"),
        ("operations: {}", "set.yaml: 'operations' must have at least one candidate, got none"),
        ("operation: {}", "set.yaml: unknown field 'operation' (did you mean 'operations'?)"),
        ("operations: {a: {kernel: 3}}", "set.yaml: operations.a: missing the field 'factory'"),
        (
            "operations: {a: {factory: con}}",
            "set.yaml: operations.a: unknown operation 'con' (did you mean 'conv'?); known: anything, conv, pool",
        ),
        ("operations: {a: {factory: [1]}}", "set.yaml: operations.a: unknown operation '[1]'"),
        (
            "operations: {a: {factory: conv, kernal: 3}}",
            "set.yaml: operations.a.kernal is not an argument of operation 'conv' (did you mean 'kernel'?)",
        ),
        (
            "operations: {a: {factory: conv, channels: 3}}",  # given by the search space
            "set.yaml: operations.a.channels is not an argument of operation 'conv'",
        ),
        (
            "operations: {a: {factory: conv, kernel: wide}}",
            "set.yaml: operations.a.kernel must be an integer, got 'wide'",
        ),
        ("operations: {a: {factory: conv, 1: 3}}", "set.yaml: operations[...]: Expected 'str', got 'int' as a key"),
        ("operations: {a: {factory: conv}, a: {factory: pool}}", "set.yaml:1: not valid YAML: key 'a' is given twice"),
        ("operations: {a: !!python/name:os.system {}}", "set.yaml:1: not valid YAML"),
    ],
)
def test_files_that_are_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("set.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidFileError) as error:
        OperationSet.load("set.yaml")
    assert str(error.value).startswith(message)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidFileError, match=r"none\.yml: cannot be read"):
        OperationSet.of("none.yml")


def test_a_mapping_that_is_no_set() -> None:
    with pytest.raises(InvalidFileError, match=r"operation set: operations\.a: missing the field 'factory'"):
        OperationSet.of({"a": {}})


def test_any_argument_goes_where_the_factory_takes_any() -> None:
    made = OperationSet.of({"a": {"factory": "anything", "strength": 3}, "b": {"factory": "pool", "kernel": 2}})
    assert isinstance(made.bind(2)["a"](), nn.Identity)
    assert made.bind(2)["b"]().kernel_size == 2


@pytest.mark.parametrize(
    "candidates",
    [
        {"a": conv},
        {"a": partial(conv, kernel=5, dilation=2), "b": pool, "c": conv},
        {"a": partial(partial(conv, kernel=5), dilation=2)},
    ],
)
def test_plain_is_the_inverse_of_of(candidates: dict[str, Any]) -> None:
    plain = OperationSet(candidates).plain()
    again = OperationSet.of(plain)
    assert again.plain() == plain
    assert list(again) == list(candidates)
    for mine, theirs in zip(OperationSet(candidates).bind(3).values(), again.bind(3).values(), strict=True):
        assert repr(mine()) == repr(theirs())


def test_plain_is_the_name_of_a_registered_set() -> None:
    chosen = OperationSet({"a": lambda channels: nn.Identity()}).register("mine")
    assert chosen.plain() == "mine"
    assert OperationSet.of("mine") is chosen


def test_plain_finds_factories_registered_with_arguments() -> None:
    wide = operation("wide")(partial(conv, kernel=7))
    assert OperationSet({"a": wide}).plain() == {"a": {"factory": "wide"}}


@pytest.mark.parametrize("make", [lambda channels: nn.Identity(), partial(conv, 4)])
def test_plain_refuses_what_a_file_cannot_say(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"'a' must be registered"):
        OperationSet({"a": make}).plain()
