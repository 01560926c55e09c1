"""The command that runs conformance tests on a part, such as a search space or a relaxation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nas.cli.app import app
from nas.cli.targets import options_of, shape_of, space_of
from nas.cli.terminal import say
from nas.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

Checked = Literal[
    "search space",
    "task",
    "operation",
    "exporter",
    "relaxation",
    "wrapper",
    "hypergradient",
    "regularizer",
    "derivation",
    "searcher",
    "score",
    "optimizer",
    "schedule",
    "freezing",
    "stopping rule",
    "observer",
    "model",
    "table",
]


@app.command
def check(
    name: str,
    /,
    *options: str,
    kind: Checked | None = None,
    input: list[str] | None = None,
    space: str | None = None,
    split: list[str] | None = None,
    approximates: Literal["optimum", "steps", "nothing", "other"] | None = None,
    tolerance: float | None = None,
    unnormalized: bool = False,
) -> None:
    """Run the conformance tests of a part, such as a search space, a relaxation or a table.

    The table has a row for each test. The exit code is 1 if one fails. For example:

    - `nas check my-space channels=4 --input 2x3x32x32 --import my_module`
    - `nas check my-task batch=8 --space "{name: my-space, channels: 4}"`
    - `nas check neumann terms=60 step_size=0.4 --approximates optimum`

    To have the same tests in your own test suite, inherit from the classes of `nas.testing`.

    Args:
        name: The registered name of the part, or module:name of an imported module (with --kind).
        options: Its options or arguments: name=value.
        kind: Which kind of part it is, if parts of several kinds have the name.
        input: For a search space: the shape of each input of its networks, such as 2x3x32x32. For an operation: the
            shape of an input; its second number is passed as the channels (2x8x7x5 if absent).
        space: For a task: the search space of the networks, a name or a mapping of name and options. For an exporter:
            that of the genotypes, which its importer reads again. For a regularizer, a wrapper or a stopping rule: a
            search space in which it has an effect, if not the cell of NAS-Bench-201.
        split: For a task: a split with batches, without samples of other splits; repeat it for more. train and val if
            absent.
        approximates: For a hypergradient: the response of the level's optimum, that of the next steps of its optimizer,
            no response, or something that is not compared. Any of the first three if absent.
        tolerance: For a hypergradient: the largest relative error against the closed form; 1e-6 if absent.
        unnormalized: For a relaxation: mixing weights need not add up to 1.
    """
    from nas.report.tables import table
    from nas.testing.outcomes import run_tests

    given = {
        "input": input,
        "space": space,
        "split": split,
        "approximates": approximates,
        "tolerance": tolerance,
        "unnormalized": unnormalized or None,
    }
    flags = {flag: value for flag, value in given.items() if value is not None}
    found = kind or _kind_of(name)
    check = CHECKS[found]
    for flag in flags:
        if flag not in check.flags:
            raise ConfigError(f"--{flag} must not be given for the {found} '{name}'. Leave it out")
    rows = list(run_tests(check.tests(name, options_of(options), flags)()))
    table(f"{found} '{name}'", ("test", "result"), [(test, error or "passed") for test, error in rows])
    failed = sum(bool(error) for _, error in rows)
    say(f"{failed} of {len(rows)} failed" if failed else f"{len(rows)} passed")
    if failed:
        sys.exit(1)


def _kind_of(name: str) -> str:
    """The kind of the part of this name."""
    from nas.registry import kind

    known = {each: kind(each).names() for each in CHECKS}
    found = [each for each, names in known.items() if name in names]
    if not found:
        every = sorted({other for names in known.values() for other in names})
        raise UnknownNameError("part", name, every, "load its module with --import MODULE; module:name needs --kind")
    if len(found) > 1:
        raise ConfigError(f"--kind must be given: '{name}' is the name of a {' and of a '.join(found)}")
    return found[0]


def _search_space(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    import torch

    from nas.space.definition import find_space
    from nas.testing import SearchSpaceTests

    space = find_space(name)
    space.options(**options)
    if "input" not in flags:
        raise ConfigError(f"--input must be given for the search space '{name}': the shape of each input, 2x3x32x32")
    inputs = tuple(torch.randn(shape_of(text)) for text in flags["input"])
    return _subclass(SearchSpaceTests, space=space, options=options, example_input=lambda _: inputs)


def _task(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    from nas.supernet import Supernet
    from nas.testing import TaskTests
    from nas.testing.task import task_made

    entry = {"name": name, **options}
    task_made(entry)
    if "space" not in flags:
        raise ConfigError(f"--space must be given for the task '{name}': the search space of its networks")
    space, space_options = space_of(flags["space"])
    more = {"splits": tuple(flags["split"])} if "split" in flags else {}
    return _subclass(TaskTests, task=entry, network=lambda _: Supernet(space, **space_options), **more)


def _operation(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    import torch

    from nas.space.operations import OperationSet
    from nas.testing import OperationTests

    entry = {"factory": name, **options}
    OperationSet.of({"operation": entry})
    if len(texts := flags.get("input", ["2x8x7x5"])) > 1:
        raise ConfigError(f"--input must be given once for an operation, got {len(texts)} shapes")
    batch, *channels, _, _ = _image(texts[0])

    def example(_: object, height: int, width: int) -> Tensor:
        return torch.randn(batch, *channels, height, width, generator=torch.Generator().manual_seed(0))

    return _subclass(OperationTests, operation=entry, arguments=(channels[0],), example_input=example)


def _score(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    from nas.benchmark.scores import TRAINED
    from nas.searchers.score import find_score, needs
    from nas.testing import ScoreTests

    found = find_score(entry := {"name": name, **options}, "score")
    if trained := [each for each in TRAINED if needs(found, each)]:
        raise ConfigError(f"score '{name}' must train nothing to be checked, got one that needs '{trained[0]}'")
    return _subclass(ScoreTests, score=entry)


def _derivation(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    from nas.derive.policy import find_policy
    from nas.testing import DerivationTests

    find_policy(entry := {"name": name, **options})
    return _subclass(DerivationTests, derivation=entry)


def _exporter(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
    from nas.registry import kind
    from nas.testing import FormatTests

    for each in ("exporter", "importer"):
        kind(each).find(name)
    if options or "space" not in flags:
        found = f"the options {', '.join(options)}" if options else "nothing"
        raise ConfigError(f"--space must be given for the exporter '{name}', a name or a mapping, got {found}")
    return _subclass(FormatTests, format=name, **_in_space(flags))


def _by_entry(kind_name: str, tests: str) -> Callable[[str, dict[str, Any], Mapping[str, Any]], type]:
    """The check of a kind whose tests need the entry of a configuration, and at most flags of their own."""

    def check(name: str, options: dict[str, Any], flags: Mapping[str, Any]) -> type:
        from nas import testing
        from nas.registry import kind

        entry = {"name": name, **options}
        kind(kind_name).prepare(entry, kind_name)
        own = {flag: value for flag, value in flags.items() if flag not in ("space", "unnormalized")}
        total = {"total": None} if "unnormalized" in flags else {}
        attribute = kind_name.replace(" ", "_")
        return _subclass(getattr(testing, tests), **{attribute: entry}, **own, **total, **_in_space(flags))

    return check


class Check(NamedTuple):
    """How the parts of a kind are checked."""

    tests: Callable[[str, dict[str, Any], Mapping[str, Any]], type]
    """(name, options, flags) to the class of the tests; raises `NASError` for a part that cannot be made."""
    flags: tuple[str, ...]


CHECKS: dict[str, Check] = {
    "search space": Check(_search_space, ("input",)),
    "task": Check(_task, ("space", "split")),
    "operation": Check(_operation, ("input",)),
    "exporter": Check(_exporter, ("space",)),
    "relaxation": Check(_by_entry("relaxation", "RelaxationTests"), ("unnormalized",)),
    "wrapper": Check(_by_entry("wrapper", "WrapperTests"), ("space",)),
    "hypergradient": Check(_by_entry("hypergradient", "HypergradientTests"), ("approximates", "tolerance")),
    "regularizer": Check(_by_entry("regularizer", "RegularizerTests"), ("space",)),
    "derivation": Check(_derivation, ()),
    "searcher": Check(_by_entry("searcher", "SearcherTests"), ()),
    "score": Check(_score, ()),
    "optimizer": Check(_by_entry("optimizer", "OptimizerTests"), ()),
    "schedule": Check(_by_entry("schedule", "ScheduleTests"), ()),
    "freezing": Check(_by_entry("freezing", "FreezingTests"), ()),
    "stopping rule": Check(_by_entry("stopping rule", "StoppingRuleTests"), ("space",)),
    "observer": Check(_by_entry("observer", "ObserverTests"), ()),
    "model": Check(_by_entry("model", "ModelTests"), ()),
    "table": Check(_by_entry("table", "TableTests"), ()),
}


def _subclass(tests: type, **attributes: Any) -> type:
    return type(tests.__name__, (tests,), attributes)


def _in_space(flags: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(("space", "options"), space_of(flags["space"]), strict=True)) if "space" in flags else {}


def _image(text: str) -> list[int]:
    """The shape of an operation's input."""
    shape = shape_of(text)
    if len(shape) < 4 or shape[0] < 2:
        raise ConfigError(f"--input must be a shape such as 2x8x7x5 with a batch of 2 or more, got '{text}'")
    return shape
