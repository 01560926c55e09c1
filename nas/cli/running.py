"""Commands that run: search, derive, retrain, evaluate, predict, export."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.interrupts import interrupts
from nas.cli.targets import config_of, genotype_of, options_of
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.config import Config
    from nas.genotype import Genotype
    from nas.run import Run
    from nas.task import Task

Format = Literal["source", "pt2", "onnx", "safetensors"]
Out = Annotated[Path, Parameter(help="Folder of the run: a new one, or with --resume the one to go on in.")]
Resume = Annotated[bool, Parameter(help="Go on from the last checkpoint in the folder.")]
Quiet = Annotated[bool, Parameter(help="Show no progress.")]


@app.command
def search(
    config: str | None = None,
    /,
    *overrides: str,
    out: Out,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    steps: int | None = None,
    seeds: str | None = None,
    resume: Resume = False,
    quiet: Quiet = False,
    tensorboard: bool = False,
) -> None:
    """Search for a genotype.

    Args:
        config: A YAML file, or the name of a configuration that comes along (`nas config` lists them).
        overrides: key.path=value, such as search.steps=500 or search.levels.upper.optimizer.lr=1e-3.
        start: The folder of a search, in place of a configuration: a new run with that search's configuration starts
            from its last state. All schedules start from 0.
        steps: The steps of the search, as search.steps=STEPS.
        seeds: Search once with each seed, such as 0..4 or 0,3,7: each has a folder in --out, and one report compares
            them.
        tensorboard: Write each epoch for TensorBoard, into the folder of the run.
    """
    from nas.config import load_config
    from nas.report.compare import write_comparison
    from nas.run import CONFIG

    changes = list(overrides)
    if start is not None:
        if not (start / CONFIG).is_file():
            raise ConfigError(f"--from must be the folder of a search, got {start}, which has no {CONFIG}")
        if config is not None and "=" not in config:
            raise ConfigError(f"with --from the configuration is that of {start}; leave '{config}' out")
        changes = [f"start={json.dumps(str(start))}", "initial=null", *([] if config is None else [config]), *changes]
        config = str(start / CONFIG)
    if config is None:
        raise ConfigError("nas search needs a configuration, or --from and the folder of a search")
    if steps is not None:
        changes.append(f"search.steps={steps}")
    if seeds is None:
        _search(load_config(config, changes), out, resume=resume, quiet=quiet, tensorboard=tensorboard)
        return
    folders = {seed: out / f"seed-{seed}" for seed in _seeds(seeds)}
    loaded = {seed: load_config(config, [*changes, f"seed={seed}"]) for seed in folders}
    for seed, folder in folders.items():
        begun = resume and (folder / CONFIG).is_file()
        _search(loaded[seed], folder, resume=begun, quiet=quiet, tensorboard=tensorboard)
    print(f"comparison: {write_comparison([*folders.values()], out / 'comparison.html').path}")


def _search(config: Config, out: Path, *, resume: bool, quiet: bool, tensorboard: bool) -> None:
    from nas.report.live import search_view
    from nas.report.page import write_report
    from nas.report.tensorboard import tensorboard as tensorboard_of
    from nas.search import search as run_search

    with _run(out, config, resume) as run:
        board = tensorboard_of(out) if tensorboard else nullcontext(lambda: None)
        with search_view(config, quiet=quiet) as (on_step, advise), board as update:

            def on_epoch(step: int, advice: list[str]) -> None:
                advise(step, advice)
                update()

            with interrupts.deferred() as run.stop:
                genotype = run_search(config, run, on_step, on_epoch)
        _show_choices(genotype)
        print(f"genotype: {out / 'genotype.yaml'}\nreport: {write_report(out).path}")
        print(_undecided(genotype), end="")


def _seeds(text: str) -> list[int]:
    """The seeds in a text such as `0..4` or `0,3,7`; raises `ConfigError`."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\.\.(\d{1,9}))?\s*", part)
        if match is None:
            raise ConfigError(f"--seeds must be numbers from 0, such as 0..4 or 0,3,7, got '{text}'")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(found)) < 2 or len(set(found)) < len(found):
        raise ConfigError(f"--seeds must name two different seeds or more, got '{text}'; one is seed=NUMBER")
    return found


@app.command
def derive(
    run: Path,
    /,
    *,
    at_most: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False)] = (),
    out: Path | None = None,
) -> None:
    """Write the genotype that a search, finished or not, derives at its last checkpoint.

    Args:
        run: The folder of a search.
        at_most: CANDIDATE=NUMBER, the most of a candidate in each cell, or CELL/CANDIDATE=NUMBER; in place of the
            limits that the search was configured with. May be repeated.
        out: The file to write; the terminal where absent.
    """
    from nas.files import convert
    from nas.search import derive_from

    limits = convert(options_of(at_most), dict[str, int], "--at-most") if at_most else None
    genotype = derive_from(run, limits)
    print(_undecided(genotype), end="", file=sys.stderr)
    if out is None:
        print(genotype.dump(), end="")
    else:
        genotype.save(out)


@app.command
def retrain(
    genotype: str,
    /,
    *overrides: str,
    out: Out,
    config: str | None = None,
    inherit: bool = False,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train the network of a genotype, and measure it on data that the training does not see.

    Args:
        genotype: A genotype file, the name of a shipped one, or the folder of a search.
        overrides: key.path=value, such as retrain.stages.backbone.steps=2000.
        config: A YAML file, or the name of a configuration; by default that of the search, or that named as the space.
        inherit: Begin with the operation weights of the search, whose folder is given, in place of new ones.
    """
    from nas.config import load_config
    from nas.report.live import retrain_view
    from nas.report.page import write_report
    from nas.retrain import evaluate, previews
    from nas.retrain import retrain as run_retrain
    from nas.run import ORIGIN
    from nas.search import inherit_from

    searched = Path(genotype).is_dir()
    if inherit and not searched:
        raise ConfigError(f"--inherit takes weights from the folder of a search, found '{genotype}'")
    found = genotype_of(genotype)
    loaded = load_config(config or (Path(genotype, "config.yaml") if searched else found.space), overrides)
    initial = inherit_from(genotype, loaded.retrained(found)) if inherit else None
    with _run(out, loaded, resume) as run:
        with retrain_view(loaded, quiet=quiet) as on_step, interrupts.deferred() as run.stop:
            network = run_retrain(loaded, found, run, on_step, initial=initial)
        task = loaded.build_task(retraining=True)
        scores = evaluate(network, task)
        run.record("evaluate", None, **scores, statement=_statement(task), parts=_parts(task))
        if searched:
            run.record(ORIGIN, None, search=os.path.relpath(genotype, out))
        _show_scores(out, scores, task)
        print(f"report: {write_report(out, previews=previews(network, task)).path}")


@app.command(name="evaluate")
def evaluate_command(run: Path, /, *overrides: str) -> None:
    """Measure a retrained network on data that its training did not see.

    Args:
        run: The folder of a retraining.
        overrides: key.path=value, to measure on other data than the run's configuration says.
    """
    from nas.retrain import evaluate, load_network

    config = config_of(run, overrides)
    task = config.build_task(retraining=True)
    _show_scores(run, evaluate(load_network(run).to(config.torch_device()), task), task)


@app.command
def predict(
    source: Path,
    sink: Path,
    /,
    *options: str,
    model: Path,
    tile: int | None = None,
    bfloat16: bool = False,
    device: str | None = None,
    quiet: Quiet = False,
) -> None:
    """Apply a retrained network: TMICS derains a film, a classifier writes a table of the classes of pictures.

    Args:
        source: A video file or a folder of frames; a picture or a folder of pictures.
        sink: A video file, a picture or a folder, by its suffix; a .csv file for classes.
        options: What else the task takes: name=value.
        model: The folder of a retraining.
        tile: Largest height and width to process at once, in pixels; by default whole frames, unless one would take
            more than half of the memory.
        bfloat16: Convolve in 16 bits, where the task can: faster on processors with instructions for it.
        device: Where to compute, such as cuda; by default where the retraining did.
    """
    from nas.report.live import predict_view
    from nas.retrain import load_network
    from nas.task import apply

    given = {
        **({} if tile is None else {"tile": tile}),
        **({"bfloat16": True} if bfloat16 else {}),
        **options_of(options),
    }
    config = config_of(model, () if device is None else (f"device={device}",))
    task = config.build_task(retraining=True)
    network = load_network(model).to(config.torch_device())
    with predict_view(quiet=quiet) as progress:
        facts = apply(task, str(config.task["name"]), network, source, sink, given, progress)
    told = (
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in facts.items()
    )
    print(f"{sink}: {', '.join(told)}" if facts else sink)


@app.command
def export(run: Path, /, *, format: Format | None = None, out: Path | None = None) -> None:
    """Write a retrained network for use without this package, and check that it computes the same.

    Args:
        run: The folder of a retraining.
        format: source (a Python file that needs torch alone, its weights beside it), pt2 (a program of torch.export),
            onnx, or safetensors (the weights alone); by default that of the suffix of --out, else source. Programs take
            any batch size, height and width, where the network does.
        out: The file to write; by default network.py, .pt2, .onnx or .safetensors in the run's folder.
    """
    from nas.export import export_run

    written = export_run(run, format, out)
    print(f"{', '.join(map(str, written.files))}: {written.facts}")


def _show_choices(genotype: Genotype) -> None:
    from nas.report.tables import table

    margins = genotype.provenance.margins if genotype.provenance else {}
    rows = [(label, str(choice), margins.get(label)) for label, choice in genotype.contested().items()]
    table("Genotype", ("decision", "chosen", "margin"), rows)


def _undecided(genotype: Genotype) -> str:
    """The line that says which decisions are undecided, if any."""
    labels = genotype.provenance.undecided if genotype.provenance else ()
    named = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    return f"undecided: {len(labels)} of {len(genotype.contested())} decisions ({named})\n" if labels else ""


def _show_scores(run: Path, scores: Mapping[str, float], task: Task) -> None:
    from nas.report.tables import table

    parts = _parts(task)
    if len(parts) > 1:
        columns = list(next(iter(parts.values())))
        table("One by one", ("", *columns), [(name, *part.values()) for name, part in parts.items()])
    table(f"Scores of {run}", ("metric", "value"), list(scores.items()))
    if statement := _statement(task):
        print(statement)


def _statement(task: Task) -> str:
    """How the task takes its scores, where it says so."""
    return str(getattr(task, "statement", ""))


def _parts(task: Task) -> dict[str, dict[str, float]]:
    """What the task measured of each part of its data, where it says so."""
    return dict(getattr(task, "parts", {}))


@contextmanager
def _run(folder: Path, config: Config, resume: bool) -> Iterator[Run]:
    from nas.run import Run

    text = config.dump()
    with Run.open(folder, text) if resume else Run.create(folder, text, config.seed) as run:
        try:
            yield run
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("repeat the command with --resume to go on") from error
        except Exception:
            if not resume:  # once the configuration is fixed, the same command works
                run.withdraw()
            raise
