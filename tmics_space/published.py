"""The genotypes of the authors' published code: `Genotype(normal_1=[...], ...)`."""

from __future__ import annotations

from typing import Any

from nas.errors import ConfigError, UnknownNameError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.importing.python_text import Token, find_call, items, token
from tmics_space.operations import AUTHORS_NAMES

FIELDS = ("normal_1", "normal_1_concat", "normal_2", "normal_2_concat", "normal_3", "normal_3_concat")
ALIGNMENTS = {"optical flow": "ofm", "aligned modules": "tgm"}
FILTERS = {"filter of 2": "gf2"}  # the published code has no other
OPERATIONS = {theirs: ours for ours, theirs in AUTHORS_NAMES.items()}
"""Maps the authors' names to those of the space."""


def read(text: str, *, name: str | None = None, **options: Any) -> Genotype:
    """Read a genotype from Python source with `NAME = Genotype(normal_1=..., ...)`.

    The authors' network with optical flow concatenates the input of its dominant network (`dna_input="concat"`). It
    does not call the filters that its tuple names, so `frequency` is `none`. The numbers in the tuples have no effect.

    Args:
        text: the source.
        name: of the assigned variable, if there are several.
        options: of the space, in place of those of the authors' networks.

    Returns:
        A genotype of the space `tmics`.

    Raises:
        ConfigError: the text has another form; the message names the line and the token.
    """
    call = find_call(text, "Genotype", FIELDS, name)
    alignment, cell, frequency = (
        [token(items(pair, field, 2)[0]) for pair in call.items(field)]
        for field in ("normal_1", "normal_2", "normal_3")
    )
    if not cell:
        raise ConfigError(f"{call.where}: 'normal_2' must have at least one operation, got none")
    flow = _only(alignment, "normal_1").one_of(ALIGNMENTS) == "optical flow"
    filters = FILTERS[_only(frequency, "normal_3").one_of(FILTERS)]
    choices: dict[str, Choice] = {"alignment": "ofm" if flow else "tgm", "frequency": "none" if flow else filters}
    choices |= {f"cell/{i}": OPERATIONS[operation.one_of(OPERATIONS)] for i, operation in enumerate(cell, 1)}
    published = {"layers": len(cell), "dna_input": "concat" if flow else "sum"}
    return Genotype(space="tmics", choices=choices, options={**published, **options})


def write(genotype: Genotype) -> str:
    """Write a genotype of the space `tmics` as the text that `read` takes.

    Args:
        genotype: to write.

    Returns:
        The text.

    Raises:
        ConfigError: the authors' code cannot build the network. It needs tied cells, and `gf2` with temporal groups or
            `none` with optical flow.
        UnknownNameError: the authors' code does not have an operation.
    """
    if genotype.space != "tmics":
        raise ConfigError(f"the genotype must be of space 'tmics', got '{genotype.space}'")
    choices = dict(genotype.choices)
    alignment, frequency = choices.pop("alignment"), choices.pop("frequency")
    expected = "none" if alignment == "ofm" else "gf2"
    if frequency != expected:
        raise ConfigError(
            f"with alignment '{alignment}' the authors' frequency cell must be '{expected}', got '{frequency}'"
        )
    cell = [choices[label] for label in sorted(choices, key=lambda label: int(label.rpartition("/")[2]))]
    if not all(label.startswith("cell/") for label in choices):
        raise ConfigError(f"both networks must have one cell (tied=true), got {', '.join(choices)}")
    for operation in cell:
        if operation not in AUTHORS_NAMES:
            raise UnknownNameError("operation of the authors", operation, AUTHORS_NAMES)
    theirs = {ours: name for name, ours in ALIGNMENTS.items()}[str(alignment)]
    parts = [(theirs,), tuple(AUTHORS_NAMES[str(operation)] for operation in cell), tuple(FILTERS)]
    fields = (
        f"normal_{number}={[(name, i) for i, name in enumerate(names)]},"
        f" normal_{number}_concat={list(range(1, len(names) + 1))}"
        for number, names in enumerate(parts, 1)
    )
    return f"Genotype({', '.join(fields)})"


def _only(tokens: list[Token], field: str) -> Token:
    if len(tokens) != 1:
        raise ConfigError(f"'{field}' must have one entry, got {len(tokens)}")
    return tokens[0]
