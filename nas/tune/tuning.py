"""Tune the settings of searches and retrainings by Optuna: any key of a configuration can have a distribution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from nas.searchers.leases import GRACE, Lease
from nas.searchers.storage import JOURNAL, storing
from nas.tune.distributions import KINDS, Distribution, grid_size, split
from nas.tune.study import SharedStudy, dashboard
from nas.tune.trial import run_trial

__all__ = ["KINDS", "Distribution", "Splits", "Trial", "Tuning", "dashboard", "tune"]


SPLITS = Splits()
STUDY = "study.log"
"""The usual journal of a study, in the folder of its trials."""
NAME, GENOTYPES = "genotype", "genotypes"
"""The setting of a trial that names its genotype, and the folder of the genotypes."""


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
    trials: int | None = None,
    storage: str,
    out: Path,
    study: str | None = None,
    genotype: Genotype | Mapping[str, Genotype] | None = None,
    splits: Splits = SPLITS,
    prune: bool = True,
    grace: float = GRACE,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial], None] | None = None,
    on_wait: Callable[[str], None] = lambda owners: None,
) -> Tuning:
    """Run trials until the study has `trials` of them: each a search and a retraining of what it found.

    Several processes and hosts may tune one study at once, on one storage and one folder: each trial is run by one of
    them, and a trial whose process was killed resumes in another (see `nas.searchers.leases.Leases`). Each process
    returns when all trials have ended. A trial retrains on one split and is scored, by the task's `score`, on another
    one that is held out: the test data are never read. With `prune` a retraining whose score is below the median of the
    others' after as many steps is ended; not if all settings are grids. A trial that diverges fails; any other error
    ends the tuning, and leaves the trial to be resumed.

    Args:
        source: a configuration, a file or a name; its section `tune` may hold distributions by key.
        overrides: `key.path=value`, or a distribution in place of the value (see `Distribution.parse`).
        trials: of the study, those of earlier and other processes included; by default all combinations of the grids.
        storage: `journal:FILE`, or the URL of a database.
        out: the folder of the trials' runs.
        study: the name of the study in the storage, by default that of the folder.
        genotype: a genotype to retrain in every trial, in place of a search; or several by name, which are a grid.
        splits: on what trials retrain, and on what they are scored.
        grace: seconds without a sign of life after which a process on another host has lost its trial.
        observers: of all searches and retrainings of this process.
        stop: whether to end after the step at hand, by `KeyboardInterrupt`.
        on_trial: called after each trial of this process.
        on_wait: called with the trials of other processes, in words, if this one waits for them.

    Raises `ConfigError` where nothing is to be tuned, no trial is asked for, or more than a grid has, a distribution
    fits nowhere, the splits overlap, or the study was started otherwise.
    """
    plain, distributions = split(overrides, load_config(source).tune)
    distributions.pop(NAME, None)  # in the configuration of a study that is continued
    single, several = (None, genotype) if isinstance(genotype, Mapping) else (genotype, {})
    drawn = ({NAME: Distribution("grid", tuple(several))} if several else {}) | distributions
    trials = _count(trials, drawn)
    base = splits.of(_checked(source, plain, distributions))
    task = base.build_task(retraining=True)
    splits.check(task, "tune", "--train and --score")
    maximize = task.metrics[task.score] == "max"
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    pruning, name = prune and grid_size(drawn) is None, study or out.resolve().name
    with storing(storage):
        shared = SharedStudy(storage, name, out, seed=base.seed, prune=pruning, maximize=maximize, grace=grace)
        with shared.locked():
            _keep(out, base, drawn, genotype)
            shared.require_equal("split that scores trials", splits.score)
            own = storage == f"{JOURNAL}{out / STUDY}"
            call = TuningCall(
                trials,
                splits.train,
                splits.score,
                storage=None if own else storage,
                study=study,
                prune=prune,
                genotypes=tuple(several),
                grace=None if grace == GRACE else grace,
            )
            call.save(out)
        while True:
            with shared.claim(trials, drawn, stop, on_wait) as claimed:
                if claimed is None:
                    break
                if stop():
                    raise KeyboardInterrupt
                lease, trial, settings = claimed
                retrained = several[settings.pop(NAME)] if several else single
                config = load_config(source, [*plain, *(f"{key}={value}" for key, value in settings.items())])
                config = msgspec.structs.replace(config, tune={})
                try:
                    _run(shared, lease, trial, config, retrained, splits, observers, stop)
                except Exception:
                    if not lease.lost:
                        raise
                    warnings.warn(f"trial {trial.number}: another process has taken it over", stacklevel=2)
                    continue
                if on_trial is not None:
                    on_trial(_read(shared)[trial.number])
        found = _read(shared)
    scores = {t.number: t.score for t in found.values() if t.state == "complete" and t.score is not None}
    best = (max if maximize else min)(scores, key=lambda number: scores[number], default=None)
    return Tuning(list(found.values()), None if best is None else found[best])


def _count(trials: int | None, distributions: Mapping[str, Distribution]) -> int:
    """The number of trials: the given one, or that of the combinations of the grids."""
    if not distributions:
        known = ", ".join(f"{kind}(...)" for kind in KINDS)
        raise ConfigError(
            "nothing is tuned: give a key a distribution, such as search.levels.upper.optimizer.lr='log(1e-4, 1e-1)'"
            f" ({known}), or write a section 'tune' in the configuration"
        )
    size = grid_size(distributions)
    if trials is None:
        if size is None:
            raise ConfigError("the number of trials must be given if a setting is drawn, got none")
        return size
    if trials < 1:
        raise ConfigError(f"the number of trials must be at least 1, got {trials}")
    if size is not None and trials > size:
        raise ConfigError(f"the number of trials must be at most {size}, the combinations of the grids, got {trials}")
    return trials


def _read(shared: SharedStudy) -> dict[int, Trial]:
    """The trials by number, without those that wait until more are asked for."""
    return {
        t.number: Trial(t.number, t.state.name.lower(), t.value, t.params, t.user_attrs.get("error", ""))
        for t in shared.study.get_trials(deepcopy=False)
        if t.state != TrialState.WAITING
    }


def _run(
    shared: SharedStudy,
    lease: Lease,
    trial: optuna.Trial,
    config: Config,
    genotype: Genotype | None,
    splits: Splits,
    observers: Sequence[Observer],
    stop: Callable[[], bool],
) -> None:
    def held() -> bool:
        lease.require()
        return stop()

    reported = shared.study.get_trials(deepcopy=False)[trial.number].intermediate_values

    def report(step: int, score: float) -> None:
        if step not in reported and math.isfinite(score):  # a trial that was killed has reported some
            trial.report(score, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    folder = shared.path(trial.number)
    try:
        scores = run_trial(config, genotype, folder, report, splits, observers, held)
        score = scores[config.build_task(retraining=True).score]
    except optuna.TrialPruned:
        lease.require()
        shared.study.tell(trial, state=TrialState.PRUNED)
        return
    except DivergedError as error:
        trial.set_user_attr("error", str(error))
        shared.study.tell(trial, state=TrialState.FAIL)
        return
    lease.require()
    for name, value in scores.items():
        trial.set_user_attr(name, value)
    if math.isfinite(score):
        shared.study.tell(trial, score)
    else:
        trial.set_user_attr("error", f"the score is {score}")
        shared.study.tell(trial, state=TrialState.FAIL)


def _checked(source: str | Path, plain: Sequence[str], distributions: dict[str, Distribution]) -> Config:
    """The configuration without tuned keys; the ends of all distributions must be valid values."""
    first = [f"{key}={distribution.ends[0]}" for key, distribution in distributions.items()]
    for i, (key, distribution) in enumerate(distributions.items()):
        for end in distribution.ends:
            load_config(source, [*plain, *first[:i], f"{key}={end}", *first[i + 1 :]])
    return msgspec.structs.replace(load_config(source, [*plain, *first]), tune={})


def _keep(
    out: Path, base: Config, drawn: Mapping[str, Distribution], genotype: Genotype | Mapping[str, Genotype] | None
) -> None:
    """Record the settings of the study, or compare them with the record; raises `ConfigError` that names the keys."""
    tuned = {key: f"{d.kind}({', '.join(map(str, d.arguments))})" for key, d in drawn.items()}
    text = dump_yaml({**msgspec.to_builtins(base), "tune": tuned})
    given = {GENOTYPE: genotype} if isinstance(genotype, Genotype) else {}
    if isinstance(genotype, Mapping):
        given = {f"{GENOTYPES}/{i:04d}.yaml": each for i, each in enumerate(genotype.values())}
    if not (out / CONFIG).exists():
        for name, each in given.items():
            each.save(out / name)
        write_text(out / CONFIG, text)
        return
    require_equal(out, parse_yaml(text, CONFIG))
    paths = [path for pattern in (GENOTYPE, f"{GENOTYPES}/*.yaml") for path in sorted(out.glob(pattern))]
    begun = {str(path.relative_to(out)): Genotype.load(path) for path in paths}
    if begun != given:
        what = "without a genotype" if not begun else "with another genotype" if given else "with a genotype"
        raise ConfigError(f"{out}: was started {what}; resume it as it was started, or use another folder")
