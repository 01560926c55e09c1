"""The command that scores genotypes without training them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from nas.cli.app import app
from nas.front.targets import genotype_of


@app.command
def score(
    genotype: Annotated[tuple[str, ...], Parameter(negative=(), allow_leading_hyphen=False)],
    /,
    *,
    config: str | None = None,
    by: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False)] = (),
    set: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=False)] = (),
) -> None:
    """Print zero-cost scores of genotypes: what their untrained networks tell. Larger is better.

    The scores are those of `search.score`. Data-dependent ones use the first batch of the lowest level of the search.

    Args:
        genotype: Genotype files, names of shipped ones, or folders of searches.
        config: A YAML file, or the name of a configuration; by default that of the space.
        by: A score, as a name or the YAML of a name and arguments, such as one_shot with the folder of a supernet.
            Repeatable; all zero-cost scores if absent.
        set: KEY=VALUE, a change of the configuration, such as task.batch=64. Repeatable.
    """
    from nas.benchmark.scores import usual_scores
    from nas.files import parse_yaml
    from nas.front.running import default_config
    from nas.report.tables import table
    from nas.run.config import load_config
    from nas.run.judge import Judge

    rows: list[list[str | float]] = []
    entries = [parse_yaml(text, "--by") for text in by or usual_scores()]
    for name in genotype:
        found = genotype_of(name)
        loaded = load_config(config or default_config(name), set)
        task = loaded.build_task()
        judges = [Judge(loaded, entry, task=task) for entry in entries]
        rows.append([name, *(judge.score(found) for judge in judges)])
    table("Scores", ("genotype", *(judge.name for judge in judges)), rows)
