"""Tune the settings of searches and retrainings by Optuna: any key of a configuration can have a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import optuna
from optuna.trial import TrialState

from nas.errors import ConfigError, DivergedError
from nas.files import dump_yaml, parse_yaml, write_text, writing
from nas.genotype.file import Genotype
from nas.run.config import Config, load_config
from nas.run.continuing import TuningCall
from nas.run.folder import CONFIG, GENOTYPE, require_equal
from nas.run.held_out import Splits
from nas.run.observer import Observer
from nas.searchers.storage import JOURNAL, storing
from nas.tune.distributions import KINDS, Distribution, split
from nas.tune.study import SharedStudy, dashboard
from nas.tune.trial import run_trial

__all__ = ["KINDS", "Distribution", "Splits", "Trial", "Tuning", "dashboard", "tune"]


SPLITS = Splits()
STUDY = "study.log"
"""The usual journal of a study, in the folder of its trials."""


class Trial(NamedTuple):
    """One trial of a study."""

    number: int
    state: str
    """`complete`, `pruned`, `fail` or `running`; a killed trial is `running`."""
    score: float | None
    """The task's score; of a pruned trial, the last score before."""
    settings: dict[str, float | int | str]
    """The values of the tuned keys, texts as YAML."""
    error: str = ""
    """Why it failed."""


class Tuning(NamedTuple):
    """The result of a tuning: all trials of the study by number, and the best complete trial, if any."""

    trials: list[Trial]
    best: Trial | None


def tune(
    source: str | Path,
    overrides: Sequence[str],
    *,
    trials: int,
    storage: str,
    out: Path,
    study: str | None = None,
    genotype: Genotype | None = None,
    splits: Splits = SPLITS,
    prune: bool = True,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuning:
    """Run trials until the study has `trials` of them: each a search and a retraining of what it found.

    Several processes may tune one study at once, on one storage and one folder: each trial is run by one of them, and a
    trial whose process was killed resumes. A trial retrains on one split and is scored, by the task's `score`,
    on another one that is held out: the test data are never read. With `prune` a retraining whose score is below the
    median of the others' after as many steps is ended. A trial that diverges fails; any other error ends the tuning,
    and leaves the trial to be resumed.

    Args:
        source: a configuration, a file or a name; its section `tune` may hold distributions by key.
        overrides: `key.path=value`, or a distribution in place of the value (see `Distribution.parse`).
        storage: `journal:FILE`, or the URL of a database.
        out: the folder of the trials' runs.
        study: the name of the study in the storage, by default that of the folder.
        genotype: a genotype to retrain in every trial, in place of a search.
        splits: on what trials retrain, and on what they are scored.
        observers: of all searches and retrainings of this process.
        stop: whether to end after the step at hand, by `KeyboardInterrupt`.
        on_trial: called after each trial of this process.

    Raises `ConfigError` where nothing is to be tuned, no trial is asked for, a distribution fits nowhere, the splits
    overlap, or the study was started otherwise.
    """
    if trials < 1:
        raise ConfigError(f"the number of trials must be at least 1, got {trials}")
    plain, distributions = split(overrides, load_config(source).tune)
    base = splits.of(_checked(source, plain, distributions))
    task = base.build_task(retraining=True)
    splits.check(task, "tune", "--train and --score")
    maximize = task.metrics[task.score] == "max"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with storing(storage):
        shared = SharedStudy(storage, study or out.resolve().name, out, seed=base.seed, prune=prune, maximize=maximize)
        with shared.locked():
            _keep(out, base, distributions, genotype)
            shared.require_equal("split that scores trials", splits.score)
            own = storage == f"{JOURNAL}{out / STUDY}"
            TuningCall(trials, splits.train, splits.score, None if own else storage, study, prune).save(out)
        while True:
            with shared.claim(trials, distributions) as claimed:
                if claimed is None:
                    break
                if stop():
                    raise KeyboardInterrupt
                trial, settings = claimed
                config = load_config(source, [*plain, *(f"{key}={value}" for key, value in settings.items())])
                config = msgspec.structs.replace(config, tune={})
                _run(shared, trial, config, genotype, splits, observers, stop)
                if on_trial is not None:
                    on_trial(_read(shared)[trial.number])
        found = _read(shared)
    scores = {t.number: t.score for t in found if t.state == "complete" and t.score is not None}
    best = (max if maximize else min)(scores, key=lambda number: scores[number], default=None)
    return Tuning(found, None if best is None else found[best])


def _read(shared: SharedStudy) -> list[Trial]:
    return [
        Trial(t.number, t.state.name.lower(), t.value, t.params, t.user_attrs.get("error", ""))
        for t in shared.study.get_trials(deepcopy=False)
    ]


def _run(
    shared: SharedStudy,
    trial: optuna.Trial,
    config: Config,
    genotype: Genotype | None,
    splits: Splits,
    observers: Sequence[Observer],
    stop: Callable[[], bool],
) -> None:
    reported = shared.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def report(step: int, score: float) -> None:
        if step not in reported and math.isfinite(score):  # a trial that was killed has reported some
            trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    folder = shared.path(trial.number)
    try:
        scores = run_trial(config, genotype, folder, report, splits, observers, stop)
        score = scores[config.build_task(retraining=True).score]
    except optuna.TrialPruned:
        shared.study.tell(trial, state=TrialState.PRUNED)
        return
    except DivergedError as error:
        trial.set_user_attr("error", str(error))
        shared.study.tell(trial, state=TrialState.FAIL)
        return
    for name, value in scores.items():
        trial.set_user_attr(name, value)
    if math.isfinite(score):
        shared.study.tell(trial, score)
    else:
        trial.set_user_attr("error", f"the score is {score}")
        shared.study.tell(trial, state=TrialState.FAIL)


def _checked(source: str | Path, plain: Sequence[str], distributions: dict[str, Distribution]) -> Config:
    """The configuration without tuned keys; the ends of all distributions must be valid values."""
    if not distributions:
        known = ", ".join(f"{kind}(...)" for kind in KINDS)
        raise ConfigError(
            "nothing is tuned: give a key a distribution, such as search.levels.upper.optimizer.lr='log(1e-4, 1e-1)'"
            f" ({known}), or write a section 'tune' in the configuration"
        )
    first = [f"{key}={distribution.ends[0]}" for key, distribution in distributions.items()]
    for i, (key, distribution) in enumerate(distributions.items()):
        for end in distribution.ends:
            load_config(source, [*plain, *first[:i], f"{key}={end}", *first[i + 1 :]])
    return msgspec.structs.replace(load_config(source, [*plain, *first]), tune={})


def _keep(out: Path, base: Config, distributions: dict[str, Distribution], genotype: Genotype | None) -> None:
    """Record the settings of the study, or compare them with the record; raises `ConfigError` that names the keys."""
    tuned = {key: f"{d.kind}({', '.join(map(str, d.arguments))})" for key, d in distributions.items()}
    text = dump_yaml({**msgspec.to_builtins(base), "tune": tuned})
    if not (out / CONFIG).exists():
        if genotype is not None:
            genotype.save(out / GENOTYPE)
        write_text(out / CONFIG, text)
        return
    require_equal(out, parse_yaml(text, CONFIG))
    begun = Genotype.load(out / GENOTYPE) if (out / GENOTYPE).exists() else None
    if begun != genotype:
        what = "without a genotype" if begun is None else "with another genotype" if genotype else "with a genotype"
        raise ConfigError(f"{out}: was started {what}; resume it as it was started, or use another folder")
