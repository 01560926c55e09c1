"""The supernet: operation weights and arch parameters side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor, nn

from nas.choose import Relaxed
from nas.derive import choose_strongest
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype import Choice, Decision, Genotype, Provenance
from nas.mixed import Node, Sampled
from nas.planner import plan
from nas.planner.layout import channels_last, given_back
from nas.planner.memory import checkpointed
from nas.probing import in_mode
from nas.relaxation import relaxation
from nas.relaxation.sampling import Sampling, gumbel_noise, sample
from nas.space import SearchSpace

Evaluation = Literal["plain", "planned"]
Memory = Literal["keep", "checkpoint"]


class Supernet(nn.Module):
    """A search space with a mixed operation at every decision.

    Its parameters are `network.*` (operation weights) and `arch.LABEL` (arch parameters: the logits of one decision,
    shape `(candidates,)`, zero at first, so that mixing starts uniform). Takes and returns what the network does.

    Args:
        space: the search space.
        relaxation: name of the relaxation; a mapping of its `name` and its arguments; or a module that maps logits to
            mixing weights. One that samples wants to be told each step of the search (see `on_progress`).
        seed: initial operation weights are a function of (seed, label, candidate) alone.
        evaluation: `planned` computes cells several times faster than `plain`, one call of every candidate on every
            edge, with the same results up to rounding; images then lie channels last inside.
        memory: with `checkpoint` the inside of cells, and of mixed operations outside of cells, is not kept for the
            gradient but computed again: the same results in less memory and more time.
        options: options of the space; raises `ConfigError` for one that it does not have.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        relaxation: str | Mapping[str, Any] | nn.Module = "softmax",
        seed: int = 0,
        evaluation: Evaluation = "planned",
        memory: Memory = "keep",
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(space, SearchSpace):
            raise ConfigError(
                f"a supernet must be given a search space, got {space!r}; write find_space('name'), or"
                " SearchSpace('name', function)"
            )
        _require_known("evaluation", evaluation, Evaluation)
        _require_known("memory", memory, Memory)
        self.space = space
        self.options = space.options(**options)
        choose = Relaxed(_Reader(self), seed)
        self.network = space(choose, **options)
        self.decisions: dict[str, Decision] = choose.decisions
        self.relaxation = _relaxation(relaxation)
        self.seed = seed
        self.on_progress(0, 1)
        self._untold: int | None = 0
        """How often it has drawn without being told a step; None once it has been told one."""
        self.arch = nn.ParameterDict(
            {
                label: nn.Parameter(torch.zeros(len(decision.candidates)))
                for label, decision in self.decisions.items()
                if decision.kind != "inputs"
            }
        )
        self.evaluation = evaluation
        if evaluation == "planned":
            plan(self.network)
        if memory == "checkpoint":
            checkpointed(self.network, self._hold)
        self._weights: Mapping[str, Tensor | Sampled] | None = None
        self._fixed: dict[str, Tensor | Sampled] | None = None

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        self._warn_if_stuck()
        self._weights = self._drawn()
        try:
            with self._layout():
                return given_back(self.network(*inputs, **keywords))
        finally:
            self._weights = None

    def _layout(self) -> AbstractContextManager[Any]:
        return channels_last(self) if self.evaluation == "planned" else nullcontext()

    def mixing_weights(self) -> dict[str, Tensor]:
        """The mixing weights of every decision that has arch parameters: shape `(candidates,)`, in [0, 1], by label.

        Those of eval mode, whatever the mode is: a relaxation that samples does not make a genotype random.
        """
        if self._fixed is not None:
            return {label: w.weights if isinstance(w, Sampled) else w for label, w in self._fixed.items()}
        with in_mode(self.relaxation, "eval"):
            return {label: self.relaxation(logits) for label, logits in self.arch.items()}

    def on_progress(self, step: int, steps: int) -> None:
        """Say where the search is: at `step` of `steps`, counted from 0.

        A relaxation that samples draws the same candidates at the same step, and others at another.
        """
        self._step = step
        self._progress = step / max(steps - 1, 1)
        self._untold = None

    def _warn_if_stuck(self) -> None:
        """Warn, once, of a second draw if no one has said which step of the search it is."""
        if self._untold is None or not (isinstance(self.relaxation, Sampling) and self.relaxation.training):
            return
        self._untold += 1
        if self._untold == 2:
            warnings.warn(
                "the supernet draws the same candidates until it is told the step of the search; call"
                " supernet.on_progress(step, steps) before each step",
                stacklevel=4,
            )

    def _drawn(self) -> Mapping[str, Tensor | Sampled]:
        """What the mixed operations compute with, by label."""
        if self._fixed is not None:
            return self._fixed
        if not isinstance(self.relaxation, Sampling):
            return {label: self.relaxation(logits) for label, logits in self.arch.items()}
        noise = None
        if self.relaxation.training:
            noise = {
                label: gumbel_noise(self.seed, label, self.decisions[label].candidates, self._step)
                for label in self.arch
            }
        return sample(self.relaxation, dict(self.arch.items()), noise, self._progress)

    def _hold(self) -> Callable[[], AbstractContextManager[None]]:
        """Keep the mixing weights of now; what is returned gives them back for the time of a context."""
        weights = self._drawn() if self._weights is None else self._weights

        @contextmanager
        def held() -> Iterator[None]:
            outer, self._weights = self._weights, weights
            try:
                with self._layout():
                    yield
            finally:
                self._weights = outer

        return held

    @contextmanager
    def fixed(self, genotype: Genotype) -> Iterator[None]:
        """In this context the supernet computes what the network derived from `genotype` does.

        Mixing weights are one for what the genotype chose and zero for all else, and nodes sum the in-edges it kept.
        Raises `ConfigError` and `SpaceError` as `derived` does.
        """
        self._check(genotype)
        chosen = {label: _chosen(decision, genotype.choices) for label, decision in self.decisions.items()}
        nodes = [(module, module.kept) for module in self.network.modules() if isinstance(module, Node)]
        outer, self._fixed = self._fixed, {label: self._one_hot(label, chosen[label]) for label in self.arch}
        for node, kept in nodes:
            sources = chosen[node.label]
            node.kept = sources if isinstance(sources, tuple) else kept
        try:
            yield
        finally:
            self._fixed = outer
            for node, kept in nodes:
                node.kept = kept

    def derive(
        self,
        provenance: Provenance | None = None,
        costs: Mapping[str, Sequence[float]] | None = None,
        at_most: Mapping[str, int] | None = None,
    ) -> Genotype:
        """The genotype of the strongest candidates; `costs` settle ties, `at_most` limits candidates (see
        `nas.derive.choose_strongest`)."""
        weights = {label: weight.detach() for label, weight in self.mixing_weights().items()}
        choices, margins = choose_strongest(self.decisions, weights, costs, at_most)
        record = msgspec.structs.replace(provenance or Provenance(), margins=margins)
        return Genotype(space=self.space.name, options=self.options, choices=choices, provenance=record)

    def derived(self, genotype: Genotype, *, seed: int = 0) -> nn.Module:
        """The derived network of `genotype`, with this supernet's operation weights, dtype, device and mode.

        Raises `ConfigError` where the genotype was made with other options of the space, naming them, and `SpaceError`
        where it does not fit the space.
        """
        self._check(genotype)
        network = self.space.derived(genotype, seed=seed)
        like = next(self.network.parameters(), None)
        if like is not None:
            network.to(like)
        mine, theirs = self.network.state_dict(), network.state_dict()
        if lacking := theirs.keys() - mine.keys():
            raise SpaceError(
                f"space '{self.space.name}' gives derived networks weights that its supernet lacks, so nothing can be"
                f" inherited: {', '.join(sorted(lacking))}"
            )
        inherited = {key: _leading(mine[key], value) for key, value in theirs.items()}
        for key, value in theirs.items():
            if inherited[key].shape != value.shape:
                raise SpaceError(
                    f"space '{self.space.name}': the supernet's '{key}' must be at least as large as the derived"
                    f" network's, got {tuple(mine[key].shape)} for {tuple(value.shape)}. No layer may grow where a"
                    " width shrinks"
                )
        network.load_state_dict(inherited)
        return network.train(self.training)

    def _repr_html_(self) -> str:
        from nas.draw import notebook

        return notebook.supernet_html(self)

    def _check(self, genotype: Genotype) -> None:
        self.space.require_own(genotype)
        theirs = self.space.options(**genotype.options)
        other = [name for name in theirs if theirs[name] != self.options[name]]
        if other:
            found = ", ".join(f"{name}={theirs[name]!r}, supernet {self.options[name]!r}" for name in other)
            raise ConfigError(f"operation weights cannot be inherited across other options: genotype {found}")

    def _one_hot(self, label: str, choice: Choice | None) -> Tensor | Sampled:
        chosen = [candidate == choice for candidate in self.decisions[label].candidates]
        weights = torch.tensor(chosen).to(self.arch[label])
        return Sampled(chosen.index(True), weights) if any(chosen) else weights


class _Reader:
    """Hands mixed operations their mixing weights: those of the running forward pass, else fresh ones."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet

    def __call__(self, label: str) -> Tensor | Sampled:
        weights = self.supernet._weights
        if weights is not None:
            return weights[label]
        return self.supernet._drawn()[label]


def _relaxation(chosen: str | Mapping[str, Any] | nn.Module) -> nn.Module:
    if isinstance(chosen, nn.Module):
        return chosen
    if isinstance(chosen, str):
        return relaxation(chosen)
    if not isinstance(chosen, Mapping):
        raise ConfigError(f"relaxation must be a name, a mapping with one, or a module, got {chosen!r}")
    if "name" not in chosen:
        raise ConfigError("relaxation: missing the field 'name'")
    return relaxation(**chosen)


def _require_known(what: str, value: object, known: Any) -> None:
    if value not in get_args(known):
        raise UnknownNameError(what, value, get_args(known))


def _leading(tensor: Tensor, like: Tensor) -> Tensor:
    """The leading part of `tensor` of the shape of `like`: a chosen width keeps the first channels."""
    return tensor[tuple(slice(size) for size in like.shape)]


def _chosen(decision: Decision, choices: Mapping[str, Choice]) -> Choice | None:
    """What a decision took; None where it does not exist."""
    if not decision.active(choices):
        return None
    if decision.label not in choices or not decision.accepts(choices[decision.label]):
        found = choices.get(decision.label)
        raise SpaceError(f"the genotype has no valid choice for '{decision.label}', found {found!r}")
    return choices[decision.label]
