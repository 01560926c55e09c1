"""The journal of a study on a disk that is full, cut by a kill, or damaged."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage

import toy
from nas.errors import InvalidFileError, NASError
from nas.genotype.file import Genotype
from nas.searchers.journal import Journal
from nas.tune.tuning import Tuning, tune

LR = "retrain.stages.backbone.level.optimizer.lr"
SMALL = ["search.steps=2", "retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=1", "retrain.epochs=1"]
GENOTYPE = Genotype(space="toy", choices=toy.CHEAPEST)


def run(out: Path, journal: Path, trials: int, on_trial: Callable[[object], None] | None = None) -> Tuning:
    overrides, storage = [*SMALL, f"{LR}=log(1e-3, 1e-1)"], f"journal:{journal}"
    return tune(
        toy.CONFIG, overrides, trials=trials, storage=storage, out=out, genotype=GENOTYPE, study="s", on_trial=on_trial
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting needs more rights")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(folder: Path) -> None:
    """Write until the disk is full."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def test_a_full_disk_loses_no_trial(disk: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", tmp_path / "whole.log", 4)
    journal = disk / "study.log"
    done = run(tmp_path / "out", journal, 3)
    assert done.trials == whole.trials[:3]
    study = optuna.load_study(study_name="s", storage=JournalStorage(Journal(journal)))
    before = journal.stat().st_size
    study.set_user_attr("padding", "")
    empty = journal.stat().st_size - before
    study.set_user_attr("padding", "x" * ((-20 - before - 2 * empty) % 4096))
    fill(disk)  # but for 20 bytes in the page where the journal ends
    assert journal.stat().st_size % 4096 == 4096 - 20
    with pytest.raises(InvalidFileError, match=r"study\.log: cannot be written: No space left on device; fix this"):
        run(tmp_path / "out", journal, 4)
    (disk / "filler").unlink()
    assert run(tmp_path / "out", journal, 4) == whole


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The journal of a study with two trials."""
    run(tmp_path / "out", tmp_path / "study.log", 2)
    return tmp_path / "study.log"


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_that_was_cut_is_removed_with_a_word(cut: int, study: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "out", study, 2)
    whole = study.read_bytes()
    study.write_bytes(whole + whole.splitlines(keepends=True)[-1][:-cut])
    with pytest.warns(UserWarning, match=r"study\.log: the last line was cut, by a full disk or a kill; removed it"):
        assert run(tmp_path / "out", study, 2) == done
    assert study.read_bytes().startswith(whole)
    assert len(run(tmp_path / "out", study, 3).trials) == 3


def test_a_journal_that_is_cut_at_any_byte_of_its_last_line_loses_this_line_alone(study: Path) -> None:
    whole = study.read_bytes()
    *before, last = whole.splitlines(keepends=True)
    for size in range(1, len(last)):
        study.write_bytes(b"".join(before) + last[:size])
        with pytest.warns(UserWarning, match="the last line was cut"):
            opened = Journal(study)
        assert study.read_bytes() == b"".join(before)
        study.write_bytes(b"".join(before) + last[:size])  # by another process, while this one has the file open
        opened.append_logs([json.loads(last)])
        assert study.read_bytes() == whole


def test_a_record_that_does_not_fit_is_not_written_in_part(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "study.log")
    optuna.create_study(storage=JournalStorage(journal), study_name="first")
    whole = journal._path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
    try:
        with pytest.raises(InvalidFileError, match=r"study\.log: cannot be written: "):
            journal.append_logs([{"op_code": 0, "worker_id": "w", "study_name": "second", "directions": [1]}] * 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal._path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["study.log"], "the lock is released"


def test_what_another_process_left_of_a_line_is_not_appended_to(tmp_path: Path) -> None:
    storage = JournalStorage(Journal(tmp_path / "study.log"))
    optuna.create_study(storage=storage, study_name="first")
    with (tmp_path / "study.log").open("ab") as file:
        file.write(b'{"op_code":' + b"9" * 70_000)  # longer than what is read at once
    optuna.create_study(storage=storage, study_name="second")
    found = optuna.study.get_all_study_names(JournalStorage(Journal(tmp_path / "study.log")))
    assert found == ["first", "second"]


@pytest.mark.parametrize("text", [b"chapter 1", b"chapter 1\nchapter 2", b'{"step": 1'])
def test_another_file_is_not_taken_for_a_journal(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_bytes(text)
    with pytest.raises(InvalidFileError, match=r"thesis\.txt:1: not a record of a study"):
        Journal(path)
    assert path.read_bytes() == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"half a line", r"study\.log:3: not a record of a study; remove this line, or restore it"),
        (b"[1]", r"study\.log:3: not a record"),
        (b"[" * 100_000, r"study\.log:3: not a record"),
        (b'{"op_code": "x"}', r"study\.log:3: not a record"),
        (b'{"op_code": 99, "worker_id": "w"}', r"study\.log: not the journal of a study"),
    ],
)
def test_a_damaged_line_is_named(line: bytes, message: str, study: Path, tmp_path: Path) -> None:
    lines = study.read_bytes().splitlines()
    damaged = b"\n".join([*lines[:2], line, *lines[2:], b""])
    study.write_bytes(damaged)
    with pytest.raises(NASError, match=message) as error:
        run(tmp_path / "out", study, 3)
    assert "\n" not in str(error.value)
    assert study.read_bytes() == damaged
