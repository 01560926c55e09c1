"""The modules that a run needs besides installed packages, so that an error can name them. Nothing is imported by them.

Imports nothing heavy: the command line starts with it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.errors import NASError, UnknownNameError

_asked: dict[str, None] = {}
"""What `import_module` imported, in order."""


def import_module(name: str) -> None:
    """Import a module that registers names, such as a search space; run folders of this process remember it."""
    importlib.import_module(name)
    _asked[name] = None


def imported_modules() -> tuple[str, ...]:
    """Modules that a new process must import to know all names that this one knows.

    These are the modules of `import_module`, and those that registered a name and belong to no installed plugin.
    """
    from nas.registry import kinds  # it imports msgspec

    points = (point for each in kinds.values() for point in each.points())
    installed = {point.module.partition(".")[0] for point in points}
    origins = (origin.partition(":")[0] for each in kinds.values() for origin in each.names().values())
    found = (module for module in origins if module.partition(".")[0] not in {*installed, "nas", "__main__"})
    return tuple(dict.fromkeys([*_asked, *(module for module in found if module in sys.modules)]))


@contextmanager
def naming_modules(folder: str | Path) -> Iterator[None]:
    """Inside, an error about an unknown name also names the modules that the run in `folder` was started with."""
    try:
        yield
    except NASError as error:
        if _is_about_a_name(error) and (hint := _hint(Path(folder))) and hint not in str(error):
            error.args = (f"{error}; {hint}",)
        raise


def _is_about_a_name(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, UnknownNameError):
            return True
        error = error.__cause__
    return False


def _hint(folder: Path) -> str:
    """The modules of a run that are not imported here, as an instruction; empty if there are none."""
    from nas.run.folder import read_versions  # it imports torch

    try:
        missing = [name for name in read_versions(folder).modules if name not in sys.modules]
    except NASError:
        return ""
    options = " ".join(f"--import {name}" for name in missing)
    return f"{folder} was started with {options}; add it" if missing else ""
