"""Files of configurations: where they lie, and how one states only what differs from another, its `base`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.errors import ConfigError, InvalidFileError, MissingFileError, UnknownNameError
from nas.files import listed, parse_yaml, read_text
from nas.registry import kind

BASE = "base"
"""The key that names the configuration to start from."""
NAMES = ("name", "kind")
"""Keys that say what a mapping is of: the other keys are its arguments."""


def read_config(source: str | Path) -> dict[str, Any]:
    """Return a configuration as plain data, with those of its base where it states nothing.

    Args:
        source: the path of a YAML file, or the name of a shipped configuration.

    Raises:
        InvalidFileError: not a mapping in YAML.
        UnknownNameError: no file and no shipped configuration has this name.
        ConfigError: a configuration is its own base.
    """
    path = find_config(str(source))
    return with_base(_read(path), str(path), path.parent)


def with_base(
    data: Mapping[str, Any], where: str, folder: Path | None = None, inside: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a configuration over its base, and that over its own.

    Args:
        data: the configuration.
        where: its place, for messages.
        folder: a base is first looked for here.
        inside: the configurations of which this one is the base.

    Raises:
        ConfigError: `base` is no text, or a configuration is its own base.
        UnknownNameError: no configuration has the name of the base.
    """
    if BASE not in data:
        return dict(data)
    name = data[BASE]
    if not isinstance(name, str):
        raise ConfigError(f"{where}: {BASE} must be the name or the path of a configuration, got {name!r}")
    near = None if folder is None else folder / name
    path = find_config(str(near) if near is not None and os.path.isfile(near) else name)
    if str(path) in (chain := (*inside, where)):
        raise ConfigError(f"{where}: {BASE} must lead to a configuration without one, got {name}, which leads back")
    own = {key: value for key, value in data.items() if key != BASE}
    return merged(with_base(_read(path), str(path), path.parent, chain), own)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above`: mappings are merged, other values replaced, and null takes a key out.

    A mapping of another `name` or `kind` replaces the one below, whose arguments are not its own.
    """
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(under, Mapping) and not _differ(under, value):
            found[key] = merged(under, value)
        elif not isinstance(value, Mapping):
            found[key] = value
        elif (own := merged({}, value)) or under is not None or not value:  # else there is nothing to take keys out of
            found[key] = own
    return found


def find_config(source: str) -> Path:
    """Return the path of a configuration: `source` if it is a file, else the shipped one of this name."""
    path = Path(source)
    if os.path.isfile(path):  # False for a name that is too long, for which pathlib raises
        return path
    known = shipped_configs()
    if source not in known:
        if path.suffix in (".yaml", ".yml"):
            raise MissingFileError(f"{path}: no such file; shipped configurations: {', '.join(known) or 'none'}")
        raise UnknownNameError("configuration", source, known, "or give the path of a YAML file")
    return known[source]


def shipped_configs() -> dict[str, Path]:
    """Return the configurations in the folder `configs` beside the module of each search space, and in the folders in
    it, by name; warns of broken spaces."""
    found: dict[str, Path] = {}
    for _, space in kind("search space").working():
        folder = Path(inspect.getfile(space.function)).parent / "configs"
        paths = listed(folder) if folder.is_dir() else []
        paths += [path for inner in paths if inner.is_dir() for path in listed(inner)]
        found.update({path.stem: path for path in paths if path.suffix == ".yaml"})
    return found


def _read(path: Path) -> dict[str, Any]:
    data = parse_yaml(read_text(path), str(path))
    if not isinstance(data, dict):
        raise InvalidFileError(f"{path} must be a mapping with 'space', 'task', and 'search' or 'retrain'")
    return data


def _differ(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return any(key in above and above[key] != below.get(key) for key in NAMES)
