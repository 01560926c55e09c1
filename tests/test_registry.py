"""The one registry, kind by kind: decorators, entry points, reloading, clashes, broken plugins, arguments."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from nas.errors import ConfigError, UnknownNameError
from nas.registry import Count, Kind, Positive, arguments, kind, kinds, register
from nas.run.config_files import find_config, shipped_configs

Install = Callable[..., Path]

SOURCES = {
    "search space": "def it(choose, /):\n    return choose('o', {'x': __import__('torch').nn.Identity})\n",
    "task": "import nas.run.task\nclass it(nas.run.task.Task):\n    pass\n",
    "operation set": "from nas.space.operations import OperationSet\nit = OperationSet()\n",
}
"""The code of an object `it` of a kind."""


def source(name: str) -> str:
    """The code of an object that is registered as `theirs`, of any kind."""
    own = SOURCES.get(name, "def it(*args, **options):\n    return options\n")
    return f"import nas.registry\n{own}it = nas.registry.register({name!r}, 'theirs')(it)\n"


every_kind = pytest.mark.parametrize("name", sorted(n for n, each in kinds.items() if each.group.startswith("nas.")))
"""The kinds of the engine: those of plugins depend on what else was imported."""


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test registers in tables of its own."""
    monkeypatch.setattr("nas.registry.kinds", dict(kinds))
    for each in kinds.values():
        monkeypatch.setattr(each, "_registered", dict(each._registered))
        monkeypatch.setattr(each, "_origins", dict(each._origins))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Writes a module and imports it; what was imported is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, code: str) -> Any:
        (tmp_path / f"{name}.py").write_text(code)
        written.append(name)
        return importlib.import_module(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package with one module, of which entry points offer `it` as `offered` in some groups."""
    modules = []

    def install(package: str, code: str, *groups: str) -> Path:
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{package.lower()}_module.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        points = "".join(f"[{group}]\noffered = {package.lower()}_module:it\n" for group in groups)
        (info / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(folder)
        modules.append(f"{package.lower()}_module")
        return folder

    yield install
    for name in modules:
        sys.modules.pop(name, None)


@every_kind
def test_a_registered_object_is_found_also_after_a_reload(module: Callable[[str, str], Any], name: str) -> None:
    first = module("theirs_one", source(name))
    assert kind(name).find("theirs") is first.it
    assert kind(name).name_of(first.it) == "theirs"
    assert kind(name).names()["theirs"].startswith("theirs_one:")
    again = importlib.reload(first)
    assert kind(name).find("theirs") is again.it


@every_kind
def test_another_object_of_the_same_name_is_an_error_that_names_both(
    module: Callable[[str, str], Any], name: str
) -> None:
    first = module("theirs_one", source(name))
    with pytest.raises(ConfigError, match=f"{name} 'theirs' .* theirs_one:.* theirs_two:"):
        module("theirs_two", source(name))
    assert kind(name).find("theirs") is first.it


@every_kind
def test_an_object_of_an_imported_module_needs_no_name(module: Callable[[str, str], Any], name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"'theirs_one:it'.*--import theirs_one"):
        kind(name).find("theirs_one:it")
    first = module("theirs_one", source(name))
    assert kind(name).find("theirs_one:it") is first.it


@every_kind
def test_an_installed_object_is_found_by_its_entry_point(install: Install, name: str) -> None:
    install("Theirs", source(name).replace("'theirs'", "'offered'"), kind(name).group)
    assert kind(name).names()["offered"] == "theirs_module:it (entry point)"
    assert "theirs_module" not in sys.modules
    found = kind(name).find("offered")
    assert found is sys.modules["theirs_module"].it
    assert kind(name).name_of(found) == "offered"


@every_kind
def test_two_packages_that_offer_one_name_are_both_named(install: Install, name: str) -> None:
    for package in ("Theirs", "Others"):
        install(package, source(name), kind(name).group)
    with pytest.raises(ConfigError, match=f"{name} 'offered' .*_module:it of .* and by .*_module:it of "):
        kind(name).find("offered")


@every_kind
def test_an_unknown_name_suggests_the_nearest(module: Callable[[str, str], Any], name: str) -> None:
    module("theirs_one", source(name))
    with pytest.raises(UnknownNameError, match=rf"{name} 'thiers' \(did you mean 'theirs'\?\).*@nas.register"):
        kind(name).find("thiers")
    with pytest.raises(UnknownNameError, match=f"{name} '3'"):
        kind(name).find(3)


BROKEN = {
    "needs what is not there": ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_packa"),
    "is no Python": ("def", "SyntaxError"),
    "raises": ("raise RuntimeError('no\\nGPU')", "RuntimeError: no GPU"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "lacks the name": ("", "AttributeError: module 'broken_module' has no attribute 'it'"),
}


@pytest.mark.parametrize("how", BROKEN)
@every_kind
def test_a_broken_plugin_is_an_error_for_who_asks_and_a_warning_for_who_wants_all(
    install: Install, name: str, how: str
) -> None:
    code, reason = BROKEN[how]
    install("Broken", code, kind(name).group)
    with pytest.raises(ConfigError, match=f"{name} 'offered': broken_module:it .* 'Broken' ") as caught:
        kind(name).find("offered")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=f"left out {name} 'offered'.* 'Broken' ") as warned:
        assert "offered" not in dict(kind(name).working())
    assert len(warned) == 1


def test_a_broken_space_hides_no_configuration(install: Install) -> None:
    expected = shipped_configs()
    install("Broken", "raise RuntimeError", "nas.search_spaces")
    with pytest.warns(UserWarning, match="'Broken'"):
        assert shipped_configs() == expected
    with pytest.warns(UserWarning, match="'Broken'"):
        assert find_config("demo").name == "demo.yaml"


def test_a_plugin_creates_kinds_of_its_own(install: Install) -> None:
    rains = Kind("test rain", "test.rains", given=("seed",))
    assert kind("test rain") is rains

    @register("test rain", "drizzle")
    def drizzle(seed: int, amount: Positive = 0.1) -> tuple[int, float]:
        return seed, amount

    assert rains.create({"name": "drizzle", "amount": 1}, "task.rain", seed=3) == (3, 1.0)
    install("Theirs", "it = lambda: 'snow'", "test.rains")
    assert rains.create("offered", "task.rain", seed=3) == "snow"
    assert Kind("test rain", "test.rains").find("drizzle") is drizzle, "as when its module is reloaded"
    with pytest.raises(ConfigError, match=r"'test rain'.* test.rains .* test.others"):
        Kind("test rain", "test.others")
    with pytest.raises(UnknownNameError, match=r"'test rian' \(did you mean 'test rain'\?\)"):
        register("test rian", "x")


class Part:
    """Takes arguments of several types."""

    def __init__(
        self,
        rate: Positive,
        *,
        count: Count = 1,
        mode: Literal["fast", "slow"] = "fast",
        pair: tuple[int, int] = (1, 2),
    ) -> None:
        self.state = (rate, count, mode, pair)
        if count > 10:
            raise ValueError("count is too large")


@pytest.fixture
def parts() -> Kind:
    parts = Kind("test part", "test.parts", reserved=("weight",))
    parts.register("part")(Part)
    return parts


def test_arguments_are_converted(parts: Kind) -> None:
    made = parts.create({"name": "part", "rate": 2, "pair": [3, 4], "weight": 1}, "a.b")
    assert made.state == (2.0, 1, "fast", (3, 4))
    assert isinstance(made.state[0], float)
    assert parts.complete({"name": "part", "rate": 2}, "a.b") == {
        "name": "part", "rate": 2.0, "count": 1, "mode": "fast", "pair": (1, 2)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"rate": 0}, r"^a\.b\.rate must .* 0, got 0$"),
        ({"rate": float("nan")}, r"^a\.b\.rate must .*got nan$"),
        ({"rate": "x"}, r"^a\.b\.rate must .*, got 'x'$"),
        ({"rate": True}, r"^a\.b\.rate must .*, got True$"),
        ({"rate": 1, "count": 1.5}, r"^a\.b\.count must .*, got 1.5$"),
        ({"rate": 1, "count": 0}, r"^a\.b\.count must .* 1, got 0$"),
        ({"rate": 1, "mode": "fsat"}, r"^a\.b\.mode must .*fast, slow \(did you mean 'fast'\?\), got 'fsat'$"),
        ({"rate": 1, "pair": [1, "y"]}, r"^a\.b\.pair\[1\] must .*, got \[1, 'y'\]$"),
        ({"rate": 1, "pair": [1]}, r"^a\.b\.pair must .* 2, got \[1\]$"),
        ({"rate": 1, "cuont": 1}, r"^a\.b\.cuont .*'part' \(did you mean 'count'\?\); .*rate, count, mode, pair$"),
        ({"count": 1}, r"^a\.b: .*'part'.*'rate'$"),
        ({"rate": 1, "count": 11}, r"^a\.b: count is too large$"),
    ],
)
def test_arguments_that_do_not_fit_name_their_place(parts: Kind, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts.create({"name": "part", **entry}, "a.b")


@pytest.mark.parametrize("entry", [{"rate": 1}, {"name": 3}, 3, ["part"], None])
def test_an_entry_is_a_name_or_has_one(parts: Kind, entry: Any) -> None:
    with pytest.raises(ConfigError, match=r"^a\.b must .*'name', got "):
        parts.create(entry, "a.b")


def test_reserved_fields_are_no_arguments(parts: Kind) -> None:
    parts.register("heavy")(lambda weight=1: None)
    with pytest.raises(ConfigError, match=r"'heavy'.*'weight'.*reserved"):
        parts.create("heavy", "a.b")


def test_any_keyword_passes_beside_those_that_are_checked() -> None:
    def make(count: Count, /, size: Count = 1, **others: Any) -> None: ...

    assert arguments(make, {"size": 2, "x": "y"}, "w") == {"size": 2, "x": "y"}
    with pytest.raises(ConfigError, match=r"^w\.size must"):
        arguments(make, {"size": 0}, "w")


def test_one_unknown_annotation_leaves_the_others_checked() -> None:
    def make(given: Nowhere, size: Count = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - for types alone

    assert arguments(make, {"size": 2}, "w", ("given",)) == {"size": 2}
    with pytest.raises(ConfigError, match="'Nowhere' of 'given'"):
        arguments(make, {"given": 2}, "w")


@pytest.mark.parametrize(
    ("of", "entry", "message"),
    [
        ("relaxation", {"name": "softmax", "temperature": 0}, "temperature"),
        ("relaxation", {"name": "gumbel", "final_temperature": -1}, "final_temperature"),
        ("hypergradient", {"name": "unrolled", "steps": 0}, "steps"),
        ("hypergradient", {"name": "truncated", "last": 0}, "last"),
        ("hypergradient", {"name": "truncated", "steps": 2, "last": 3}, "'last'"),
        ("hypergradient", {"name": "finite_difference", "radius": 0}, "radius"),
        ("hypergradient", {"name": "neumann", "terms": 0}, "terms"),
        ("hypergradient", {"name": "neumann", "step_size": 0}, "step_size"),
        ("hypergradient", {"name": "conjugate_gradient", "iterations": 2.5}, "iterations"),
        ("hypergradient", {"name": "conjugate_gradient", "damping": -0.1}, "damping"),
        ("hypergradient", {"name": "implicit", "damping": -0.1}, "damping"),
        ("hypergradient", {"name": "implicit", "limit": 0.5}, "limit"),
        ("hypergradient", {"name": "closed", "ridge": -0.1}, "ridge"),
    ],
)
def test_built_in_parts_state_their_ranges(of: str, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^x.*{message} must .*got "):
        kind(of).create(entry, "x")


@pytest.mark.parametrize("value", [3, "text", None])
def test_other_objects_are_refused(value: object) -> None:
    for name in ("relaxation", "task", "operation set"):
        with pytest.raises(ConfigError, match=f"{name} 'theirs' must be .*, got "):
            register(name, "theirs")(value)
    with pytest.raises(ConfigError, match="by a name, got"):
        register("relaxation", value if not isinstance(value, str) else "")  # type: ignore[arg-type]
