"""The command that tunes settings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.running import Quiet
from nas.cli.terminal import say
from nas.front.targets import genotype_of

if TYPE_CHECKING:
    from nas.tune.tuning import Trial

Out = Annotated[Path, Parameter(help="Folder of the trials' runs: a new one, or that of a study to continue.")]


@app.command
def tune(
    config: str,
    /,
    *overrides: str,
    out: Out,
    trials: int | None = None,
    storage: str | None = None,
    study: str | None = None,
    genotype: list[str] | None = None,
    train: str = "train",
    score: str = "val",
    no_pruning: bool = False,
    grace: float = 120.0,
    quiet: Quiet = False,
) -> None:
    """Tune settings with Optuna. Each trial searches and retrains with different values.

    Give a key of the configuration a distribution instead of a value: `'KEY=log(1e-4, 1e-1)'`, `float(low, high)`,
    `int(low, high)`, `choice(a, b, ...)`. `grid(a, b, ...)` runs each value: `seed=grid(0, 1, 2)` makes three trials.
    Or put distributions into the section `tune` of the configuration. Repeat the command to continue, also after it was
    killed. Several processes and hosts with the same --storage and --out share the trials.

    Every trial trains its network on one split of the task and is ranked by the score on another. Test data are not
    read.

    Args:
        config: A YAML file, or the name of a shipped configuration (`nas config` lists them).
        overrides: key.path=value, or key.path=distribution.
        trials: Trials of the study, including those of earlier and other processes; by default all of a grid.
        storage: journal:FILE, or the URL of a database, such as sqlite:///FILE or postgresql://HOST/NAME; by default
            journal:OUT/study.log.
        study: Name of the study in the storage; by default the name of the folder.
        genotype: A genotype (file, shipped name, folder of a run) to retrain in every trial instead of a search. Repeat
            the option to retrain several: they are a grid.
        train: The split for training in all stages of a retraining.
        score: The split that ranks the trials; it must not overlap the other one.
        no_pruning: Finish every trial, even if its intermediate scores are below the median. Trials of a grid alone are
            never pruned.
        grace: Seconds without a sign of life after which a trial of another host is taken over.
    """
    from nas.front.interrupts import deferred
    from nas.report.live import RunProgress
    from nas.report.tables import table
    from nas.searchers.storage import JOURNAL
    from nas.tune.tuning import STUDY, Splits, dashboard
    from nas.tune.tuning import tune as run_tuning

    url = storage or f"{JOURNAL}{out / STUDY}"
    genotypes = {name: genotype_of(name) for name in genotype or ()}
    retrained = genotypes if len(genotypes) > 1 else next(iter(genotypes.values()), None)
    try:
        with deferred() as stop:
            result = run_tuning(
                config,
                overrides,
                trials=trials,
                storage=url,
                out=out,
                study=study,
                genotype=retrained,
                splits=Splits(train, score),
                prune=not no_pruning,
                observers=[RunProgress(quiet=quiet)],
                stop=stop,
                grace=grace,
                on_trial=_show,
                on_wait=lambda owners: say(f"waiting for {owners}"),
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("repeat the command to continue") from error
    keys = dict.fromkeys(key for trial in result.trials for key in trial.settings)
    rows = [(t.number, t.state, t.score, *(t.settings.get(key) for key in keys)) for t in result.trials]
    table("Trials", ("trial", "state", "score", *keys), rows)
    if result.best is not None:
        settings = " ".join(shlex.quote(f"{key}={value}") for key, value in result.best.settings.items())
        say(f"best: trial {result.best.number}, score {result.best.score:.4g}: {settings}")
    say(f"dashboard: optuna-dashboard {shlex.quote(dashboard(url))}")


def _show(trial: Trial) -> None:
    score = "" if trial.score is None else f", score {trial.score:.4g}"
    say(f"trial {trial.number}: {trial.state}{score}{': ' if trial.error else ''}{trial.error}")
