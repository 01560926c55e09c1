"""The command that tunes settings."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.interrupts import interrupts
from nas.cli.running import Quiet
from nas.cli.targets import genotype_of

if TYPE_CHECKING:
    from nas.tune import Trial

Out = Annotated[Path, Parameter(help="Folder of the trials' runs: a new one, or that of a study to go on with.")]


@app.command
def tune(
    config: str,
    /,
    *overrides: str,
    trials: int,
    out: Out,
    storage: str | None = None,
    study: str | None = None,
    genotype: str | None = None,
    train: str = "train",
    score: str = "val",
    no_pruning: bool = False,
    quiet: Quiet = False,
) -> None:
    """Tune settings: each trial searches, and retrains what it found, with other values of them (Optuna).

    A key of the configuration gets a distribution in place of a value: `'KEY=log(1e-4, 1e-1)'`, `float(low, high)`,
    `int(low, high)`, `choice(a, b, ...)`; or it has one in the configuration's section `tune`. The same command again
    goes on, also where it was killed; several at once, with one --storage and --out, share the trials.

    Every trial trains its network on one split of the task, and is ranked by the task's score on another one. The test
    data stay unread.

    Args:
        config: A YAML file, or the name of a configuration that comes along (`nas config` lists them).
        overrides: key.path=value, or key.path=distribution.
        trials: How many trials the study is to have, those of earlier and of other processes included.
        storage: journal:FILE, or the URL of a database, such as sqlite:///FILE; by default journal:OUT/study.log.
        study: Name of the study in the storage; by default that of the folder.
        genotype: A genotype to retrain in every trial, in place of a search: a file, a shipped name, a run's folder.
        train: The split on which all stages of a trial's retraining train.
        score: The split that ranks the trials; it must not overlap the other one.
        no_pruning: Finish every trial, also one whose intermediate scores are below the median.
    """
    from nas.report.live import retrain_view, search_view
    from nas.report.tables import table
    from nas.tune import Splits, Views, dashboard
    from nas.tune import tune as run_tuning

    url = storage or f"journal:{out / 'study.log'}"
    try:
        with interrupts.deferred() as stop:
            result = run_tuning(
                config,
                overrides,
                trials=trials,
                storage=url,
                out=out,
                study=study,
                genotype=None if genotype is None else genotype_of(genotype),
                splits=Splits(train, score),
                prune=not no_pruning,
                views=Views(partial(search_view, quiet=quiet), partial(retrain_view, quiet=quiet), stop),
                on_trial=_show,
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("repeat the command to go on") from error
    keys = dict.fromkeys(key for trial in result.trials for key in trial.settings)
    rows = [(t.number, t.state, t.score, *(t.settings.get(key) for key in keys)) for t in result.trials]
    table("Trials", ("trial", "state", "score", *keys), rows)
    if result.best is not None:
        settings = " ".join(shlex.quote(f"{key}={value}") for key, value in result.best.settings.items())
        print(f"best: trial {result.best.number}, score {result.best.score:.4g}: {settings}")
    print(f"dashboard: optuna-dashboard {shlex.quote(dashboard(url))}")


def _show(trial: Trial) -> None:
    score = "" if trial.score is None else f", score {trial.score:.4g}"
    print(f"trial {trial.number}: {trial.state}{score}{': ' if trial.error else ''}{trial.error}")
