"""DOT text, its quoting, and the program `dot` where there is one (or something like it)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nas.draw.dot import quote, run_dot, to_dot
from nas.errors import ConfigError
from nas.graph.network_graph import build_graph
from nas.space.definition import Description

STATEMENT = r'"(?:[^"\\]|\\.)*"'


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ("node", '"node"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("n/2<-0", '"n/2<-0"'),
        ("a:b -> c;", '"a:b -> c;"'),
        ("two\nlines", r'"two\nlines"'),
        ("ends in \\", '"ends in \\\\"'),
        ("", '""'),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    assert quote(text) == quoted
    assert re.fullmatch(STATEMENT, quoted)


def test_every_node_edge_and_group_is_there(restoration: Description) -> None:
    drawn = build_graph(restoration)
    text = to_dot(drawn)
    groups = {group for _, group in drawn.nodes(data="group") if group}
    assert len(re.findall(rf"^ +subgraph {STATEMENT} {{$", text, re.M)) == len(groups)
    assert len(re.findall(rf"^ +{STATEMENT} \[label=", text, re.M)) == len(drawn) - len(groups)
    assert len(re.findall(rf"^ +{STATEMENT} -> {STATEMENT}", text, re.M)) == drawn.number_of_edges()
    assert text.count("{") == text.count("}")


def test_operations_are_on_the_edges(classification: Description) -> None:
    choices = {label: "sep_conv_3x3" for label, d in classification.decisions.items() if d.kind == "operation"}
    inputs = {label: (0, 1) for label, d in classification.decisions.items() if d.kind == "inputs"}
    kept = {label: name for label, name in choices.items() if int(label.rsplit("-", 1)[1]) < 2}
    text = to_dot(build_graph(classification, kept | inputs))
    assert text.count('-> "cell normal/5" [label="sep_conv_3x3"') == 2


def test_a_missing_dot_says_what_to_do(
    restoration: Description, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"PNG .*'dot'.*'graphviz'.*SVG"):
        run_dot(build_graph(restoration), "png")


def script(folder: Path, body: str) -> None:
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_dot_gets_the_text_and_the_format(
    restoration: Description, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(tmp_path, 'echo "$@"; cat')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    arguments, _, text = run_dot(build_graph(restoration), "pdf").decode().partition("\n")
    assert "-Tpdf" in arguments
    assert text == to_dot(build_graph(restoration))


def test_a_failing_dot_is_reported(restoration: Description, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script(tmp_path, "cat > /dev/null; echo out of ink >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"PDF .*out of ink"):
        run_dot(build_graph(restoration), "pdf")


@pytest.mark.skipif(shutil.which("dot") is None, reason="the program 'dot' (Graphviz) is not installed")
def test_dot_reads_it(restoration: Description) -> None:
    assert run_dot(build_graph(restoration), "png").startswith(b"\x89PNG")
    text = to_dot(build_graph(restoration))
    canonical = subprocess.run(["dot", "-Tcanon"], input=text, capture_output=True, text=True)
    assert not canonical.stderr
