"""Rich output that is redrawn in place in a notebook cell."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

FORMAT = '<pre style="white-space: pre; line-height: normal; font-family: Menlo, Consolas, monospace">{code}</pre>'
EVERY = 0.25
"""Seconds between two drawings, at least."""


class NotebookLive:
    """Show the output of a function and redraw it. Needs IPython only; rich's `Live` also needs ipywidgets.

    Args:
        render: returns the content to show.
        width: the width of the output in characters.
    """

    def __init__(self, render: Callable[[], RenderableType], width: int = 100) -> None:
        self._render, self._width, self._drawn = render, width, 0.0
        self._handle: Any = None

    def start(self) -> None:
        """Show the content for the first time."""
        from IPython.display import display

        self._handle = display(self, display_id=True)

    def refresh(self) -> None:
        """Redraw the content, at most every `EVERY` seconds."""
        if time.monotonic() - self._drawn >= EVERY:
            self._handle.update(self)

    def stop(self) -> None:
        """Redraw the content for the last time."""
        self._handle.update(self)

    def _repr_html_(self) -> str:
        self._drawn = time.monotonic()
        console = Console(record=True, width=self._width, file=io.StringIO(), force_jupyter=False)
        console.print(self._render())
        return console.export_html(inline_styles=True, code_format=FORMAT)
