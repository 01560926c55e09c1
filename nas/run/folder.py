"""The run folder: configuration, versions, metrics, checkpoints and genotypes of one search or training."""

from __future__ import annotations

import errno
import functools
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

from nas.distributed.ranks import count
from nas.errors import ConfigError, InvalidFileError
from nas.files import (
    CLUTTER,
    convert,
    dump_yaml,
    locked,
    owner_of,
    parse_yaml,
    read_bytes,
    read_text,
    write_atomic,
    write_text,
    writing,
)
from nas.genotype.file import Genotype
from nas.kernels import native
from nas.run import checkpoint
from nas.run.modules import imported_modules
from nas.run.record_kinds import require_fields

CONFIG = "config.yaml"
VERSIONS = "versions.yaml"
METRICS = "metrics.jsonl"
GENOTYPE = "genotype.yaml"
LAST, PREVIOUS = "checkpoints/last.pt", "checkpoints/previous.pt"
"""The last checkpoint of a run, and the one before, for when the last is damaged."""
NEUTRAL = ("search.checkpoint_minutes", "retrain.checkpoint_minutes")
"""The settings that change no result: a run may be resumed with others."""
ORIGIN = "origin"
"""The kind of the record that names the search that a run started from, relative to its own folder."""
BEST = "best.yaml"
"""The genotype of the epoch with the best validation score."""
BEST_WEIGHTS = "checkpoints/best.safetensors"
"""The weights of the epoch of a retraining with the best validation score."""
_RESTORED = re.compile(rf"{re.escape(VERSIONS)}|{re.escape(CONFIG)}|{re.escape(GENOTYPE)}|genotypes/step-\d+\.yaml")
"""The names of the files that a checkpoint has copies of: a crafted one must not write elsewhere."""
TIMES = "times.jsonl"
LOCK = ".lock"
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
    """Whether the compiled kernel is used (see `nas.kernels.native`), which rounds otherwise too."""
    ranks: int = 1
    """Processes that share each batch: another number of them rounds otherwise."""
    modules: tuple[str, ...] = ()
    """Modules that were imported besides installed packages (see `nas.run.modules`)."""

    @classmethod
    def now(cls, seed: int, config: str) -> Self:
        """Those of this process."""
        return cls(
            package=package_version(),
            python=platform.python_version(),
            torch=str(torch.__version__),
            platform=platform.platform(),
            seed=seed,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config,
            threads=torch.get_num_threads(),
            kernel=native.enabled and native.load(),
            ranks=count(),
            modules=imported_modules(),
        )

    def changed(self, now: Versions) -> str:
        """Name the differences that may change the last bits of results, in words; empty if there are none."""
        pairs = {name: (getattr(self, name), getattr(now, name)) for name in _ROUNDING}
        changes = [(name, was, new) for name, (was, new) in pairs.items() if was not in (None, new)]
        return ", ".join(f"{name} (was {was}, now {new})" for name, was, new in changes)


_ROUNDING = ("package", "torch", "platform", "threads", "kernel", "ranks")
"""The fields of `Versions` on which rounding depends; None if an older package did not record them."""


class Run:
    """A run folder that only this process writes. A kill at any moment leaves it resumable.

    Make one with `Run.create` or `Run.open`. The folder is locked until the `with` block or the process ends. A loop
    calls `resume` first, then `save_checkpoint` before the first record, and `save_checkpoint` again after the records
    of a step. It repeats everything after the last checkpoint. After each step it calls `stop`.
    """

    stop: Callable[[], bool]
    """Whether to save a checkpoint after the current step and raise `KeyboardInterrupt`; by default never."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = lambda: False
        self._lock = lock(path)
        for file in temporary_files(path):
            file.unlink()
        self._reopened = (path / METRICS).exists()
        self._open_metrics()
        self._checksum = 0  # of the metrics
        self._files: dict[str, str] = {}  # what a checkpoint counts on besides the metrics, by name

    @classmethod
    def create(cls, path: str | Path, config_text: str, seed: int) -> Self:
        """Create a run in a new or empty folder.

        Args:
            path: of the folder.
            config_text: the merged configuration in YAML.
            seed: of the run.

        Raises:
            ConfigError: the folder is not empty; it stays as it is.
            InvalidFileError: the folder cannot be written.
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
        """Open the run in a folder.

        Args:
            path: of the folder.
            config_text: the configuration in YAML; if given, it must equal the one that the run was started with.

        Raises:
            InvalidFileError: the folder holds no run.
            ConfigError: another process uses the folder, or the configurations differ; the message names the keys.
        """
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
        """Return the last saved state, or None if there is none, and remove the records written after it.

        If the last checkpoint is damaged, the one before replaces it. If another file is missing, the copy in the
        checkpoint replaces it. Both are warnings, and so is a different version, machine or number of threads.

        Raises:
            InvalidFileError: the files of the run are not those that its checkpoint refers to. Nothing is changed.
        """
        found, path, problem = _read_state(self.path, functools.partial(require_records, self.path))
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
        records = read_bytes(self.path / METRICS)[: found.get("metrics", 0)]
        if self._reopened:  # as a new file, so that a process that was halted and still has the old one writes no more
            self._metrics.close()
            write_atomic(self.path / METRICS, lambda file: file.write(records))
            self._open_metrics()
        self._checksum = zlib.crc32(records)
        state: dict[str, Any] | None = found.get("state")
        return state

    def _open_metrics(self) -> None:
        with writing(self.path / METRICS):  # unbuffered: a record reaches the system before the next step begins
            self._metrics = (self.path / METRICS).open("ab", buffering=0)

    def _restore(self, files: Mapping[str, str]) -> None:
        missing, changed = copies(self.path, files)
        for name in changed:
            raise InvalidFileError(
                f"{self.path / name}: changed since the checkpoint was saved; restore it, or remove it: then it is"
                " written again"
            )
        for name in missing:
            write_text(self.path / name, files[name])
            warnings.warn(f"{self.path / name}: missing, written again from the checkpoint", stacklevel=3)
        self._files = dict(files)

    def record(self, kind: str, /, step: int | None = None, **values: object) -> None:
        """Append a record to the metrics. Records hold no times, so that a resumed run has the same file.

        Raises:
            InvalidFileError: it cannot be written.
        """
        head = {"kind": kind} if step is None else {"step": step, "kind": kind}
        line = msgspec.json.encode({**head, **values}) + b"\n"
        self._require_folder()
        with writing(self.path / METRICS):
            if self._metrics.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._checksum = zlib.crc32(line, self._checksum)

    def record_time(self, step: int, seconds: float, waiting: float) -> None:
        """Append to `times.jsonl` what the steps since the last such line took; no result depends on this file.

        Args:
            step: the last of them.
            seconds: of wall time.
            waiting: the share of it in which a step waited for a batch.
        """
        line = msgspec.json.encode({"step": step, "seconds": round(seconds, 3), "waiting": round(waiting, 4)})
        with writing(self.path / TIMES), (self.path / TIMES).open("ab") as file:
            file.write(line + b"\n")

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save plain state as `checkpoints/last.pt`, for `resume`. The checkpoint before it is kept beside it."""
        self._require_folder()
        with writing(self.path / METRICS):
            os.fsync(self._metrics.fileno())  # before the checkpoint that counts on these records
        size = os.fstat(self._metrics.fileno()).st_size
        content = {"metrics": size, "checksum": self._checksum, "files": self._files, "state": dict(state)}
        checkpoint.save(self.path / LAST, content, keep=self.path / PREVIOUS)

    def save_genotype(self, genotype: Genotype, step: int | None = None) -> Path:
        """Save the final genotype (`genotype.yaml`), or the one derived at a step (`genotypes/step-000123.yaml`)."""
        self._require_folder()
        name = genotype_file(step)
        genotype.save(self.path / name)
        self._files[name] = genotype.dump()
        return self.path / name

    def withdraw(self) -> None:
        """Remove the configuration if nothing was saved or recorded, so that the folder can be used again."""
        with suppress(OSError):
            if not (self.path / METRICS).stat().st_size and not (self.path / LAST).parent.exists():
                (self.path / CONFIG).unlink()

    def _require_folder(self) -> None:
        """Raise `InvalidFileError` if the folder was removed: writing would create one that cannot be resumed."""
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
        """Release the lock on the folder."""
        self._metrics.close()
        with suppress(OSError):
            os.truncate(self._lock.fileno(), 0)  # a folder that is shared names no host
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Follower(Run):
    """The run of a rank other than 0: it writes nothing, since rank 0 writes the same.

    Args:
        path: of the folder, which need not exist on the machine of this rank.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stop = lambda: False

    def record(self, kind: str, /, step: int | None = None, **values: object) -> None:
        """Do nothing."""

    def record_time(self, step: int, seconds: float, waiting: float) -> None:
        """Do nothing."""

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def save_genotype(self, genotype: Genotype, step: int | None = None) -> Path:
        """Return the path to which rank 0 saves a genotype."""
        return self.path / genotype_file(step)

    def withdraw(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def genotype_file(step: int | None) -> str:
    """Return the name of the final genotype (`genotype.yaml`), or of that of a step (`genotypes/step-000123.yaml`)."""
    return GENOTYPE if step is None else f"genotypes/step-{step:06d}.yaml"


def read_state(folder: str | Path) -> dict[str, Any] | None:
    """Return the last state that a run saved; None if there is none.

    If the last checkpoint is damaged, warns and returns the state before it. Raises `InvalidFileError` if both are.
    """
    found, path, problem = _read_state(Path(folder))
    if problem:
        warnings.warn(f"{problem}; reading {path.name}, the checkpoint before it", stacklevel=2)
    state: dict[str, Any] | None = None if found is None else found["state"]
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `Run.save_checkpoint` wrote to a file; raises `InvalidFileError`."""
    content = checkpoint.load(path)
    if type(content.get("metrics")) is not int or not isinstance(content.get("state"), dict):
        raise InvalidFileError(f"{path}: a checkpoint, but not of a run")
    return content


def require_records(folder: Path, content: Mapping[str, Any]) -> None:
    """Raise `InvalidFileError` unless the metrics begin with the records that a checkpoint refers to."""
    path, size = folder / METRICS, content["metrics"]
    data = read_bytes(path)[:size]
    if len(data) < size:
        raise InvalidFileError(f"{path}: {len(data)} bytes, though the last checkpoint counts on {size}")
    if "checksum" in content and zlib.crc32(data) != content["checksum"]:
        raise InvalidFileError(f"{path}: changed since the last checkpoint was saved")


def copies(folder: Path, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Compare a run folder with the copies of its files in a checkpoint.

    Returns:
        The names of the files that are missing, and of those that are different.

    Raises:
        InvalidFileError: the checkpoint has another file, or a file cannot be read.
    """
    if not isinstance(files, Mapping):
        raise InvalidFileError(f"{folder / LAST}: altered: it must have copies of files, got {type(files).__name__}")
    missing, changed = [], []
    for name, text in files.items():
        if not isinstance(name, str) or not isinstance(text, str) or not _RESTORED.fullmatch(name):
            raise InvalidFileError(f"{folder / LAST}: altered: a run has no file {name!r}")
        if not (folder / name).exists():
            missing.append(name)
        elif read_text(folder / name) != text:
            changed.append(name)
    return missing, changed


def read_records(folder: str | Path) -> list[Record]:
    """Return all records of a run. The run may still be running: an incomplete last line is left out."""
    path = Path(folder) / METRICS
    records = []
    for number, line in enumerate(read_bytes(path).split(b"\n")[:-1], 1):
        try:
            record = msgspec.json.decode(line, type=Record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidFileError(f"{path}:{number}: not a record: {error}") from error
        if not isinstance(record.get("kind"), str) or type(record.get("step", 0)) is not int:
            raise InvalidFileError(f"{path}:{number}: not a record: it must have a text 'kind' and an integer 'step'")
        require_fields(record, f"{path}:{number}")
        records.append(record)
    return records


def read_genotypes(folder: str | Path) -> dict[int, Genotype]:
    """Return the genotypes that a search derived at its epochs, by ascending step; raises `InvalidFileError`.

    Files with other names in the folder, such as copies, are ignored.
    """
    found = (Path(folder) / "genotypes").glob("step-*.yaml")
    paths = {int(match[1]): path for path in found if (match := re.fullmatch(r"step-(\d+)", path.stem))}
    return {step: Genotype.load(paths[step]) for step in sorted(paths)}


def read_versions(folder: str | Path) -> Versions:
    """Return what the run in a folder was started with; raises `InvalidFileError`."""
    path = Path(folder) / VERSIONS
    return convert(parse_yaml(read_text(path), str(path)), Versions, str(path))


@functools.lru_cache(maxsize=64)  # a search hashes its configuration at each epoch
def config_hash(text: str) -> str:
    """Hash the configuration in a YAML text.

    The order of keys, comments, layout and the settings in `NEUTRAL` do not change the hash.
    """
    config = parse_yaml(text, "configuration")
    for section, _, key in (path.partition(".") for path in NEUTRAL):
        if isinstance(config, dict) and isinstance(config.get(section), dict):
            config[section].pop(key, None)
    try:
        canonical = msgspec.json.encode(config, order="sorted")
    except TypeError as error:
        raise InvalidFileError("configuration: all keys must be texts") from error
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
    """The content of the last usable checkpoint, its path, and the fault of the one after it, if any.

    The content is None if there is no checkpoint. Raises `InvalidFileError` if none can be used.
    """
    problem: InvalidFileError | None = None
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            content = read_checkpoint(path)
            check(content)
        except InvalidFileError as error:
            problem = problem or error
        else:
            return content, path, "" if problem is None else str(problem)
    if problem is None or not any((folder / name).exists() for name in (LAST, PREVIOUS)):
        return None, folder / LAST, ""
    raise InvalidFileError(f"{problem}; restore it from a copy, or start the run again in another folder") from problem


def lock(path: Path) -> IO[str]:
    """Lock a run folder against other processes; raises `ConfigError` that names the process that uses it."""
    try:
        file = locked(path / LOCK)
    except InvalidFileError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be locked: {error.strerror}; use a folder on another file system") from error
    if file is None:
        owner = owner_of(path / LOCK)
        raise ConfigError(
            f"{path}: another process is using it{f' ({owner})' if owner else ''}; wait for it to end, or use another"
            " folder"
        )
    return file


def temporary_files(path: Path) -> list[Path]:
    """Return the temporary files of atomic writes that were killed."""
    found = (file for name in ("", "checkpoints", "genotypes") for file in (path / name).glob(".*.*"))
    return [file for file in found if _TEMPORARY.fullmatch(file.name)]


def _require_empty(path: Path) -> None:
    """Refuse a folder with any file, except what a killed `create` leaves."""
    try:
        found = {name for name in os.listdir(path) if name.lower() not in CLUTTER}
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be a run folder: {error.strerror}; use another path") from error
    if LOCK in found:
        found = {name for name in found - {LOCK, METRICS, TIMES, VERSIONS} if not _TEMPORARY.fullmatch(name)}
    if found:
        raise ConfigError(f"{path}: not empty; continue the run in it with --resume, or use another folder")


def require_equal(path: Path, given: Any) -> None:
    """Raise `ConfigError` that names the keys if the configuration in a folder differs from the given one.

    A key that is not set equals null, so that a run of an earlier version, without this key, can be resumed.
    """
    recorded = flat(parse_yaml(read_text(path / CONFIG), str(path / CONFIG)))
    new = flat(given)
    keys = [key for key in {**recorded, **new} if recorded.get(key) != new.get(key) and key not in NEUTRAL]
    if keys:
        changes = ", ".join(f"{key} (was {_show(recorded, key)}, now {_show(new, key)})" for key in keys)
        raise ConfigError(
            f"{path}: was started with another configuration: {changes}; resume it unchanged, or use another folder"
        )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted path."""
    if not isinstance(config, dict) or not config:
        return {prefix: config} if prefix else {}
    items = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in config.items())
    return {path: leaf for key, value in items for path, leaf in flat(value, key).items()}


def _show(leaves: dict[str, Any], key: str) -> str:
    return msgspec.json.encode(leaves[key]).decode() if key in leaves else "not set"
