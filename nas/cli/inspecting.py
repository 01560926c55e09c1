"""Commands that look: search spaces, operations, configurations, genotypes and their pictures."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nas.cli.app import app
from nas.cli.targets import genotype_of, options_of
from nas.errors import ConfigError, InvalidFileError, NASError, SpaceError, UnknownNameError

if TYPE_CHECKING:
    from nas.genotype import Genotype
    from nas.space import Description


@app.command
def spaces() -> None:
    """List the search spaces."""
    from nas import plugins, space
    from nas.report.tables import table

    origins = space.spaces()
    found = dict(plugins.those_that_work(origins, space.find_space))

    def decisions(name: str) -> int:
        try:
            return len(found[name].describe().decisions)
        except NASError:
            raise
        except Exception as error:
            raise SpaceError(f"search space '{name}': its function raises {type(error).__name__}: {error}") from error

    counts = plugins.those_that_work(found, decisions)
    rows = [(name, count, _first_line(found[name]), origins[name]) for name, count in counts]
    table("Search spaces", ("name", "decisions", "what it is", "from"), rows)


@app.command
def ops(name: str | None = None, /) -> None:
    """List the sets of candidate operations and the registered operations, or the candidates of one set.

    Args:
        name: A registered set, or a YAML file with one.
    """
    from nas import operations, plugins, space
    from nas.report.tables import table

    list(plugins.those_that_work(space.spaces(), space.find_space))  # they register their operations when loaded
    if name is not None:
        chosen = operations.OperationSet.of(name)
        table(f"Candidates of {name}", ("candidate", "operation"), [(n, _first_line(f)) for n, f in chosen.items()])
        return
    table("Sets of candidates", ("set", "candidates"), [(n, ", ".join(s)) for n, s in operations.sets().items()])
    table("Operations", ("name", "what it is"), [(n, _first_line(f)) for n, f in operations.operations().items()])


@app.command
def show(
    target: str,
    /,
    *options: str,
    input: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = (),
    depth: int = 1,
    runs: int = 5,
) -> None:
    """Show the decisions of a search space or a genotype, and what the modules of a genotype's network cost.

    Args:
        target: A search space, a genotype (file or shipped name), or the folder of a run that has one.
        options: Options of a search space: name=value.
        input: Shape of each input of a genotype's network, such as 1x5x3x64x64, to count FLOPs (1 multiply-add = 2) and
            to measure the latency on this machine, in eval mode.
        depth: How many levels of modules inside one another to take apart.
        runs: Forward passes whose times the latency is the median of.
    """
    from nas.genotype import requirements
    from nas.report.tables import table

    description, genotype = _described(target, options)
    shapes = [_shape(text) for text in input]
    if genotype is None and shapes:
        raise ConfigError(f"--input measures the network of a genotype, but '{target}' is a search space")
    if genotype is None and description.space.__doc__:
        print(f"{inspect.cleandoc(description.space.__doc__)}\n")
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
    from nas.cost import costs, size

    outside = int(costs(description).base)
    print(f"operation weights of the supernet: {size(description.network)}; outside every decision: {outside:,}")


def _show_provenance(genotype: Genotype) -> None:
    import msgspec

    for field, value in msgspec.to_builtins(genotype.provenance or {}).items():
        if isinstance(value, dict):
            value = [f"{name} {number:g}" for name, number in value.items()]
        print(f"{field}: {', '.join(value) if isinstance(value, list | tuple) else value}")


def _show_costs(genotype: Genotype, shapes: list[list[int]], depth: int, runs: int) -> None:
    import torch

    from nas.breakdown import breakdown
    from nas.cost import CONVENTION, size
    from nas.report.tables import table
    from nas.space import find_space

    with torch.device("cpu" if shapes else "meta"):
        network = find_space(genotype.space).derived(genotype)
    inputs = [torch.randn(shape) for shape in shapes] or None
    whole, *modules = breakdown(network, inputs, depth=depth, runs=runs)
    if inputs is None:
        table("Modules", ("module", "parameters"), [(row.module, row.parameters) for row in modules])
    else:
        rows = [(r.module, r.parameters, _scaled(r.flops, 1e-9), _scaled(r.seconds, 1e3)) for r in modules]
        table("Modules", ("module", "parameters", "GFLOPs", "latency (ms)"), rows)
        print(f"FLOPs: {whole.flops:,} ({CONVENTION})")
        threads = torch.get_num_threads()
        print(f"latency: {_scaled(whole.seconds, 1e3):.4g} ms (median of {runs}, CPU, threads: {threads})")
    print(f"parameters: {size(network)}")


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _shape(text: str) -> list[int]:
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError(f"'{text}' is no shape: expected sizes such as 1x3x32x32")
    return [int(size) for size in sizes]


@app.command
def config(name: str | None = None, /) -> None:
    """Print a configuration that comes along with a search space, or list them.

    Args:
        name: A configuration's name; all are listed where it is absent.
    """
    from nas.config import find_config, shipped_configs
    from nas.files import read_text

    if name is not None:
        print(read_text(find_config(name)), end="")
    else:
        print("".join(f"{known}\n" for known in shipped_configs()), end="")


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
        target: A genotype (file or shipped name), the folder of a run that has one, or a search space.
        options: Options of a search space: name=value.
        out: A picture: .svg, .dot, .mmd (Mermaid), .txt, or .png and .pdf with Graphviz' `dot`; or the graph for other
            programs: .graphml, .json (node-link). The terminal where absent.
        cells: Where to show the inside of cells: beside the network (each once), open at every place in it, or closed,
            not at all.
        dark: A dark picture (SVG).
    """
    from nas.draw import render, save

    description, genotype = _described(target, options)
    if out is None:
        print(render(description, genotype, "text", cells=cells), end="")
    else:
        save(out, description, genotype, cells=cells, theme="dark" if dark else "light")


@app.command
def latency(config: str, /, *overrides: str, repeats: int = 20) -> None:
    """Measure the latency of every candidate on this machine, as the section of a configuration that holds it.

    Medians over forward passes of the supernet, in milliseconds. With this section under `search:` a level may have the
    regularizer `expected_latency`.

    Args:
        config: A YAML file, or the name of a configuration that comes along (`nas config` lists them).
        overrides: key.path=value, such as options.channels=4.
        repeats: How many passes to take.
    """
    from nas.config import load_config
    from nas.files import dump_yaml
    from nas.latency import measure_latency
    from nas.search import build_supernet
    from nas.task import placed

    if repeats < 1:
        raise ConfigError(f"--repeats is a number of passes, at least 1, found {repeats}")
    loaded = load_config(config, overrides)
    inputs = placed(loaded.build_task().example(), loaded.torch_device())
    measured = measure_latency(build_supernet(loaded), inputs, repeats)
    print(dump_yaml({"latency": measured}), end="")


def _described(target: str, given: tuple[str, ...]) -> tuple[Description, Genotype | None]:
    """What `target` names: a run's genotype, a genotype file or shipped genotype, or a search space."""
    from nas.genotype import shipped
    from nas.space import find_space, spaces

    if Path(target).exists() or target in shipped():
        if given:
            raise ConfigError(f"{target}: a genotype has its own options; leave {' '.join(given)} out")
        genotype = genotype_of(target)
        return find_space(genotype.space).describe(**genotype.options), genotype
    if "/" in target or Path(target).suffix:
        raise InvalidFileError(f"{target}: no such file or folder")
    if ":" not in target and target not in spaces():
        known = [*spaces(), *shipped()]
        raise UnknownNameError("search space or genotype", target, known, "or give the path of a genotype or a run")
    return find_space(target).describe(**options_of(given)), None


def _first_line(documented: object) -> str:
    function = getattr(documented, "func", documented)
    return (function.__doc__ or "").strip().split("\n")[0]
