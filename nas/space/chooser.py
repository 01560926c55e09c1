"""`choose`: the one argument through which a search space states its decisions.

A search space is a function of `choose` that returns an `nn.Module`. The chooser decides what the function builds:

- `Relaxed`: every candidate (the supernet)
- `Derived`: only the candidates that a genotype chose
- `Described`: placeholders on the meta device
"""

from __future__ import annotations

import abc
import hashlib
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from nas.errors import SpaceError, UnknownNameError
from nas.genotype.decision import Choice, Condition
from nas.genotype.decision import Decision as Decision  # a public name of this module, too
from nas.genotype.file import Genotype
from nas.space.mixed import ChosenDepth, ChosenWidth, Decided, MixedDepth, MixedOperation, MixedWidth, Mixing, Node
from nas.space.operations import misfit
from nas.space.wrapper import Moment, Spot, Term, Wrapper

Factory = Callable[[], nn.Module]
C = TypeVar("C", str, int)

Kept = Mapping[str, Sequence[str | int]]
"""The candidates that exist, by label, of decisions that lost some; all other decisions have all of theirs."""
_ALL: Kept = MappingProxyType({})

MODULES = 100_000
"""The greatest number of modules in a description."""

# A candidate's name becomes the name of a child module, a label that of an arch parameter.
_TAKEN_CANDIDATES = frozenset(dir(Decided("", {})))
_TAKEN_LABELS = frozenset(dir(nn.ParameterDict()))


class Chooser(Protocol):
    """The first argument of a search space. Every method returns an `nn.Module`, never a value to branch on.

    Labels consist of letters, digits and `_ - / <`. The same label means the same decision: arch parameters are shared,
    operation weights are not.

    Raises:
        SpaceError: a label or a candidate is not well formed, or one label has two different sets of candidates.

    Example:
        >>> def space(choose: nas.Chooser, /, *, channels: int = 8):
        ...     width = choose.width("width", [4, 8])
        ...     return nn.Sequential(nn.Conv2d(3, width.channels, 1), width, nn.LazyConv2d(channels, 1))
        >>> sorted(nas.SearchSpace("widths", space).describe().decisions)
        ['width']
    """

    def __call__(self, label: str, candidates: Mapping[str, Factory]) -> nn.Module:
        """Choose one of the named candidates.

        Args:
            label: name of the decision.
            candidates: functions without arguments that return a module, by name.

        Returns:
            A module that takes the arguments of the candidates and calls them all with these. No candidate may write
            into its input (`inplace=True`). `nas.space.sums.total` adds their outputs: tensors of equal shape, alone
            or in containers of equal structure.
        """

    def inputs(self, label: str, edges: Mapping[int, Factory], keep: int | None = None) -> nn.Module:
        """Sum the in-edges of a node.

        Args:
            label: name of the decision.
            edges: functions without arguments that return the module of an edge, by the number of its source state.
            keep: number of in-edges that a derived node keeps; None keeps all.

        Returns:
            A module that takes the list of states and keyword arguments for all edges. It returns the node's state.
        """

    def width(self, label: str, sizes: Iterable[int], dim: int = 1) -> ChosenWidth:
        """Choose a number of channels.

        Build the layer before with `.channels` of the returned module, and call the module on that layer's output.

        Args:
            label: name of the decision.
            sizes: the numbers of channels to choose from.
            dim: dimension of the channels: 1 in `(batch, channels, ...)`, -1 in `(batch, tokens, channels)`.
        """

    def depth(self, label: str, counts: Iterable[int], block: Callable[[int], nn.Module]) -> nn.Module:
        """Choose how many blocks of the chain `block(0), block(1), ...` run; with 0 the chain is the identity.

        Args:
            label: name of the decision.
            counts: the numbers of blocks to choose from. With several counts, all blocks must return one shape.
            block: maps the number of a block, from 0, to its module.

        Returns:
            A module that takes the arguments of the first block. Each block gets the previous output as its first
            argument and the remaining arguments unchanged.
        """


class Building(abc.ABC):
    """Base class of choosers: checks labels, records decisions and their conditions, seeds initial weights.

    Initial weights depend only on (seed, label, candidate).

    Args:
        seed: of the initial weights.
    """

    def __init__(self, seed: int = 0) -> None:
        self.decisions: dict[str, Decision] = {}
        """The decisions declared so far, by label, in the order of their first declaration."""
        self._scope: list[tuple[Condition, ...]] = []
        self._seeds = [seed_of(seed, "network")]
        self._counts: list[Counter[str]] = [Counter()]
        self._kept: Kept = {}

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any], kept: Kept = _ALL) -> nn.Module:
        """Call a search space's function with this chooser and its seed; keep the caller's random state.

        Args:
            function: of a search space.
            options: its keyword arguments.
            kept: the candidates that exist, of decisions that lost some (see `SearchSpace.restricted`).

        Returns:
            The network.

        Raises:
            SpaceError: the function returns no `nn.Module`, or declares a decision that is not well formed.
        """
        self._kept = {**self._kept, **kept}
        described = torch.get_default_device().type == "meta"
        with _seeded(self._seeds[0]), _bounded(function) if described else nullcontext():
            network = function(self, **options)
        if not isinstance(network, nn.Module):
            name = getattr(function, "__name__", type(function).__name__)
            raise SpaceError(f"the search space function '{name}' must return an nn.Module, got {_kind(network)}")
        return network

    def __call__(self, label: str, candidates: Mapping[str, Factory]) -> nn.Module:
        _require_functions(label, candidates)
        for name in candidates:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or name in _TAKEN_CANDIDATES:
                usable = re.sub(r"\W", "_", f"op_{name}")
                raise SpaceError(
                    f"the name of a candidate of '{label}' must be letters, digits and '_', begin with a letter and not"
                    f" be an attribute of nn.Module, got '{name}'. Rename it, for example to '{usable}'"
                )
        candidates = {name: candidates[name] for name in self._left(label, candidates)}
        with self._declared(Decision(label, "operation", tuple(candidates))) as decision:
            return self._operation(decision, candidates)

    def inputs(self, label: str, edges: Mapping[int, Factory], keep: int | None = None) -> nn.Module:
        _require_functions(label, edges)
        sources = _whole_numbers("source", label, edges, 0)
        functions = dict(zip(sources, edges.values(), strict=True))
        kept = len(sources)
        if keep is not None:
            kept = min(kept, whole_number(f"'keep' of '{label}'", keep, 1))
        with self._declared(Decision(label, "inputs", sources, kept, pruned=keep is not None)) as decision:
            return self._inputs(decision, functions)

    def width(self, label: str, sizes: Iterable[int], dim: int = 1) -> ChosenWidth:
        numbers = self._left(label, _whole_numbers("size", label, sizes, 1))
        with self._declared(Decision(label, "width", numbers)) as decision:
            return self._width(decision, dim)

    def depth(self, label: str, counts: Iterable[int], block: Callable[[int], nn.Module]) -> nn.Module:
        if isinstance(block, nn.Module) or not callable(block):
            raise SpaceError(f"the block of '{label}' must be a function of its number, got {_kind(block)}")
        numbers = self._left(label, _whole_numbers("count", label, counts, 0))
        with self._declared(Decision(label, "depth", numbers)) as decision:
            return self._depth(decision, block)

    def _left(self, label: str, candidates: Iterable[C]) -> tuple[C, ...]:
        """The candidates of a decision that exist."""
        kept = self._kept.get(label)
        return tuple(candidate for candidate in candidates if kept is None or candidate in kept)

    @abc.abstractmethod
    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module: ...

    @abc.abstractmethod
    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module: ...

    @abc.abstractmethod
    def _width(self, decision: Decision, dim: int) -> ChosenWidth: ...

    @abc.abstractmethod
    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module: ...

    def _make(
        self, decision: Decision, candidate: str | int, make: Callable[..., nn.Module], *arguments: int
    ) -> nn.Module:
        """Build one candidate within its own scope and with its own seed."""
        occurrence = self._counts[-1][decision.label]
        seed = seed_of(self._seeds[-1], decision.label, str(candidate), str(occurrence))
        self._scope.append(_conditions(decision, candidate))
        self._seeds.append(seed)
        self._counts.append(Counter())
        try:
            with _seeded(seed):
                module = make(*arguments)
        except TypeError as error:
            if problem := misfit(make, *arguments):
                takes = "one argument, its number" if arguments else "no arguments"
                raise SpaceError(
                    f"the function of candidate '{candidate}' of '{decision.label}' must take {takes}: {problem}. Bind"
                    " other arguments with `lambda`, or with `OperationSet.bind` for a whole set"
                ) from error
            raise
        finally:
            self._scope.pop()
            self._seeds.pop()
            self._counts.pop()
        if not isinstance(module, nn.Module):
            raise SpaceError(
                f"the function of candidate '{candidate}' of '{decision.label}' must return an nn.Module, got"
                f" {_kind(module)}"
            )
        return module

    @contextmanager
    def _declared(self, decision: Decision) -> Iterator[Decision]:
        """Check and record a decision; at the end, count this occurrence of its label."""
        label = decision.label
        if not isinstance(label, str) or not re.fullmatch(r"[\w/<-]+", label) or label in _TAKEN_LABELS:
            raise SpaceError(
                "a label must be letters, digits and '_ - / <', and not be an attribute of nn.ParameterDict, got"
                f" '{label}'"
            )
        if not decision.candidates:
            raise SpaceError(f"'{label}' must have at least one candidate, got none")
        if len(set(decision.candidates)) < len(decision.candidates):
            raise SpaceError(f"candidates of '{label}' must be unique, got {', '.join(map(str, decision.candidates))}")
        known = self.decisions.get(label)
        conditions = self._scope[-1] if self._scope else ()
        if known is None:
            self.decisions[label] = replace(decision, conditions=conditions)
        else:
            if replace(known, conditions=()) != decision:
                raise SpaceError(
                    f"'{label}' must have the same candidates at each declaration, got {known.expected}, then"
                    f" {decision.expected}"
                )
            self.decisions[label] = replace(known, conditions=_either(known.conditions, conditions))
        yield decision
        self._counts[-1][label] += 1


class Relaxed(Building):
    """Builds the supernet: all candidates of every decision.

    Args:
        mixing: returns the mixing weights of the decision with a given label.
        seed: of the initial weights.
        wrappers: what changes the mixed operations, in order.
        moment: returns the moment of the running forward pass, for wrappers.
    """

    def __init__(
        self,
        mixing: Mixing,
        seed: int = 0,
        wrappers: Sequence[Wrapper] = (),
        moment: Callable[[], Moment] | None = None,
    ) -> None:
        super().__init__(seed)
        self._mixing, self._wrappers, self._moment = mixing, wrappers, moment or _no_moment
        self.terms: dict[str, list[Term]] = {}
        """The terms that wrappers added to the sum of each decision, by label."""

    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module:
        spot = self._spot(decision)
        terms = self._terms(spot, candidates)
        makes: Mapping[str, Factory] = {**candidates, **{name: term.make for name, term in terms.items()}}
        for wrapper in self._wrappers:
            makes = wrapper.candidates(spot, makes)
        built = {name: self._make(decision, name, factory) for name, factory in makes.items()}
        mixed = MixedOperation(decision.label, built, self._mixing)
        for wrapper in self._wrappers:
            mixed = wrapper.operation(spot, mixed)
        return mixed

    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module:
        made = {k: self._make(decision, k, factory) for k, factory in edges.items()}
        weighed = any(wrapper.weighs_edges for wrapper in self._wrappers)
        return Node(decision.label, made, self._mixing if weighed else None)

    def _spot(self, decision: Decision) -> Spot:
        parents = self._scope[-1] if self._scope else ()
        in_edge = any(self.decisions[parent].kind == "inputs" for parent, _ in parents)
        seed = seed_of(self._seeds[-1], decision.label, str(self._counts[-1][decision.label]))
        return Spot(decision.label, in_edge, seed, self._moment)

    def _terms(self, spot: Spot, candidates: Mapping[str, Factory]) -> dict[str, Term]:
        terms: dict[str, Term] = {}
        for wrapper in self._wrappers:
            for name, term in wrapper.terms(spot, candidates).items():
                if name in candidates or name in terms:
                    raise SpaceError(
                        f"'{spot.label}' must not have a candidate '{name}': {type(wrapper).__name__} adds a term of"
                        " this name. Rename the candidate"
                    )
                terms[name] = term
        if terms:
            self.terms[spot.label] = list(terms.values())
        return terms

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return MixedWidth(decision.label, _integers(decision), self._mixing, dim)

    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module:
        counts = _integers(decision)
        blocks = [self._make(decision, i, block, i) for i in range(max(counts))]
        return MixedDepth(decision.label, counts, blocks, self._mixing)


class Described(Relaxed):
    """Builds every candidate as a placeholder on the meta device, to list, draw and measure the space."""

    def __init__(self) -> None:
        super().__init__(_no_mixing)

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any], kept: Kept = _ALL) -> nn.Module:
        with torch.device("meta"):
            return super().build(function, options, kept)


class Derived(Building):
    """Builds only the candidates that a genotype chose.

    Args:
        genotype: the choices.
        seed: of the initial weights.

    Raises:
        SpaceError: while it builds, a choice is missing, impossible or not used.
        UnknownNameError: while it builds, a choice names no candidate.
    """

    def __init__(self, genotype: Genotype, seed: int = 0) -> None:
        super().__init__(seed)
        self._choices = genotype.choices
        self._name = genotype.space

    def build(self, function: Callable[..., nn.Module], options: Mapping[str, Any], kept: Kept = _ALL) -> nn.Module:
        network = super().build(function, options, kept)
        for label in self._choices:
            if label not in self.decisions:
                error = UnknownNameError(f"decision in the genotype of space '{self._name}'", label, self.decisions)
                raise SpaceError(f"{error}; with these options and choices the space has no such decision")
        return network

    def _choice(self, decision: Decision) -> Choice:
        if decision.label not in self._choices:
            raise SpaceError(
                f"the genotype of space '{self._name}' must have a choice for '{decision.label}', {decision.expected},"
                " got none"
            )
        choice = self._choices[decision.label]
        if not decision.accepts(choice):
            if decision.kind == "operation":
                raise UnknownNameError(f"candidate of '{decision.label}'", choice, decision.candidates)
            found = list(choice) if isinstance(choice, tuple) else repr(choice)
            raise SpaceError(f"the choice for '{decision.label}' must be {decision.expected}, got {found}")
        return choice

    def _operation(self, decision: Decision, candidates: Mapping[str, Factory]) -> nn.Module:
        name = str(self._choice(decision))
        return Decided(decision.label, {name: self._make(decision, name, candidates[name])})

    def _inputs(self, decision: Decision, edges: Mapping[int, Factory]) -> nn.Module:
        chosen = self._choice(decision)
        assert isinstance(chosen, tuple)  # `accepts` checked this
        return Node(decision.label, {k: self._make(decision, k, edges[k]) for k in edges if k in chosen})

    def _width(self, decision: Decision, dim: int) -> ChosenWidth:
        return ChosenWidth(decision.label, int(self._choice(decision)), dim)  # type: ignore[arg-type]

    def _depth(self, decision: Decision, block: Callable[[int], nn.Module]) -> nn.Module:
        count = int(self._choice(decision))  # type: ignore[arg-type]
        blocks = [self._make(decision, i, block, i) for i in range(count)]
        return ChosenDepth(decision.label, blocks)


def whole_number(what: str, value: Any, least: int) -> int:
    """Convert an integer, also one of numpy, to `int`.

    Args:
        what: names the value in the message.
        value: to convert.
        least: its lower bound.

    Returns:
        The integer.

    Raises:
        SpaceError: `value` is not an integer, or below `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise SpaceError(f"{what} must be a whole number of at least {least}, got {value!r}")
    return number


def _whole_numbers(noun: str, label: str, given: Iterable[Any], least: int) -> tuple[int, ...]:
    if not isinstance(given, Iterable):
        raise SpaceError(f"the {noun}s of '{label}' must be a sequence of whole numbers, got {given!r}")
    return tuple(whole_number(f"a {noun} of '{label}'", value, least) for value in given)


def _require_functions(label: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise SpaceError(
            f"the candidates of '{label}' must be a mapping of names to functions, got {_kind(given)}; write"
            " {'name': lambda: ...}"
        )
    for name, make in given.items():
        if isinstance(make, nn.Module) or not callable(make):
            raise SpaceError(
                f"candidate '{name}' of '{label}' must be a function that returns a module, got {_kind(make)}; write"
                f" '{name}': lambda: ..."
            )


def _kind(value: object) -> str:
    """Describe a value for a message."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the module {type(value).__name__}" if isinstance(value, nn.Module) else type(value).__name__


def _no_moment() -> Moment:
    raise SpaceError("a network without a supernet has no moment of a search. Use nas.Supernet")


def _no_mixing(label: str) -> torch.Tensor:
    raise SpaceError(f"a described network cannot run: '{label}' has no arch parameters. Use nas.Supernet")


def _integers(decision: Decision) -> tuple[int, ...]:
    return tuple(int(c) for c in decision.candidates)


def _conditions(decision: Decision, inside: str | int) -> tuple[Condition, ...]:
    """List the choices under which a candidate, or a block of a depth, exists."""
    if decision.kind == "depth":
        return tuple((decision.label, count) for count in _integers(decision) if count > int(inside))
    return ((decision.label, inside),)


def _either(a: tuple[Condition, ...], b: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Join conditions of which one must hold; an empty tuple always holds."""
    return tuple(dict.fromkeys(a + b)) if a and b else ()


def seed_of(*parts: object) -> int:
    """Return a seed that is a function of the parts."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _bounded(function: Callable[..., nn.Module]) -> Iterator[None]:
    """Raise `SpaceError` at more than `MODULES` modules: a file can set any number of cells."""
    count = 0

    def registered(*_: object) -> None:
        nonlocal count
        count += 1
        if count > MODULES:
            name = getattr(function, "__name__", type(function).__name__)
            raise SpaceError(
                f"search space '{name}': must have at most {MODULES:,} modules, got more; use other options"
            )

    handle = register_module_module_registration_hook(registered)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator; restore its state at the end."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
