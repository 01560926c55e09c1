"""Commands that show search spaces, operations, configurations, genotypes and their pictures."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.targets import options_of, shape_of
from nas.cli.terminal import say
from nas.errors import ConfigError, MissingFileError, NASError, SpaceError, UnknownNameError
from nas.front.targets import genotype_of

if TYPE_CHECKING:
    from nas.genotype.file import Genotype
    from nas.space.definition import Description


@app.command
def spaces() -> None:
    """List the search spaces."""
    from nas.registry import kind, working
    from nas.report.tables import table

    origins = kind("search space").names()
    found = dict(kind("search space").working())

    def decisions(name: str) -> int:
        try:
            return len(found[name].describe().decisions)
        except NASError:
            raise
        except Exception as error:
            raise SpaceError(f"search space '{name}': its function raises {type(error).__name__}: {error}") from error

    counts = working(found, decisions)
    rows = [(name, count, _first_line(found[name]), origins[name]) for name, count in counts]
    table("Search spaces", ("name", "decisions", "what it is", "from"), rows)


@app.command
def ops(name: str | None = None, /) -> None:
    """List the sets of candidate operations and the registered operations, or the candidates of one set.

    Args:
        name: A registered set, or a YAML file with one.
    """
    from nas.registry import kind
    from nas.report.tables import table
    from nas.space import operations

    list(kind("search space").working())  # spaces of plugins register their operations when imported
    if name is not None:
        chosen = operations.OperationSet.of(name)
        table(f"Candidates of {name}", ("candidate", "operation"), [(n, _first_line(f)) for n, f in chosen.items()])
        return
    table("Sets of candidates", ("set", "candidates"), [(n, ", ".join(s)) for n, s in operations.sets().items()])
    rows = [(name, _first_line(factory)) for name, factory in operations.registered_operations().items()]
    table("Operations", ("name", "what it is"), rows)


@app.command
def show(
    target: str,
    /,
    *options: str,
    input: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = (),
    depth: int = 1,
    runs: int = 5,
) -> None:
    """Show the decisions of a search space or a genotype, and the cost of the modules of a genotype's network.

    Args:
        target: A search space, a genotype (file or shipped name), a model, or the folder of a run.
        options: Options of a search space: name=value.
        input: Shape of each input of a genotype's network, such as 1x5x3x64x64. Counts FLOPs (1 multiply-add = 2) and
            measures the latency on this machine, in eval mode.
        depth: Levels of nested modules to list.
        runs: Forward passes to measure; the latency is their median.
    """
    from nas.genotype.decision import requirements
    from nas.report.tables import table

    description, genotype = _described(target, options)
    shapes = [shape_of(text) for text in input]
    if genotype is None and shapes:
        raise ConfigError(f"--input needs a genotype, got the search space '{target}'")
    if genotype is None and description.space.__doc__:
        say(f"{inspect.cleandoc(description.space.__doc__)}\n")
    rows = []
    for label, decision in description.decisions.items():
        choice = genotype.choices.get(label) if genotype else None
        if genotype is not None and choice is None:
            continue
        needed = requirements(label, description.decisions)
        where = " or ".join(f"{parent}={candidate}" for parent, candidate in needed)
        chosen = [str(choice)] if genotype else []
        names = [str(candidate) for candidate in decision.candidates]
        rows.append((label, decision.kind, *chosen, ", ".join(names), where))
    columns = ("decision", "kind", *(("chosen",) if genotype else ()), "candidates", "only if")
    values = ", ".join(f"{name}={value}" for name, value in description.options.items())
    table(f"{description.space.name}: {values}", columns, rows)
    if genotype is not None:
        _show_provenance(genotype)
        _show_costs(genotype, shapes, depth, runs)
        return
    from nas.cost.network_cost import size
    from nas.cost.space_cost import costs

    outside = int(costs(description).base)
    say(f"operation weights of the supernet: {size(description.network)}; outside every decision: {outside:,}")


def _show_provenance(genotype: Genotype) -> None:
    import msgspec

    for field, value in msgspec.to_builtins(genotype.provenance or {}).items():
        if isinstance(value, dict):
            value = [f"{name} {number:g}" for name, number in value.items()]
        say(f"{field}: {', '.join(value) if isinstance(value, list | tuple) else value}")


def _show_costs(genotype: Genotype, shapes: list[list[int]], depth: int, runs: int) -> None:
    import torch

    from nas.cost.network_cost import CONVENTION, breakdown, size
    from nas.report.tables import table
    from nas.space.definition import find_space

    with torch.device("cpu" if shapes else "meta"):
        network = find_space(genotype.space).derived(genotype)
    inputs = [torch.randn(shape) for shape in shapes] or None
    whole, *modules = breakdown(network, inputs, depth=depth, runs=runs)
    if inputs is None:
        table("Modules", ("module", "parameters"), [(row.module, row.parameters) for row in modules])
    else:
        rows = [(r.module, r.parameters, _scaled(r.flops, 1e-9), _scaled(r.seconds, 1e3)) for r in modules]
        table("Modules", ("module", "parameters", "GFLOPs", "latency (ms)"), rows)
        say(f"FLOPs: {whole.flops:,} ({CONVENTION})")
        threads = torch.get_num_threads()
        say(f"latency: {_scaled(whole.seconds, 1e3):.4g} ms (median of {runs}, CPU, threads: {threads})")
    say(f"parameters: {size(network)}")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


@app.command
def config(name: str | None = None, /) -> None:
    """Print a shipped configuration, or list all.

    One that states only what differs from another, its base, is printed whole, after its own text as a comment.

    Args:
        name: The name of a configuration; by default all names are listed.
    """
    from nas.files import dump_yaml, parse_yaml, read_text
    from nas.run.config_files import BASE, find_config, read_config, shipped_configs

    if name is not None:
        path = find_config(name)
        text = read_text(path)
        if BASE in parse_yaml(text, str(path)):
            own = "".join(f"{line if line.startswith('#') else f'#   {line}'}\n" for line in text.splitlines())
            text = f"{own}{dump_yaml(read_config(name))}"
        say(text, end="")
    else:
        say("".join(f"{known}\n" for known in shipped_configs()), end="")


@app.command
def draw(
    target: str,
    /,
    *options: str,
    out: Path | None = None,
    cells: Literal["beside", "open", "closed"] = "beside",
    dark: bool = False,
) -> None:
    """Draw a genotype, or a whole search space.

    Args:
        target: A genotype (file or shipped name), a model, the folder of a run, or a search space.
        options: Options of a search space: name=value.
        out: A picture: .svg, .dot, .mmd (Mermaid), .txt, or, with Graphviz, .png and .pdf. Or the graph for other
            programs: .graphml, .json (node-link). By default a text tree is printed.
        cells: Where to show the inside of cells: beside the network, open at every place in it, or closed (nowhere).
        dark: Draw a dark picture (SVG).
    """
    from nas.draw.rendering import render, save

    description, genotype = _described(target, options)
    if out is None:
        say(render(description, genotype, "text", cells=cells), end="")
    else:
        save(out, description, genotype, cells=cells, theme="dark" if dark else "light")


@app.command
def latency(config: str, /, *overrides: str, repeats: int = 20) -> None:
    """Measure the latency of every candidate on this machine, and print it as a section of a configuration.

    Values are medians over forward passes of the supernet, in milliseconds. Put the section under `search:` to use the
    regularizer `expected_latency`.

    Args:
        config: A YAML file, or the name of a shipped configuration (`nas config` lists them).
        overrides: key.path=value, such as options.channels=4.
        repeats: Forward passes to measure.
    """
    from msgspec.structs import replace

    from nas.cost.latency import measure_latency
    from nas.files import dump_yaml
    from nas.kernels.device import placed
    from nas.run.config import load_config
    from nas.run.searching import build_supernet

    if repeats < 1:
        raise ConfigError(f"--repeats must be at least 1, got {repeats}")
    loaded = load_config(config, overrides)
    inputs = placed(loaded.build_task().example(), loaded.torch_device())
    whole = replace(loaded, search_section=replace(loaded.search, wrappers=()))  # as derived networks compute them
    measured = measure_latency(build_supernet(whole), inputs, repeats)
    say(dump_yaml({"latency": measured}), end="")


def _described(target: str, given: tuple[str, ...]) -> tuple[Description, Genotype | None]:
    """Return the space and genotype of `target`: a run, a genotype file, a shipped genotype, or a search space."""
    from nas.genotype.file import shipped
    from nas.registry import kind
    from nas.space.definition import find_space, spaces

    named = [*shipped(), *kind("model").names()]
    if Path(target).exists() or target in named:
        if given:
            raise ConfigError(f"{target}: a genotype has its own options, got {' '.join(given)}. Omit them.")
        genotype = genotype_of(target)
        return find_space(genotype.space).describe(**genotype.options), genotype
    if "/" in target or Path(target).suffix:
        raise MissingFileError(f"{target}: no such file or folder")
    if ":" not in target and target not in spaces():
        raise UnknownNameError(
            "search space or genotype", target, [*spaces(), *named], "or give the path of a genotype or a run"
        )
    return find_space(target).describe(**options_of(given)), None


def _first_line(documented: object) -> str:
    function = getattr(documented, "func", documented)
    return (function.__doc__ or "").strip().split("\n")[0]
