"""Commands that run: search, derive, retrain, evaluate, predict, export."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.targets import options_of
from nas.cli.terminal import say
from nas.distributed.environment import launched_rank
from nas.errors import ConfigError

if TYPE_CHECKING:
    from nas.front.results import Scores
    from nas.genotype.file import Genotype
    from nas.run.config import Config
    from nas.run.scoring import Scoring

Format = Literal["source", "pt2", "onnx", "safetensors"]
Out = Annotated[Path, Parameter(help="Folder of the run: a new one, or with --resume the one to continue.")]
Resume = Annotated[bool, Parameter(help="Continue from the last checkpoint in the folder.")]
Minutes = Annotated[
    float | None,
    Parameter(
        help="Stop after this time, at the end of a step, with a checkpoint and a usable result; --resume continues."
        " Schedules follow the steps, not the time."
    ),
]
Several = Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False)]
Quiet = Annotated[bool, Parameter(help="Show no progress.")]


@app.command
def search(
    config: str | None = None,
    /,
    *overrides: str,
    out: Out,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    steps: int | None = None,
    minutes: Minutes = None,
    seeds: str | None = None,
    resume: Resume = False,
    quiet: Quiet = False,
    tensorboard: bool = False,
) -> None:
    """Search for a genotype.

    Args:
        config: A YAML file, or the name of a shipped configuration (`nas config` lists them).
        overrides: key.path=value, such as search.steps=500 or search.levels.upper.optimizer.lr=1e-3.
        start: The folder of a search, in place of a configuration. A new run with its configuration starts from its
            last state. All schedules start from 0.
        steps: The steps of the search, as search.steps=STEPS.
        seeds: Search once with each seed, such as 0..4 or 0,3,7. Each has a folder in --out; one report compares them.
        tensorboard: Write each epoch for TensorBoard, into the folder of the run.
    """
    from nas.report.comparison import write_comparison
    from nas.run.config import load_config
    from nas.run.folder import CONFIG

    changes = list(overrides)
    if start is not None:
        if not (start / CONFIG).is_file():
            raise ConfigError(f"--from must be the folder of a search, got {start}, which has no {CONFIG}")
        if config is not None and "=" not in config:
            raise ConfigError(f"--from {start} includes a configuration, got '{config}' too. Omit it.")
        changes = [f"start={json.dumps(str(start))}", "initial=null", *([] if config is None else [config]), *changes]
        config = str(start / CONFIG)
    if config is None:
        raise ConfigError("search needs a configuration, or --from FOLDER, got neither")
    if steps is not None:
        changes.append(f"search.steps={steps}")
    if seeds is None:
        _search(load_config(config, changes), out, resume=resume, quiet=quiet, tensorboard=tensorboard, minutes=minutes)
        return
    folders = {seed: out / f"seed-{seed}" for seed in _seeds(seeds)}
    loaded = {seed: load_config(config, [*changes, f"seed={seed}"]) for seed in folders}
    for seed, folder in folders.items():
        begun = resume and (folder / CONFIG).is_file()
        _search(loaded[seed], folder, resume=begun, quiet=quiet, tensorboard=tensorboard, minutes=minutes)
    say(f"comparison: {write_comparison([*folders.values()], out / 'comparison.html').path}")


def _search(config: Config, out: Path, *, resume: bool, quiet: bool, tensorboard: bool, minutes: float | None) -> None:
    from nas.front import running

    with _resumable():
        found = running.search(
            config, out=out, resume=resume, progress=not quiet, tensorboard=tensorboard, minutes=minutes
        )
    if launched_rank():
        return
    _tell_stopped(found.records)
    genotype = found.genotype
    _show_choices(genotype)
    _show_edges(genotype, found.records)
    say(f"genotype: {out / 'genotype.yaml'}\nreport: {found.report().path}")
    say(_undecided(genotype), end="")


def _seeds(text: str) -> list[int]:
    """Return the seeds in a text such as `0..4` or `0,3,7`; raises `ConfigError`."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\.\.(\d{1,9}))?\s*", part)
        if match is None:
            raise ConfigError(f"--seeds must be numbers from 0, such as 0..4 or 0,3,7, got '{text}'")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(found)) < 2 or len(set(found)) < len(found):
        raise ConfigError(f"--seeds must name two or more different seeds, got '{text}'. For one, give seed=NUMBER.")
    return found


@app.command
def derive(
    run: Path,
    /,
    *,
    policy: str | None = None,
    budget: str | None = None,
    at_most: Several = (),
    compare: bool = False,
    pareto: Literal["params", "flops"] | None = None,
    out: Path | None = None,
) -> None:
    """Write the genotype that a search, finished or not, derives at its last checkpoint.

    Args:
        run: The folder of a search.
        policy: How to derive it: a name such as strongest, or the YAML of a name and arguments. By default as the
            configuration states.
        budget: The largest number of parameters or FLOPs of the derived network: params=50k or flops=1.5M. The most
            probable network within it is derived (policy budgeted).
        at_most: CANDIDATE=NUMBER, the maximum of a candidate in each cell, or CELL/CANDIDATE=NUMBER. It replaces the
            configured limits. Repeatable.
        compare: Show what each policy would choose, with its cost and margins.
        pareto: Show the genotypes that are best at their number of parameters or FLOPs: no other one costs less and has
            a larger sum of log mixing weights. With --out a folder gets these genotypes and a picture.
        out: The file to write; by default the genotype is printed.
    """
    from nas.files import convert, parse_yaml
    from nas.run.searching import derive_from

    limits = convert(options_of(at_most), dict[str, int], "--at-most") if at_most else None
    entry: Any = None if policy is None else parse_yaml(policy, "--policy")
    if budget is not None:
        if policy not in (None, "budgeted"):
            raise ConfigError(f"--budget must go with the policy 'budgeted', got '{policy}'. Leave --policy out")
        entry = {"name": "budgeted", **_budget(budget)}
    if pareto is not None:
        if policy is not None or budget is not None or limits is not None or compare:
            raise ConfigError("--pareto must go without --policy, --budget, --at-most and --compare")
        _pareto(run, pareto, out)
        return
    if compare:
        if policy is not None or out is not None:
            raise ConfigError("--compare must go without --policy and --out, since it shows all policies")
        _compare(run, limits, entry)
        return
    genotype = derive_from(run, limits, entry)
    say(_undecided(genotype), end="", error=True)
    if out is None:
        say(genotype.dump(), end="")
    else:
        genotype.save(out)


def _budget(text: str) -> dict[str, float]:
    """Return the budget in a text such as `params=50k`; raises `ConfigError` for another text."""
    found = re.fullmatch(r"(params|flops)=(\d{1,15}(?:\.\d{1,15})?)([kMG]?)", text)
    if found is None:
        raise ConfigError(f"--budget must be params=NUMBER or flops=NUMBER, such as params=50k, got '{text}'")
    return {found[1]: float(found[2]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[3]]}


def _pareto(run: Path, unit: Literal["params", "flops"], out: Path | None) -> None:
    """Print the front of a search; write its genotypes and its picture into a new or empty folder."""
    from nas.files import listed, write_text
    from nas.report.pareto import front_svg, spread
    from nas.report.tables import table
    from nas.run.searching import derive_from, tradeoffs_from

    if out is not None and out.exists() and (not out.is_dir() or listed(out)):
        raise ConfigError(f"{out}: must be a new or empty folder. Remove it or choose another --out")
    word = "parameters" if unit == "params" else "FLOPs"
    front = tradeoffs_from(run, "parameters" if unit == "params" else "flops")
    derived = derive_from(run, derivation="strongest")
    shown = spread(front)
    rows = [
        (each.cost, each.score, sum(each.genotype.choices.get(label) != it for label, it in derived.choices.items()))
        for each in shown
    ]
    table("Best at their cost", (word, "sum of log weights", "decisions that differ from strongest"), rows)
    if len(front) > len(shown):
        say(f"{len(shown)} of {len(front)} genotypes")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        digits = len(str(len(front)))
        for number, each in enumerate(front, 1):
            each.genotype.save(out / f"{number:0{digits}}.yaml")
        write_text(out / "pareto.svg", front_svg(front, word, derived))
        say(f"genotypes: {out}\npicture: {out / 'pareto.svg'}")


def _compare(run: Path, limits: dict[str, int] | None, budgeted: dict[str, Any] | None) -> None:
    """Print what each policy derives; one that cannot derive, with the reason."""
    from nas.cost.space_cost import costs
    from nas.errors import NASError
    from nas.registry import kind
    from nas.report.tables import table
    from nas.run.searching import derive_from
    from nas.space.definition import find_space

    found: dict[str, Genotype] = {}
    refused: dict[str, str] = {}
    derive_from(run, derivation="strongest")  # raises for a folder that holds no search
    for name in kind("derivation").names():
        entry = budgeted if budgeted is not None and budgeted["name"] == name else name
        if "project" in inspect.signature(kind("derivation").find(name)).parameters:
            refused[name] = f"trains between decisions, so it may take long. Use --policy {name}"
            continue
        try:
            found[name] = derive_from(run, limits, entry)
        except NASError as error:
            refused[name] = str(error)
    if found:
        first = next(iter(found.values()))
        cost = costs(find_space(first.space).describe(**first.options))
        labels = dict.fromkeys(label for genotype in found.values() for label in genotype.contested())
        rows: list[list[Any]] = [[label, *(_chosen(g, label) for g in found.values())] for label in labels]
        rows.append(["parameters", *(f"{cost.of(g.choices):,.0f}" for g in found.values())])
        margins = [[*(g.provenance.margins if g.provenance else {}).values()] for g in found.values()]
        rows.append(["mean margin", *(f"{sum(m) / len(m):.3g}" if m else "–" for m in margins)])
        table("Derivation", ("decision", *found), rows)
    for name, reason in refused.items():
        say(f"{name}: {reason}")


def _chosen(genotype: Genotype, label: str) -> str:
    """What a genotype chose, with its margin."""
    if label not in genotype.choices:
        return "–"
    margins = genotype.provenance.margins if genotype.provenance else {}
    margin = f" ({margins[label]:.2g})" if label in margins else ""
    return f"{genotype.choices[label]}{margin}"


@app.command
def retrain(
    genotype: str,
    /,
    *overrides: str,
    out: Out,
    config: str | None = None,
    inherit: bool = False,
    weights: Path | None = None,
    minutes: Minutes = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train the network of a genotype, and measure it on test data.

    Args:
        genotype: A genotype file, the name of a shipped one, or the folder of a search.
        overrides: key.path=value, such as retrain.stages.backbone.steps=2000, retrain.ema=0.999 or
            retrain.validation.every=500.
        config: A YAML file, or the name of a configuration; by default that of the search or of the space.
        inherit: Start from the operation weights of the search, whose folder must be given, instead of new weights.
        weights: Start from these weights, to train in stages or to fine-tune: a .safetensors file, or the folder of a
            retraining of the same genotype.
    """
    from nas.front import running
    from nas.run.config import load_config

    loaded = load_config(config or running.default_config(genotype), overrides)
    with _resumable():
        result = running.retrain(
            genotype,
            loaded,
            out=out,
            inherit=inherit,
            resume=resume,
            progress=not quiet,
            minutes=minutes,
            weights=weights,
        )
    if launched_rank():
        return
    _tell_stopped(result.records)
    _show_scores(out, result.scores)
    say(f"report: {result.report().path}")


@app.command(name="evaluate")
def evaluate_command(
    run: str | None = None,
    /,
    *options: str,
    outputs: Several = (),
    truth: Path | None = None,
    source: Annotated[Path | None, Parameter(name=("--rainy", "--source"))] = None,
    model: Several = (),
    task: str | None = None,
    out: Path = Path("evaluation"),
    quiet: Quiet = False,
) -> None:
    """Measure a retrained network on test data, or the outputs of any methods against the truth.

    With --truth, methods are scored on equal terms: on the frames that all of them have. --out receives a page with the
    worst frames and CSV files.

    Args:
        run: The folder of a retraining, or the name of a model. Not with --truth.
        options: key.path=value, to measure on different data than configured. With --truth, options of the task:
            protocol=nturain.
        outputs: FOLDER or NAME=FOLDER, the outputs of a method. Repeatable.
        truth: The true files: for deraining a video, a folder of frames, or a folder of several of these.
        source: The input of the methods. Models need it; so do errors on and off the rain.
        model: A model by name or the folder of a retraining, or NAME=MODEL; it is applied to the input. Repeatable.
        task: The task, if several can score files.
        out: The folder to write, new or empty.
    """
    from nas.front.running import evaluate
    from nas.front.scored import evaluate_files, named

    if truth is None:
        if run is None or outputs or model or source is not None:
            raise ConfigError("evaluate needs the folder of a retraining, or --truth and --outputs or --model")
        _show_scores(run, evaluate(run, options))
        return
    if run is not None and "=" not in run:
        raise ConfigError(f"with --truth, a network must be given by --model, got '{run}'. Write --model {run}")
    scoring = evaluate_files(
        truth,
        named(outputs, "--outputs"),
        out=out,
        source=source,
        models=named(model, "--model"),
        task=task,
        options=options_of([*([] if run is None else [run]), *options]),
        progress=None if not quiet else False,
    )
    _show_scoring(scoring, out)


@app.command
def predict(
    source: Path,
    sink: Path,
    /,
    *options: str,
    model: str | None = None,
    tile: int | None = None,
    bfloat16: bool = False,
    device: str | None = None,
    quiet: Quiet = False,
) -> None:
    """Apply a trained network: TMICS derains a video, a classifier writes a table of classes.

    Args:
        source: A video file or a folder of frames; a picture or a folder of pictures.
        sink: A video file, a picture or a folder, by its suffix; a .csv file for classes.
        options: More options of the task: name=value.
        model: The name of a model (`nas models` lists them), or the folder of a retraining; by default the model that
            ships for deraining.
        tile: Largest height and width to process at once, in pixels; by default whole frames, unless one needs more
            than half of the memory.
        bfloat16: Convolve in 16 bits, if the task can. Faster on processors with instructions for it.
        device: The device, such as cuda; by default that of the retraining.
    """
    from nas.front import running

    given = {
        **({} if tile is None else {"tile": tile}),
        **({"bfloat16": True} if bfloat16 else {}),
        **options_of(options),
    }
    facts = running.predict(model, source, sink, given, device=device, progress=not quiet)
    told = (
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in facts.items()
    )
    say(f"{sink}: {', '.join(told)}" if facts else sink)


@app.command
def export(run: str, /, *, format: Format | None = None, out: Path | None = None) -> None:
    """Write a retrained network for use without this package, and compare its outputs.

    Args:
        run: The folder of a retraining, or the name of a model.
        format: source (a Python file that needs only torch, weights beside it), pt2 (a program of torch.export), onnx,
            or safetensors (weights only); by default that of the suffix of --out, or source. Programs accept any batch
            size, height and width that the network accepts.
        out: The file to write; by default network.py, .pt2, .onnx or .safetensors in the folder of the run.
    """
    from nas.export.exporting import export_run
    from nas.run.models import model_folder

    folder = model_folder(run)
    if out is None and folder != Path(run):
        raise ConfigError(f"--out must be given for the model '{run}': its folder belongs to the package")
    written = export_run(folder, format, out)
    say(f"{', '.join(map(str, written.files))}: {written.facts}")


def _tell_stopped(records: list[dict[str, Any]]) -> None:
    """Say why a run stopped before its last step, and what changed on its way: frozen operations, learning rates."""
    from nas.run.loop import BACKOFF, FROZEN, STOPPED
    from nas.run.stopping import STOPPING, told

    if frozen := [record for record in records if record["kind"] == FROZEN]:
        count = sum(len(record["operations"]) for record in frozen)
        total = sum({record["level"]: record["of"] for record in frozen}.values())
        say(f"frozen: {count} of {total} operations; the report names them")
    for record in records:
        if record["kind"] == BACKOFF:
            say(
                f"level '{record['level']}': the learning rate was multiplied by {record['factor']:g} after step"
                f" {record['step']}, since steps before were not finite"
            )
        if record["kind"] == STOPPING:
            say(told(record))
        if record["kind"] == STOPPED:
            say(
                f"stopped after step {record['step']} of {record['steps']}, since the time is spent; --resume"
                f" continues. Schedules were cut: for a whole run in this time set its steps to about {record['step']}"
            )


def _show_choices(genotype: Genotype) -> None:
    from nas.report.tables import table

    margins = genotype.provenance.margins if genotype.provenance else {}
    rows = [(label, str(choice), margins.get(label)) for label, choice in genotype.contested().items()]
    table("Genotype", ("decision", "chosen", "margin"), rows)


def _show_edges(genotype: Genotype, records: list[dict[str, Any]]) -> None:
    """Print what ranks in-edges, if a wrapper gives them factors."""
    from nas.report.decisions import edge_rows
    from nas.report.tables import table

    edges = edge_rows(genotype, records)
    rows = [(f"{edge.node}<-{edge.source}", "yes" if edge.kept else "no", *edge[3:]) for edge in edges]
    if rows:
        table("In-edges: strength = factor x weight", ("in-edge", "kept", "factor", "weight", "strength"), rows)


def _undecided(genotype: Genotype) -> str:
    """Return the line about undecided decisions, if there are any."""
    labels = genotype.provenance.undecided if genotype.provenance else ()
    named = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
    return f"undecided: {len(labels)} of {len(genotype.contested())} decisions ({named})\n" if labels else ""


def _show_scores(run: str | Path, scores: Scores) -> None:
    from nas.report.tables import table

    if len(scores.parts) > 1:
        columns = list(next(iter(scores.parts.values())))
        table("One by one", ("", *columns), [(name, *part.values()) for name, part in scores.parts.items()])
    table(f"Scores of {run}", ("metric", "value"), list(scores.items()))
    if scores.statement:
        say(scores.statement)


def _show_scoring(scoring: Scoring, out: Path) -> None:
    from nas.report.scoring_page import PAGE, metrics_of
    from nas.report.tables import table

    columns = metrics_of(scoring)

    def row(*names: str, scores: Mapping[str, float]) -> list[str | float | None]:
        return [*names, *(scores.get(name) for name in columns)]

    if len(scoring.parts) > 1:
        rows = [row(p, m, scores=s) for p, by in scoring.parts.items() for m, s in by.items()]
        table(f"Each {scoring.part}", (scoring.part, "method", *columns), rows)
    table("Evaluation", ("method", *columns), [row(m, scores=scores) for m, scores in scoring.totals.items()])
    say(scoring.statement)
    for line in scoring.skipped[:5]:
        say(f"skipped: {line}")
    if len(scoring.skipped) > 5:
        say(f"skipped: {len(scoring.skipped) - 5} more; the page lists them")
    say(f"page: {out / PAGE}")


@contextmanager
def _resumable() -> Iterator[None]:
    """Add to an interruption how to continue by the command line."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("repeat the command with --resume to continue") from error
