"""`choose`: the one argument through which a search space states its decisions.

A search space is a function of `choose` that returns an `nn.Module`. What it returns depends on the chooser alone:
`Relaxed` builds every candidate (the supernet), `Derived` only what a genotype chose, `Described` placeholders on the
meta device.
"""

from __future__ import annotations

import abc
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from nas.errors import SpaceError, UnknownNameError
from nas.genotype import Choice, Condition, Genotype
from nas.genotype import Decision as Decision  # also part of what this module offers
from nas.mixed import ChosenDepth, ChosenWidth, Decided, MixedDepth, MixedOperation, MixedWidth, Mixing, Node

Factory = Callable[[], nn.Module]

# A candidate's name becomes the name of a child module, a label that of an arch parameter.
_TAKEN_CANDIDATES = frozenset(dir(Decided("", {})))
_TAKEN_LABELS = frozenset(dir(nn.ParameterDict()))


class Chooser(Protocol):
    """What a search space receives. Every method returns an `nn.Module`, never a value to branch on.

    Labels are letters, digits and `_ - / <`; the same label means the same decision (arch parameters are shared,
    operation weights are not), and giving it other candidates raises `SpaceError`.
    """

    def __call__(self, label: str, candidates: Mapping[str, Factory]) -> nn.Module:
        """One of the named candidates; all must take and return tensors (or tuples of tensors) of equal shapes."""

    def inputs(self, label: str, edges: Mapping[int, Factory], keep: int | None = None) -> nn.Module:
        """The sum over the in-edges of a node, of which `keep` (all where None) remain when derived.

        The module takes the list of states and returns the node's state.
        """

    def width(self, label: str, sizes: Sequence[int], dim: int = 1) -> ChosenWidth:
        """A number of channels. Use `.channels` to build the layer before, and call the module on its output.

        `dim` is the dimension of the channels: 1 in `(batch, channels, ...)`, -1 in `(batch, tokens, channels)`.
        """

    def depth(self, label: str, counts: Sequence[int], block: Callable[[int], nn.Module]) -> nn.Module:
        """A chain of blocks `block(0), block(1), ...` of which the first `count` are used."""


class Building(abc.ABC):
    """What all choosers share: labels, conditions, and initial weights by (seed, label, candidate) alone."""

    def __init__(self, seed: int = 0) -> None:
        self.decisions: dict[str, Decision] = {}
        """The decisions met so far, by label, in the order of their first declaration."""
        self._scope: list[tuple[Condition, ...]] = []
        self._seeds = [_seed(seed, "network")]
        self._counts: list[Counter[str]] = [Counter()]

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
        """Call a search space's function with this chooser and its seed; the caller's random state stays as it was."""
        with _seeded(self._seeds[0]):
            network = function(self, **options)
        if not isinstance(network, nn.Module):
            raise SpaceError(f"a search space returns an nn.Module, this one returned {type(network).__name__}")
        return network

    def __call__(self, label: str, candidates: Mapping[str, Factory]) -> nn.Module:
        names = tuple(candidates)
        for name in names:
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in _TAKEN_CANDIDATES:
                raise SpaceError(
                    f"'{name}', a candidate of '{label}', is not a usable name: expected letters, digits and '_', and"
                    " not an attribute of nn.Module"
                )
        with self._declared(Decision(label, "operation", names)) as decision:
            return self._operation(decision, candidates)

    def inputs(self, label: str, edges: Mapping[int, Factory], keep: int | None = None) -> nn.Module:
        if keep is not None and keep < 1:
            raise SpaceError(f"'{label}' keeps {keep} in-edges, expected at least 1")
        kept = min(keep or len(edges), len(edges))
        with self._declared(Decision(label, "inputs", tuple(edges), kept, pruned=keep is not None)) as decision:
            return self._inputs(decision, edges)

    def width(self, label: str, sizes: Sequence[int], dim: int = 1) -> ChosenWidth:
        with self._declared(Decision(label, "width", tuple(sizes))) as decision:
            return self._width(decision, dim)

    def depth(self, label: str, counts: Sequence[int], block: Callable[[int], nn.Module]) -> nn.Module:
        with self._declared(Decision(label, "depth", tuple(counts))) as decision:
            return self._depth(decision, block)

    @abc.abstractmethod
    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module: ...

    @abc.abstractmethod
    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module: ...

    @abc.abstractmethod
    def _width(self, decision: Decision, dim: int) -> ChosenWidth: ...

    @abc.abstractmethod
    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module: ...

    def _make(self, decision: Decision, candidate: str | int, factory: Factory) -> nn.Module:
        """Build one candidate in the scope, and under the seed, that are its own."""
        occurrence = self._counts[-1][decision.label]
        seed = _seed(self._seeds[-1], decision.label, str(candidate), str(occurrence))
        self._scope.append(_conditions(decision, candidate))
        self._seeds.append(seed)
        self._counts.append(Counter())
        try:
            with _seeded(seed):
                module = factory()
        finally:
            self._scope.pop()
            self._seeds.pop()
            self._counts.pop()
        if not isinstance(module, nn.Module):
            raise SpaceError(
                f"candidate '{candidate}' of '{decision.label}' is a function that returns {type(module).__name__},"
                " expected one that returns an nn.Module"
            )
        return module

    @contextmanager
    def _declared(self, decision: Decision) -> Iterator[Decision]:
        """Check and record a decision; afterwards count this occurrence of its label."""
        label = decision.label
        if not re.fullmatch(r"[\w/<-]+", label) or label in _TAKEN_LABELS:
            raise SpaceError(
                f"'{label}' is not a usable label: expected letters, digits and '_ - / <', and not an attribute of"
                " nn.ParameterDict"
            )
        if not decision.candidates:
            raise SpaceError(f"'{label}' has no candidates")
        if len(set(decision.candidates)) < len(decision.candidates):
            raise SpaceError(f"'{label}' names a candidate twice: {', '.join(map(str, decision.candidates))}")
        if decision.kind in ("width", "depth") and any(
            not isinstance(size, int) or size < 1 for size in decision.candidates
        ):
            raise SpaceError(f"'{label}' expects positive integers, found {decision.candidates}")
        known = self.decisions.get(label)
        conditions = self._scope[-1] if self._scope else ()
        if known is None:
            self.decisions[label] = replace(decision, conditions=conditions)
        else:
            if replace(known, conditions=()) != decision:
                raise SpaceError(
                    f"'{label}' is declared twice with different candidates: {known.expected}, then {decision.expected}"
                )
            self.decisions[label] = replace(known, conditions=_either(known.conditions, conditions))
        yield decision
        self._counts[-1][label] += 1


class Relaxed(Building):
    """Builds the supernet: all candidates of every decision, mixed by `mixing(label)`."""

    def __init__(self, mixing: Mixing, seed: int = 0) -> None:
        super().__init__(seed)
        self._mixing = mixing

    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module:
        built = {name: self._make(decision, name, factory) for name, factory in candidates.items()}
        return MixedOperation(decision.label, built, self._mixing)

    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module:
        return Node(decision.label, {k: self._make(decision, k, factory) for k, factory in edges.items()})

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return MixedWidth(decision.label, _integers(decision), self._mixing, dim)

    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module:
        counts = _integers(decision)
        blocks = [self._make(decision, i, lambda i=i: block(i)) for i in range(max(counts))]  # type: ignore[misc]
        return MixedDepth(decision.label, counts, blocks, self._mixing)


class Described(Relaxed):
    """Builds every candidate as a placeholder on the meta device: to be listed, drawn and measured, not run."""

    def __init__(self) -> None:
        super().__init__(_no_mixing)

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
        with torch.device("meta"):
            return super().build(function, options)


class Derived(Building):
    """Builds only what the genotype chose.

    Raises `SpaceError` for a choice that is missing, impossible or superfluous, `UnknownNameError` for one that is no
    candidate.
    """

    def __init__(self, genotype: Genotype, seed: int = 0) -> None:
        super().__init__(seed)
        self._choices = genotype.choices
        self._name = genotype.space

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
        network = super().build(function, options)
        for label in self._choices:
            if label not in self.decisions:
                error = UnknownNameError(f"decision in the genotype of space '{self._name}'", label, self.decisions)
                raise SpaceError(f"{error}; with these options and choices the space does not ask for it")
        return network

    def _choice(self, decision: Decision) -> Choice:
        if decision.label not in self._choices:
            raise SpaceError(
                f"the genotype of space '{self._name}' has no choice for '{decision.label}', expected"
                f" {decision.expected}"
            )
        choice = self._choices[decision.label]
        if not decision.accepts(choice):
            if decision.kind == "operation":
                raise UnknownNameError(f"candidate of '{decision.label}'", choice, decision.candidates)
            found = list(choice) if isinstance(choice, tuple) else repr(choice)
            raise SpaceError(f"'{decision.label}' cannot be {found}, expected {decision.expected}")
        return choice

    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module:
        name = str(self._choice(decision))
        return Decided(decision.label, {name: self._make(decision, name, candidates[name])})

    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module:
        chosen = self._choice(decision)
        assert isinstance(chosen, tuple)  # `accepts` has checked it
        return Node(decision.label, {k: self._make(decision, k, edges[k]) for k in edges if k in chosen})

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return ChosenWidth(decision.label, int(self._choice(decision)), dim)  # type: ignore[arg-type]

    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module:
        count = int(self._choice(decision))  # type: ignore[arg-type]
        blocks = [self._make(decision, i, lambda i=i: block(i)) for i in range(count)]  # type: ignore[misc]
        return ChosenDepth(decision.label, blocks)


def _no_mixing(label: str) -> torch.Tensor:
    raise SpaceError(f"a described network is not for running: '{label}' has no arch parameters")


def _integers(decision: Decision) -> tuple[int, ...]:
    return tuple(int(c) for c in decision.candidates)


def _conditions(decision: Decision, inside: str | int) -> tuple[Condition, ...]:
    """What must be chosen for a candidate, or for a block of a depth, to exist."""
    if decision.kind == "depth":
        return tuple((decision.label, count) for count in _integers(decision) if count > int(inside))
    return ((decision.label, inside),)


def _either(a: tuple[Condition, ...], b: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Conditions of which one must hold; an empty tuple always holds."""
    return tuple(dict.fromkeys(a + b)) if a and b else ()


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Run under the CPU generator's `seed`, and give the generator back as it was."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
