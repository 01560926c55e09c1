"""Apply the mutations of tools/mutations.yaml to a copy of the repository, one at a time: tests must fail for each.

A mutation replaces a short text of nas/ that occurs there exactly once, in whatever file. Its tests are looked up by
name: the stem of a test file, or a test function. All of them must pass without a mutation. Exits with 1 if a mutation
survives, or if its text or its tests are not found. A mutation of a file that the repository does not have yet is
skipped, so that one list serves older versions too. The working tree is never edited.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".yaml")
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--timeout=60")


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    old: str
    new: str


class Mutation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the list: `old` and `new`, or several `variants`, of which the first one found is applied."""

    where: str
    """The behaviour that it changes: the name of the entry."""
    tests: tuple[str, ...]
    """Stems of test files and names of test functions; all that exist are run."""
    old: str = ""
    new: str = ""
    variants: tuple[Variant, ...] = ()
    since: str = ""
    """The file, relative to the repository, that the behaviour came with: skipped in a version without it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", default="", help="run the mutations whose name contains this text")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="test processes at a time (default: 1)")
    parser.add_argument("--keep-going", action="store_true", help="continue after a mutation that was not killed")
    arguments = parser.parse_args()
    mutations = msgspec.yaml.decode(LIST.read_bytes(), type=list[Mutation])
    chosen = [mutation for mutation in mutations if arguments.only in mutation.where]
    if not chosen:
        parser.error(f"no mutation is named '{arguments.only}'")
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        plain = Path(folder, "plain")
        copy_tracked(plain)
        trials = [Trial(plain, mutation) for mutation in chosen]
        tests = list(dict.fromkeys(test for trial in trials for test in trial.tests))
        if tests and (done := python(plain, *PYTEST, *tests)).returncode != 0:
            sys.exit(f"{done.stdout[-2000:]}\nthe tests must pass without a mutation, got status {done.returncode}")
        print(f"{'passed':9}  {time.monotonic() - began:5.1f} s  all tests without a mutation", flush=True)
        for outcome, line in pool.map(Trial.run, trials):
            outcomes[outcome] += 1
            print(f"{outcome:9}  {line}", flush=True)
            if outcome not in ("killed", "skipped") and not arguments.keep_going:
                pool.shutdown(cancel_futures=True)
                break
    found = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    print(f"{len(chosen)} mutations: {found}; {time.monotonic() - began:.0f} s")
    return int(outcomes["killed"] + outcomes["skipped"] < len(chosen))


def copy_tracked(folder: Path) -> None:
    """Copy the files that git tracks, as they are in the working tree; exit if Python would not import the copy."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    imported = python(folder, "-c", "from importlib.util import find_spec; print(find_spec('nas').origin)").stdout
    if not Path(imported).is_relative_to(folder):
        sys.exit(f"tests would import {imported.strip() or 'nothing'}, not the copy in {folder}")


class Trial:
    """A mutation, with the file that it changes and its tests in the copy `plain`."""

    def __init__(self, plain: Path, mutation: Mutation) -> None:
        self.plain, self.where, self.outcome, self.problem = plain, mutation.where, "", ""
        self.tests: list[str] = []
        if not (plain / mutation.since).exists():
            self.outcome, self.problem = "skipped", f"{mutation.since} does not exist"
            return
        try:
            self.path, self.text = mutated(plain, mutation)
            self.tests = located(plain, mutation.tests)
        except LookupError as error:
            self.outcome, self.problem = "not found", str(error)

    def run(self) -> tuple[str, str]:
        """Run the tests on a mutated copy; returns the outcome and a line about it."""
        if self.outcome:
            return self.outcome, f"  0.0 s  {self.where}: {self.problem}"
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(self.plain, Path(folder, "mutated"))
            (copy / self.path).write_text(self.text, encoding="utf-8")
            code = python(copy, *PYTEST, *self.tests).returncode
        line = f"{time.monotonic() - began:5.1f} s  {self.where}"
        if code == 1:
            return "killed", line
        return "survived", f"{line}: {self.path}, {' '.join(self.tests)}, status {code}"


@functools.cache
def read(root: Path, pattern: str) -> dict[Path, str]:
    """The texts of the files that match a pattern below `root`."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(root.glob(pattern))}


def mutated(root: Path, mutation: Mutation) -> tuple[Path, str]:
    """The file that a mutation changes, relative to `root`, and its new text."""
    texts, hits = read(root, "nas/**/*.py"), []
    for variant in mutation.variants or (Variant(mutation.old, mutation.new),):
        found = [path for path, text in texts.items() for _ in range(text.count(variant.old))]
        if len(found) == 1:
            return found[0].relative_to(root), texts[found[0]].replace(variant.old, variant.new)
        hits.append(f"{len(found)} times: {variant.old}")
    raise LookupError(f"its text must occur once in nas/, got {', '.join(hits)}")


def located(root: Path, names: Sequence[str]) -> list[str]:
    """What pytest is given to run test files and test functions of these names, wherever they are under tests/."""
    texts = read(root, "tests/**/test_*.py")
    found = []
    for name in names:
        found += [str(path.relative_to(root)) for path in texts if path.stem == name]
        function = re.compile(rf"^def {re.escape(name)}\(", re.MULTILINE)
        found += [f"{path.relative_to(root)}::{name}" for path, text in texts.items() if function.search(text)]
    if not found:
        raise LookupError(f"none of its tests exists: {', '.join(names)}")
    return found


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the packages in the folder `root`, which precede an editable install."""
    # Without bytecode, which could be that of a file before its mutation.
    environment = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    options = {"cwd": root, "env": {**os.environ, **environment}}
    return subprocess.run([sys.executable, *arguments], **options, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
