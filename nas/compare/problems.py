"""Every problem of a genotype file, each with the path of its field."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from nas.errors import InvalidFileError, NASError, nearest
from nas.genotype.decision import Decision, requirements
from nas.genotype.file import Genotype
from nas.space.definition import Description, find_space


def lint(text: str, where: str = "genotype") -> list[str]:
    """Return the problems of a genotype file, one line each: `WHERE: path.of.the.field must be EXPECTED, got FOUND`.

    A text that is no genotype is one problem. So is an unknown space, because it leaves the rest unknown.

    Args:
        text: the text of the file.
        where: the name of the file, for the lines.
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
    except NASError as error:  # each option is valid, but not their combination
        yield f"options: {error}"
        return
    choices = list(_choices(genotype, description))
    yield from choices or _built(genotype)
    yield from _provenance(genotype, description)


def _choices(genotype: Genotype, description: Description) -> Iterator[str]:
    decisions = description.decisions
    for label, choice in genotype.choices.items():
        if label not in decisions:
            yield f"choices.{label} is no decision of the space with these options{nearest(label, decisions)}"
        elif not decisions[label].active(genotype.choices):
            where = " or ".join(f"{parent} is {candidate}" for parent, candidate in requirements(label, decisions))
            yield f"choices.{label} must be absent unless {where}"
        elif not decisions[label].accepts(choice):
            yield f"choices.{label} {_wrong(decisions[label], choice)}"
    for label, decision in decisions.items():
        if label not in genotype.choices and decision.active(genotype.choices):
            yield f"choices.{label} must be {decision.expected}, got nothing"


def _wrong(decision: Decision, choice: object) -> str:
    found = list(choice) if isinstance(choice, tuple) else repr(choice)
    near = nearest(str(choice), map(str, decision.candidates)) if decision.kind == "operation" else ""
    return f"must be {decision.expected}, got {found}{near}"


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
            yield f"provenance.scores.{name} must be a finite number, got {score}"
    for i, label in enumerate(genotype.provenance.undecided):
        if label not in description.decisions:
            yield f"provenance.undecided[{i}] is no decision of the space{nearest(label, description.decisions)}"
    for label, margin in genotype.provenance.margins.items():
        if label not in description.decisions:
            yield f"provenance.margins.{label} is no decision of the space{nearest(label, description.decisions)}"
        elif not 0 <= margin <= 1:
            yield f"provenance.margins.{label} must be between 0 and 1, got {margin:g}"
