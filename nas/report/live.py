"""What a search, a retraining or a prediction shows while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from nas.config import Config
from nas.multilevel import Moved
from nas.report.progress import Leaders, Progress
from nas.supernet import Supernet

_EVERY = 10
"""Steps between looks at the mixing weights."""


@contextmanager
def search_view(
    config: Config, *, quiet: bool = False
) -> Iterator[Callable[[int, Mapping[str, Moved], Supernet], None]]:
    """Show a search: yields the function to call where it begins and after each of its steps."""
    total = config.search.steps
    losses: dict[str, float] = {}
    with _view("search", quiet) as update:

        def on_step(step: int, moved: Mapping[str, Moved], supernet: Supernet) -> None:
            losses.update({level: move.loss for level, move in moved.items()})
            look = not moved or step % _EVERY == 0 or step == total
            update(step, total, losses, _leaders(supernet) if look else None)

        yield on_step


@contextmanager
def retrain_view(config: Config, *, quiet: bool = False) -> Iterator[Callable[[int, str, Moved | None], None]]:
    """Show a retraining: yields the function to call where a stage begins or goes on, and after each of its steps."""
    total = sum(stage.steps for stage in config.retrain.stages.values())
    with _view("retrain", quiet) as update:

        def on_step(step: int, stage: str, moved: Moved | None) -> None:
            update(step, total, {stage: moved.loss} if moved else {}, None)

        yield on_step


@contextmanager
def predict_view(*, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how many frames (or other items) are done: yields the function to call with (done, in all)."""
    with _view("predict", quiet) as update:
        yield lambda done, total: update(done, total, {}, None)


@contextmanager
def _view(title: str, quiet: bool) -> Iterator[Callable[[int, int, Mapping[str, float], Leaders | None], None]]:
    """A progress that begins with the first step it is told, so that a resumed run's speed counts its own steps."""
    with ExitStack() as stack:
        begun: list[Progress] = []

        def update(step: int, total: int, metrics: Mapping[str, float], leaders: Leaders | None) -> None:
            if not begun:
                begun.append(stack.enter_context(Progress(title, total, step, quiet=quiet)))
            begun[0].update(step, metrics, leaders)

        yield update


def _leaders(supernet: Supernet) -> dict[str, tuple[str, float]]:
    leaders = {}
    with torch.no_grad():
        for label, weights in supernet.mixing_weights().items():
            best = int(weights.argmax())
            leaders[label] = (str(supernet.decisions[label].candidates[best]), float(weights[best]))
    return leaders
