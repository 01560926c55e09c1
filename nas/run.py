"""The run folder: configuration, versions, metrics, checkpoints and genotypes of one search or training."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec
import torch

from nas import checkpoint
from nas.errors import ConfigError, InvalidFileError
from nas.files import CLUTTER, convert, dump_yaml, parse_yaml, read_text, write_text, writing
from nas.genotype import Genotype
from nas.planner import native

CONFIG = "config.yaml"
VERSIONS = "versions.yaml"
METRICS = "metrics.jsonl"
GENOTYPE = "genotype.yaml"
LAST, PREVIOUS = "checkpoints/last.pt", "checkpoints/previous.pt"
"""The last checkpoint of a run, and the one before, for when the last is damaged."""
ORIGIN = "origin"
"""The kind of the record in which a run names the folder of the search that it began with, relative to its own."""
BEST = "best.yaml"
"""The genotype of the epoch at which a search's supernet had the best validation score."""
_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""The names of the temporary files of `nas.files.write_atomic`."""

Record = dict[str, Any]
"""One line of `metrics.jsonl`: its `kind`, mostly the `step` it belongs to, and values; not-a-number reads as None."""


class Versions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run was started with."""

    package: str
    python: str
    torch: str
    platform: str
    seed: int
    started: str
    """Date and time, UTC."""
    config: str
    """Hash of the merged configuration (see `config_hash`)."""
    threads: int | None = None
    """Threads that torch computes with: another number rounds otherwise."""
    kernel: bool | None = None
    """Whether the compiled kernel is used (see `nas.planner.native`), which rounds otherwise too."""

    @classmethod
    def now(cls, seed: int, config: str) -> Self:
        """Those of this process, for a run that starts."""
        native.load()
        return cls(
            package=package_version(),
            python=platform.python_version(),
            torch=str(torch.__version__),
            platform=platform.platform(),
            seed=seed,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            threads=torch.get_num_threads(),
            kernel=native.enabled and native.is_loaded(),
        )

    def changed(self, now: Versions) -> str:
        """What of it may change the bits of results and is another one now, in words; empty if nothing is."""
        pairs = {name: (getattr(self, name), getattr(now, name)) for name in _ROUNDING}
        changes = [(name, was, new) for name, (was, new) in pairs.items() if was not in (None, new)]
        return ", ".join(f"{name} (was {was}, now {new})" for name, was, new in changes)


_ROUNDING = ("package", "torch", "platform", "threads", "kernel")
"""The fields of `Versions` on which rounding depends; those that an older package did not record are None."""


class Run:
    """A run folder that this process alone writes; a kill at any moment leaves it resumable.

    `Run.create` and `Run.open` make one; leaving the `with` block, or the process, gives the folder free. The loop it
    serves calls `resume` first, then `save_checkpoint` before the first record, and again after the records and the
    genotype of a step: what was made after the last checkpoint is made again. After each step it asks `stop`.
    """

    stop: Callable[[], bool]
    """Whether to save a checkpoint after the step at hand and raise `KeyboardInterrupt`; never, unless it is set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = lambda: False
        self._lock = _lock(path)
        _remove_temporary(path)
        with writing(path / METRICS):  # unbuffered: a record reaches the system before the next step begins
            self._metrics = (path / METRICS).open("ab", buffering=0)
        self._checksum = 0  # of the metrics
        self._files: dict[str, str] = {}  # what a checkpoint counts on besides the metrics, by name

    @classmethod
    def create(cls, path: str | Path, config_text: str, seed: int) -> Self:
        """A new run in a folder that does not exist, or is empty; `config_text` is the merged configuration in YAML.

        Raises `ConfigError` for a folder with anything in it, which stays untouched, and `InvalidFileError` where it
        cannot be written.
        """
        path = Path(path)
        versions = Versions.now(seed, config_hash(config_text))
        _require_empty(path)
        run = cls(path)
        try:
            _require_empty(path)  # another process may have created a run since
            write_text(path / VERSIONS, dump_yaml(msgspec.to_builtins(versions)))
            write_text(path / CONFIG, config_text)  # last: a folder that has it is a run
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: str | Path, config_text: str | None = None) -> Self:
        """The run that a folder holds. Raises `InvalidFileError` where there is none, and `ConfigError` where another
        process holds it, or where `config_text` differs from what it was started with, naming the keys."""
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise InvalidFileError(f"{path}: no run to resume (it has no {CONFIG}); leave --resume out to start one")
        if config_text is not None:
            require_equal(path, parse_yaml(config_text, "configuration"))
        return cls(path)

    @property
    def versions(self) -> Versions:
        """What the run was started with."""
        return read_versions(self.path)

    @property
    def config_text(self) -> str:
        """The merged configuration, in YAML."""
        return read_text(self.path / CONFIG)

    def resume(self) -> dict[str, Any] | None:
        """The state last saved, or None if none has been yet; records made since are removed.

        A damaged last checkpoint is replaced by the one before, a missing file by the checkpoint's copy, with a
        warning; so is one given that this process computes otherwise than the one that started the run. Raises
        `InvalidFileError`, and changes nothing, if the run's files are not those that its checkpoint counts on.
        """
        found, path, problem = _read_state(self.path, self._counted)
        if found is None:
            if os.path.getsize(self.path / METRICS) or (self.path / "genotypes").is_dir():
                raise InvalidFileError(
                    f"{self.path / LAST}: missing, though the run has records; restore it, or use another folder"
                )
            found = {"files": {VERSIONS: read_text(self.path / VERSIONS), CONFIG: self.config_text}}
        if problem:
            warnings.warn(f"{problem}; resuming from {path.name}, the checkpoint before it", stacklevel=2)
        self._restore(found.get("files", {}))
        versions = self.versions
        if config_hash(self.config_text) != versions.config:
            raise InvalidFileError(f"{self.path / CONFIG}: not what the run was started with ({VERSIONS}); restore it")
        if changed := versions.changed(Versions.now(0, "")):
            message = f"{changed} since the run was started; the result may differ in the last bits"
            warnings.warn(f"{self.path}: {message}", stacklevel=2)
        if path.name != Path(LAST).name:
            with writing(self.path / LAST):
                path.replace(self.path / LAST)
        os.truncate(self.path / METRICS, found.get("metrics", 0))
        self._checksum = zlib.crc32((self.path / METRICS).read_bytes())
        state: dict[str, Any] | None = found.get("state")
        return state

    def _counted(self, content: Mapping[str, Any]) -> None:
        """Raise `InvalidFileError` unless the metrics begin with the records that a checkpoint counts on."""
        path, size = self.path / METRICS, content["metrics"]
        data = path.read_bytes()[:size]
        if len(data) < size:
            raise InvalidFileError(f"{path}: {len(data)} bytes, though the last checkpoint counts on {size}")
        if "checksum" in content and zlib.crc32(data) != content["checksum"]:
            raise InvalidFileError(f"{path}: changed since the last checkpoint was saved")

    def _restore(self, files: Mapping[str, str]) -> None:
        missing = []
        for name, text in files.items():
            if not (self.path / name).exists():
                missing.append(name)
            elif read_text(self.path / name) != text:
                raise InvalidFileError(
                    f"{self.path / name}: changed since the checkpoint was saved; restore it, or remove it: then it is"
                    " written again"
                )
        for name in missing:
            write_text(self.path / name, files[name])
            warnings.warn(f"{self.path / name}: missing, written again from the checkpoint", stacklevel=3)
        self._files = dict(files)

    def record(self, kind: str, /, step: int | None = None, **values: object) -> None:
        """Append a record to the metrics. Times do not belong there: a resumed run's file equals the uninterrupted's.

        Raises `InvalidFileError` where it cannot be written.
        """
        head = {"kind": kind} if step is None else {"step": step, "kind": kind}
        line = msgspec.json.encode({**head, **values}) + b"\n"
        self._require_folder()
        with writing(self.path / METRICS):
            if self._metrics.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._checksum = zlib.crc32(line, self._checksum)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save plain state as `checkpoints/last.pt`: `resume` goes on from here. The one before is kept beside it."""
        self._require_folder()
        with writing(self.path / METRICS):
            os.fsync(self._metrics.fileno())  # before the checkpoint that counts on these records
        size = os.fstat(self._metrics.fileno()).st_size
        content = {"metrics": size, "checksum": self._checksum, "files": self._files, "state": dict(state)}
        checkpoint.save(self.path / LAST, content, keep=self.path / PREVIOUS)

    def save_genotype(self, genotype: Genotype, step: int | None = None) -> Path:
        """Save the final genotype (`genotype.yaml`), or the one derived at a step (`genotypes/step-000123.yaml`)."""
        self._require_folder()
        name = GENOTYPE if step is None else f"genotypes/step-{step:06d}.yaml"
        genotype.save(self.path / name)
        self._files[name] = genotype.dump()
        return self.path / name

    def withdraw(self) -> None:
        """Make the folder no run again if nothing was saved or recorded in it, so that it can be used again."""
        with suppress(OSError):
            if not (self.path / METRICS).stat().st_size and not (self.path / LAST).parent.exists():
                (self.path / CONFIG).unlink()

    def _require_folder(self) -> None:
        """Writing into a folder that was removed would make another one, in which nothing can be resumed."""
        try:
            same = os.path.samestat(os.stat(self.path / METRICS), os.fstat(self._metrics.fileno()))
        except OSError:
            same = False
        if not same:
            raise InvalidFileError(
                f"{self.path}: the folder was removed, moved or replaced during the run; move it back and resume it, or"
                " start the run again"
            )

    def close(self) -> None:
        """Give the folder free."""
        self._metrics.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_state(folder: str | Path) -> dict[str, Any] | None:
    """The state that a run last saved, or the one before if the last is damaged, with a warning; None if there is none.

    Raises `InvalidFileError` if both are damaged.
    """
    found, path, problem = _read_state(Path(folder))
    if problem:
        warnings.warn(f"{problem}; reading {path.name}, the checkpoint before it", stacklevel=2)
    state: dict[str, Any] | None = None if found is None else found["state"]
    return state


def read_records(folder: str | Path) -> list[Record]:
    """All records of a run, also of one that is running: a last line that is not whole yet is left out."""
    path = Path(folder) / METRICS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror}") from error
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            record = msgspec.json.decode(line, type=Record)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidFileError(f"{path}:{number}: not a record: {error}") from error
        if not isinstance(record.get("kind"), str) or type(record.get("step", 0)) is not int:
            raise InvalidFileError(f"{path}:{number}: not a record: it must have a text 'kind' and an integer 'step'")
        records.append(record)
    return records


def read_genotypes(folder: str | Path) -> dict[int, Genotype]:
    """The genotypes that a search derived at its epochs, by step, ascending; raises `InvalidFileError`.

    Files of other names in the folder, such as copies, are the user's.
    """
    found = (Path(folder) / "genotypes").glob("step-*.yaml")
    paths = {int(match[1]): path for path in found if (match := re.fullmatch(r"step-(\d+)", path.stem))}
    return {step: Genotype.load(paths[step]) for step in sorted(paths)}


def read_versions(folder: str | Path) -> Versions:
    """What the run in `folder` was started with; raises `InvalidFileError`."""
    path = Path(folder) / VERSIONS
    return convert(parse_yaml(read_text(path), str(path)), Versions, str(path))


def config_hash(text: str) -> str:
    """A hash of the configuration in a YAML text; the order of keys, comments and layout do not count."""
    canonical = msgspec.json.encode(parse_yaml(text, "configuration"), order="sorted")
    return hashlib.blake2b(canonical, digest_size=8).hexdigest()


def package_version() -> str:
    """Name and version of this package, for provenance."""
    try:
        return f"tmics-nas {metadata.version('tmics-nas')}"
    except metadata.PackageNotFoundError:
        return "tmics-nas, not installed"


def _read_state(
    folder: Path, check: Callable[[Mapping[str, Any]], None] = lambda content: None
) -> tuple[dict[str, Any] | None, Path, str]:
    """The content of the last checkpoint that can be used, its path, and why that is not the last one.

    None if there is no checkpoint. Raises `InvalidFileError` that tells of the last one if none can be used.
    """
    problem: InvalidFileError | None = None
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            content = checkpoint.load(path)
            if type(content.get("metrics")) is not int or not isinstance(content.get("state"), dict):
                raise InvalidFileError(f"{path}: a checkpoint, but not of a run")
            check(content)
        except InvalidFileError as error:
            problem = problem or error
        else:
            return content, path, "" if problem is None else str(problem)
    if problem is None or not any((folder / name).exists() for name in (LAST, PREVIOUS)):
        return None, folder / LAST, ""
    raise InvalidFileError(f"{problem}; restore it from a copy, or start the run again in another folder") from problem


def _lock(path: Path) -> IO[str]:
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        busy = isinstance(error, BlockingIOError)
        reason = "another process is using it; wait for it to end" if busy else f"cannot be locked: {error.strerror}"
        raise ConfigError(f"{path}: {reason}, or use another folder") from error
    return file


def _remove_temporary(path: Path) -> None:
    """Remove what a kill in the middle of an atomic write left behind."""
    for folder in (path, path / "checkpoints", path / "genotypes"):
        for file in folder.glob(".*.*"):
            if _TEMPORARY.fullmatch(file.name):
                file.unlink()


def _require_empty(path: Path) -> None:
    """Refuse a folder that holds anything, besides what a `create` that was killed leaves behind."""
    try:
        found = {name for name in os.listdir(path) if name.lower() not in CLUTTER}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be a run folder: {error.strerror}; use another path") from error
    if _LOCK in found:
        found = {name for name in found - {_LOCK, METRICS, VERSIONS} if not _TEMPORARY.fullmatch(name)}
    if found:
        raise ConfigError(f"{path}: not empty; continue the run in it with --resume, or use another folder")


def require_equal(path: Path, given: Any) -> None:
    """Raise `ConfigError`, which names the keys, where the configuration in a folder differs from the given one."""
    recorded = flat(parse_yaml(read_text(path / CONFIG), str(path / CONFIG)))
    new = flat(given)
    missing = object()
    keys = [key for key in {**recorded, **new} if recorded.get(key, missing) != new.get(key, missing)]
    if keys:
        changes = ", ".join(f"{key} (was {_show(recorded, key)}, now {_show(new, key)})" for key in keys)
        raise ConfigError(
            f"{path}: was started with another configuration: {changes}; resume it unchanged, or use another folder"
        )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by dotted path."""
    if not isinstance(config, dict) or not config:
        return {prefix: config} if prefix else {}
    items = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in config.items())
    return {path: leaf for key, value in items for path, leaf in flat(value, key).items()}


def _show(leaves: dict[str, Any], key: str) -> str:
    return msgspec.json.encode(leaves[key]).decode() if key in leaves else "not set"
