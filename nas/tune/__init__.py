"""Tuning the settings of searches and retrainings by Optuna: any key of a configuration can have a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import optuna
from optuna.trial import TrialState

from nas.config import Config, load_config
from nas.errors import ConfigError, DivergedError
from nas.files import dump_yaml, parse_yaml, write_text, writing
from nas.genotype import Genotype
from nas.run import CONFIG, GENOTYPE, require_equal
from nas.tune.distributions import KINDS, Distribution, split
from nas.tune.study import SharedStudy, dashboard, storing
from nas.tune.trial import Splits, Views, run_trial

__all__ = ["KINDS", "Distribution", "Splits", "Trial", "Tuning", "Views", "dashboard", "tune"]


SPLITS = Splits()


class Trial(NamedTuple):
    """One trial of a study."""

    number: int
    state: str
    """`complete`, `pruned`, `fail`, or `running`, which one that was killed is as well."""
    score: float | None
    """The task's score; of a trial that was pruned, the last one before."""
    settings: dict[str, float | int | str]
    """The values of the keys that are tuned, texts as YAML."""
    error: str = ""
    """Why it failed."""


class Tuning(NamedTuple):
    """What a tuning found: all trials of the study, by number, and that of the best score, if any is complete."""

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
    views: Views | None = None,
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
        on_trial: called after each trial of this process.

    Raises `ConfigError` where nothing is to be tuned, no trial is asked for, a distribution fits nowhere, the splits
    overlap, or the study was started otherwise.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if trials < 1:
        raise ConfigError(f"the number of trials must be at least 1, got {trials}")
    plain, distributions = split(overrides, load_config(source).tune)
    base = splits.of(_checked(source, plain, distributions))
    splits.check(base)
    views = views or Views()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with storing(storage):
        shared = SharedStudy(storage, study or out.resolve().name, out, seed=base.seed, prune=prune)
        with shared.locked():
            _keep(out, base, distributions, genotype)
            shared.require_equal("split that scores trials", splits.score)
        while True:
            with shared.claim(trials, distributions) as claimed:
                if claimed is None:
                    break
                if views.stop():
                    raise KeyboardInterrupt
                trial, settings = claimed
                config = load_config(source, [*plain, *(f"{key}={value}" for key, value in settings.items())])
                _run(shared, trial, msgspec.structs.replace(config, tune={}), genotype, views, splits)
                if on_trial is not None:
                    on_trial(_read(shared)[trial.number])
        found = _read(shared)
    complete = [trial for trial in found if trial.state == "complete"]
    return Tuning(found, max(complete, key=lambda t: -math.inf if t.score is None else t.score, default=None))


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
    views: Views,
    splits: Splits,
) -> None:
    reported = shared.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def report(step: int, score: float) -> None:
        if step not in reported and math.isfinite(score):  # a trial that was killed has reported some
            trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    folder = shared.path(trial.number)
    try:
        scores = run_trial(config, genotype, folder, report, views, splits)
        score = scores[config.task_class().score]
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
    """The configuration without what is tuned; all values at the ends of the distributions must fit it."""
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
    """Record what the study tunes, or compare it with what was recorded; raises `ConfigError` that names the keys."""
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
        raise ConfigError(f"{out}: was started {what}; go on as it was started, or use another folder")
