"""The application with all its commands, and what runs one."""

from __future__ import annotations

import importlib
import os
import sys
import warnings

from cyclopts import CycloptsError
from cyclopts.exceptions import MissingArgumentError

from nas.cli import checking, genotypes, inspecting, reporting, running, tuning
from nas.cli.app import app
from nas.errors import ConfigError, NASError, shortened

__all__ = ["app", "checking", "genotypes", "inspecting", "reporting", "run", "running", "tuning"]


def run(arguments: list[str]) -> None:
    """Run the command in the arguments: a user's mistake is one line and exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app(_import_modules(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except MissingArgumentError as error:
        _tell(_missing(error))
        sys.exit(2)
    except (NASError, CycloptsError) as error:
        _tell(str(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(1)


def _missing(error: MissingArgumentError) -> str:
    """What to add to a command that lacks an argument; cyclopts' own words if only its value is missing."""
    argument = error.argument
    if argument is None or error.keyword is not None or argument.tokens:
        return str(error)
    command = " ".join(["nas", *(error.command_chain or ())])
    explained = f": {' '.join(argument.parameter.help.split())}" if argument.parameter.help else ""
    return f"{command}: {argument.name} is missing{explained.rstrip('.')}. See `{command} --help`."


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as a line of the command, not of the code that gives it."""
    _tell(f"warning: {message}")


def _tell(text: str) -> None:
    print(f"nas: {shortened(' '.join(text.split()))}", file=sys.stderr)


def _import_modules(arguments: list[str]) -> list[str]:
    """Take `--import MODULE` out of the arguments and import the modules: the only way to load more code."""
    rest = []
    remaining = iter(arguments)
    for argument in remaining:
        option, equals, name = argument.partition("=")
        if option != "--import":
            rest.append(argument)
            continue
        name = name if equals else next(remaining, "")
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"--import must be the name of a module, got '{name}'")
        sys.path.insert(0, "")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"--import {name}: {error}") from error
    return rest
