"""Every problem of a genotype file, each with the path of its field."""

from __future__ import annotations

import pytest
from torch import nn

import toy  # noqa: F401  # registers the space
from nas.compare.problems import lint
from nas.genotype.file import Genotype, shipped
from nas.space.chooser import Chooser
from nas.space.definition import search_space

VALID = "schema: 1\nspace: toy\noptions: {channels: 4}\nchoices: {first: conv, second: tanh}\n"


@search_space("toy-lint")
def conditional(choose: Chooser, /, *, big: bool = True, nodes: int = 2) -> nn.Module:
    """A decision inside a candidate, a width, and a node; `nodes` must be even."""
    if nodes % 2:
        from nas.errors import ConfigError

        raise ConfigError("'nodes' is odd")
    inner = choose("outer", {"a": lambda: choose("inner", {"x": nn.Identity, "y": nn.Identity}), "b": nn.Identity})
    return nn.Sequential(
        inner, choose.width("width", (4, 8)), choose.inputs("n/2", {0: nn.Identity, 1: nn.Identity}, 1)
    )


def test_a_valid_file() -> None:
    assert lint(VALID) == []


@pytest.mark.parametrize("name", ["darts-v2", "fair-darts-b", "tmics-heavy"])
def test_shipped_genotypes_are_valid(name: str) -> None:
    assert lint(shipped()[name].read_text(), name) == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("space: toy", ["g: has no 'schema' field; this package reads version 1"]),
        (
            "schema: 1\nspace: toy\nchoices: {first: 1.5}",
            ["g: choices.first: Expected 'int | str | list', got 'float'"],
        ),
        ("schema: 1\nspace: tiy\nchoices: {}", ["g: space: unknown search space 'tiy' (did you mean 'toy'?)"]),
        (
            "schema: 1\nspace: toy\noptions: {channels: x, chanels: 3}\nchoices: {}",
            ["g: options.channels: option 'channels'", "g: options.chanels: unknown option of space 'toy' 'chanels'"],
        ),
        ("schema: 1\nspace: toy-lint\noptions: {nodes: 3}\nchoices: {}", ["g: options: 'nodes' is odd"]),
        (
            "schema: 1\nspace: toy\nchoices: {first: cnv, secnd: tanh}",
            [
                "g: choices.first must be conv, depthwise, scale, got 'cnv' (did you mean 'conv'?)",
                "g: choices.secnd is no decision of the space with these options (did you mean 'second'?)",
                "g: choices.second must be linear, tanh, got nothing",
            ],
        ),
        (
            "schema: 1\nspace: toy-lint\nchoices: {outer: b, inner: x, width: 6, n/2: [0, 1]}",
            [
                "g: choices.inner must be absent unless outer is a",
                "g: choices.width must be a width of 4, 8, got 6",
                "g: choices.n/2 must be 1 of the sources 0, 1, got [0, 1]",
            ],
        ),
        (
            "schema: 1\nspace: toy-lint\nchoices: {outer: a, width: 4, n/2: [0]}",
            ["g: choices.inner must be x, y, got nothing"],
        ),
        (
            VALID + "provenance: {scores: {psnr: .nan}, margins: {frist: 0.5, second: 1.5}}",
            [
                "g: provenance.scores.psnr must be a finite number, got nan",
                "g: provenance.margins.frist is no decision of the space (did you mean 'first'?)",
                "g: provenance.margins.second must be between 0 and 1, got 1.5",
            ],
        ),
    ],
)
def test_problems_name_their_field(text: str, problems: list[str]) -> None:
    found = lint(text, "g")
    assert len(found) == len(problems), found
    for line, start in zip(found, problems, strict=True):
        assert line.startswith(start)


def test_lint_agrees_with_the_network() -> None:
    """What lint lets pass can be built, and what it refuses can not."""
    space = conditional
    for outer, inner in (("a", "x"), ("a", None), ("b", None), ("b", "y"), ("c", None)):
        choices = {"outer": outer, "width": 4, "n/2": (1,)} | ({} if inner is None else {"inner": inner})
        genotype = Genotype(space=space.name, choices=choices)  # type: ignore[arg-type]
        try:
            space.derived(genotype)
        except Exception:  # noqa: BLE001  # any refusal
            assert lint(genotype.dump())
        else:
            assert lint(genotype.dump()) == []
