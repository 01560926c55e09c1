"""Run a command of the application, and load modules of users for it."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import ExitStack

from cyclopts import CycloptsError
from cyclopts.exceptions import MissingArgumentError

from nas.cli import (
    benchmarking,
    checking,
    conformance,
    correlating,
    examining,
    genotypes,
    inspecting,
    models,
    planning,
    reporting,
    running,
    tuning,
    zero_cost,
)
from nas.cli.app import app
from nas.cli.launching import on_ranks
from nas.cli.terminal import say
from nas.distributed.environment import launched_rank
from nas.errors import ConfigError, InvalidFileError, NASError, shortened
from nas.run.modules import import_module, naming_modules

__all__ = [
    "app",
    "benchmarking",
    "checking",
    "conformance",
    "correlating",
    "examining",
    "genotypes",
    "inspecting",
    "models",
    "planning",
    "reporting",
    "run",
    "running",
    "tuning",
    "zero_cost",
]


def run(arguments: list[str]) -> None:
    """Run the command in the arguments. A user error prints one line and exits with 2."""
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.showwarning = _warn
            for folder in _run_folders(arguments):
                stack.enter_context(naming_modules(folder))
            rest = _import_modules(arguments)
            stack.enter_context(on_ranks(rest))
            app(rest, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except MissingArgumentError as error:
        _tell(_missing(error))
        sys.exit(2)
    except (NASError, CycloptsError) as error:
        _tell(str(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # of it pathlib's tests raise; they return False for all others
            raise
        _tell(str(InvalidFileError(f"{error.filename}: a file must have a shorter name")))
        sys.exit(2)


def _missing(error: MissingArgumentError) -> str:
    """Return the error for a missing argument; that of cyclopts if only its value is missing."""
    argument = error.argument
    if argument is None or error.keyword is not None or argument.tokens:
        return str(error)
    command = " ".join(["nas", *(error.command_chain or ())])
    explained = f": {' '.join(argument.parameter.help.split())}" if argument.parameter.help else ""
    return f"{command}: {argument.name} is missing{explained.rstrip('.')}. See `{command} --help`."


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without its source code; that of rank 0 stands for those of all ranks."""
    if launched_rank() == 0:
        _tell(f"warning: {message}")


def _tell(text: str) -> None:
    rank = f"rank {launched_rank()}: " if launched_rank() else ""
    say(f"nas: {rank}{shortened(' '.join(text.split()))}", error=True)


def _run_folders(arguments: list[str]) -> list[str]:
    """Return the run folders among the arguments."""
    paths = [argument.partition("=")[2] if argument.startswith("--") else argument for argument in arguments]
    return [path for path in paths if os.path.isfile(os.path.join(path, "versions.yaml"))]


def _import_modules(arguments: list[str]) -> list[str]:
    """Import the modules of `--import MODULE`, and return the other arguments. Nothing else loads code of users."""
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
            import_module(name)
        except ImportError as error:
            raise ConfigError(f"--import {name}: {error}") from error
    return rest
