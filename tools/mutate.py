"""Change one operator, number, sign or `detach` of a file at a time, and run the tests of the file: one must fail.

Files and their tests stand in tools/mutate.yaml, with the mutants that survive and why. The changed source is loaded in
a child process; the working tree is never edited. Results are kept in a file, so that a run that was stopped continues;
a mutant is run again if its file or one of its tests has changed. Exits with 1 if a mutant survives that is not listed.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, TextIO

import msgspec

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".yaml")
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-m", "not slow")
TOPS = ("nas.run.searching", "nas.multilevel.levels")
"""Modules that tests import; what does not depend on a mutated file is imported once for all mutants of the file."""
SWAPS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.Pow: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.MatMult: "*",
}
"""What takes the place of an arithmetic operator."""
KILLED, SURVIVED = "killed", "survived"


class Survivor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mutants: tuple[str, ...]
    """Names, as they are printed."""
    reason: str


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tests: dict[str, tuple[str, ...]]
    """By file of nas/, the test files that belong to it."""
    survivors: tuple[Survivor, ...] = ()


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int
    start: int
    end: int
    """Where the replaced text lies in the file, in bytes."""
    new: str
    name: str
    """The file, the line without indentation and the change: it does not depend on other lines."""


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of a file, in order.

    Arithmetic operators are swapped, numbers replaced, and minus signs and calls of `detach` removed. Texts,
    annotations and comparisons stay. An axis is a number, so that it changes too.
    """
    data, lines = source.encode(), source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.encode()))

    def at(line: int, column: int) -> int:
        return offsets[line - 1] + column

    found: list[Mutant] = []
    names: Counter[str] = Counter()
    for node, start, end, new in sorted(_changes(ast.parse(source), data, at), key=lambda each: each[1:3]):
        text = lines[node - 1].strip()
        old = data[start:end].decode()
        ast.parse(data[:start] + new.encode() + data[end:])  # a mutant must not fail by its syntax
        shown = f"{path}: {text}: {' '.join(old.split())} -> {new or 'nothing'}"
        names[shown] += 1
        number = f" ({names[shown]})" if names[shown] > 1 else ""
        found.append(Mutant(path, node, start, end, new, shown + number))
    return found


def _changes(tree: ast.AST, data: bytes, at: Any) -> Iterator[tuple[int, int, int, str]]:
    """Line, start, end and new text of each change."""
    for node in _expressions(tree):
        if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS and not _text(node):
            left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
            begin, end = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
            between = data[begin:end].decode()
            operator = between.strip(" ()\n\\")
            start = begin + len(between[: between.index(operator)].encode())
            swapped = SWAPS[type(node.op)] + ("=" if isinstance(node, ast.AugAssign) else "")
            yield left.end_lineno or 0, start, start + len(operator.encode()), swapped
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            start = at(node.lineno, node.col_offset)
            yield node.lineno, start, start + 1, ""
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
            value = node.value
            other = repr(value + 1) if isinstance(value, int) else repr(2 * value if value else 1.0)
            yield node.lineno, at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset), other
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "detach":
            start = at(node.func.end_lineno, node.func.end_col_offset) - len(".detach")
            yield node.func.end_lineno or 0, start, at(node.end_lineno, node.end_col_offset), ""


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of annotations, of `Annotated` types, and of texts with values."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            annotated = isinstance(child, ast.Subscript) and _named(child, "Annotated")
            if isinstance(child, ast.AST) and not annotated and not isinstance(child, ast.JoinedStr):
                yield from _expressions(child)


def _named(node: ast.Subscript, name: str) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == name


def _text(node: ast.AST) -> bool:
    """Whether an operator joins or repeats texts or types."""
    inner = [each for each in ast.walk(node) if isinstance(each, ast.JoinedStr)]
    texts = [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return bool(inner or texts)


class _Loader(SourceFileLoader):
    """Loads a module from another source than its file has."""

    source = ""

    def get_data(self, path: str | bytes) -> bytes:
        return self.source.encode()

    def path_stats(self, path: str | bytes) -> Any:
        raise OSError  # so that no bytecode is read or written


class _Finder:
    """Finds the module of a mutant."""

    def __init__(self, path: str, source: str) -> None:
        self.module = module_of(path)
        self.path, self.source = str(ROOT / path), source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.module:
            return None
        loader = _Loader(name, self.path)
        loader.source = self.source
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def module_of(path: str) -> str:
    """The name of the module in a file of nas/."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def independent(path: str) -> list[str]:
    """The modules that the tests need and that do not import the module of a file, however indirectly."""
    files = {module_of(str(each.relative_to(ROOT))): each for each in (ROOT / "nas").rglob("*.py")}
    imports = {name: _imported(each, files) for name, each in files.items()}

    def reached(names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        left = list(names)
        while left:
            if (name := left.pop()) not in found:
                found.add(name)
                left += imports[name]
        return found

    changed = module_of(path)
    return sorted(name for name in reached(TOPS) if changed not in reached([name]))


def _imported(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of nas/ that a file imports when it is imported, with the packages that they are in.

    The package nas itself imports nothing before it is asked for a name.
    """
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body if path != ROOT / "nas" / "__init__.py" else ():
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            found |= {each for n in range(len(parts)) if (each := ".".join(parts[: n + 1])) in known}
    return found


def outcomes(
    path: str, tests: Sequence[str], wanted: Sequence[Mutant], log: Path
) -> Iterator[tuple[Mutant | None, str, float]]:
    """Run the tests of a file without a mutant, then with each; yields the outcome and the CPU seconds of each.

    Children are forked from a process that has imported what does not depend on the file.
    """
    read, write = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(read)
        with os.fdopen(write, "w") as results:
            _serve(path, tests, wanted, log, results)
        os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read) as results:
            for line in results:
                number, outcome, took = json.loads(line)
                yield (None if number < 0 else wanted[number]), outcome, took
    finally:
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)


def _serve(path: str, tests: Sequence[str], wanted: Sequence[Mutant], log: Path, results: TextIO) -> None:
    began = time.process_time()
    for name in independent(path):
        importlib.import_module(name)
    if module_of(path) in sys.modules:
        raise ImportError(f"{path}: must not be imported before it is changed, but another module has")
    gc.freeze()
    limit = 600.0
    for number, mutant in enumerate([None, *wanted], -1):
        outcome, took = run(mutant, tests, limit, log)
        if mutant is None:
            limit = 3 * took + 5
            took += time.process_time() - began
        results.write(json.dumps([number, outcome, took]) + "\n")
        results.flush()
        if mutant is None and outcome == KILLED:
            return


def run(mutant: Mutant | None, tests: Sequence[str], seconds: float, log: Path) -> tuple[str, float]:
    """Run tests in a child process, with a mutant or without; returns the outcome and the CPU seconds that it took."""
    pid = os.fork()
    if pid == 0:
        _child(mutant, tests, seconds, log)
    _, status, usage = os.wait4(pid, 0)
    passed = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    return SURVIVED if passed else KILLED, usage.ru_utime + usage.ru_stime


class _QuickFirst:
    """A plugin of pytest that runs quick tests first, by the times of the run without a mutant."""

    def __init__(self, file: Path, *, measure: bool) -> None:
        self.file, self.measure = file, measure
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_sessionstart(self) -> None:
        """A failure is enough; hypothesis takes long to find the smallest one."""
        from hypothesis import Phase, settings

        settings.register_profile("mutate", settings.default, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutate")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if not self.measure:
            known = json.loads(self.file.read_text())
            items.sort(key=lambda item: known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        if self.measure:
            self.file.write_text(json.dumps(self.seconds))


def _child(mutant: Mutant | None, tests: Sequence[str], seconds: float, log: Path) -> None:
    code: int | None = None
    try:
        limit = int(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        signal.alarm(60 * limit)
        sys.stdout = sys.stderr = log.open("w")
        os.chdir(ROOT)
        if mutant is not None:
            data = (ROOT / mutant.path).read_bytes()
            source = (data[: mutant.start] + mutant.new.encode() + data[mutant.end :]).decode()
            sys.meta_path.insert(0, _Finder(mutant.path, source))  # type: ignore[arg-type]
        import pytest

        order = _QuickFirst(log.with_suffix(".order.json"), measure=mutant is None)
        code = int(pytest.main([*PYTEST, *tests], [order]))
    finally:
        if code is None:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(1 if code is None else code)


def digest(path: str, tests: Sequence[str]) -> str:
    """Changes with a file and with its tests."""
    contents = [(ROOT / each).read_bytes() for each in (path, *tests)]
    return hashlib.blake2b(b"\0".join(contents), digest_size=8).hexdigest()


def read_plan() -> Plan:
    return msgspec.yaml.decode(LIST.read_bytes(), type=Plan)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / ".mutants.jsonl", help="the file of results")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose name contains this text")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="CPU minutes after which to stop")
    arguments = parser.parse_args()
    plan = read_plan()
    known = {name: survivor.reason for survivor in plan.survivors for name in survivor.mutants}
    done: dict[str, dict[str, Any]] = {}
    if arguments.results.is_file():
        for line in arguments.results.read_text().splitlines():
            record = json.loads(line)
            done[record["name"]] = record
    _preload()
    log, spent, limit = arguments.results.with_suffix(".log"), 0.0, 60 * arguments.minutes
    counts: Counter[str] = Counter()
    unlisted: list[str] = []
    with arguments.results.open("a") as results:
        for path, tests in plan.tests.items():
            seal = digest(path, tests)
            every = [each for each in mutants(path, (ROOT / path).read_text()) if arguments.only in each.name]
            wanted = [each for each in every if done.get(each.name, {}).get("digest") != seal]
            for mutant, outcome, took in outcomes(path, tests, wanted, log) if wanted and spent < limit else ():
                spent += took
                if mutant is None:
                    if outcome == KILLED:
                        sys.exit(f"{log.read_text()[-2000:]}\n{path}: its tests must pass without a mutation")
                    continue
                record = {"name": mutant.name, "digest": seal, "outcome": outcome, "seconds": round(took, 1)}
                done[mutant.name] = record
                results.write(json.dumps(record) + "\n")
                results.flush()
                print(f"{outcome:9} {took:6.1f} s  {mutant.name}", flush=True)
                if spent >= limit:
                    break
            for mutant in every:
                known_outcome = done.get(mutant.name, {})
                outcome = known_outcome["outcome"] if known_outcome.get("digest") == seal else "not run"
                counts[outcome] += 1
                if outcome == SURVIVED and mutant.name not in known:
                    unlisted.append(mutant.name)
    total = counts[KILLED] + counts[SURVIVED]
    print(
        f"{total} mutants: {counts[KILLED]} killed ({counts[KILLED] / max(total, 1):.1%}), "
        f"{counts[SURVIVED]} survived, {counts['not run']} not run; {spent:.0f} CPU s"
    )
    for name in unlisted:
        print(f"survived and not listed: {name}")
    return int(bool(unlisted))


def _preload() -> None:
    """Import what the children need and what is never mutated."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.path.insert(0, str(ROOT))
    import hypothesis
    import numpy
    import pytest
    import scipy.optimize
    import torch._dynamo
    import torch.optim

    assert all((hypothesis, numpy, pytest, scipy, torch))


if __name__ == "__main__":
    sys.exit(main())
