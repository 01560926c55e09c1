"""What a search, a retraining or a prediction shows while it runs."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch

from nas.config import Config
from nas.multilevel import Moved
from nas.report.progress import Leader, Leaders, Progress
from nas.supernet import Supernet

_EVERY = 10
"""Steps between looks at the mixing weights."""

OnStep = Callable[[int, Mapping[str, Moved], Supernet], None]
OnEpoch = Callable[[int, Sequence[str]], None]


@contextmanager
def search_view(config: Config, *, quiet: bool = False) -> Iterator[tuple[OnStep, OnEpoch]]:
    """Show a search: yields what to call where it begins and after each of its steps, and with the advice of epochs."""
    total = config.search.steps
    losses: dict[str, float] = {}
    with _view("search", quiet) as (update, advise):

        def on_step(step: int, moved: Mapping[str, Moved], supernet: Supernet) -> None:
            losses.update({level: move.loss for level, move in moved.items()})
            look = not moved or step % _EVERY == 0 or step == total
            update(step, total, losses, _leaders(supernet) if look else None)

        yield on_step, advise


@contextmanager
def retrain_view(config: Config, *, quiet: bool = False) -> Iterator[Callable[[int, str, Moved | None], None]]:
    """Show a retraining: yields the function to call where a stage begins or goes on, and after each of its steps."""
    total = config.retrain.steps
    with _view("retrain", quiet) as (update, _):

        def on_step(step: int, stage: str, moved: Moved | None) -> None:
            update(step, total, {stage: moved.loss} if moved else {}, None)

        yield on_step


@contextmanager
def predict_view(*, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how many frames (pictures) are done: yields the function to call with (done, in all)."""
    with _view("predict", quiet, unit="frames") as (update, _):
        yield lambda done, total: update(done, total, {}, None)


Update = Callable[[int, int, Mapping[str, float], Leaders | None], None]


@contextmanager
def _view(title: str, quiet: bool, unit: str = "steps") -> Iterator[tuple[Update, OnEpoch]]:
    """A progress that begins with the first step it is told, so that a resumed run's speed counts its own steps."""
    with ExitStack() as stack:
        begun: list[Progress] = []

        def update(step: int, total: int, metrics: Mapping[str, float], leaders: Leaders | None) -> None:
            if not begun:
                begun.append(stack.enter_context(Progress(title, total, step, quiet=quiet, memory=memory, unit=unit)))
            begun[0].update(step, metrics, leaders)

        def advise(step: int, advice: Sequence[str]) -> None:
            begun[0].advise(advice)

        yield update, advise


def memory() -> str:
    """The most memory that this process has held, and on its GPU where it uses one: `1.2 GB, GPU 3.4 GB`."""
    unit = 1 if sys.platform == "darwin" else 1024
    held = [f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB"]
    if gpu := torch.cuda.max_memory_allocated():
        held.append(f"GPU {gpu / 1e9:.1f} GB")
    return ", ".join(held)


def _leaders(supernet: Supernet) -> dict[str, Leader]:
    leaders = {}
    with torch.no_grad():
        for label, weights in supernet.mixing_weights().items():
            if len(weights) == 1:
                continue  # there is nothing to lead
            best = int(weights.argmax())
            second, first = weights.sort().values.tolist()[-2:]
            leaders[label] = Leader(str(supernet.decisions[label].candidates[best]), first, first - second)
    return leaders
