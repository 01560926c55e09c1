"""Which parts go together: the table, what the papers combine, and that each legal pair saves, loads and steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from nas.cost.space_cost import costs
from nas.declarations import LEARNED
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.config import load_config
from nas.supernet import Supernet
from nas.testing.small_space import SMALL

ARGUMENTS: dict[str, dict[str, Any]] = {
    "partial_channels": {"k": 2},
    "skip_dropout": {"rate": 0.3, "epochs": 2, "warmup": 1},
    "exponentiated_gradient": {"lr": 0.1},
}
"""What parts are given besides their defaults."""
WALKED = ("wrapper", "regularizer", "optimizer", "freezing")


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("compositions")


def test_the_table_is_current(tool: Any) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.updated(page) == page, "run tools/compositions.py"


def part(tool: Any, name: str) -> Any:
    every = [*tool.relaxations(), *(each for found in tool.others().values() for each in found)]
    return next(each for each in every if each.what.endswith(f"'{name}'"))


@pytest.mark.parametrize(
    "names",
    [
        ("sigmoid", "zero_one", "threshold"),  # FairDARTS
        ("dirichlet", "dirichlet_l2", "partial_channels"),  # DrNAS
        ("softmax", "partial_channels", "edge_normalization"),  # PC-DARTS
        ("softmax", "partial_channels", "edge_normalization", "exponentiated_gradient"),  # PC-DARTS and GAEA
        ("softmax", "perturbation", "partial_channels", "edge_normalization"),  # SDARTS on PC-DARTS
        ("softmax", "auxiliary_skip"),
    ],
)
def test_what_the_papers_combine_is_legal(tool: Any, names: tuple[str, ...]) -> None:
    assert tool.refusal([part(tool, name) for name in names]) == ""


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("softmax", "threshold"), "threshold' needs mixing weights that do not depend on one another"),
        (("softmax", "zero_one"), "zero_one' needs mixing weights that do not depend on one another"),
        (("softmax", "dirichlet_kl"), "needs Dirichlet-distributed mixing weights"),
        (("sigmoid", "entropy"), "entropy' needs mixing weights that sum to 1"),
        (("softmax", "sigmoid"), "only one may set mixing weights"),
        (("softmax", "auxiliary_skip", "auxiliary_skip"), "must be listed once"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tool: Any, names: tuple[str, ...], reason: str) -> None:
    found = tool.refusal([part(tool, name) for name in names])
    assert reason in found
    assert "\n" not in found


def test_every_legal_pair_saves_loads_and_steps_bit_for_bit(tool: Any) -> None:
    walked = 0
    for relaxation, chosen in legal(tool):
        learned = LEARNED in part(tool, relaxation).declaration.gives
        first, second = (engine(relaxation, chosen, learned) for _ in range(2))
        first.step(0)
        file = io.BytesIO()
        torch.save({"network": first.model.state_dict(), "levels": first.state_dict()}, file)
        file.seek(0)
        first.step(1)
        state = torch.load(file, weights_only=True)
        second.model.load_state_dict(state["network"])
        second.load_state_dict(state["levels"])
        second.step(1)
        found = second.model.state_dict()
        for name, tensor in first.model.state_dict().items():
            assert torch.equal(tensor, found[name]), f"{relaxation} with {chosen}: {name}"
        walked += 1
    assert walked > 40


def legal(tool: Any) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Each relaxation with each other part, and under `softmax` each two wrappers."""
    found = {what: [tool._name(each) for each in parts] for what, parts in tool.others().items() if what in WALKED}
    for relaxation in tool.relaxations():
        gives = relaxation.declaration.gives
        for what, names in found.items():
            for name in names:
                needs_level = what in ("optimizer", "freezing") and LEARNED not in gives
                if not needs_level and not tool.refusal([relaxation, part(tool, name)]):
                    yield tool._name(relaxation), {what: [name]}
    wrappers = found.get("wrapper", [])
    for i, one in enumerate(wrappers):
        for other in wrappers[i + 1 :]:
            if not tool.refusal([part(tool, "softmax"), part(tool, one), part(tool, other)]):
                yield "softmax", {"wrapper": [one, other]}


def engine(relaxation: str, chosen: dict[str, list[str]], learned: bool) -> Multilevel:
    """Two levels over a tiny supernet with these parts; one if logits do not learn."""

    def entries(what: str, **more: Any) -> list[dict[str, Any]]:
        return [{"name": name, **ARGUMENTS.get(name, {}), **more} for name in chosen.get(what, [])]

    supernet = Supernet(SMALL.space, relaxation=relaxation, wrappers=entries("wrapper"), seed=1, channels=4)
    common: dict[str, Any] = {"loss": "squared", "split": "all", "optimizer": {"name": "sgd", "lr": 0.05}}
    optimizer = {"optimizer": entries("optimizer")[0]} if "optimizer" in chosen else {}
    freezing = {"freezing": entries("freezing")[0]} if "freezing" in chosen else {}
    levels = {"lower": {"parameters": ["network.*"], **common, **freezing}}
    if learned:
        terms = {"regularizers": entries("regularizer", weight=0.1)}
        levels["upper"] = {"parameters": ["arch.*"], **common, **optimizer, **terms}
    elif "regularizer" in chosen:
        levels["lower"]["regularizers"] = []
    cost = costs(SMALL.space.describe(channels=4))
    return Multilevel(
        supernet,
        {name: convert(level, Level, name) for name, level in levels.items()},
        {"squared": lambda net, x: net(x).square().mean()},
        lambda split, index: SMALL.example + 0.1 * index,
        4,
        dict.fromkeys(("cost", "flops", "latency"), lambda: cost),
    )


@pytest.mark.parametrize(
    "name", ["fair-darts", "gdas", "darts-pt", "pc-darts", "drnas", "gaea", "sdarts-adv", "oles", "robust-darts"]
)
def test_recipes_compose(tool: Any, name: str) -> None:
    how = load_config(name).search
    names = [how.relaxation, how.derivation, *how.wrappers]
    plain = [each if isinstance(each, str) else each["name"] for each in names]
    declared = [each for found in tool.others().values() for each in found]
    known = {tool._name(each) for each in [*tool.relaxations(), *declared]}
    assert tool.refusal([part(tool, each) for each in plain if each in known]) == ""
