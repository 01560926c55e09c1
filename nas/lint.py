"""Everything that is wrong with a genotype file, each with the path of its field."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from nas.errors import InvalidFileError, NASError, nearest
from nas.genotype import Decision, Genotype, requirements
from nas.space import Description, find_space


def lint(text: str, where: str = "genotype") -> list[str]:
    """The problems of a genotype file, one line each: `where: path.of.the.field: what was found, what was expected`.

    A text that is no genotype at all is one problem; so is an unknown space, since nothing more can be said then.
    """
    try:
        genotype = Genotype.parse(text, where)
    except InvalidFileError as error:
        return [str(error)]
    return [f"{where}: {problem}" for problem in _problems(genotype)]


def _problems(genotype: Genotype) -> Iterator[str]:
    try:
        space = find_space(genotype.space)
    except NASError as error:
        yield f"space: {error}"
        return
    known = True
    for name, value in genotype.options.items():
        try:
            space.options(**{name: value})
        except NASError as error:
            yield f"options.{name}: {error}"
            known = False
    if not known:
        return
    try:
        description = space.describe(**genotype.options)
    except NASError as error:  # each option is fine, but not all of them together
        yield f"options: {error}"
        return
    choices = list(_choices(genotype, description))
    yield from choices or _built(genotype)
    yield from _provenance(genotype, description)


def _choices(genotype: Genotype, description: Description) -> Iterator[str]:
    decisions = description.decisions
    for label, choice in genotype.choices.items():
        if label not in decisions:
            yield f"choices.{label}: the space does not ask for it with these options{nearest(label, decisions)}"
        elif not decisions[label].active(genotype.choices):
            where = " or ".join(f"{parent} is {candidate}" for parent, candidate in requirements(label, decisions))
            yield f"choices.{label}: exists only if {where}"
        elif not decisions[label].accepts(choice):
            yield f"choices.{label}: {_wrong(decisions[label], choice)}"
    for label, decision in decisions.items():
        if label not in genotype.choices and decision.active(genotype.choices):
            yield f"choices.{label}: missing, expected {decision.expected}"


def _wrong(decision: Decision, choice: object) -> str:
    found = list(choice) if isinstance(choice, tuple) else repr(choice)
    near = nearest(str(choice), map(str, decision.candidates)) if decision.kind == "operation" else ""
    return f"found {found}{near}, expected {decision.expected}"


def _built(genotype: Genotype) -> Iterator[str]:
    try:
        with torch.device("meta"):
            find_space(genotype.space).derived(genotype)
    except NASError as error:
        yield f"choices: {error}"


def _provenance(genotype: Genotype, description: Description) -> Iterator[str]:
    if genotype.provenance is None:
        return
    for name, score in genotype.provenance.scores.items():
        if not math.isfinite(score):
            yield f"provenance.scores.{name}: {score} is no score"
    for i, label in enumerate(genotype.provenance.undecided):
        if label not in description.decisions:
            yield f"provenance.undecided[{i}]: no decision of the space{nearest(label, description.decisions)}"
    for label, margin in genotype.provenance.margins.items():
        if label not in description.decisions:
            yield f"provenance.margins.{label}: no decision of the space{nearest(label, description.decisions)}"
        elif not 0 <= margin <= 1:
            yield f"provenance.margins.{label}: {margin:g} is not between 0 and 1"
