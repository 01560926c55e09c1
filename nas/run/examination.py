"""What is wrong with a run folder, what can still be saved, and how to continue. Nothing is changed."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nas.errors import InvalidFileError, MissingFileError, NASError
from nas.files import locked, owner_of, read_text, write_text, writing
from nas.genotype.file import Genotype
from nas.run import checkpoint
from nas.run.config import Config, load_config
from nas.run.continuing import command
from nas.run.folder import (
    CONFIG,
    GENOTYPE,
    LAST,
    LOCK,
    METRICS,
    PREVIOUS,
    VERSIONS,
    Versions,
    config_hash,
    copies,
    read_checkpoint,
    read_records,
    read_versions,
    require_records,
    temporary_files,
)
from nas.run.loop import DIVERGED, NOUNS
from nas.run.retraining import WEIGHTS
from nas.run.stopping import STOPPING

ASIDE = ".aside"
"""The suffix of a file that a repair replaced."""
ROOM = 3
"""Free space on the disk below so many sizes of a checkpoint is a finding."""


class Finding(NamedTuple):
    """One thing that is wrong, or worth knowing."""

    file: str
    """Its name in the folder."""
    problem: str
    advice: str
    """What happens next, or what to do."""
    hinders: bool = False
    """Whether the run cannot be resumed as it is."""
    repair: Callable[[], object] | None = None
    """Repairs it, without removing anything."""


class Examination(NamedTuple):
    """The state of a run folder."""

    folder: Path
    kind: str
    """`search` or `retrain`; empty if no checkpoint tells."""
    step: int
    """The steps that its checkpoint holds."""
    steps: int
    """The steps of the whole run; 0 if unknown."""
    finished: bool
    findings: list[Finding]
    command: str
    """Continues the run, by the tuning or the search of which it is a part; empty if it is finished or cannot be
    resumed."""

    @property
    def summary(self) -> str:
        """One line."""
        noun = NOUNS.get(self.kind, "run")
        done = f"step {self.step} of {self.steps}" if self.steps else f"step {self.step}"
        return f"{self.folder}: a {noun}, {done}{', finished' if self.finished else ''}"


def run_folders(folder: str | Path) -> list[Path]:
    """Return a folder if it is a run, else the runs below it.

    Raises:
        InvalidFileError: there are none.
    """
    path = Path(folder)
    if not path.is_dir():
        raise MissingFileError(f"{path}: no such folder")
    if _is_run(path):
        return [path]
    found = sorted(inner for inner in path.rglob("*") if inner.is_dir() and _is_run(inner))
    if not found:
        raise InvalidFileError(f"{path}: no run: it has neither {CONFIG} nor checkpoints")
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (VERSIONS, LAST, PREVIOUS))


def examine(folder: str | Path) -> Examination:
    """Examine a run folder without changing it."""
    path = Path(folder)
    findings = [*_disk(path)]
    if (owner := _owner(path)) is None:
        content, usable, found = _checkpoint(path)
        findings += [*found, *_copied(path, content), *_texts(path, content), *_left(path)]
    else:  # what its process writes now is neither whole nor wrong
        content, usable = _loaded(path / LAST) or _loaded(path / PREVIOUS), False
        findings.append(Finding(LOCK, f"in use by {owner or 'another process'}", "wait for it to end", True))
    state = {} if content is None else content["state"]
    kind, step = state.get("kind"), state.get("step")
    kind, step = kind if isinstance(kind, str) and kind in NOUNS else "", step if type(step) is int else 0
    config = _config(path, findings)
    steps = _steps(config, kind)
    finished = _finished(path, kind, step, steps, findings)
    findings += _diverged(path, step)
    hindered = not usable or any(finding.hinders for finding in findings)
    return Examination(path, kind, step, steps, finished, findings, "" if finished or hindered else command(path, kind))


def _disk(folder: Path) -> Iterator[Finding]:
    """What the file system does not allow."""
    free, last = shutil.disk_usage(folder).free, folder / LAST
    if last.is_file() and free < ROOM * last.stat().st_size:
        yield Finding(LAST, f"{free / 1e6:.0f} MB are free on its disk", "make room before the run is resumed")
    if not os.access(folder, os.W_OK):
        yield Finding("", "the folder cannot be written", "copy it to where it can, and resume it there", True)


def _owner(folder: Path) -> str | None:
    """The process that uses the folder; None if none does."""
    path = folder / LOCK
    if not path.exists() or not os.access(path, os.W_OK):
        return None
    owner = owner_of(path)
    if (file := locked(path)) is None:
        return owner
    file.truncate(0)
    file.close()
    return None


def _left(folder: Path) -> Iterator[Finding]:
    """What a kill left."""
    for file in temporary_files(folder):
        yield Finding(str(file.relative_to(folder)), "half written when its process was killed", "resuming removes it")


def _loaded(path: Path) -> dict[str, Any] | None:
    try:
        return read_checkpoint(path)
    except InvalidFileError:
        return None


def _checkpoint(folder: Path) -> tuple[dict[str, Any] | None, bool, list[Finding]]:
    """The checkpoint from which the run resumes, or else the last whole one; whether it resumes; what is wrong."""
    contents: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    counted: dict[str, str] = {}
    for name in (LAST, PREVIOUS):
        try:
            contents[name] = read_checkpoint(folder / name)
        except MissingFileError:
            problems[name] = "missing"
        except InvalidFileError as error:
            problems[name] = _reason(error, folder / name)
        else:
            try:
                require_records(folder, contents[name])
            except InvalidFileError as error:
                counted[name] = _reason(error, folder / METRICS)
    usable = next((name for name in contents if name not in counted), None)
    if problems.keys() == {LAST, PREVIOUS} and set(problems.values()) == {"missing"}:
        return None, *_begun(folder)
    if usable == LAST:
        harmless = (
            []
            if problems.get(PREVIOUS, "missing") == "missing"
            else [Finding(PREVIOUS, problems[PREVIOUS], "not needed; the next checkpoint replaces it")]
        )
        return contents[LAST], True, harmless
    if usable == PREVIOUS:
        step = contents[PREVIOUS]["state"].get("step")
        file, problem = (LAST, problems[LAST]) if LAST in problems else (METRICS, counted[LAST])
        return (
            contents[PREVIOUS],
            True,
            [Finding(file, problem, f"resuming uses the checkpoint before it, of step {step}")],
        )
    if contents:
        content = next(iter(contents.values()))
        return content, False, [Finding(METRICS, next(iter(counted.values())), _salvage(folder, content), True)]
    found = [Finding(name, problem, _restore_from_copy(folder), True) for name, problem in problems.items()]
    return None, False, found


def _begun(folder: Path) -> tuple[bool, list[Finding]]:
    """Whether a run without a checkpoint can be resumed, and what is wrong."""
    records = folder / METRICS
    if (folder / "genotypes").is_dir() or (records.is_file() and records.stat().st_size):
        return False, [Finding(LAST, "missing, though the run has records", _restore_from_copy(folder), True)]
    return True, [Finding(LAST, "missing: the run has taken no step", "resuming starts it")]


def _salvage(folder: Path, content: Mapping[str, Any]) -> str:
    step, quoted = content["state"].get("step"), shlex.quote(str(folder))
    if content["state"].get("kind") == "search":
        return (
            f"restore it from a copy; else the state of step {step} is whole: `nas derive {quoted}` reads it, and"
            f" `nas search --from {quoted} --out NEW` starts from it"
        )
    return "restore it from a copy, or start again in another folder"


def _restore_from_copy(folder: Path) -> str:
    found = sorted((folder / "genotypes").glob("step-*.yaml"))
    saved = f"; {found[-1].relative_to(folder)} is the last genotype" if found else ""
    return f"restore it from a copy, or start again in another folder{saved}"


def _copied(folder: Path, content: Mapping[str, Any] | None) -> Iterator[Finding]:
    """The files of which the checkpoint has copies."""
    files = {} if content is None else content.get("files", {})
    if not isinstance(files, Mapping):
        yield Finding(LAST, "altered: it has no copies of files", _restore_from_copy(folder), True)
        return
    for name, text in files.items():
        try:
            missing, changed = copies(folder, {name: text})
        except InvalidFileError as error:
            altered = LAST in str(error)
            missing, changed = [], [] if altered else [name]
            if altered:
                yield Finding(LAST, _reason(error, folder / LAST), _restore_from_copy(folder), True)
        if missing == [CONFIG]:
            advice = "--repair writes it again from the checkpoint"
            yield Finding(name, "missing", advice, True, partial(write_text, folder / name, text))
        elif missing:
            yield Finding(name, "missing", "resuming writes it again from the checkpoint")
        if changed:
            advice = f"--repair keeps it as {name}{ASIDE}, and writes that of the checkpoint"
            problem = "changed since the checkpoint was saved"
            yield Finding(name, problem, advice, True, partial(_replace, folder / name, text))


def _replace(path: Path, text: str) -> None:
    """Rename a file, and write its text again."""
    with writing(path):
        path.replace(path.with_name(path.name + ASIDE))
    write_text(path, text)


def _texts(folder: Path, content: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Versions and metrics, where the checkpoint does not tell."""
    files = {} if content is None else content.get("files", {})
    copied = isinstance(files, Mapping) and VERSIONS in files
    try:
        versions = read_versions(folder)
        if (folder / CONFIG).is_file() and config_hash(read_text(folder / CONFIG)) != versions.config:
            yield Finding(CONFIG, f"not what the run was started with ({VERSIONS})", "restore it from a copy", True)
        if changed := versions.changed(Versions.now(0, "")):
            yield Finding(VERSIONS, f"{changed} since the run was started", "the result may differ in the last bits")
    except InvalidFileError as error:
        if (exists := (folder / VERSIONS).exists()) or not copied:
            problem = _reason(error, folder / VERSIONS) if exists else "missing"
            yield Finding(VERSIONS, problem, "restore it from a copy", True)
    try:
        read_records(folder)
    except MissingFileError:
        pass
    except InvalidFileError as error:
        yield Finding(METRICS, _reason(error, folder / METRICS), "resuming cuts what follows the checkpoint")


def _config(folder: Path, findings: list[Finding]) -> Config | None:
    try:
        return load_config(folder / CONFIG)
    except NASError as error:
        if all(finding.file != CONFIG for finding in findings):
            advice = "restore it from a copy, or name the module of its space by --import"
            findings.append(Finding(CONFIG, _reason(error, folder / CONFIG), advice, True))
        return None


def _steps(config: Config | None, kind: str) -> int:
    if config is not None and kind == "search" and (how := config.search_section) is not None:
        return how.steps if how.searcher is None else how.evaluations
    return config.retrain.steps if config is not None and kind == "retrain" and config.retrain_section else 0


def _finished(folder: Path, kind: str, step: int, steps: int, findings: list[Finding]) -> bool:
    """Whether the run took its last step and has its result; a result that is damaged is a finding."""
    name = WEIGHTS if kind == "retrain" else GENOTYPE
    path = folder / name
    if not path.is_file() or not kind:
        return False
    try:
        checkpoint.load_weights(path) if kind == "retrain" else Genotype.load(path)
    except InvalidFileError as error:
        if all(finding.file != name for finding in findings):
            findings.append(Finding(name, _reason(error, path), "resuming writes it again"))
        return False
    try:
        stopped = any(record["kind"] == STOPPING for record in read_records(folder))
    except InvalidFileError:
        stopped = False
    return stopped or step == steps


def _diverged(folder: Path, step: int) -> Iterator[Finding]:
    """The divergence with which the run ended."""
    if not (folder / DIVERGED).is_file():
        return
    try:
        about = checkpoint.load(folder / DIVERGED)
    except InvalidFileError as error:
        yield Finding(DIVERGED, _reason(error, folder / DIVERGED), "not needed to resume")
        return
    if about.get("step") == step:
        advice = "its configuration cannot change; start again with another learning rate, 'clip' or 'backoff'"
        yield Finding(DIVERGED, str(about.get("message", "")), advice, True)


def _reason(error: NASError, path: Path) -> str:
    """The message of an error without the path that it begins with."""
    return str(error).removeprefix(f"{path}").lstrip(": ")
