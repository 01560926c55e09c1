"""The run folder: configuration, versions, metrics, checkpoints and genotypes of one search or training."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec
import torch

from nas import checkpoint
from nas.errors import ConfigError, InvalidFileError
from nas.files import convert, dump_yaml, parse_yaml, read_text, write_text
from nas.genotype import Genotype

CONFIG = "config.yaml"
VERSIONS = "versions.yaml"
METRICS = "metrics.jsonl"
GENOTYPE = "genotype.yaml"
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


class Run:
    """A run folder that this process alone writes; a kill at any moment leaves it resumable.

    `Run.create` and `Run.open` make one; leaving the `with` block, or the process, gives the folder free. The loop it
    serves calls `resume` first, and `save_checkpoint` after the step's records and genotype: what was made after the
    last checkpoint is made again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        _remove_temporary(path)
        with _writing(path / METRICS):  # unbuffered: a record reaches the system before the next step begins
            self._metrics = (path / METRICS).open("ab", buffering=0)

    @classmethod
    def create(cls, path: str | Path, config_text: str, seed: int) -> Self:
        """A new run in a folder that does not exist, or is empty; `config_text` is the merged configuration in YAML.

        Raises `ConfigError` for a folder with anything in it, which stays untouched, and `InvalidFileError` where it
        cannot be written.
        """
        path = Path(path)
        versions = Versions(
            package=package_version(),
            python=platform.python_version(),
            torch=str(torch.__version__),
            platform=platform.platform(),
            seed=seed,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config_hash(config_text),
        )
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
        """The state last saved, or None where there is none; records made since are removed.

        Raises `InvalidFileError` for a damaged checkpoint; nothing is removed then.
        """
        path = self.path / "checkpoints" / "last.pt"
        content: dict[str, Any] = {"metrics": 0, "state": None}
        if path.exists():
            content = checkpoint.load(path)
            if not isinstance(content.get("metrics"), int) or not isinstance(content.get("state"), dict):
                raise InvalidFileError(f"{path}: a checkpoint, but not of a run")
        kept = (self.path / METRICS).read_bytes()[: content["metrics"]]
        os.truncate(self.path / METRICS, kept.rfind(b"\n") + 1)
        state: dict[str, Any] | None = content["state"]
        return state

    def record(self, kind: str, /, step: int | None = None, **values: object) -> None:
        """Append a record to the metrics. Times do not belong there: a resumed run's file equals the uninterrupted's.

        Raises `InvalidFileError` where it cannot be written.
        """
        head = {"kind": kind} if step is None else {"step": step, "kind": kind}
        line = msgspec.json.encode({**head, **values}) + b"\n"
        with _writing(self.path / METRICS):
            if self._metrics.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save plain state as `checkpoints/last.pt`: `resume` goes on from here."""
        with _writing(self.path / METRICS):
            os.fsync(self._metrics.fileno())  # before the checkpoint that counts on these records
        content = {"metrics": os.fstat(self._metrics.fileno()).st_size, "state": dict(state)}
        checkpoint.save(self.path / "checkpoints" / "last.pt", content)

    def save_genotype(self, genotype: Genotype, step: int | None = None) -> Path:
        """Save the final genotype (`genotype.yaml`), or the one derived at a step (`genotypes/step-000123.yaml`)."""
        path = self.path / (GENOTYPE if step is None else f"genotypes/step-{step:06d}.yaml")
        genotype.save(path)
        return path

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
            records.append(msgspec.json.decode(line, type=Record))
        except msgspec.DecodeError as error:
            raise InvalidFileError(f"{path}:{number}: not a record: {error}") from error
    return records


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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be written: {error.strerror}; mend that and try again") from error


def _lock(path: Path) -> IO[str]:
    with _writing(path):
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
        found = set(os.listdir(path))
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
