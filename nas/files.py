"""Strict YAML in, atomic files out: every reader and writer of the package's own files goes through here."""

from __future__ import annotations

import copy
import errno
import functools
import os
import platform
import re
import secrets
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from nas.errors import InvalidFileError, MissingFileError, NASError, nearest

T = TypeVar("T")

HAS_LOCKS = fcntl is not None
"""Whether this system can lock files (see `locked`)."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-3` as a number, `16:16` and `010` as text, and refuses aliases and a key given twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # they can nest a value in itself, or make a short file huge
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML has no type for it
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise _refused("found unhashable key", key_node)
            if key in seen:
                raise _refused(f"key '{key}' is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        text = self.construct_scalar(node)
        try:  # JSON writes what lies beyond U+FFFF as the escapes of two surrogates
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise _refused("a text has half a character (a lone surrogate)", node) from error

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        if len(text) > _DIGITS or not -(2**63) <= (number := int(text)) < 2**63:
            raise _refused("an integer must have at most 64 bits", node)
        return number


_DIGITS = 20  # of an integer of 64 bits, with its sign
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


def _refused(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.yaml_constructors = {  # plain data alone: no sets, dates or bytes, which `!!set` and its like make
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (f"tag:yaml.org,2002:{name}" for name in _TAGS)},
    None: yaml.SafeLoader.yaml_constructors[None],
    "tag:yaml.org,2002:str": _Loader.construct_yaml_str,
    "tag:yaml.org,2002:int": _Loader.construct_yaml_int,
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] not in ("int", "float", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The YAML document in `text`; raises `InvalidFileError` that starts with `where` and names the line."""
    try:
        return copy.deepcopy(_parsed(text))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidFileError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InvalidFileError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise InvalidFileError(f"{where}: nested too deeply") from error
    except (ValueError, KeyError, AttributeError) as error:  # how PyYAML answers `!!int x`, `!!bool x`, `!!timestamp x`
        raise InvalidFileError(f"{where}: not valid YAML: a value does not fit its tag ({error})") from error


@functools.lru_cache(64)  # one command reads the same configurations again and again
def _parsed(text: str) -> Any:
    return _Loader(text).get_single_data()


def dump_yaml(data: Any) -> str:
    """`data` (plain containers) as block YAML in the order given; short lists stay on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that the loader would read as something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Bare or in single quotes U+0085 would be read as a line feed.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


def _sequence(dumper: yaml.SafeDumper, data: Any) -> yaml.Node:
    flat = all(not isinstance(item, (list, tuple, dict)) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(tuple, _sequence)


def read_text(path: str | Path) -> str:
    """The text of a file; raises `InvalidFileError` where it is missing, unreadable or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not a text file: {error.reason} at byte {error.start}") from error


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file; raises `InvalidFileError` if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except OSError as error:
        raise InvalidFileError(f"{path}: cannot be read: {error.strerror or error}") from error


CLUTTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", ".ds_store")
"""What desktops leave in folders, in lower case."""


def listed(folder: str | Path) -> list[Path]:
    """What a folder holds, by name, without hidden files and folders and what desktops leave there (`CLUTTER`).

    Every folder of the user's is listed by this: `._1.jpg` and `.ipynb_checkpoints` are no data. Raises
    `InvalidFileError` for a folder that cannot be read.
    """
    try:
        found = sorted(Path(folder).iterdir(), key=lambda path: path.name)
    except FileNotFoundError as error:
        raise MissingFileError(f"{folder}: no such folder") from error
    except OSError as error:
        raise InvalidFileError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    return [path for path in found if not path.name.startswith(".") and path.name.lower() not in CLUTTER]


LIMITS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
"""How messages name the limits of numbers."""


def convert(data: Any, kind: type[T], where: str) -> T:
    """`data` as a `kind` (a msgspec struct); raises `InvalidFileError` with the field, what was found and expected."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise InvalidFileError(f"{where}: {_explain(data, kind, str(error))}") from error


def _explain(data: Any, kind: Any, message: str) -> str:
    what, _, place = message.partition(" - at `")
    key, _, path = place.rstrip("`").partition("$")
    field, kinds, known, found = _follow(data, msgspec.inspect.type_info(kind), path)
    if limit := re.fullmatch(r"Expected `(?:int|float)` (>=|>|<=|<) (\S+)", what):
        got = "" if found is None else f", got {found}"
        return f"{field} must be {LIMITS[limit[1]]} {float(limit[2]):g}{got}".lstrip()
    unknown = re.search(r"unknown field `(.+?)`", what)
    if unknown:
        fields = dict.fromkeys(each.encode_name for kind in kinds for each in getattr(kind, "fields", ()))
        below = _path_of(unknown[1], kinds)
        near = f" (did you mean '{f'{field}.' if field else ''}{below}'?)" if below else nearest(unknown[1], fields)
        what = f"unknown field '{unknown[1]}'{near}; known: {', '.join(fields)}"
    elif invalid := re.search(r"Invalid (?:enum )?value '(.*)'", what):
        what = f"unknown value '{invalid[1]}'{nearest(invalid[1], known)}; known: {', '.join(known)}"
    what = what.replace("Object missing required", "missing the required")
    what = what.replace("`object", "`mapping").replace("array`", "list`").replace("`", "'") + (
        " as a key" if key else ""
    )
    own = re.match(r"\w+", what)
    if own and any(own[0] == each.encode_name for kind in kinds for each in getattr(kind, "fields", ())):
        return f"{field}.{what}".lstrip(".")  # a struct's own check begins with the name of its field
    return f"{field}: {what}" if field else what


def _follow(data: Any, kind: Any, path: str) -> tuple[str, list[Any], list[str], Any]:
    """Where a path of msgspec leads: the path with the keys of mappings, the types there, the values they know, and
    the data there."""
    kinds, known, place = _members(kind), list[str](), ""
    for step in re.findall(r"\.\w+|\[.*?\]", path):
        if step == "[...]":  # msgspec does not say which key
            kinds = [each.value_type for each in kinds if isinstance(each, msgspec.inspect.DictType)]
            items = data.items() if isinstance(data, dict) else ()
            step = next((f".{key}" for key, value in items if any(_fails(value, k) for k in kinds)), step)
            data = dict(items).get(step[1:])
        elif step.startswith("["):
            kinds = [
                k for each in kinds for k in getattr(each, "item_types", ()) or [getattr(each, "item_type", None)] if k
            ]
            data = data[int(step[1:-1])] if isinstance(data, list) else None
        else:
            structs = [each for each in kinds if isinstance(each, msgspec.inspect.StructType)]
            known = [str(each.tag) for each in structs if each.tag_field == step[1:]]
            kinds = [field.type for each in structs for field in each.fields if field.encode_name == step[1:]]
            data = data.get(step[1:]) if isinstance(data, dict) else None
        place += step
        kinds = [member for each in kinds for member in _members(each)]
    if isinstance(data, dict):  # of structs that a tag tells apart, the one that it names
        tagged = [each for each in kinds if isinstance(each, msgspec.inspect.StructType) and each.tag_field]
        kinds = [each for each in tagged if data.get(each.tag_field) == each.tag] or kinds
    literals = [str(value) for each in kinds if isinstance(each, msgspec.inspect.LiteralType) for value in each.values]
    return place.lstrip("."), kinds, known + literals, data


def _path_of(name: str, kinds: list[Any]) -> str:
    """The path of a field of that name in the structs inside these; empty if there is none."""
    for kind in kinds:
        for field in getattr(kind, "fields", ()):
            inner = [each for each in _members(field.type) if isinstance(each, msgspec.inspect.StructType)]
            if any(each.encode_name == name for struct in inner for each in struct.fields):
                return f"{field.encode_name}.{name}"
    return ""


def _members(kind: Any) -> list[Any]:
    return list(kind.types) if isinstance(kind, msgspec.inspect.UnionType) else [kind]


def _fails(data: Any, kind: Any) -> bool:
    if not isinstance(kind, msgspec.inspect.StructType):
        return False
    try:
        msgspec.convert(data, kind.cls)
    except msgspec.ValidationError:
        return True
    return False


_discarding: ContextVar[bool] = ContextVar("discarding_files", default=False)


@contextmanager
def discarding_files(discarding: bool = True) -> Iterator[None]:
    """Inside, `write_atomic` and `remove` do nothing: another process writes the same files."""
    token = _discarding.set(discarding)
    try:
        yield
    finally:
        _discarding.reset(token)


def remove(path: str | Path) -> None:
    """Remove a file, if it is there; inside of `discarding_files` it stays."""
    if not _discarding.get():
        Path(path).unlink(missing_ok=True)


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object], keep: Path | None = None) -> None:
    """Call `write` on a temporary file, sync it to disk, then rename it to `path`: readers see the old file or the new.

    The folder is synced too, so that a power failure after the call does not undo the rename.
    With `keep` the old file is renamed to that path just before; readers that find nothing at `path` find it there.
    Raises `InvalidFileError` where the file cannot be written; the old file then stands unchanged. Inside of
    `discarding_files` nothing is written.
    """
    if _discarding.get():
        return
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with writing(path):
            make_folder(path.parent)
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing, and sync them to disk; raises `OSError`."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Sync the names of the files in a folder to disk, where the system can; raises `OSError`."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # how a file system answers that cannot
            raise
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Inside, an error of the system is an `InvalidFileError` that `path` cannot be written."""
    try:
        yield
    except NASError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise InvalidFileError(f"{path}: cannot be written: {reason}; fix this and try again") from error


def locked(path: str | Path, *, wait: bool = False) -> IO[str] | None:
    """Lock a file, which is created, against other processes, until the returned file is closed or the process ends.

    The file then names this process (see `owner_of`). Without the module `fcntl` nothing is locked, and a warning says
    so once.

    Args:
        path: of the file.
        wait: whether to wait for another process that holds it.

    Returns:
        The open file, or None if another process holds it.

    Raises:
        InvalidFileError: the file cannot be written.
        OSError: the file system has no locks.
    """
    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = Path(path).open("a")  # noqa: SIM115 - the caller closes it; what another process wrote stays
    if fcntl is None:
        _warn_of_no_locks()
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk can be locked too
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {platform.node()} since {now}".encode())
    return file


def owner_of(path: str | Path) -> str:
    """The process that holds a lock of `locked`, in words: its number, host and since when; empty if unknown."""
    with suppress(OSError, UnicodeDecodeError), Path(path).open(encoding="utf-8") as file:
        return file.read(200)
    return ""


@functools.cache
def _warn_of_no_locks() -> None:
    warnings.warn(
        "this system has no module 'fcntl', so folders are not locked; let one process at a time use a run folder",
        stacklevel=4,
    )


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically (see `write_atomic`)."""
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))
