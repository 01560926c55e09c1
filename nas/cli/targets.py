"""Options among the arguments of commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.space.definition import SearchSpace


def options_of(given: Iterable[str]) -> dict[str, Any]:
    """Return the options in texts `name=value`; raises `ConfigError` for a text of another form."""
    from nas.files import parse_yaml

    options = {}
    for option in given:
        name, equals, text = option.partition("=")
        if not equals:
            raise ConfigError(f"an option must be name=value, got '{option}'")
        options[name] = parse_yaml(text, option)
    return options


def shape_of(text: str) -> list[int]:
    """Return the sizes in a text such as `1x3x32x32`; raises `ConfigError` for a text of another form."""
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError(f"--input must be a shape such as 1x3x32x32, got '{text}'")
    return [int(size) for size in sizes]


def space_of(text: str, where: str = "--space") -> tuple[SearchSpace, dict[str, Any]]:
    """Return the search space of a text, a name or a mapping of name and options, and its options.

    Args:
        text: such as `darts`, or `{name: darts, channels: 4}`.
        where: the argument, for messages.

    Raises:
        ConfigError: the text is neither, or the space does not have an option.
        UnknownNameError: the space is unknown.
    """
    from nas.files import parse_yaml
    from nas.space.definition import find_space

    parsed = parse_yaml(text, where)
    entry = {"name": parsed} if isinstance(parsed, str) else parsed
    if not isinstance(entry, dict) or "name" not in entry:
        raise ConfigError(f"{where} must be a name or a mapping such as {{name: darts, channels: 4}}, got '{text}'")
    space = find_space(entry.pop("name"))
    space.options(**entry)
    return space, entry
