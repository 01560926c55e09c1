"""Search spaces: registration, discovery and options."""

from __future__ import annotations

import copy
import gc
import sys
import types
from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from nas.compare.problems import lint
from nas.cost.network_cost import measure
from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError
from nas.genotype.file import Genotype
from nas.graph.network_graph import build_graph
from nas.registry import kind
from nas.space import chooser
from nas.space.chooser import Chooser, Derived, Relaxed
from nas.space.definition import Description, SearchSpace, find_space, search_space, spaces
from nas.space.operations import OperationSet, operation


@operation("test_space_conv")
def conv(channels: int, *, kernel: int = 3) -> nn.Module:
    return nn.Conv2d(channels, channels, kernel)


OPERATIONS = OperationSet({"conv": conv, "skip": lambda channels: nn.Identity()}).register("test_space")


def function(
    choose: Chooser,
    /,
    *,
    channels: int = 8,
    rate: float = 0.5,
    mode: Literal["a", "b"] = "a",
    sizes: tuple[int, ...] = (4, 8),
    name: str | None = None,
    operations: OperationSet = OPERATIONS,
) -> nn.Module:
    """What it says."""
    return choose("op", operations.bind(channels))


SPACE = SearchSpace("space", function)
DEFAULTS = {"channels": 8, "rate": 0.5, "mode": "a", "sizes": [4, 8], "name": None, "operations": "test_space"}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, SearchSpace]:
    """Each test registers into a dictionary of its own, and no plugin is installed."""
    mine: dict[str, SearchSpace] = {}
    monkeypatch.setattr(kind("search space"), "_registered", mine)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    return mine


def other(choose: Chooser, /) -> nn.Module:
    return choose("op", {"x": nn.Identity, "y": nn.Tanh})


# Options


def test_options_in_plain_data() -> None:
    assert SPACE.options() == DEFAULTS
    assert SPACE.options(channels=4, rate=1, mode="b", sizes=[2], name="n") == {
        **DEFAULTS, "channels": 4, "rate": 1.0, "mode": "b", "sizes": [2], "name": "n"
    }  # fmt: skip
    assert isinstance(SPACE.options(rate=1)["rate"], float)


def test_options_survive_a_file() -> None:
    given: dict[str, Any] = {
        "sizes": (1, 2),
        "name": "1e3",
        "operations": {"c": {"factory": "test_space_conv", "kernel": 1}},
    }
    options = SPACE.options(**given)
    assert SPACE.options(**options) == options
    genotype = Genotype(space="space", choices={"op": "c"}, options=options)
    loaded = Genotype.parse(genotype.dump())
    assert loaded == genotype
    assert SPACE.derived(loaded)(torch.ones(1, 8, 2, 2)).shape == (1, 8, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chanels": 4}, r"unknown option of space 'space' 'chanels' \(did you mean 'channels'\?\); known: channels"),
        ({"channels": "4"}, "option 'channels' of space 'space': Expected 'int', got 'str' \\('4'\\)"),
        ({"channels": 4.5}, "option 'channels' of space 'space': Expected 'int', got 'float' .4.5."),
        ({"channels": True}, "option 'channels' of space 'space': Expected 'int', got 'bool' .True."),
        ({"mode": "c"}, "option 'mode' of space 'space': Invalid enum value 'c' .'c'."),
        ({"sizes": [1, "x"]}, r"option 'sizes' of space 'space': Expected 'int', got 'str' - at '\$\[1\]' \("),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    for use in (SPACE.options, SPACE.describe):
        with pytest.raises(ConfigError, match=message):
            use(**options)
    with pytest.raises(ConfigError, match=message):
        SPACE.derived(Genotype(space="space", choices={"op": "conv"}, options=options))


def test_options_of_numpy_and_torch() -> None:
    given = SPACE.options(channels=np.int64(4), rate=np.float32(0.5), sizes=torch.tensor([1, 2]))
    assert {name: given[name] for name in ("channels", "rate", "sizes")} == {
        "channels": 4, "rate": 0.5, "sizes": [1, 2]
    }  # fmt: skip
    assert type(given["channels"]) is int


def test_options_that_files_cannot_hold() -> None:
    def normed(choose: Chooser, /, *, norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
        return norm(4)

    with pytest.raises(SpaceError, match=r"option 'norm' of space 's' must be plain data .*, got <class .*BatchNorm2d"):
        SearchSpace("s", normed).describe()


def test_operation_sets_that_do_not_fit() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown operation set 'test_spaec' \(did you mean 'test_space'\?\)"):
        SPACE.options(operations="test_spaec")
    with pytest.raises(InvalidFileError, match="missing the field 'factory'"):
        SPACE.options(operations={"x": {}})
    with pytest.raises(ConfigError, match="'x' must be registered"):
        SPACE.options(operations=OperationSet({"x": lambda channels: nn.Identity()}))


def test_options_reach_the_function() -> None:
    network = SPACE(Relaxed(lambda label: torch.ones(2) / 2), channels=3)
    assert network.get_submodule("conv").in_channels == 3
    wide = {"wide": {"factory": "test_space_conv", "kernel": 7}}
    assert SPACE.describe(operations=wide).decisions["op"].candidates == ("wide",)


def needs_channels(choose: Chooser, /, *, channels: int) -> nn.Module:
    return nn.Identity()


def takes_positions(choose: Chooser, channels: int = 3) -> nn.Module:
    return nn.Identity()


def takes_anything(choose: Chooser, /, **options: int) -> nn.Module:
    return nn.Identity()


@pytest.mark.parametrize(
    ("function", "name"), [(needs_channels, "channels"), (takes_positions, "channels"), (takes_anything, "options")]
)
def test_options_are_keywords_with_defaults(function: Any, name: str) -> None:
    with pytest.raises(SpaceError, match=f"search space 's': '{name}' must be a keyword-only option with a default"):
        SearchSpace("s", function)


@pytest.mark.parametrize("name", ["seed", "relaxation"])
def test_options_are_none_of_the_supernets(name: str) -> None:
    def seeded(choose: Chooser, /, *, seed: int = 0) -> nn.Module:
        return nn.Identity()

    def relaxed(choose: Chooser, /, *, relaxation: str = "") -> nn.Module:
        return nn.Identity()

    with pytest.raises(SpaceError, match=rf"search space .*must not be an argument of supernets, got '{name}'"):
        SearchSpace("s", {"seed": seeded, "relaxation": relaxed}[name])


def test_annotations_are_known_when_the_program_runs() -> None:
    def hidden(choose: Nowhere, /) -> nn.Module:  # type: ignore[name-defined]  # noqa: F821 - as under TYPE_CHECKING
        return nn.Identity()

    with pytest.raises(SpaceError, match="search space 's': the annotation 'Nowhere' must"):
        SearchSpace("s", hidden)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchSpace("s", lambda: nn.Identity()), "'s': the function's first argument must be `choose`"),
        (lambda: SearchSpace("s", only_keywords), "'s': the function's first argument must be `choose`"),
        (lambda: SearchSpace("s", nn.Identity()), "must have a name and a function of `choose`, got str and Identity"),
        (lambda: SearchSpace(other, "s"), "must have a name and a function of `choose`, got function and str"),
        (lambda: search_space(other), r"must be given a name; write @search_space\('name'\)"),
        (lambda: SPACE.derived({"op": "conv"}), "space 'space' must .*, got dict"),
        (lambda: SPACE.derived(None), "space 'space' must .*, got NoneType"),
    ],
)
def test_what_is_no_space_and_no_genotype(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def only_keywords(*, choose: Chooser) -> nn.Module:
    return nn.Identity()


# What is built

READS: dict[str, Callable[[], object]] = {
    "item": lambda: [rate.item() for rate in torch.linspace(0, 0.1, 3)],
    "bool": lambda: 1 if torch.rand(1) > 2 else 0,
    "float": lambda: float(torch.linspace(0, 0.1, 3)[0]),
    "tolist": lambda: torch.linspace(0, 0.1, 3).tolist(),
    "numpy": lambda: torch.linspace(0, 0.1, 3).numpy(),
}


@pytest.mark.parametrize("read", READS)
def test_a_space_that_reads_values_where_there_are_none(read: str) -> None:
    def reading(choose: Chooser, /) -> nn.Module:
        READS[read]()
        return choose("o", {"x": nn.Identity})

    space = SearchSpace("reading", reading)
    genotype = Genotype(space="reading", choices={"o": "x"})
    message = "^search space 'reading' must .* meta device.*device='cpu'$"
    description = Description(space, {}, {}, nn.Identity())
    for use in (space.describe, lambda: measure(genotype), lambda: build_graph(description, genotype)):
        with pytest.raises(SpaceError, match=message) as error:
            use()
        assert "\n" not in str(error.value)
    assert "'reading'" in lint(genotype.dump())[0]
    space.derived(genotype)  # not on the meta device


def test_other_errors_stay_as_they_are() -> None:
    def broken(choose: Chooser, /) -> nn.Module:
        raise RuntimeError("metadata of its own")

    with pytest.raises(RuntimeError, match="metadata of its own"):
        SearchSpace("broken", broken).describe()


def test_describe_lists_every_decision_without_memory() -> None:
    description = SPACE.describe(channels=100_000)
    assert description.space is SPACE
    assert description.options == {**DEFAULTS, "channels": 100_000}
    assert description.decisions["op"].candidates == ("conv", "skip")
    assert all(parameter.is_meta for parameter in description.network.parameters())


def test_derived_checks_the_genotype() -> None:
    with pytest.raises(SpaceError, match="genotype must be of space 'space', got 'another'"):
        SPACE.derived(Genotype(space="another", choices={"op": "conv"}))


def test_a_space_shows_itself_and_stays_itself() -> None:
    assert repr(SPACE) == "SearchSpace('space')"
    assert SPACE.__doc__ == "What it says."
    assert copy.deepcopy([SPACE])[0] is SPACE


# Registration and discovery


def test_a_registered_space_is_found() -> None:
    mine = search_space("mine")(function)
    assert find_space("mine") is mine
    assert spaces() == {"mine": f"{__name__}:function"}
    again = search_space("mine")(function)  # such as a module imported again
    assert find_space("mine") is again


def test_a_space_in_use_is_found_without_being_registered(registry: dict[str, SearchSpace]) -> None:
    def loose(choose: Chooser, /, *, channels: int = 3) -> nn.Module:
        return choose("o", {"x": lambda: nn.Conv2d(channels, channels, 1), "y": nn.Identity})

    space = SearchSpace("loose", loose)
    genotype = Genotype(space="loose", choices={"o": "x"}, options={"channels": 5})
    assert find_space("loose") is space
    assert measure(genotype) == 30
    assert lint(genotype.dump()) == []
    assert "loose" not in spaces()
    second = SearchSpace("loose", other)
    with pytest.raises(ConfigError, match=r"two search spaces are named 'loose': of .*loose and of .*:other; register"):
        find_space("loose")
    del second
    assert find_space("loose") is space
    del space
    gc.collect()
    with pytest.raises(UnknownNameError, match="unknown search space 'loose'"):
        measure(genotype)


def test_a_name_is_a_text() -> None:
    for name in (3, None):
        with pytest.raises(UnknownNameError, match=f"unknown search space '{name}'"):
            find_space(name)  # type: ignore[arg-type]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, registry: dict[str, SearchSpace]) -> types.ModuleType:
    """A module `plugin_of_test` with two spaces, `first` and `second`, that no entry point names yet."""
    found = types.ModuleType("plugin_of_test")
    found.first = search_space("first")(function)  # type: ignore[attr-defined]
    found.second = search_space("second")(other)  # type: ignore[attr-defined]
    found.number = 3  # type: ignore[attr-defined]
    registry.clear()
    monkeypatch.setitem(sys.modules, "plugin_of_test", found)
    return found


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    group = "nas.search_spaces"
    found = [metadata.EntryPoint(name.rstrip("_"), value, group) for name, value in points.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == "nas.search_spaces" else [])


@pytest.mark.parametrize("target", ["second", "number"])
def test_an_entry_point_is_a_space_of_its_name(
    monkeypatch: pytest.MonkeyPatch, plugin: types.ModuleType, target: str
) -> None:
    install(monkeypatch, first=f"plugin_of_test:{target}")
    with pytest.raises(ConfigError, match=r"'first'.* must be .*, got (SearchSpace|3)"):
        find_space("first")


def test_a_space_is_found_in_an_imported_module(plugin: types.ModuleType) -> None:
    assert find_space("plugin_of_test:second") is plugin.second
    for name in ("plugin_of_test:none", "plugin_not_imported:second", "plugin_of_test"):
        with pytest.raises(UnknownNameError, match=r"load its module with --import"):
            find_space(name)
    assert "plugin_not_imported" not in sys.modules


@pytest.mark.parametrize("how", ["described", "measured"])
def test_a_description_stops_at_too_many_modules(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of a file could ask for any number of cells: it ends with a line, not when memory does."""
    monkeypatch.setattr(chooser, "MODULES", 1500)

    def cells_(choose: Chooser, /, *, cells: int = 1) -> nn.Module:
        only = choose("only", {"a": nn.Identity, "b": nn.ReLU})
        return nn.Sequential(only, *(nn.Identity() for _ in range(cells)))

    crowd = SearchSpace("crowd", cells_)

    def build(cells: int) -> object:
        if how == "described":
            return crowd.describe(cells=cells)
        with torch.device("meta"):
            return crowd.derived(Genotype(space="crowd", choices={"only": "a"}, options={"cells": cells}))

    build(1000)
    with pytest.raises(SpaceError, match=r"search space .*: must have at most 1,500 modules, got more; use other"):
        build(1500)
    build(1000)  # nothing is counted twice


@pytest.mark.parametrize("channels", [2**31, 2**63 - 1])
def test_a_number_too_large_for_a_tensor_is_one_line(channels: int) -> None:
    def tiny(choose: Chooser, /, *, channels: int = 8) -> nn.Module:
        return choose("operation", {"conv": lambda: nn.Conv2d(channels, channels, 3), "skip": nn.Identity})

    space = SearchSpace("tiny", tiny)
    chosen = Derived(Genotype(space="tiny", choices={"operation": "conv"}))
    for build in (lambda: space.describe(channels=channels), lambda: space(chosen, channels=channels)):
        with pytest.raises(SpaceError, match="'tiny' must have smaller numbers in its options"):
            build()
