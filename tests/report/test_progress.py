from __future__ import annotations

import io
import re
import sys
import time
from types import ModuleType

import pytest
from rich.console import Console

from nas.report.progress import SHOWN, Leader, Progress, watched

LEADERS = {
    "alignment": Leader("ofm", 0.75, 0.5),
    **{f"dna/{i}": Leader("channel_attention", 0.2, 0.01) for i in range(9)},
}


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def run(console: Console, steps: int = 10, **options: object) -> str:
    with Progress("search", 10, console=console, **options) as progress:  # type: ignore[arg-type]
        for step in range(1, steps + 1):
            progress.update(step, {"lower": 1 / step, "upper": 0.5}, LEADERS)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_gets_plain_lines_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with Progress("search", 120, start=20, interval=10.0, console=Console(file=out)) as progress:
        for step in range(21, 101):
            clock.now += 0.5
            progress.update(step, {"lower": 1 / step, "upper": float("nan")}, LEADERS if step == 21 else None)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["40/120", "60/120", "80/120", "100/120"]
    assert lines[0] == (
        "search 40/120 (33%)  2 steps/s  0:00:40 left  lower 0.025  upper nan"
        "  alignment=ofm 0.75 (+0.50)  dna/0=channel_attention 0.20 (+0.01)  dna/1=channel_attention 0.20 (+0.01)"
        "  dna/2=channel_attention 0.20 (+0.01)  (+6)"
    )


def test_the_last_step_is_always_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert run(Console(file=io.StringIO())).splitlines()[-1].startswith("search 10/10 (100%)")
    assert run(Console(file=io.StringIO()), steps=4).startswith("search 4/10 (40%)")
    assert run(Console(file=io.StringIO()), steps=0) == ""


def test_what_stopped_the_loop_passes() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress("search", 10, console=Console(file=out)) as progress:  # noqa: PT012
        progress.update(3, {})
        raise KeyboardInterrupt
    assert out.getvalue().startswith("search 3/10 (30%)")


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet(terminal: bool) -> None:
    assert run(Console(file=io.StringIO(), force_terminal=terminal), quiet=True) == ""


def test_a_file_and_a_dumb_terminal_get_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in run(Console(file=io.StringIO(), width=40))
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in run(Console(file=io.StringIO(), force_terminal=True))


def test_a_terminal_shows_bar_metrics_and_leaders_in_place() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None)
    with Progress("search", 10, console=console) as progress:
        for step in (4, 10):
            progress.update(step, {"lower": 1 / step, "upper": 0.5}, LEADERS)
            time.sleep(0.4)  # it redraws four times a second
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1A" in told, "goes up to draw in place"
    assert told.endswith("\x1b[?25h"), "shows the cursor again"
    last = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", told.rsplit("\x1b[2K", 1)[-1]).splitlines()
    assert last[0].startswith("search ━")
    assert "10/10" in last[0]
    assert last[1].split() == ["lower", "0.1", "upper", "0.5"]
    assert last[2].split() == ["alignment", "ofm", "0.75", "+0.50", "━" * 15]
    assert len(last) == 2 + SHOWN + 1
    assert last[-1].strip() == "and 2 more decisions"


def test_no_line_wraps_in_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=40, height=30, color_system=None)
    told = run(console)
    last = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", told.rsplit("\x1b[2K", 1)[-1]).splitlines()
    assert len(last) == 2 + SHOWN + 1
    assert max(map(len, last)) <= 40
    assert all("0.20" in line for line in last[3:-1])


def test_names_are_no_markup() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with Progress("[red]search", 2, console=console) as progress:
        progress.update(1, {"[bold]loss": 1.0}, {"[a]": Leader("[b]", float("nan"), float("nan"))})
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in told for name in ("[red]search", "[bold]loss", "[a]", "[b]"))


def test_memory_and_advice_in_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=30, color_system=None)
    long = "cell 'normal' has collapsed: " + "use the genotype of an earlier epoch, " * 3
    with Progress("search", 10, console=console, memory=lambda: "1.5 GB") as progress:
        progress.update(10, {"lower": 0.5})
        progress.advise(["old"])
        progress.advise([long])
    told = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    assert "lower 0.5  memory 1.5 GB" in told
    assert "  ! cell 'normal' has collapsed: use the genotype of an ear…" in told
    assert told.rstrip().endswith(f"advice: {long}".rstrip()), "whole at the end"
    assert "old" not in told.rsplit("search", 1)[-1]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_counted_is_named(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, height=30, color_system=None)
    with Progress("predict", 4, console=console, unit="frames") as progress:
        for frame in range(1, 5):
            progress.update(frame, {})
    assert " frames/s" in console.file.getvalue()  # type: ignore[attr-defined]


# --- notebooks ---


class Handle:
    """The output of a cell, as IPython has it."""

    def __init__(self, shown: object) -> None:
        self.drawn = [shown._repr_html_()]  # type: ignore[attr-defined]

    def update(self, shown: object) -> None:
        self.drawn.append(shown._repr_html_())  # type: ignore[attr-defined]


@pytest.fixture
def handles(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """The outputs that are made, in a notebook without ipywidgets."""
    made: list[Handle] = []
    display = ModuleType("IPython.display")
    display.display = lambda shown, display_id: made.append(Handle(shown)) or made[-1]  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return made


def test_a_notebook_redraws_one_output(handles: list[Handle], monkeypatch: pytest.MonkeyPatch) -> None:
    clock, out = Clock(monkeypatch), io.StringIO()
    with Progress("search", 100, console=Console(file=out, force_jupyter=True)) as progress:
        for step in range(1, 101):
            clock.now += 0.1
            progress.update(step, {"lower": 1 / step}, LEADERS)
    (handle,) = handles
    assert 30 <= len(handle.drawn) <= 52, "every few steps, not at each"
    assert "100/100" in handle.drawn[-1]
    assert "channel_attention" in handle.drawn[-1]
    assert out.getvalue() == ""


def test_progress_is_shown_where_it_can_be_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, jupyter in ((True, False), (False, True), (False, False)):
        console = Console(force_terminal=terminal, force_jupyter=jupyter)
        monkeypatch.setattr("nas.report.progress.Console", lambda made=console: made)
        assert watched(None) is (terminal or jupyter)
        assert watched(True)
        assert not watched(False)
