"""The errors a user can cause. Each message says where, what was found, what was expected and what is near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LONGEST = 2000
"""Characters of a message; what goes beyond is left out of its middle, so that no file is quoted whole."""


def printable(text: str) -> str:
    """The text on one line, with escapes for what is not printable: control characters reach no terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def shortened(text: str) -> str:
    """The text as a message quotes it: printable, and without its middle if it is longer than `LONGEST`."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} [... {len(text) - LONGEST:,} characters ...] {text[-LONGEST // 4 :]}"
    return printable(text)


def without_password(url: str) -> str:
    """The URL of a database with `***` in place of its password; any other text unchanged."""
    return re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", url)


class NASError(Exception):
    """Base of every error that a user's input can cause; the command line prints it as one line and exits with 2.

    Each child is also the Python exception that a caller would catch: a bad value is a `ValueError`, a missing file a
    `FileNotFoundError`, a missing package an `ImportError`.

    Example:
        >>> try:
        ...     nas.find_space("drats")
        ... except nas.NASError as error:
        ...     print(error)
        unknown search space 'drats' (did you mean 'darts'?)...
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shortened(str(message)))


class UnknownNameError(NASError, KeyError, ValueError):
    """A name (space, operation, relaxation, option, ...) that nothing is registered under."""

    __str__ = NASError.__str__  # a KeyError would show the `repr` of its message

    def __init__(self, kind: str, name: object, known: Iterable[object], hint: str = "", where: str = "") -> None:
        names = [str(k) for k in known]
        near = nearest(str(name), names)
        listing = ", ".join(names) if names else "none is registered"
        place = f"{where}: " if where else ""
        super().__init__(f"{place}unknown {kind} '{name}'{near}; known: {listing}{'; ' + hint if hint else ''}")


class InvalidFileError(NASError, ValueError):
    """A file that cannot be read as what it should be; the message starts with its path."""


class MissingFileError(InvalidFileError, FileNotFoundError):
    """A file or folder that does not exist; the message starts with its path."""


class SpaceError(NASError, ValueError):
    """A search space that is not well formed: two candidate sets of one label, a bad label, a branch."""


class ConfigError(NASError, ValueError):
    """A configuration value, option or combination that cannot work."""


class MissingPackageError(ConfigError, ImportError):
    """An optional package that is not installed; the message says how to install it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what}: pip install 'tmics-nas[{extra}]'")


class ExportError(NASError, ValueError):
    """A network that cannot be written in a format; the message names the module and the reason."""


class DivergedError(NASError, ArithmeticError):
    """Losses or gradients that are no longer finite."""


class RankError(NASError, ConnectionError):
    """Another process of a run on several ranks has stopped, or computed something else."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
