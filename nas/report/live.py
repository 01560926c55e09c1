"""Progress displays of searches, retrainings and predictions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Moved
from nas.report.progress import Leader, Leaders, Progress
from nas.run.collapse import COLLAPSE, advice
from nas.run.folder import read_records
from nas.run.logit_gradients import LOGITS, logit_advice
from nas.run.observer import RESERVED, Observer, Start, observed
from nas.run.validation import BEST_EPOCH, VALIDATION
from nas.supernet import Supernet

_EVERY = 10
"""Steps between two updates of the mixing weights."""


class RunProgress(Observer):
    """Observer that shows the progress of a search or a retraining. It may be used for one run after another.

    Args:
        quiet: show nothing.
    """

    name = "progress"

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def on_start(self, start: Start) -> None:
        self._start = start
        self._losses: dict[str, float] = {}
        # Only steps of this process count for the speed, also in a resumed run.
        self._progress = Progress(start.kind, start.steps, start.step, quiet=self._quiet, memory=memory)
        self._progress.__enter__()
        self._scores: dict[str, float] = {}
        self._progress.update(start.step, {}, self._leaders())

    def on_stage(self, start: Start) -> None:
        self._start = start

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        if self._start.kind == "retrain":
            self._losses.clear()  # losses of the previous stage
        self._losses.update({level: move.loss for level, move in moved.items()})
        look = step % _EVERY == 0 or step == self._start.steps
        self._progress.update(step, {**self._losses, **self._scores}, self._leaders() if look else None)

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> None:
        if not self._quiet:
            self._scores = self._read_scores()
            self._progress.update(step, {**self._losses, **self._scores})
        if self._start.kind == "search" and not self._quiet:
            records = read_records(self._start.folder)
            said = advice(observed(records, COLLAPSE), finished=step == self._start.steps)
            self._progress.advise(said + logit_advice(observed(records, LOGITS)))

    def on_end(self) -> None:
        self._progress.__exit__(None, None, None)

    def _read_scores(self) -> dict[str, float]:
        """The last validation score of the run, and the step of the best one."""
        if self._quiet or not (scored := observed(read_records(self._start.folder), VALIDATION)):
            return {}
        values = {name: value for name, value in scored[-1].items() if name not in RESERVED and value is not None}
        return {name: value for i, (name, value) in enumerate(values.items()) if i == 0 or name == BEST_EPOCH}

    def _leaders(self) -> Leaders | None:
        network = self._start.network
        return _leaders(network) if isinstance(network, Supernet) else None


@contextmanager
def predict_view(*, quiet: bool = False, title: str = "predict") -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a prediction or an evaluation. Yields a function to call with (frames done, all frames)."""
    with ExitStack() as stack:
        begun: list[Progress] = []

        def update(done: int, total: int) -> None:
            if not begun:
                begun.append(
                    stack.enter_context(Progress(title, total, done, quiet=quiet, memory=memory, unit="frames"))
                )
            begun[0].update(done, {})

        yield update


def memory() -> str:
    """Return the peak memory of this process and of its GPU, if used: `1.2 GB, GPU 3.4 GB`.

    Without the module `resource`, as on Windows, the first part is omitted.
    """
    held = []
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        held.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB")
    if gpu := torch.cuda.max_memory_allocated():
        held.append(f"GPU {gpu / 1e9:.1f} GB")
    return ", ".join(held)


def _leaders(supernet: Supernet) -> dict[str, Leader]:
    leaders = {}
    with torch.no_grad():
        for label, weights in supernet.mixing_weights().items():
            if len(weights) == 1:
                continue  # a single candidate
            best = int(weights.argmax())
            second, first = weights.sort().values.tolist()[-2:]
            leaders[label] = Leader(str(supernet.decisions[label].candidates[best]), first, first - second)
    return leaders
