from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.cli.terminal import say
from nas.report.progress import Progress

ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202e"


@pytest.mark.parametrize("error", [False, True])
def test_control_characters_are_escaped_and_lines_stay_lines(error: bool, capsys: pytest.CaptureFixture[str]) -> None:
    say(ESCAPE, 1, Path("a"), end="", error=error)
    say("one\ntwo é\n", error=error)
    assert capsys.readouterr()[error] == r"\x1b[31mred\x1b]0;title\x07\u202e 1 aone" + "\ntwo é\n\n"


def test_names_in_progress_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("search", 2, interval=0.0) as progress:
        progress.update(1, {ESCAPE: 1.0})
        progress.advise([ESCAPE])
    out = capsys.readouterr().out
    assert out.count(r"\x1b[31mred") == 2
    assert "\x1b" not in out


def test_what_is_said_of_a_file_is_escaped(
    nas: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "card.md").write_text('---\ntask: toy\nsummary: "\\e[31mred"\n---\n')
    (tmp_path / "table.csv").write_text(f"key,{ESCAPE}\nx,y\n")
    for command in (
        ("models", tmp_path),
        ("score", tmp_path / "table.csv"),
        ("genotype", "lint", tmp_path / "card.md"),
    ):
        result = nas(*command)
        assert result.code == 2
        assert "\x1b" not in result.out + result.err
