"""The search by a searcher: it proposes genotypes one by one, each is scored, and the best one is the result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from nas.distributed.ranks import count
from nas.draw.rendering import save as save_picture
from nas.errors import ConfigError, DivergedError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance
from nas.run import checkpoint, searching
from nas.run.config import Config
from nas.run.folder import BEST, LAST, Run, config_hash, package_version
from nas.run.judge import Judge
from nas.run.loop import STOPPED, ends_epoch, require_kind, seconds_of
from nas.run.observer import OBSERVER, Observer, Observers, Start
from nas.run.task import Task
from nas.searchers.searcher import searcher_of
from nas.space.definition import find_space

EVALUATION = "evaluation"
"""The kind of the records of scored proposals: `score` (None if the training diverged), `choices`, `best`."""
SAVE_SECONDS = 1.0
"""The longest time between two checkpoints, but for a single evaluation that takes longer."""


def search(
    config: Config,
    run: Run,
    observers: Sequence[Observer] = (),
    *,
    task: Task | None = None,
    minutes: float | None = None,
) -> Genotype:
    """Search as the configuration says: by the gradient, or with `search.searcher` by proposals.

    Resumes from the last checkpoint of the run, if it has one: the same proposals are scored as without interruption.
    The arguments are those of `nas.run.searching.search`, and so is what it raises. Observers are given the best
    genotype and an empty module in place of a supernet; those of `search.observers` watch supernets alone.
    """
    if config.search.searcher is None:
        if config.search.score is not None:
            raise ConfigError("search.score needs a searcher, got none. Set search.searcher, such as evolution")
        return searching.search(config, run, observers, task=task, minutes=minutes)
    if count() > 1:
        raise ConfigError(f"search.searcher must run in one process, got {count()} ranks. Run it without torchrun")
    return _Proposals(config, run, observers, task, minutes).go()


class _Proposals:
    def __init__(
        self, config: Config, run: Run, observers: Sequence[Observer], task: Task | None, minutes: float | None
    ) -> None:
        how = config.search
        assert how.searcher is not None
        self.config, self.run, self._seconds = config, run, seconds_of(minutes)
        self.description = find_space(config.space).describe(**config.options)
        self.searcher = searcher_of(how.searcher, self.description, seed=config.seed, where="search.searcher")
        self.judge = Judge(
            config, how.score or self.searcher.default_score, task=task, folder=run.path, stop=lambda: run.stop()
        )
        self._observers = Observers(observers)
        self.steps = how.evaluations
        self.best: tuple[dict[str, Choice], float] | None = None
        """The best choices so far, and their score."""
        self.worst: float | None = None

    def go(self) -> Genotype:
        """Score the proposals that are left, or those for which there is time; returns the best genotype."""
        began = saved = time.monotonic()
        step = self._resume()
        try:
            self._observers.start(Start("search", self.run.path, self.description.network, step, self.steps))
            while step < self.steps:
                step += 1
                self._evaluate(step)
                self._observers.step(step, {})
                now, stop = time.monotonic(), self.run.stop()
                spent = self._seconds is not None and now - began >= self._seconds
                if ended := ends_epoch(step, self.steps, self.config.search.epochs):
                    self._end_epoch(step)
                if ended or stop or spent or now - saved >= SAVE_SECONDS:
                    self._save(step)
                    saved = now
                if stop:
                    raise KeyboardInterrupt
                if spent and step < self.steps:
                    self.run.record(STOPPED, step, steps=self.steps)
                    break
        finally:
            self.searcher.close()
            self._observers.end()
        return self._export(None)

    def _evaluate(self, step: int) -> None:
        """Score the next proposal; one whose training diverges counts as the worst so far."""
        genotype = self.searcher.ask()
        error = ""
        try:
            score = self.judge.score(genotype, self.searcher.number)
        except DivergedError as diverged:
            if self.worst is None:
                raise
            score, error = self.worst, str(diverged)
        if step == 1:
            self._save(0)  # not before: a search that can score nothing leaves no checkpoint
        self.searcher.tell(genotype, score)
        self.worst = score if self.worst is None else min(score, self.worst)
        if not error and (self.best is None or score > self.best[1]):
            self.best = genotype.choices, score
            self._genotype().save(self.run.path / BEST)
        assert self.best is not None
        told = {"error": error} if error else {}
        value = None if error else score
        self.run.record(EVALUATION, step, score=value, best=self.best[1], choices=genotype.choices, **told)

    def _end_epoch(self, step: int) -> None:
        genotype = self._export(step)
        for observer, values in self._observers.epoch(step, nn.Module(), genotype):
            self.run.record(OBSERVER, step, observer=observer, **values)

    def _genotype(self) -> Genotype:
        """The best genotype so far."""
        assert self.best is not None
        choices, score = self.best
        provenance = Provenance(
            package=package_version(),
            seed=self.config.seed,
            config=config_hash(self.config.dump()),
            scores={self.judge.name: score},
        )
        return Genotype(
            space=self.config.space, options=self.description.options, choices=choices, provenance=provenance
        )

    def _export(self, step: int | None) -> Genotype:
        """Write the best genotype so far, as the final one or that of an epoch, and its picture."""
        genotype = self._genotype()
        path = self.run.save_genotype(genotype, step)
        save_picture(path.with_suffix(".svg"), self.description, genotype)
        return genotype

    def _save(self, step: int) -> None:
        self.run.save_checkpoint(
            {
                "kind": "search",
                "step": step,
                "searcher": self.searcher.state_dict() if step else {},
                "best": self.best,
                "worst": self.worst,
                "observers": self._observers.state_dict(),
            }
        )

    def _resume(self) -> int:
        """Load the last checkpoint, if there is one; returns the evaluations done."""
        state: dict[str, Any] | None = self.run.resume()
        if state is None:
            return 0
        path = self.run.path / LAST
        with checkpoint.restoring(path):
            require_kind(self.run.path, state, "search")
            step, searcher, observers = int(state["step"]), dict(state["searcher"]), dict(state["observers"])
            self.best, self.worst = state["best"], state["worst"]
        if step:
            with checkpoint.restoring(path, "the searcher"):
                self.searcher.load_state_dict(searcher)
        self._observers.load_state_dict(observers, path)
        return step
