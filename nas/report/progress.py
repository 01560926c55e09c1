"""Progress bars: redrawn in terminals and notebooks, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from nas.errors import printable
from nas.report.notebook_progress import NotebookLive


def watched(progress: bool | None) -> bool:
    """Return whether to show progress; None means only if a terminal or notebook can redraw it."""
    console = Console()
    return progress if progress is not None else console.is_terminal or console.is_jupyter


class Leader(NamedTuple):
    """The strongest candidate of a decision, its mixing weight, and its margin over the runner-up, both in [0, 1]."""

    name: str
    weight: float
    margin: float


Leaders = Mapping[str, Leader]
"""The leader of each decision, by label."""

SHOWN = 8
"""Decisions shown in a terminal, at most; plain lines show half as many."""


class Progress:
    """Show steps, speed, metrics, leading candidates, memory and advice of a loop.

    A terminal or a notebook redraws a few lines in place. Elsewhere a line is printed every `interval` seconds and at
    the end.

    Args:
        title: the name of the loop, such as "search".
        total_steps: the steps of the whole loop.
        start: the steps done before, by a run that is resumed.
        quiet: show nothing.
        interval: seconds between printed lines.
        console: where to write; standard output if None.
        memory: returns the text about memory.
        unit: the unit of steps.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        start: int = 0,
        *,
        quiet: bool = False,
        interval: float = 10.0,
        console: Console | None = None,
        memory: Callable[[], str] = str,
        unit: str = "steps",
    ) -> None:
        self._console = console or Console()
        self._memory = memory
        self._unit = unit
        self._advice: Sequence[str] = ()
        self._title, self._total, self._start, self._step = title, total_steps, start, start
        self._metrics: Mapping[str, float] = {}
        self._leaders: Leaders = {}
        self._interval, self._told_step = interval, start
        self._live: Live | NotebookLive | None = None
        self._plain = not quiet
        terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        if self._plain and (terminal or self._console.is_jupyter):
            self._plain = False
            self._bar = _bar(title, total_steps, start, self._console, unit)
            if terminal:
                self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
            else:
                self._live = NotebookLive(self._render)

    def __enter__(self) -> Self:
        self._began = self._told = time.monotonic()
        if self._live:
            self._live.start()
        return self

    def update(self, step: int, metrics: Mapping[str, float], leaders: Leaders | None = None) -> None:
        """Show the steps done and the metrics. None for `leaders` keeps the previous ones."""
        self._step, self._metrics = step, {printable(name): value for name, value in metrics.items()}
        self._leaders = self._leaders if leaders is None else leaders
        if self._live:
            self._bar.update(self._bar.task_ids[0], completed=step)
            if isinstance(self._live, NotebookLive):  # a thread redraws terminals
                self._live.refresh()
        elif self._plain and time.monotonic() - self._told >= self._interval:
            self._tell()

    def advise(self, advice: Sequence[str]) -> None:
        """Show advice in place of the previous advice."""
        advice = [printable(text) for text in advice]
        if self._plain:
            for text in advice:
                if text not in self._advice:
                    self._print(f"advice: {text}")
        self._advice = advice

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            for text in self._advice:  # in full; a redrawn line may have been cut
                self._print(f"advice: {text}")
        elif self._plain and self._step > self._told_step:
            self._tell()

    def _tell(self) -> None:
        self._told, self._told_step = time.monotonic(), self._step
        self._print(self._line())

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _line(self) -> str:
        speed = (self._step - self._start) / max(time.monotonic() - self._began, 1e-9)
        left = timedelta(seconds=round((self._total - self._step) / speed)) if speed else "?"
        parts = [f"{self._title} {self._step}/{self._total} ({self._step / max(self._total, 1):.0%})"]
        parts += [f"{speed:.3g} {self._unit}/s", f"{left} left"]
        parts += [f"{name} {_text(value)}" for name, value in self._metrics.items()]
        parts += [memory] if (memory := self._memory()) else []
        leaders = [*self._leaders.items()][: SHOWN // 2]
        parts += [f"{label}={name} {weight:.2f} (+{margin:.2f})" for label, (name, weight, margin) in leaders]
        return "  ".join(parts) + (f"  (+{more})" if (more := len(self._leaders) - SHOWN // 2) > 0 else "")

    def _render(self) -> Group:
        # No line wraps, because output taller than the terminal is not redrawn in place.
        parts: list[RenderableType] = [self._bar]
        metrics = Text(no_wrap=True, overflow="ellipsis")
        for name, value in self._metrics.items():
            metrics.append(f"  {name} ", "dim").append(_text(value))
        if memory := self._memory():
            metrics.append("  memory ", "dim").append(memory)
        if metrics:
            parts.append(metrics)
        if self._leaders:
            parts.append(_gauges([*self._leaders.items()][:SHOWN]))
        if len(self._leaders) > SHOWN:
            parts.append(Text(f"  and {len(self._leaders) - SHOWN} more decisions", "dim"))
        parts += [Text(f"  ! {text}", "yellow", no_wrap=True, overflow="ellipsis") for text in self._advice]
        return Group(*parts)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _gauges(leaders: Sequence[tuple[str, Leader]]) -> Table:
    rows = Table.grid(padding=(0, 2))
    for width in (4, 4, 4, 5, None):
        rows.add_column(no_wrap=True, overflow="ellipsis", min_width=width)
    for label, (name, weight, margin) in leaders:
        gauge = ProgressBar(total=1.0, completed=weight if math.isfinite(weight) else 0.0, width=20)
        rows.add_row(Text(f"  {label}", "dim"), Text(name, "bold"), f"{weight:.2f}", f"+{margin:.2f}", gauge)
    return rows


class _Speed(bars.ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._unit = unit

    def render(self, task: bars.Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} {self._unit}/s", "dim")


def _bar(title: str, total: int, start: int, console: Console, unit: str) -> bars.Progress:
    bar = bars.Progress(
        bars.TextColumn("{task.description}", style="bold", markup=False),
        bars.BarColumn(bar_width=30),
        bars.MofNCompleteColumn(),
        _Speed(unit),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
    )
    bar.add_task(title, total=total, completed=start)
    return bar
