"""Predicted memory against the bytes of tensors in real steps; time by the levels that move."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nas
from nas.cost.meter import footprint
from nas.errors import ConfigError
from nas.kernels.freed_memory import memory_kept
from nas.kernels.memory_format import channels_last
from nas.run import plan
from nas.run.plan import OVERHEAD, SLACK, Need, drawn_genotype, needs, speed
from nas.run.retraining import build_network, build_stages
from nas.run.searching import build_levels, build_supernet

SHORT = {"search.steps": 20, "options.nodes": 2, "task.batch": 64}


def config(**changes: Any) -> nas.Config:
    return nas.load_config("digits", {**SHORT, **changes})


def needed(loaded: nas.Config, work: plan.Work = "search") -> Need:
    return needs(loaded, work, loaded.build_task(retraining=work == "retrain"), 0)


CHANGES: list[dict[str, Any]] = [
    {},
    {"search.memory": "checkpoint"},
    {"search.evaluation": "plain"},
    {"search.relaxation": "gumbel"},
    {"search.levels.upper.hypergradient": {"lower": {"name": "unrolled", "steps": 2}}},
    {"search.levels.lower.accumulate": 2, "search.levels.upper.hypergradient": None},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_simulated_memory_of_a_search_is_that_of_its_steps(changes: dict[str, Any]) -> None:
    loaded = config(**changes)
    task = loaded.build_task()
    supernet = build_supernet(loaded)
    levels = build_levels(loaded, supernet, task)
    levels.step(0)
    before = [*supernet.parameters(), *supernet.buffers()]
    real = max(footprint(call, before).memory for call in (levels.check, lambda: levels.step(1)))
    found = needed(loaded)
    assert found.tensors == pytest.approx(real, rel=0.1)
    assert found.memory == round(OVERHEAD + SLACK * found.heap)
    assert found.heap >= found.tensors
    assert found.parameters == sum(p.numel() for p in supernet.parameters())


def test_the_simulated_memory_of_a_retraining_is_that_of_its_steps() -> None:
    loaded = config(**{"task.batch": 512, "retrain.options": {"channels": 16}})
    task = loaded.build_task(retraining=True)
    network = build_network(loaded, drawn_genotype(loaded))
    with channels_last(network):
        (levels,) = build_stages(loaded, network, task)
        levels.step(0)
        calls = (levels.check, lambda: levels.step(1))
        real = max(footprint(call, network.parameters()).memory for call in calls)
    # The simulation holds 2 MiB more, the size of one activation.
    assert needed(loaded, "retrain").tensors == pytest.approx(real, rel=0.15)


def test_what_the_process_freed_before_does_not_hide_what_is_needed() -> None:
    with memory_kept():
        blocks = [torch.empty(2**20) for _ in range(64)]
        kept = torch.empty(2**20)  # the free memory below it stays in the heap
        del blocks
        found = needed(config(**{"task.batch": 512}))
    assert found.heap > found.tensors, "as if nothing but tensors took memory"
    assert len(kept) == 2**20


def test_memory_grows_with_the_batch_and_falls_with_each_exact_change() -> None:
    small, large = needed(config()), needed(config(**{"task.batch": 256}))
    assert 3 < large.tensors / small.tensors < 4.1
    assert 3.5 < large.flops / small.flops < 4.1
    assert needed(config(**{"task.batch": 256, "search.memory": "checkpoint"})).tensors < large.tensors
    parts = {f"search.levels.{level}.accumulate": 4 for level in ("lower", "upper")}
    assert needed(config(**parts)).tensors < 0.5 * large.tensors


def test_a_plan_changes_neither_random_state_nor_data() -> None:
    loaded = config()
    state, batch = torch.get_rng_state(), loaded.build_task().batch("train", 0)
    needed(loaded)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loaded.build_task().batch("train", 0).images, batch.images)


def test_each_stage_of_a_search_is_planned() -> None:
    stages = {"wide": {"epochs": 1, "keep": 2}, "deep": {"epochs": 1, "options": {"channels": 32}}}
    staged = config(**{"search.epochs": 2, "search.stages": stages})
    whole, last = needed(staged), needed(config(**{"options.channels": 32}))
    assert last.parameters > whole.parameters > needed(config()).parameters


def test_the_time_of_a_run_is_that_of_each_kind_of_step_as_often_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of one level takes a second, one of both three."""

    def timed(levels: Any, k: int) -> tuple[float, float]:
        count = sum(level.due(k, levels.steps) for level in levels.levels.values())
        return 2.0 * count - 1, 10.0

    monkeypatch.setattr(plan, "_timed", timed)
    loaded = config(**{"search.levels.upper.period": 4, "search.levels.upper.warmup": 0.2})
    assert speed(loaded, "search", loaded.build_task()) == (28 / 20, 16 + 4 * 3, 200)


def test_a_search_by_proposals_cannot_be_planned() -> None:
    with pytest.raises(ConfigError, match=r"search\.searcher"):
        needed(config(**{"search.searcher": "random"}))
