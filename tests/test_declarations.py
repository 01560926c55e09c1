"""Combinations of parts: those that the papers have are legal, and the others are refused with one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import toy
from nas.declarations import (
    EVERY_CANDIDATE,
    SEPARATE,
    SHARES,
    Declaration,
    Part,
    declaration_of,
    declares,
    require_composed,
)
from nas.errors import ConfigError, UnknownNameError
from nas.multilevel.parts import parts_of
from nas.registry import kind
from nas.relaxation.relaxation import USUAL
from nas.run.folder import LAST
from nas.supernet import Supernet
from runs import run_search


def part(what: str, **stated: Any) -> Part:
    return Part(what, declaration_of(declares(**stated)(lambda: None)))


SOFTMAX = part("relaxation 'softmax'", reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE))
SIGMOID = part("relaxation 'sigmoid'", reads="logits", writes="mixing weights", gives=(SEPARATE, EVERY_CANDIDATE))
PARTIAL = part("partial channels", reads="edge inputs", writes="edge inputs")
SKIP = part("auxiliary skip", reads=("edge inputs", "edge outputs"), writes="edge outputs")
PERTURBED = part("perturbation", reads="mixing weights", writes="mixing weights", needs=SHARES)
GAEA = part(
    "exponentiated gradient", reads=("logits", "mixing weights"), writes="logits", needs=(SHARES, EVERY_CANDIDATE)
)
THRESHOLD = part("threshold", reads="mixing weights", needs=SEPARATE)
STAGES = part("progressive stages", reads=("mixing weights", "candidates"), writes=("candidates", "logits"))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [SOFTMAX, PARTIAL, GAEA],
        [SOFTMAX, PERTURBED],
        [SOFTMAX, PARTIAL, SKIP],
        [SIGMOID, THRESHOLD],
        [SOFTMAX, PARTIAL, part("edge normalization", reads="mixing weights", writes="mixing weights")],
    ],
)
def test_legal_combinations(parts: list[Part]) -> None:
    require_composed(parts)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([SOFTMAX, SKIP, SKIP], r"auxiliary skip .* twice"),
        ([SOFTMAX, SIGMOID], r"'softmax' and relaxation 'sigmoid': only one may set mixing weights"),
        ([SIGMOID, PERTURBED], rf"perturbation needs {SHARES}, got relaxation 'sigmoid'"),
        ([SOFTMAX, PARTIAL, THRESHOLD], rf"threshold needs {SEPARATE}, got relaxation 'softmax'"),
        ([PERTURBED], rf"perturbation needs {SHARES}, got no part"),
        (
            [STAGES, part("other stages", writes="candidates", reads="logits"), part("list", writes="candidates")],
            "only one",
        ),
    ],
)
def test_combinations_that_cannot_work(parts: list[Part], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        require_composed(parts)
    assert "\n" not in str(raised.value)


def test_a_declaration_names_known_things() -> None:
    with pytest.raises(UnknownNameError, match=r"'logit' \(did you mean 'logits'\?\)"):
        declares(reads="logit")  # type: ignore[arg-type]
    assert declaration_of(object(), USUAL) is USUAL
    assert declaration_of(object()) == Declaration()
    assert Supernet("digits").relaxation.declaration.gives > {SHARES}


def test_every_relaxation_of_the_package_declares_itself() -> None:
    for name, relaxation in kind("relaxation").working():
        if relaxation.__module__.startswith("nas."):
            assert "mixing weights" in declaration_of(relaxation).writes, name


UPPER = "search.levels.upper"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [f"{UPPER}.regularizers=[{{name: zero_one, weight: 10}}]"],
            rf"regularizers\[0\] \(zero_one\) needs {SEPARATE}, got .*'softmax'",
        ),
        (["search.relaxation=sigmoid"], rf"\(entropy\) needs {SHARES}, got .*'sigmoid'"),
        (["search.relaxation=sigmoid", f"{UPPER}.regularizers=[{{name: dirichlet_kl, weight: 1}}]"], "'sigmoid'"),
        (["search.relaxation=uniform_path"], "level 'upper' needs logits"),
        (["search.relaxation=binary_gates"], r"hypergradient.middle \(unrolled\) needs the same candidates"),
        (["search.derivation=above_half"], rf"'above_half' needs {SEPARATE}, got .*'softmax'"),
    ],
)
def test_a_search_refuses_them_before_its_first_step(
    overrides: list[str], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table in ("_registered", "_origins"):
        monkeypatch.setattr(kind("derivation"), table, {})

    @kind("derivation").register("above_half")
    @declares(reads="mixing weights", needs=SEPARATE)
    def above_half(decisions: Any, weights: Any) -> Any:
        raise AssertionError

    with pytest.raises(ConfigError, match=message) as raised:
        run_search(tmp_path / "run", toy.config("search.steps=2", *overrides))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / LAST).exists()


def test_other_networks_have_no_parts() -> None:
    assert list(parts_of(torch.nn.Linear(1, 1), {}, {}, {})) == []
