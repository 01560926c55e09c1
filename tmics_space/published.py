"""The tuples in which the authors' published code states a genotype: `Genotype(normal_1=[...], ...)`."""

from __future__ import annotations

from typing import Any

from nas.errors import ConfigError
from nas.genotype import Choice, Genotype
from nas.literals import Token, find_calls, items, pick, token
from tmics_space.operations import AUTHORS_NAMES

FIELDS = ("normal_1", "normal_1_concat", "normal_2", "normal_2_concat", "normal_3", "normal_3_concat")
ALIGNMENTS = {"optical flow": "ofm", "aligned modules": "tgm"}
FILTERS = {"filter of 2": "gf2"}  # the published code has no other
OPERATIONS = {theirs: ours for ours, theirs in AUTHORS_NAMES.items()}
"""Our names by the authors'."""


def read(text: str, *, name: str | None = None, **options: Any) -> Genotype:
    """The genotype in Python source with `NAME = Genotype(normal_1=..., ...)`; the numbers in it have no effect.

    The options are those of the authors' networks, unless given otherwise. Their network with optical flow concatenates
    the input of its dominant network, and never calls the filters that its tuple names. Raises `ConfigError` that names
    the line and the token.
    """
    call = pick(find_calls(text, "Genotype", FIELDS), "Genotype", name)
    alignment, cell, frequency = (
        [token(items(pair, field, 2)[0]) for pair in call.items(field)]
        for field in ("normal_1", "normal_2", "normal_3")
    )
    if not cell:
        raise ConfigError(f"{call.where}: 'normal_2' has no operations")
    flow = _only(alignment, "normal_1").one_of(ALIGNMENTS) == "optical flow"
    filters = FILTERS[_only(frequency, "normal_3").one_of(FILTERS)]
    choices: dict[str, Choice] = {"alignment": "ofm" if flow else "tgm", "frequency": "none" if flow else filters}
    choices |= {f"cell/{i}": OPERATIONS[operation.one_of(OPERATIONS)] for i, operation in enumerate(cell, 1)}
    published = {"layers": len(cell), "dna_input": "concat" if flow else "sum"}
    return Genotype(space="tmics", choices=choices, options={**published, **options})


def _only(tokens: list[Token], field: str) -> Token:
    if len(tokens) != 1:
        raise ConfigError(f"'{field}' has {len(tokens)} entries, expected 1")
    return tokens[0]
