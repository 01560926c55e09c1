"""Errors are also the Python exceptions that a caller would catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas import errors
from nas.files import listed, read_text

CAUGHT = {
    "ConfigError": ValueError,
    "DivergedError": ArithmeticError,
    "ExportError": ValueError,
    "InvalidFileError": ValueError,
    "MissingFileError": FileNotFoundError,
    "MissingPackageError": ImportError,
    "RankError": ConnectionError,
    "SpaceError": ValueError,
    "UnknownNameError": KeyError,
}


def test_every_error_is_listed_here() -> None:
    own = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert own - {"NASError"} == set(CAUGHT)


@pytest.mark.parametrize("name", CAUGHT)
def test_errors_are_exceptions_of_python(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.NASError)
    assert issubclass(error, CAUGHT[name])
    raised = (
        error("space", "dart", ["darts"])
        if name == "UnknownNameError"
        else error(*["a\nb"] * (1 + (CAUGHT[name] is ImportError)))
    )
    assert "\n" not in str(raised)
    assert str(raised).startswith(("a b", "unknown space 'dart' (did you mean 'darts'?)"))


def test_what_does_not_exist_is_a_missing_file(tmp_path: Path) -> None:
    for read in (read_text, listed):
        with pytest.raises(FileNotFoundError, match="nowhere") as caught:
            read(tmp_path / "nowhere")
        assert isinstance(caught.value, errors.MissingFileError)
