"""Study whether a search decides, and rightly: several seeds, paired retraining, one-shot rank correlation.

1. Search with each seed. A decision's winner is the candidate chosen by most seeds; its margin in a seed is its mixing
   weight minus the largest other one.
2. Retrain the genotype of all winners, and for each decision the same genotype with the runner-up in its place, from
   the same seeds: paired differences of the validation score.
3. Retrain random genotypes, and correlate their scores with their one-shot scores: those with the operation weights of
   the searched supernets.

A decision is decided if the same candidate wins in at least four of five seeds with a mean margin of at least three
standard errors, and if retraining with it beats the runner-up.

Everything lies in one folder: `results.jsonl` has a line for each finished run, `runs/` the run folders. A run that was
stopped, by `--minutes`, Ctrl-C or a kill, resumes from its last checkpoint; finished ones are not repeated. Retrainings
read the split `train` in place of `all`, so that the validation batches are unseen. Use one thread: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

import nas
from nas.benchmark.rankings import kendall, spearman
from nas.derive.candidates import existing
from nas.derive.random import choose_randomly
from nas.errors import NASError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.kernels.memory_format import channels_last
from nas.report.tables import table
from nas.run.config import Config, load_config
from nas.run.folder import CONFIG, read_state
from nas.run.held_out import begun
from nas.run.retraining import retrain
from nas.run.searching import inherit_from
from nas.run.task import Task
from nas.run.validation import mean_metrics, sign
from nas.space.definition import find_space
from result_rows import ResultRows, Row

AGREE, ERRORS = 0.8, 3.0
"""What counts as decided: the share of seeds with the same winner, and the mean margin in standard errors."""

Choices = dict[str, Choice]


class Decided(NamedTuple):
    """One decision over all seeds."""

    label: str
    winner: Choice
    runner_up: Choice
    agree: int
    """Seeds in which the winner was chosen."""
    margin: float
    """Mean over seeds of the winner's mixing weight minus the largest other one."""
    error: float
    """Standard error of the margin."""

    def consistent(self, seeds: int) -> bool:
        """Whether most seeds agree, with a margin that is not luck."""
        return self.agree >= AGREE * seeds and self.margin >= ERRORS * self.error and self.margin > 0


class OutOfTime(Exception):
    """The time budget is used up."""


class Study:
    """The runs of a study, made when they are asked for.

    Args:
        folder: of the study.
        config: of its searches and retrainings.
        minutes: after which a run stops, to be resumed by the next call of the study.
        batches: validation batches of a score.
    """

    def __init__(self, folder: Path, config: Config, minutes: float, batches: int) -> None:
        self.folder, self.config, self.batches = folder, config, batches
        self.decisions = find_space(config.space).describe(**config.options).decisions
        self._end = time.monotonic() + 60 * minutes
        self._rows = ResultRows(folder / "results.jsonl", ("run",), config.dump())
        self._tasks: dict[tuple[int, bool], Task] = {}

    def search(self, seed: int) -> dict[str, Any]:
        """The mixing weights that a search ends with, by decision and candidate, and its choices."""
        name, config = f"search-{seed}", self._seeded(seed)
        if found := self._done(name):
            return found
        out = self.folder / "runs" / name
        result = nas.search(config, out=out, resume=(out / CONFIG).is_file(), minutes=self._left(), progress=False)
        if not any(record["kind"] == "stopping" for record in result.records):
            self._require_finished(out, config.search.steps)
        weights = [record["weights"] for record in result.records if record["kind"] == "mixing"][-1]
        return self._record(name, seed=seed, choices=dict(result.genotype.choices), weights=weights)

    def score(self, choices: Mapping[str, Choice], seed: int) -> float:
        """The validation score of a retrained genotype; larger is better."""
        name = f"retrain-{_key(choices)}-{seed}"
        if found := self._done(name):
            return float(found["score"])
        config, out = self._seeded(seed), self.folder / "runs" / name
        task, minutes = self._task(seed, retraining=True), self._left()
        with begun(out, config, lambda: False) as run:
            trained = retrain(config, self._genotype(choices), run, scored="val", task=task, minutes=minutes)
        self._require_finished(out, config.retrain.steps)
        score = self._validated(trained, task)
        return float(self._record(name, seed=seed, choices=dict(choices), score=score)["score"])

    def one_shot(self, choices: Mapping[str, Choice], seed: int) -> float:
        """The validation score of a genotype with the operation weights of a searched supernet; larger is better."""
        name = f"one-shot-{_key(choices)}-{seed}"
        if found := self._done(name):
            return float(found["score"])
        network = inherit_from(self.folder / "runs" / f"search-{seed}", self._genotype(choices))
        score = self._validated(network, self._task(seed, retraining=False))
        return float(self._record(name, seed=seed, choices=dict(choices), score=score)["score"])

    def valid(self, choices: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Choices:
        """The choices of the decisions that exist given these choices, with others for those that are missing."""
        found: Choices = {}
        for label, decision in existing(self.decisions, found):
            chosen = choices.get(label, otherwise.get(label, decision.candidates[0]))
            found[label] = tuple(chosen) if isinstance(chosen, list) else chosen
        return found

    def random(self, count: int) -> list[Choices]:
        """Different genotypes, drawn uniformly; fewer if the space has fewer."""
        generator, drawn = torch.Generator().manual_seed(0), dict[str, Choices]()
        for _ in range(100 * count):
            if len(drawn) < count:
                choices = choose_randomly(self.decisions, generator)
                drawn.setdefault(_key(choices), choices)
        return list(drawn.values())

    def _genotype(self, choices: Mapping[str, Choice]) -> Genotype:
        return Genotype(space=self.config.space, options=dict(self.config.options), choices=dict(choices))

    def _seeded(self, seed: int) -> Config:
        return msgspec.structs.replace(self.config, seed=seed)

    def _task(self, seed: int, *, retraining: bool) -> Task:
        """The task of a seed, whose data are read once for all networks."""
        if (seed, retraining) not in self._tasks:
            self._tasks[seed, retraining] = self._seeded(seed).build_task(retraining=retraining)
        return self._tasks[seed, retraining]

    def _validated(self, network: Any, task: Task) -> float:
        network = network.to(self.config.torch_device())
        with channels_last(network):
            metrics = mean_metrics(network, task.measure, (task.batch("val", index) for index in range(self.batches)))
        return sign(task) * metrics[task.score]

    def _left(self) -> float:
        if (left := (self._end - time.monotonic()) / 60) <= 0:
            raise OutOfTime
        return left

    def _require_finished(self, out: Path, steps: int) -> None:
        state = read_state(out)
        if state is None or state["step"] < steps:
            raise OutOfTime

    def _done(self, name: str) -> Row | None:
        return self._rows.done.get((name,))

    def _record(self, name: str, **values: Any) -> Row:
        row = {"run": name, **values}
        self._rows.add(row)
        print(f"{name}: done", flush=True)
        return row


def decided(candidates: Mapping[str, Sequence[Choice]], weights: Sequence[Mapping[str, list[float]]]) -> list[Decided]:
    """Return winner, runner-up and margin of each decision with alternatives.

    Args:
        candidates: of each decision.
        weights: mixing weights at the end of each seed's search, by decision, in the order of the candidates.
    """
    found = []
    for label, names in candidates.items():
        if label not in weights[0] or len(names) < 2:
            continue
        rows = [each[label] for each in weights]
        mean = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        counts = Counter(max(range(len(names)), key=row.__getitem__) for row in rows)
        winner = max(range(len(names)), key=lambda i: (counts[i], mean[i]))
        second = max((i for i in range(len(names)) if i != winner), key=mean.__getitem__)
        margins = [row[winner] - max(w for i, w in enumerate(row) if i != winner) for row in rows]
        found.append(Decided(label, names[winner], names[second], counts[winner], *mean_and_error(margins)))
    return found


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error; infinite for a single value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return statistics.fmean(values), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the study")
    parser.add_argument("--config", default="compact", help="a YAML file or a shipped name (compact)")
    parser.add_argument("--seeds", type=int, default=5, help="searches (5)")
    parser.add_argument("--pairs", type=int, default=3, help="seeds of each paired retraining (3)")
    parser.add_argument("--genotypes", type=int, default=20, help="random genotypes for the rank correlation (20)")
    parser.add_argument("--batches", type=int, default=16, help="validation batches of a score (16)")
    parser.add_argument("--minutes", type=float, default=float(10**6), help="stop after this time")
    parser.add_argument("overrides", nargs="*", help="key.path=value, changes of the configuration")
    arguments = parser.parse_intermixed_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        unseen = [
            f"retrain.stages.{name}.level.split=train"
            for name, stage in config.retrain.stages.items()
            if stage.level.split == "all"
        ]
        config = load_config(arguments.config, [*arguments.overrides, *unseen])
        study = Study(arguments.folder, config, arguments.minutes, arguments.batches)
        report(study, arguments.seeds, arguments.pairs, arguments.genotypes)
    except OutOfTime:
        print(f"{arguments.folder}: stopped by --minutes; the same command continues")
    except NASError as error:
        sys.exit(f"error: {error}")


def report(study: Study, seeds: int, pairs: int, genotypes: int) -> None:
    """Make what is missing, and print the tables."""
    searches = [study.search(seed) for seed in range(seeds)]
    candidates = {label: decision.candidates for label, decision in study.decisions.items()}
    found = decided(candidates, [each["weights"] for each in searches])
    winners = {each.label: each.winner for each in found}
    base = study.valid(winners, searches[0]["choices"])
    rows, right = [], 0
    for each in found:
        swapped = study.valid({**winners, each.label: each.runner_up}, searches[0]["choices"])
        if each.label not in base:
            continue
        gain, error = mean_and_error([study.score(base, seed) - study.score(swapped, seed) for seed in range(pairs)])
        good = each.consistent(seeds) and gain > 0
        right += good
        names = (each.label, str(each.winner), str(each.runner_up), f"{each.agree}/{seeds}")
        rows.append((*names, each.margin, each.error, gain, error, "yes" if good else "no"))
    columns = ("decision", "winner", "runner-up", "seeds", "margin", "error", "retrained gain", "error", "decided")
    table(f"Decisions of {seeds} searches, and {pairs} paired retrainings of each", columns, rows)
    print(f"decided: {right} of {len(rows)}")
    drawn = study.random(genotypes)
    one_shot = [statistics.fmean(study.one_shot(each, seed) for seed in range(seeds)) for each in drawn]
    retrained = [study.score(each, 0) for each in drawn]
    found_ranks = f"Spearman {spearman(one_shot, retrained):.3f}, Kendall {kendall(one_shot, retrained):.3f}"
    print(f"one-shot rank correlation over {len(drawn)} retrained genotypes: {found_ranks}")


def _key(choices: Mapping[str, Choice]) -> str:
    text = json.dumps(sorted((label, str(choice)) for label, choice in choices.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
