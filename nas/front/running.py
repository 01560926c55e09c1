"""Searches and retrainings from Python: in a run folder, with progress, resumable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from nas.distributed.ranks import is_first, joined, of_first
from nas.errors import ConfigError
from nas.front.interrupts import deferred
from nas.front.results import RetrainResult, Scores, SearchResult
from nas.front.targets import config_of, genotype_file, genotype_of
from nas.genotype.file import Genotype
from nas.report.live import RunProgress, predict_view
from nas.report.progress import watched
from nas.report.tensorboard import TensorBoard
from nas.run import proposals, retraining, searching
from nas.run.checkpoint import WHOLE
from nas.run.config import Config, Overrides, load_config
from nas.run.folder import CONFIG, METRICS, ORIGIN, Follower, Run, read_records
from nas.run.models import default_model, model_folder
from nas.run.observer import Observer
from nas.run.prediction import predict as predict_file
from nas.run.prediction import require_fitting
from nas.run.task import PYTHON, TEST, Task, require_ranked

Source = Config | Mapping[str, Any] | str | Path
"""A configuration: loaded, plain data, the path of a YAML file, or a shipped name."""


def search(
    config: Source,
    *,
    out: str | Path,
    resume: bool = False,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
    tensorboard: bool = False,
    minutes: float | None = None,
) -> SearchResult:
    """Search for a genotype, in a run folder.

    The folder receives metrics, checkpoints, and the genotype of each epoch. A search that was stopped, by Ctrl-C or a
    kill, continues with `resume=True` and ends as the uninterrupted one would, bit for bit on one machine.

    Args:
        config: the configuration; see `nas.load_config`.
        out: the run folder: a new one, or the one to resume.
        resume: continue from the last checkpoint in the folder, with the same configuration.
        task: a task in place of that of the configuration (see `nas.task_of` and `nas.Task`).
        observers: called after each step and epoch, after those of `search.observers`; see `nas.Observer`.
        progress: whether to show progress; by default in terminals and notebooks only.
        tensorboard: also write each epoch for TensorBoard, into the folder.
        minutes: stop after this time, at the end of a step, and derive the genotype of then. `resume=True` continues.

    Returns:
        The result, with the genotype.

    Raises:
        ConfigError: the configuration cannot work, the folder is not empty, or cannot be resumed.
        DivergedError: the losses stopped being finite; the last state is saved.
        KeyboardInterrupt: the search was stopped; the message says how to continue.

    Example:
        >>> config = nas.load_config("digits", {"search.steps": 4, "search.epochs": 2})
        >>> found = nas.search(config, out="runs/search")
        >>> found.genotype.save("mine.yaml")
    """
    loaded, out = configured(config, task), Path(out)
    with joined(), _opened(out, loaded, resume) as run:
        own = [RunProgress(quiet=not watched(progress)), *([TensorBoard()] if tensorboard else [])]
        with deferred() as run.stop:
            proposals.search(loaded, run, [*observers, *(own if is_first() else [])], task=task, minutes=minutes)
    return SearchResult(out)


def retrain(
    genotype: Genotype | SearchResult | str | Path,
    config: Source | None = None,
    *,
    out: str | Path,
    inherit: bool = False,
    resume: bool = False,
    task: Task | None = None,
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
    minutes: float | None = None,
    weights: str | Path | None = None,
) -> RetrainResult:
    """Train the network of a genotype in a run folder, and measure it on data that neither search nor training reads.

    Args:
        genotype: a genotype, its file, the name of a shipped one, or a search: its result or its folder. The folder of
            a retraining or of a model works too.
        config: the configuration; by default that of the folder, or the shipped one with the name of the space.
        out: the run folder: a new one, or the one to resume.
        inherit: start from the operation weights of the search, not from new ones.
        resume: continue from the last checkpoint in the folder, with the same configuration and genotype.
        task: a task in place of that of the configuration.
        observers: called after each step and epoch; see `nas.Observer`.
        progress: whether to show progress; by default in terminals and notebooks only.
        minutes: stop training after this time, at the end of a step; the network has the weights of then, and is
            measured. `resume=True` continues. Schedules follow the steps, not the time.
        weights: start from these weights: a safetensors file, or the folder of a retraining, as `initial` in the
            configuration.

    Returns:
        The result, with the network and its scores.

    Raises:
        ConfigError: the configuration does not fit the genotype, or the folder cannot be used.
        DivergedError: the losses stopped being finite; the last state is saved.
        KeyboardInterrupt: the training was stopped; the message says how to continue.

    Example:
        >>> config = nas.load_config("digits", {"retrain.stages.all.steps": 4, "retrain.epochs": 1})
        >>> genotype = nas.find_space("digits").sample(torch.Generator())
        >>> network = nas.retrain(genotype, config, out="runs/network").network
    """
    folder = given_folder(genotype)
    records = read_records(folder) if folder is not None and (folder / METRICS).is_file() else []
    if inherit and not records:
        raise ConfigError(f"inherit needs the folder or the result of a search, got {_shown(genotype)}")
    chosen = genotype if isinstance(genotype, Genotype) else genotype_of(folder or str(genotype))
    loaded, out = configured(default_config(genotype) if config is None else config, task), Path(out)
    if weights is not None:
        loaded = _starting_from(loaded, Path(weights), inherit=inherit)
    initial = searching.inherit_from(folder, loaded.retrained(chosen)) if inherit and folder else None
    with joined(), _opened(out, loaded, resume) as run:
        with deferred() as run.stop:
            shown = [*observers, *([RunProgress(quiet=not watched(progress))] if is_first() else [])]
            network = retraining.retrain(loaded, chosen, run, shown, initial=initial, task=task, minutes=minutes)
        task_ = task or loaded.build_task(retraining=True)
        scores = retraining.evaluate(network, task_)
        run.record(
            "evaluate", None, **scores, statement=task_.statement, parts=dict(task_.parts), best=dict(task_.metrics)
        )
        if folder is not None and any(record["kind"] == "decisions" for record in records):
            run.record(ORIGIN, None, search=os.path.relpath(folder, out))
    return RetrainResult(out, task)


def evaluate(
    run: RetrainResult | str | Path,
    overrides: Overrides = (),
    *,
    split: str = TEST,
    task: Task | None = None,
) -> Scores:
    """Measure a retrained network: the one that `nas.load` returns.

    Args:
        run: a retraining: its result or its folder; or the name of a shipped model.
        overrides: changes of the configuration by dotted key, such as other data (`task.test`).
        split: the data to measure on.
        task: the task, if the retraining had one that no configuration names.

    Returns:
        The metrics by name.

    Example:
        >>> config = nas.load_config("digits", {"retrain.stages.all.steps": 2, "retrain.epochs": 1})
        >>> genotype = nas.find_space("digits").sample(torch.Generator())
        >>> result = nas.retrain(genotype, config, out="runs/network")
        >>> nas.evaluate("runs/network") == result.scores
        True
    """
    folder = network_folder(run)
    config = config_of(folder, overrides)
    task = task or config.build_task(retraining=True)
    with joined():
        scores = retraining.evaluate(retraining.load_network(folder).to(config.torch_device()), task, split)
    return Scores(scores, task.statement, task.parts)


def predict(
    run: RetrainResult | str | Path | None,
    source: str | Path,
    sink: str | Path,
    options: Mapping[str, Any] | None = None,
    *,
    device: str | None = None,
    task: Task | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Apply a trained network to files: TMICS derains a film, a classifier writes a table of classes.

    Args:
        run: a retraining: its result or its folder; or the name of a shipped model; or None for the default model.
        source: the file or folder to read.
        sink: the file or folder to write.
        options: what else the method `predict` of the task takes, such as `{"tile": 256}`.
        device: where to compute, such as `cuda`; by default where the retraining did.
        task: the task, if the retraining had one that no configuration names.
        progress: whether to show progress; by default in terminals and notebooks only.

    Returns:
        Facts that the task tells, by name.

    Example:
        >>> config = nas.load_config("digits", {"retrain.stages.all.steps": 2, "retrain.epochs": 1})
        >>> genotype = nas.find_space("digits").sample(torch.Generator())
        >>> result = nas.retrain(genotype, config, out="runs/network")
        >>> from PIL import Image
        >>> Image.new("L", (8, 8)).save("digit.png")
        >>> nas.predict("runs/network", "digit.png", "classes.csv")["pictures"]
        1
    """
    folder = network_folder(default_model() if run is None else run)
    config = config_of(folder, {} if device is None else {"device": device})
    name = str(config.task.get("name", ""))
    task = task or config.build_task(retraining=True)
    network = retraining.load_network(folder).to(config.torch_device())
    require_fitting(network, task, f"{folder}: task '{name}'")
    with joined(), predict_view(quiet=not (watched(progress) and is_first())) as update:
        return predict_file(task, name, network, Path(source), Path(sink), options or {}, update)


def network_folder(run: RetrainResult | str | Path) -> Path:
    """Return the folder of a retraining or of a model."""
    return run.path if isinstance(run, RetrainResult) else model_folder(run)


def given_folder(genotype: Genotype | SearchResult | str | Path) -> Path | None:
    """Return the folder that holds a genotype, such as that of its search, if it is given as one."""
    if isinstance(genotype, SearchResult):
        return genotype.path
    return Path(genotype) if not isinstance(genotype, Genotype) and Path(genotype).is_dir() else None


def default_config(genotype: Genotype | SearchResult | str | Path) -> str | Path:
    """Return the configuration of a retraining that is given none: that of the folder, else that named as the space."""
    folder = given_folder(genotype)
    if folder is not None and (file := genotype_file(folder).with_name(CONFIG)).is_file():
        return file
    return (genotype if isinstance(genotype, Genotype) else genotype_of(folder or str(genotype))).space


def configured(config: Source, task: Task | None) -> Config:
    """The configuration; with a task given in Python, its settings are in the place of the section `task`."""
    if task is None:
        return config if isinstance(config, Config) else load_config(config)
    if not isinstance(task, Task):
        raise ConfigError(f"task must be an object of a class that inherits nas.Task, got {_shown(task)}")
    require_ranked(task)
    section = {"name": PYTHON, **msgspec.to_builtins(task.settings())}
    if isinstance(config, Mapping):
        config = load_config({**config, "task": section})
    loaded = config if isinstance(config, Config) else load_config(config)
    if loaded.retrain_section is not None:
        loaded = msgspec.structs.replace(loaded, retrain_section=msgspec.structs.replace(loaded.retrain, task={}))
    return msgspec.structs.replace(loaded, task=section)


def _starting_from(config: Config, weights: Path, *, inherit: bool) -> Config:
    """The configuration with the weights of a file, or of the folder of a retraining, as the initial ones."""
    if inherit:
        raise ConfigError(
            f"weights must be left out with inherit, which starts from those of the search; got {weights}"
        )
    file = retraining.weights_of(weights) if weights.is_dir() else weights
    return msgspec.structs.replace(config, initial={WHOLE: str(file)})


@contextmanager
def _opened(folder: Path, config: Config, resume: bool) -> Iterator[Run]:
    """The run in a folder; a new one that fails before anything is saved leaves the folder free."""
    text = config.dump()
    opened: list[Run] = []

    def open_run() -> None:
        opened.append(Run.open(folder, text) if resume else Run.create(folder, text, config.seed))

    of_first(open_run)
    with opened[0] if opened else Follower(folder) as run:
        try:
            yield run
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"{folder}: stopped; nothing that a checkpoint holds is lost. To continue, call the function again with"
                " resume=True"
            ) from error
        except Exception:
            if not resume:  # the same call works once the configuration is fixed
                run.withdraw()
            raise


def _shown(value: object) -> str:
    return f"'{value}'" if isinstance(value, str | Path) else type(value).__qualname__
