"""`nas genotype` on the toy space and on TMICS."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toy
from nas.compare.canonical_form import canon
from nas.genotype.file import Genotype

Nas = Callable[..., Any]
Refused = Callable[..., str]

TUPLE = (
    "g = Genotype([('aligned modules', 0)], [1], [('Residualblocks_5_1', 0), ('SPAattention_3', 1)], [1],"
    " [('filter of 2', 0)], [1])\n"
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST).save("a.yaml")
    Genotype(space="toy", choices=toy.DEAREST | {"first": "scale"}).save("b.yaml")
    Path("bad.yaml").write_text("schema: 1\nspace: toy\nchoices: {first: cnv, third: tanh}\n")
    Path("tuple.py").write_text(TUPLE)
    return tmp_path


@pytest.mark.usefixtures("files")
def test_lint(nas: Nas, searched: Path) -> None:
    assert nas("genotype", "lint", "a.yaml", "tmics-light", searched) == (
        0,
        f"a.yaml: valid\ntmics-light: valid\n{searched}: valid\n",
        "",
    )
    result = nas("genotype", "lint", "a.yaml", "bad.yaml")
    assert result.code == 2
    lines = result.out.splitlines()
    assert lines[0] == "a.yaml: valid"
    assert lines[1].startswith("bad.yaml: choices.first must be conv,")
    assert lines[3].startswith("bad.yaml: choices.second must be linear,")
    assert result.err == "nas: 3 problems in 1 of 2 genotypes\n"


@pytest.mark.usefixtures("files")
def test_diff(nas: Nas) -> None:
    out = nas("genotype", "diff", "a.yaml", "b.yaml", "--out", "d.svg").out
    assert re.search(r"^choices\.first +conv +scale$", out, re.M)
    assert out.endswith("\n1 of 2 decisions differ\n")
    assert "was conv" in Path("d.svg").read_text()
    assert nas("genotype", "diff", "a.yaml", "a.yaml").out == "0 of 2 decisions differ\n"


@pytest.mark.usefixtures("files")
def test_canon(nas: Nas, searched: Path) -> None:
    out = nas("genotype", "canon", "a.yaml", "b.yaml", "tmics-light").out
    for target in ("a.yaml", "b.yaml", "tmics-light"):
        hashes = canon(Genotype.load(target))
        assert re.search(rf"^{re.escape(target)} +{hashes.iso} +{hashes.canonical}$", out, re.M)
    out = nas("genotype", "canon", "tmics-light", "--cells").out
    assert re.search(r"^tmics-light +cell +[0-9a-f]{16} +\(\(\(\(0\)@residual_5x5\)@spatial_attention\)@", out, re.M)


@pytest.mark.usefixtures("files")
def test_import(nas: Nas) -> None:
    assert nas("genotype", "import", "tuple.py", "--format", "tmics", "channels=8", "--out", "t.yaml").out == ""
    found = Genotype.load("t.yaml")
    assert (found.options["channels"], found.options["layers"]) == (8, 2)
    assert nas("genotype", "lint", "t.yaml").code == 0
    shown = nas("genotype", "import", "tuple.py", "-f", "tmics", "--name", "g").out
    assert Genotype.parse(shown).choices == found.choices
    assert "source: tuple.py, read as 'tmics'" in shown


@pytest.mark.usefixtures("files")
def test_export(nas: Nas) -> None:
    shown = nas("genotype", "export", "darts-v2", "--format", "darts").out
    assert shown.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
    assert nas("genotype", "export", "tmics-heavy", "-f", "tmics", "--out", "h.py").out == ""
    assert nas("genotype", "import", "h.py", "-f", "tmics", "--out", "h.yaml").code == 0
    assert Genotype.load("h.yaml").choices == Genotype.load("tmics-heavy").choices


@pytest.mark.usefixtures("files")
def test_upgrade(nas: Nas) -> None:
    before = Path("a.yaml").read_text()
    assert (
        nas("genotype", "upgrade", "a.yaml", "b.yaml").out == "a.yaml: schema 1, current\nb.yaml: schema 1, current\n"
    )
    assert Path("a.yaml").read_text() == before


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lint"], "nas genotype lint: TARGETS is missing"),
        (["lint", "nothing"], "unknown genotype 'nothing'"),
        (["diff", "a.yaml", "bad.yaml"], "bad.yaml: unknown candidate of 'first' 'cnv' (did you mean 'conv'?)"),
        (["diff", "a.yaml", "b.yaml", "--out", "d.jpg"], "unknown suffix of a picture '.jpg'"),
        (["diff", "a.yaml", "tmics-light", "--out", "d.svg"], "got 'toy' and 'tmics'"),
        (["canon", "a.yml"], "a.yml: cannot be read: No such file"),
        (["import", "tuple.py"], "tuple.py: --format must be one of darts, mmrazor"),
        (["import", "tuple.py", "-f", "tmcs"], "unknown importer 'tmcs' (did you mean 'tmics'?)"),
        (["import", "tuple.py", "-f", "tmics", "--name", "h"], "tuple.py: the text must define 'h'"),
        (["import", "tuple.py", "-f", "tmics", "chanels=8"], "tuple.py: unknown option of space 'tmics' 'chanels'"),
        (["import", "tuple.py", "-f", "tmics", "channels"], "must be name=value, got 'channels'"),
        (["import", "a.yaml", "-f", "tmics"], "a.yaml: line 3: text must be Python"),
        (["import", "no.py", "-f", "tmics"], "no.py: cannot be read"),
        (["export", "a.yaml", "-f", "darts"], "the genotype must be of space 'darts', got 'toy'"),
        (["export", "a.yaml", "-f", "drats"], "unknown exporter 'drats' (did you mean 'darts'?)"),
        (["upgrade", "tuple.py"], "tuple.py must be a mapping"),
    ],
)
def test_refused(arguments: list[str], message: str, nas: Nas) -> None:
    result = nas("genotype", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
