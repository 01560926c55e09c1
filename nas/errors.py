"""The errors a user can cause. Each message says where, what was found, what was expected and what is near."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NASError(Exception):
    """Base of every error that a user's input can cause; the command line prints it as one line and exits with 2."""


class UnknownNameError(NASError, KeyError):
    """A name (space, operation, relaxation, option, ...) that nothing is registered under."""

    __str__ = NASError.__str__  # a KeyError would show the `repr` of its message

    def __init__(self, kind: str, name: object, known: Iterable[object], hint: str = "") -> None:
        names = [str(k) for k in known]
        near = nearest(str(name), names)
        listing = ", ".join(names) if names else "none is registered"
        super().__init__(f"unknown {kind} '{name}'{near}; known: {listing}{'; ' + hint if hint else ''}")


class InvalidFileError(NASError):
    """A file that cannot be read as what it should be; the message starts with its path."""


class SpaceError(NASError):
    """A search space that is not well formed: a label declared twice with other candidates, a bad label, a branch."""


class ConfigError(NASError):
    """A configuration value, option or combination that cannot work."""


class ExportError(NASError):
    """A network that cannot be written in a format; the message names the module and the reason."""


class DivergedError(NASError):
    """Losses or gradients that stopped being finite."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
