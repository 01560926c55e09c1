"""The notebooks of docs/notebooks/ run, and show outputs of the kinds that were saved with them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("sklearn")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def kinds(notebook: Any) -> list[list[str]]:
    """What each code cell shows: the names of its outputs. A stream of text may arrive in any number of pieces."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    named = [[output.get("name") or richest(output.data) for output in cell.outputs] for cell in cells]
    return [[name for name, _ in itertools.groupby(names)] for names in named]


def richest(data: dict[str, Any]) -> str:
    return next(kind for kind in ("text/html", "text/plain") if kind in data)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_was_saved(path: Path, tmp_path: Path) -> None:
    saved = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    short = copy.deepcopy(saved)
    for cell in short.cells:
        cell.source = cell.source.replace('steps": 150', 'steps": 10')
    executed = nbclient.NotebookClient(short, timeout=280, resources=resources).execute()
    assert kinds(executed) == kinds(saved)
    assert sum(map(len, kinds(saved))) > 0


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
