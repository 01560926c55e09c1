"""`choose`: the one argument through which a search space states its decisions.

A search space is a function of `choose` that returns an `nn.Module`. What it returns depends on the chooser alone:
`Relaxed` builds every candidate (the supernet), `Derived` only what a genotype chose, `Described` placeholders on the
meta device.
"""

from __future__ import annotations

import abc
import hashlib
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from nas.errors import SpaceError, UnknownNameError
from nas.genotype import Choice, Condition, Genotype
from nas.genotype import Decision as Decision  # also part of what this module offers
from nas.mixed import ChosenDepth, ChosenWidth, Decided, MixedDepth, MixedOperation, MixedWidth, Mixing, Node
from nas.operations import misfit

Factory = Callable[[], nn.Module]

MODULES = 100_000
"""How many modules a description has at most."""

# A candidate's name becomes the name of a child module, a label that of an arch parameter.
_TAKEN_CANDIDATES = frozenset(dir(Decided("", {})))
_TAKEN_LABELS = frozenset(dir(nn.ParameterDict()))


class Chooser(Protocol):
    """What a search space receives. Every method returns an `nn.Module`, never a value to branch on.

    Labels are letters, digits and `_ - / <`; the same label means the same decision (arch parameters are shared,
    operation weights are not), and giving it other candidates raises `SpaceError`.
    """

    def __call__(self, label: str, candidates: Mapping[str, Factory]) -> nn.Module:
        """One of the named candidates: functions without arguments that return a module.

        The module takes what the candidates take, positional and keyword arguments, and calls them all with it: none
        may write into its input (`inplace=True`). Their outputs are added up: tensors of equal shapes, alone or in
        tuples, lists and dictionaries of equal structure, item by item; see `nas.sums.total`.
        """

    def inputs(self, label: str, edges: Mapping[int, Factory], keep: int | None = None) -> nn.Module:
        """The sum over the in-edges of a node, of which `keep` (all where None) remain when derived.

        The module takes the list of states, and keyword arguments for all edges, and returns the node's state.
        """

    def width(self, label: str, sizes: Iterable[int], dim: int = 1) -> ChosenWidth:
        """A number of channels. Use `.channels` to build the layer before, and call the module on its output.

        `dim` is the dimension of the channels: 1 in `(batch, channels, ...)`, -1 in `(batch, tokens, channels)`.
        """

    def depth(self, label: str, counts: Iterable[int], block: Callable[[int], nn.Module]) -> nn.Module:
        """A chain of blocks `block(0), block(1), ...` of which the first `count` are used, with 0 none.

        The module takes what the first block does. Each block gets the output of the one before in place of the first
        argument, and the other arguments as they are. With several counts all blocks map to one shape.
        """


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
                    f"'{name}', a candidate of '{label}', is not a usable name: it must begin with a letter, have only"
                    f" letters, digits and '_', and not be an attribute of nn.Module; '{usable}' would do"
                )
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
        with self._declared(Decision(label, "width", _whole_numbers("size", label, sizes, 1))) as decision:
            return self._width(decision, dim)

    def depth(self, label: str, counts: Iterable[int], block: Callable[[int], nn.Module]) -> nn.Module:
        if isinstance(block, nn.Module) or not callable(block):
            raise SpaceError(f"the block of '{label}' must be a function of its number, got {_kind(block)}")
        with self._declared(Decision(label, "depth", _whole_numbers("count", label, counts, 0))) as decision:
            return self._depth(decision, block)

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
        """Build one candidate in the scope, and under the seed, that are its own."""
        occurrence = self._counts[-1][decision.label]
        seed = _seed(self._seeds[-1], decision.label, str(candidate), str(occurrence))
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
                    f"the function of candidate '{candidate}' of '{decision.label}' must take {takes}: {problem}; bind"
                    " others with `lambda`, or those of a set with `OperationSet.bind`"
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
        """Check and record a decision; afterwards count this occurrence of its label."""
        label = decision.label
        if not isinstance(label, str) or not re.fullmatch(r"[\w/<-]+", label) or label in _TAKEN_LABELS:
            raise SpaceError(
                f"'{label}' is not a usable label: expected letters, digits and '_ - / <', and not an attribute of"
                " nn.ParameterDict"
            )
        if not decision.candidates:
            raise SpaceError(f"'{label}' has no candidates")
        if len(set(decision.candidates)) < len(decision.candidates):
            raise SpaceError(f"'{label}' names a candidate twice: {', '.join(map(str, decision.candidates))}")
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
        blocks = [self._make(decision, i, block, i) for i in range(max(counts))]
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
        blocks = [self._make(decision, i, block, i) for i in range(count)]
        return ChosenDepth(decision.label, blocks)


def whole_number(what: str, value: Any, least: int) -> int:
    """`value` as an integer, also one of numpy; raises `SpaceError` for anything else and below `least`."""
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
    """What a value is, for messages."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the module {type(value).__name__}" if isinstance(value, nn.Module) else type(value).__name__


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
def _bounded(function: Callable[..., nn.Module]) -> Iterator[None]:
    """Inside, more than `MODULES` modules are an error: options of a file could ask for any number of cells."""
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
    """Run under the CPU generator's `seed`, and give the generator back as it was."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
