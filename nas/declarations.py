"""What the parts of a search read and write, so that a combination that cannot work is refused before the first step.

Relaxations, regularizers, derivation policies, wrappers, arch steps and stopping rules act on the same few things
(`Thing`). Each declares which of them it reads and which it writes, what it needs of the other parts, and what it gives
to them. `require_composed` checks the parts of one search:

- a part is listed once;
- at most one part writes a thing without reading it (a source). Any number of parts read a thing and write it again
  (transforms), each what the one before has written;
- what a part needs is given by another part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from nas.errors import ConfigError, UnknownNameError

T = TypeVar("T")

Thing = Literal["logits", "mixing weights", "edge inputs", "edge outputs", "candidates", "batches", "stopping"]
"""What parts of a search act on.

- `logits`: the arch parameters.
- `mixing weights`: the weights of candidates in a sum.
- `edge inputs`, `edge outputs`: what goes into a mixed operation, and its sum.
- `candidates`: which candidates exist, and their operation weights.
- `batches`: the data of a step, read beside that of the level's own loss.
- `stopping`: when a search ends.
"""

SHARES = "mixing weights that sum to 1"
SEPARATE = "mixing weights that do not depend on one another"
EVERY_CANDIDATE = "every candidate computed in arch steps"
ONE_PATH = "one candidate computed at a time"
TWO_PATHS = "two candidates computed in arch steps"
LEARNED = "logits that get a gradient"
SAME_CANDIDATES = "the same candidates in the steps of all levels"
SOFTMAX = "mixing weights that are the softmax of the logits"
DIRICHLET = "Dirichlet-distributed mixing weights"
EIGENVALUE = "the largest eigenvalue of the arch Hessian (search.hessian_products above 0)"


@dataclass(frozen=True)
class Declaration:
    """What a part reads and writes, what it needs of other parts, and what it gives to them.

    Needs and gives are texts that say what: constants of this module, or a plugin's own.
    """

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Part:
    """A part of one search."""

    what: str
    """Kind and name, as messages show it: `relaxation 'softmax'`."""
    declaration: Declaration


def declares(
    *,
    reads: Thing | Iterable[Thing] = (),
    writes: Thing | Iterable[Thing] = (),
    needs: str | Iterable[str] = (),
    gives: str | Iterable[str] = (),
) -> Callable[[T], T]:
    """Decorator: state what a registered class or function reads, writes, needs and gives (see `Declaration`).

    Raises:
        UnknownNameError: `reads` or `writes` names no `Thing`.

    Example:
        >>> @nas.register("derivation", "above_half")
        ... @declares(reads="mixing weights", needs=SEPARATE)
        ... def above_half(decisions, weights): ...
    """
    found = {"reads": _names(reads), "writes": _names(writes), "needs": _names(needs), "gives": _names(gives)}
    for name in found["reads"] | found["writes"]:
        if name not in get_args(Thing):
            raise UnknownNameError("thing that a part reads or writes", name, get_args(Thing))

    def decorate(part: T) -> T:
        part.declaration = Declaration(**found)  # type: ignore[attr-defined]
        return part

    return decorate


def declaration_of(part: Any, default: Declaration | None = None) -> Declaration:
    """Return what a class, an instance or a function declares; `default`, or nothing, if it declares nothing."""
    found = getattr(part, "declaration", None)
    return found if isinstance(found, Declaration) else default or Declaration()


def require_composed(parts: Iterable[Part]) -> None:
    """Check the parts of one search, in the order in which they act.

    Raises:
        ConfigError: a part is listed twice, two parts are sources of one thing, or nothing gives what a part needs.
    """
    seen: dict[str, Part] = {}
    sources: dict[str, Part] = {}
    every = list(parts)
    for part in every:
        if part.what in seen:
            raise ConfigError(f"{part.what} must be listed once, got it twice. Remove one")
        seen[part.what] = part
        for thing in sorted(part.declaration.writes - part.declaration.reads):
            if (other := sources.setdefault(thing, part)) is not part:
                raise ConfigError(f"{other.what} and {part.what}: only one may set {thing}, got both. Remove one")
    given = {fact for part in every for fact in part.declaration.gives}
    for part in every:
        for need in sorted(part.declaration.needs - given):
            others = ", ".join(other.what for other in every if other is not part and other.declaration.gives)
            raise ConfigError(f"{part.what} needs {need}, got {others or 'no part that gives any'}")


def _names(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset({names} if isinstance(names, str) else names)
