"""A thousand damaged and hostile files are read or refused, and the program that feeds them sees what is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from nas.errors import InvalidFileError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")


@pytest.fixture(scope="module")
def fuzz(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("fuzz_files")


COUNTS = {"genotype": 20, "import darts": 40, "report": 12, "run": 20, "two steps": 8, "video": 30}
"""Cases of the readers that take long."""


def test_a_thousand_cases(fuzz: ModuleType) -> None:
    found, total = [], 0
    for name, reader in fuzz.READERS.items():
        count = COUNTS.get(name, 60)
        start = max(0, len(reader.corpus()) - count // 2)  # half of them are inputs as they are
        found += fuzz.run_reader(name, reader, 7, range(start, start + count))
        total += count
    assert not found
    assert total >= 1000


def test_what_the_table_of_inputs_has_is_read(fuzz: ModuleType) -> None:
    assert set(fuzz.TEXTS) <= set(fuzz.READERS)
    for name in fuzz.TEXTS:
        inputs = fuzz.READERS[name].corpus()
        assert len(inputs) >= len(fuzz.TEXTS[name])


def test_an_error_does_not_stop_the_other_attempts(fuzz: ModuleType) -> None:
    calls = (raises(InvalidFileError("file: no")), lambda path: "text", lambda path: 3)
    found = list(fuzz.attempts(*(lambda call=call: call(Path()) for call in calls)))
    assert found == [("error", "file: no"), ("text", "text")]


def test_the_folders_of_runs_have_every_damage(fuzz: ModuleType) -> None:
    inputs = fuzz.runs()
    names = {name for files in inputs for name in files}
    assert {"checkpoints/last.pt", "diverged.pt", "weights.safetensors", "genotype.yaml", ".lock"} <= names
    for name in ("checkpoints/last.pt", "checkpoints/previous.pt", "config.yaml", "versions.yaml", "metrics.jsonl"):
        assert any(name not in files and len(files) > 3 for files in inputs), name
        assert len({files[name] for files in inputs if name in files}) > 4, name


def raises(error: Exception) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        raise error

    return read


def allocates(folder: Path) -> None:
    assert bytearray(3 << 30)


def spins(folder: Path) -> None:
    while True:
        pass


def dies(folder: Path) -> None:
    os.abort()


def connects(folder: Path) -> None:
    with socket.socket() as connection:
        connection.connect_ex(("127.0.0.1", 9))


READS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an error of its own": (raises(InvalidFileError("file: not what it should be")), ""),
    "another error": (raises(KeyError("x")), "KeyError at test_fuzz_files.py"),
    "memory": (allocates, "MemoryError"),
    "a crash": (dies, "SIGABRT"),
    "a program": (lambda folder: subprocess.run(["true"], check=True) and None, "forbidden: subprocess.Popen"),
    "a connection": (connects, "forbidden: socket.connect"),
    "a file inside": (lambda folder: (folder / "new").write_text("x") and None, ""),
    "a file outside": (lambda folder: (folder / "../new").write_text("x") and None, "forbidden: open"),
    "a file removed outside": (lambda folder: (folder / "..").rmdir(), "forbidden: os.rmdir"),
    "a payload": (lambda folder: (folder / "planted_by_a_file").touch(), "a payload ran"),
    "a script": (lambda folder: [("svg", "<svg><script>1</script></svg>")], "svg: an element script"),
    "a handler": (lambda folder: [("svg", '<svg onload="1"/>')], "svg: an attribute onload"),
    "a second script": (lambda folder: [("html", "<script></script><script></script>")], "html: 2 scripts"),
    "a handler in a page": (lambda folder: [("html", "<img onerror=1>")], "html: 0 scripts, img onerror"),
    "a link to a script": (lambda folder: [("html", "<a href=' javascript:1'>")], "html: 0 scripts, a href"),
    "an escape": (lambda folder: [("text", "\x1b[31m")], "text: a control character"),
    "an unclear error": (lambda folder: [("error", "a\nb")], "error: message of 3 characters"),
    "a picture and a page": (lambda folder: [("svg", "<svg/>"), ("html", "<script></script>"), ("text", "é\n")], ""),
}


@pytest.mark.parametrize("name", READS)
def test_what_a_reader_must_not_do_is_seen(name: str, fuzz: ModuleType) -> None:
    read, expected = READS[name]
    reader = fuzz.Reader(read, lambda: [{"file": b"x"}])
    found = [failure.wrong for failure in fuzz.run_reader("mine", reader, 0, range(1))]
    assert len(found) == bool(expected)
    assert all(wrong.startswith(expected) for wrong in found), found


@pytest.mark.slow
def test_a_reader_that_never_ends_is_stopped(fuzz: ModuleType) -> None:
    (failure,) = fuzz.run_reader("mine", fuzz.Reader(spins, lambda: [{"file": b"x"}]), 0, range(1))
    assert failure.wrong == "more than 5 s of CPU time"


def test_a_case_depends_on_its_seed_and_number_alone(fuzz: ModuleType) -> None:
    corpus = fuzz.READERS["table"].corpus()
    first = [fuzz.case_files(corpus, "table", 3, number) for number in range(30)]
    assert first == [fuzz.case_files(corpus, "table", 3, number) for number in range(30)]
    assert first[: len(corpus)] == corpus, "the first are valid"
    assert len({str(files) for files in first}) > 20
    assert first != [fuzz.case_files(corpus, "table", 4, number) for number in range(30)]
