"""The run loop: everything that a search and a retraining do alike, in the order that makes a run resumable."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import nn

from nas.distributed.ranks import any_rank, of_first, require_equal
from nas.errors import ConfigError, DivergedError
from nas.genotype.file import Genotype
from nas.kernels.freed_memory import memory_kept
from nas.multilevel.multilevel import Multilevel
from nas.run import checkpoint
from nas.run.folder import LAST, Run
from nas.run.observer import OBSERVER, Observer, Observers, RunKind, Start
from nas.run.weight_average import WeightAverage

STOPPED = "stopped"
"""The kind of the record that ends a run whose time was spent before its last step."""
FROZEN = "frozen"
"""The kind of the record of operations that are frozen after a step: `level`, `operations`, and `of` how many."""
BACKOFF = "backoff"
"""The kind of the record of a learning rate that is lowered after a step: `level`, and by what `factor`."""
DIVERGED = "diverged.pt"
"""The file of a run that diverged: its `step`, `message`, and by level the `batches` of the last skipped step."""

NOUNS: Mapping[str, str] = {"search": "search", "retrain": "retraining"}


class Loop(abc.ABC):
    """Takes the steps of one run, from its last checkpoint to its end.

    After each step it records the losses, calls the observers, and stops if the run is asked to or its time is spent.
    At the end of each epoch it calls the observers again and saves a checkpoint; a long epoch has checkpoints in
    between. A run that is killed anywhere and resumed equals the uninterrupted one, bit for bit on one machine. For
    this a checkpoint holds the network, the levels, the random state and the state of the observers. What a run wrote
    after its last checkpoint is written again.

    A run consists of stages, one after another. A search and a retraining each override the methods that differ.

    Args:
        run: the folder.
        lengths: the number of steps of each stage, in order.
        epochs: how many there are, as equal as can be.
        seed: of the random state at step 0.
        observers: in the order in which they are called; at the end of an epoch the network has its averaged weights.
        minutes: after which this process stops at the end of a step; None for no limit.
        checkpoint_minutes: the longest time between two checkpoints, but for a single step or epoch end that takes
            longer.
        decay: of the average of the weights (see `WeightAverage`), with which each stage ends; None for no average.

    Raises:
        ConfigError: see `Observers`.
    """

    kind: ClassVar[RunKind]

    def __init__(
        self,
        run: Run,
        lengths: Sequence[int],
        *,
        epochs: int,
        seed: int,
        observers: Sequence[Observer],
        minutes: float | None = None,
        checkpoint_minutes: float,
        decay: float | None = None,
    ) -> None:
        self.run, self.seed = run, seed
        self.ends = list(accumulate(lengths))
        """The step of the run with which each stage ends."""
        self.steps = self.ends[-1]
        self.stage = 0
        """The number of the present stage."""
        self._epochs = epochs
        self._spent = self._waited = 0.0
        self._seconds, self._save_seconds = seconds_of(minutes), 60 * checkpoint_minutes
        self._average = None if decay is None else WeightAverage(self.network, decay)
        self._observers = Observers(observers)

    @property
    @abc.abstractmethod
    def network(self) -> nn.Module:
        """The network of the present stage, trained in place."""

    @property
    @abc.abstractmethod
    def levels(self) -> Multilevel:
        """The levels of the present stage over its network."""

    @property
    def first(self) -> int:
        """The step of the levels with which the present stage begins."""
        return 0

    def enter(self, step: int) -> None:  # noqa: B027 - the stages of a retraining have one network
        """Make what the present stage trains, after `step` steps, from what the stage before trained."""

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - the stages of a retraining have one network
        """Make what the present stage trains, before the state of a checkpoint is loaded into it."""

    def extra_state(self) -> dict[str, Any]:
        """Return what `restore` needs of a checkpoint."""
        return {}

    @abc.abstractmethod
    def prepare(self) -> None:
        """Check a new run and give it its first state, before the first checkpoint."""

    def check_resumed(self, step: int) -> None:  # noqa: B027 - a search has nothing to check
        """Check a run that resumes after `step` steps, before its state is loaded."""

    def record_start(self) -> None:  # noqa: B027 - a retraining has nothing to record
        """Record what is known at step 0."""

    @abc.abstractmethod
    def end_epoch(self, step: int) -> Genotype:
        """Record the end of an epoch and return the genotype that observers are given."""

    def judge(self, step: int) -> None:  # noqa: B027 - a retraining has no stopping rule
        """Record whether the run ends with the epoch that ended with a step, once its observers were called."""

    @property
    def ended(self) -> bool:
        """Whether the run ends at the step that it is at, though steps are left."""
        return False

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with a step, counted from 1."""
        return ends_epoch(step, self.steps, self._epochs)

    def go(self) -> int:
        """Take all steps that are left, or those for which there is time; returns the steps done.

        Raises:
            ConfigError: the folder holds a run of the other kind, or an observer changed the run.
            InvalidFileError: a checkpoint does not fit the run.
            DivergedError: losses stopped being finite; the last state is saved.
            KeyboardInterrupt: the run was asked to stop; the step is saved.
        """
        self._began = self._saved = time.monotonic()
        with torch.random.fork_rng(), memory_kept():
            torch.manual_seed(self.seed)
            step = self._resume()
            if step == 0:
                self.record_start()
            try:
                self._observers.start(self._start(step))
                if self.ended:
                    return step
                while step < self.steps:
                    if step == self.ends[self.stage]:
                        self.levels.require_moved()  # the last step did, unless the run was resumed after it
                        self.stage += 1
                        self.enter(step)
                        self._observers.stage(self._start(step))
                    step += 1
                    spent = self._step(step)
                    if self.ended:
                        return step
                    if spent and step < self.steps:
                        self.run.record(STOPPED, step, steps=self.steps)
                        return step
                self.levels.require_moved()
            finally:
                self._observers.end()
        return self.steps

    def _step(self, step: int) -> bool:
        """Take step number `step` of the run, counted from 1; returns whether the time is spent."""
        k = self.first + step - 1 - (self.ends[self.stage - 1] if self.stage else 0)
        begun, waited = time.perf_counter(), self.levels.batch.waited
        try:
            moved = self.levels.step(k)
        except DivergedError as error:
            self._save(step)
            raise self._explained(error, k, step) from error
        self._spent += time.perf_counter() - begun
        self._waited += self.levels.batch.waited - waited
        for level, move in moved.items():
            self.run.record("train", step, level=level, loss=move.loss, gradient=move.gradient, **move.terms)
        for move in moved.values():
            for level, operations in move.frozen.items():
                total = len(self.levels.freezers[level].operations)
                self.run.record(FROZEN, step, level=level, operations=operations, of=total)
        for level, move in moved.items():
            if move.backoff is not None:
                self.run.record(BACKOFF, step, level=level, factor=move.backoff)
        if self._average is not None:
            self._average.update(k)
            if step in self.ends:
                self._average.copy_to_network()
        self._observers.step(step, moved)
        if ended := self.ends_epoch(step):
            self.run.record_time(step, self._spent, self._waited / self._spent)
            self._spent = self._waited = 0.0
            genotype = self.end_epoch(step)
            with nullcontext() if self._average is None else self._average.applied():
                for observer, values in self._observers.epoch(step, self.network, genotype):
                    self.run.record(OBSERVER, step, observer=observer, **values)
            self.judge(step)
        now = time.monotonic()
        spent = self._seconds is not None and now - self._began >= self._seconds
        stop, spent, late = any_rank(self.run.stop(), spent, now - self._saved >= self._save_seconds)
        if ended or stop or spent or late:
            self._save(step)
        if stop:
            raise KeyboardInterrupt
        return spent

    def _explained(self, error: DivergedError, k: int, step: int) -> DivergedError:
        """Write the batches of the steps that were skipped last; returns the error with their path."""
        path, batches = self.run.path / DIVERGED, checkpoint.plain(self.levels.skipped_batches(k))
        checkpoint.save(path, {"step": step, "message": str(error), "batches": batches})
        return DivergedError(f"{error}. {path} has the batches, {self.run.path / LAST} the state of step {step}")

    def _start(self, step: int) -> Start:
        return Start(self.kind, self.run.path, self.network, step, self.steps)

    def _save(self, step: int) -> None:
        require_equal([*self.network.state_dict().values()], f"{self.run.path}: step {step}")
        average = {} if self._average is None else {"average": self._average.state_dict()}
        self.run.save_checkpoint(
            {
                "kind": self.kind,
                "step": step,
                "network": self.network.state_dict(),
                **average,
                "levels": self.levels.state_dict(),
                "random": checkpoint.random_state(),
                "observers": self._observers.state_dict(),
                **self.extra_state(),
            }
        )
        self._saved = time.monotonic()

    def _resume(self) -> int:
        """Load the last checkpoint, or save that of step 0; returns the steps done."""
        state = of_first(self.run.resume)
        if state is None:
            self.prepare()
            self._save(0)
            return 0
        path = self.run.path / LAST
        with checkpoint.restoring(path):
            require_kind(self.run.path, state, self.kind)
            step, observers = int(state["step"]), dict(state["observers"])
            self.stage = next(stage for stage, end in enumerate(self.ends) if step <= end)
        # Not inside `restoring`: an error in a user's rule or space does not mean that the file is damaged.
        self.check_resumed(step)
        self.restore(state)
        self._observers.load_state_dict(observers, path)
        with checkpoint.restoring(path):
            checkpoint.load_into(self.network, state["network"], path)
            if self._average is not None:
                self._average.load_state_dict(state["average"])
            self.levels.load_state_dict(state["levels"])
            checkpoint.set_random_state(state["random"])
        return step


def seconds_of(minutes: float | None) -> float | None:
    """Return minutes in seconds; raises `ConfigError` unless they are a number above 0."""
    if minutes is None:
        return None
    if not 0 < minutes < float("inf"):
        raise ConfigError(f"minutes must be a number above 0, got {minutes}")
    return 60 * minutes


def ends_epoch(step: int, steps: int, epochs: int) -> bool:
    """Whether an epoch ends with a step, counted from 1: one of `epochs`, as equal as can be, none of them empty."""
    return step * epochs // steps > (step - 1) * epochs // steps


def require_kind(folder: object, state: Mapping[str, Any], expected: RunKind) -> None:
    """Raise `ConfigError` unless the state of a run is of the expected kind."""
    if (found := state["kind"]) != expected:
        other = NOUNS.get(found, repr(found))
        raise ConfigError(f"{folder} must be the folder of a {NOUNS[expected]}, got that of a {other}; use another")
