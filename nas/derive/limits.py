"""Limits on derivation: at most a given number of a candidate in each cell, such as two skip connections.

The result maximizes the same sum as derivation without limits: the mixing weights of the chosen operations, each
times the factor of its in-edge if it has one. Decisions
inside candidates break ties between choices that are equal outside. The maximum is exact: dynamic programming runs over
how many of each limited candidate the decisions take.

References:
    Chen et al., P-DARTS, ICCV 2019, section 3.3 (two skip connections per cell).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from nas.errors import ConfigError, UnknownNameError
from nas.genotype.decision import Choice, Decision

Counts = tuple[int, ...]
"""How many of each limited candidate some decisions take, limit by limit."""
Worth = tuple[tuple[Fraction, Fraction, Fraction, Fraction], ...]
"""For each depth of nesting: the sum of mixing weights, then three sums that settle ties; larger is better."""


class Part(NamedTuple):
    """The best choices of some decisions that take certain counts."""

    worth: Worth
    choices: dict[str, Choice]


Table = dict[Counts, Part]
NOTHING = (Fraction(0),) * 4


def within(
    decisions: Mapping[str, Decision],
    strengths: Mapping[str, Sequence[float]],
    prices: Mapping[str, Sequence[float]],
    allowed: Mapping[str, Sequence[int]],
    limits: Mapping[str, int],
) -> dict[str, Choice]:
    """Return the best choices of the decisions that limits affect; the choices of all others do not depend on them.

    Args:
        decisions: the decisions of a space, by label.
        strengths: the strength of each candidate of each decision (see `nas.derive.candidates.on_edges`).
        prices: what each candidate costs, to settle ties.
        allowed: the candidates, by position, that each decision may choose.
        limits: by `CANDIDATE`, for each cell separately, or by `CELL/CANDIDATE`, for one. A cell is the part of a label
            before its last slash; decisions outside of cells count as one cell.

    Raises:
        UnknownNameError: the space has no cell or candidate of this name.
        ConfigError: no genotype keeps the limits, or a limited decision exists in candidates of several others.
    """
    counters = _counters(decisions, limits)
    affected = {label for label in decisions if any((label, name) in counters for name in decisions[label].candidates)}
    parents = {label: {parent for parent, _ in decision.conditions} for label, decision in decisions.items()}
    while more := {parent for label in affected for parent in parents[label]} - affected:
        affected |= more
    for label in decisions:
        if label in affected and len(parents[label]) > 1:
            inside = " and ".join(f"'{parent}'" for parent in sorted(parents[label]))
            raise ConfigError(f"limits: '{label}' must be inside one decision, got {inside}; remove its limit")
    caps = tuple(dict.fromkeys((cell, name, most) for cell, name, most in counters.values()))
    solver = _Solver(decisions, strengths, prices, allowed, affected, counters, caps)
    table = solver.together([label for label in decisions if label in affected and not parents[label]], 0)
    if not table:
        kept = ", ".join(f"{name}={most}" for name, most in limits.items())
        raise ConfigError(f"limits: no genotype has at most {kept}; raise a limit")
    return max(table.values(), key=lambda part: part.worth).choices


Counter = tuple[str, str, int]
"""The cell, the candidate, and how many of it are allowed."""


def _counters(decisions: Mapping[str, Decision], limits: Mapping[str, int]) -> dict[tuple[str, str | int], Counter]:
    """The counter of each decision and candidate that is limited: the strictest of those that apply."""
    operations = {label: decision for label, decision in decisions.items() if decision.kind == "operation"}
    cells = dict.fromkeys(label.rpartition("/")[0] for label in operations)
    found: dict[tuple[str, str | int], Counter] = {}
    for limit, most in limits.items():
        where, _, name = limit.rpartition("/")
        if where and where not in cells:
            hint = "a cell is the part of a label before its last slash"
            raise UnknownNameError("cell of a limit", where, [cell for cell in cells if cell], hint)
        hit = {
            (label, name): (label.rpartition("/")[0], name, most)
            for label, decision in operations.items()
            if name in decision.candidates and where in ("", label.rpartition("/")[0])
        }
        if not hit:
            known = dict.fromkeys(str(name) for decision in operations.values() for name in decision.candidates)
            raise UnknownNameError("candidate of a limit", name, known)
        found |= {key: counter for key, counter in hit.items() if key not in found or counter[2] < found[key][2]}
    return found


class _Solver(NamedTuple):
    decisions: Mapping[str, Decision]
    strengths: Mapping[str, Sequence[float]]
    prices: Mapping[str, Sequence[float]]
    allowed: Mapping[str, Sequence[int]]
    affected: set[str]
    counters: Mapping[tuple[str, str | int], Counter]
    caps: tuple[Counter, ...]

    def together(self, labels: Sequence[str], depth: int) -> Table:
        """The best choices of several decisions."""
        table: Table = {self._none: Part((), {})}
        for label in labels:
            table = self._joined(table, self._alone(label, depth))
        return table

    def _alone(self, label: str, depth: int) -> Table:
        """The best choices of a decision and of those inside its candidates."""
        decision, table = self.decisions[label], Table()
        if decision.kind == "inputs":
            return self._inputs(label, depth)
        for i in self.allowed[label] or range(len(decision.candidates)):
            candidate = decision.candidates[i]
            price = self.prices[label][i] if label in self.prices else 0.0
            own = (Fraction(self.strengths[label][i]), Fraction(0), -Fraction(price), -Fraction(i))
            counter = self.counters.get((label, candidate))
            counts = tuple(int(cap == counter) for cap in self.caps)
            chosen = {counts: Part(_at(depth, own), {label: candidate})}
            inside = self.together(self._inside(label, candidate), depth + 1)
            _keep(table, self._joined(self._joined({self._none: Part((), {})}, chosen), inside))
        return table

    def _inputs(self, label: str, depth: int) -> Table:
        """The best in-edges of a node, with their operations."""
        decision = self.decisions[label]
        by_kept: list[Table] = [{self._none: Part((), {label: ()})}, *(Table() for _ in range(decision.keep))]
        sources = [int(source) for source in decision.candidates]
        for place, source in enumerate(sources):
            edge = self.together(self._inside(label, source), depth)
            strength = Fraction(0) if self._inside(label, source) else Fraction(self.strengths[label][place])
            order = {self._none: Part(_at(depth, (strength, -Fraction(place), Fraction(0), Fraction(0))), {})}
            edge = self._joined(edge, order)
            for kept in range(decision.keep, 0, -1):
                more = self._joined(by_kept[kept - 1], edge)
                for part in more.values():
                    chosen = part.choices[label]
                    assert isinstance(chosen, tuple)
                    part.choices[label] = (*chosen, source)
                _keep(by_kept[kept], more)
        return by_kept[decision.keep]

    def _inside(self, label: str, candidate: str | int) -> list[str]:
        return [
            other
            for other, decision in self.decisions.items()
            if other in self.affected and (label, candidate) in decision.conditions
        ]

    def _joined(self, a: Table, b: Table) -> Table:
        """The best choices for each count that two parts take together, within the limits."""
        table = Table()
        for counts, one in a.items():
            for more, other in b.items():
                total = tuple(map(sum, zip(counts, more, strict=True)))
                if all(count <= cap[2] for count, cap in zip(total, self.caps, strict=True)):
                    worth = _sum(one.worth, other.worth)
                    if total not in table or worth > table[total].worth:
                        table[total] = Part(worth, {**one.choices, **other.choices})
        return table

    @property
    def _none(self) -> Counts:
        return (0,) * len(self.caps)


def _keep(table: Table, more: Table) -> None:
    """Keep the better part for each count."""
    for counts, part in more.items():
        if counts not in table or part.worth > table[counts].worth:
            table[counts] = part


def _at(depth: int, worth: tuple[Fraction, Fraction, Fraction, Fraction]) -> Worth:
    return (NOTHING,) * depth + (worth,)


def _sum(a: Worth, b: Worth) -> Worth:
    length = max(len(a), len(b))
    pairs = zip(a + (NOTHING,) * (length - len(a)), b + (NOTHING,) * (length - len(b)), strict=True)
    return tuple((one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]) for one, other in pairs)
