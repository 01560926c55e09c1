"""The supernet: operation weights and arch parameters side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.cost.network_cost import Unit
from nas.cost.space_cost import costs as costs_of
from nas.declarations import Part, declaration_of, require_composed
from nas.derive.margins import margins_of
from nas.derive.perturbation import Begin
from nas.derive.policy import Derivation, choose
from nas.distributed.reduction import spread
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype.decision import Choice, Decision, Share
from nas.genotype.file import Genotype, Provenance
from nas.kernels.evaluation import in_mode
from nas.kernels.memory_format import channels_last, given_back
from nas.planner.activation_checkpointing import checkpoint_activations
from nas.planner.planned_cell import plan_cells
from nas.registry import kind
from nas.relaxation.relaxation import USUAL
from nas.relaxation.sampling import Draw, Sampling, draws, learns
from nas.space.chooser import Relaxed
from nas.space.definition import SearchSpace, find_space
from nas.space.mixed import Node, Sampled
from nas.space.wrapper import Moment, Wrapper

Evaluation = Literal["plain", "planned"]
Memory = Literal["keep", "checkpoint"]


class Supernet(nn.Module):
    """A search space with a mixed operation at every decision, as a PyTorch module.

    Its parameters are `network.*` (operation weights) and `arch.LABEL` (arch parameters: the logits of one decision,
    shape `(candidates,)`). Arch parameters start at zero, so that all candidates have equal mixing weights. The
    supernet takes the inputs and returns the outputs of the network.

    Args:
        space: the search space, or its name.
        relaxation: name of the relaxation; a mapping of its `name` and its arguments; or a module that maps logits to
            mixing weights. A relaxation that draws its weights needs the step of the search (see `on_progress`).
        wrappers: what changes mixed operations or mixing weights, in order: names, mappings of `name` and arguments, or
            wrappers (see `nas.space.wrapper.Wrapper`).
        seed: initial operation weights are a function of (seed, label, candidate) alone.
        evaluation: `planned` computes cells several times faster than `plain`, which calls every candidate on every
            edge. The results are the same up to rounding. Images have the memory format channels last inside.
        memory: with `checkpoint` the activations inside of cells and mixed operations are recomputed in the backward
            pass instead of kept: the same results in less memory and more time.
        options: options of the space.

    Raises:
        ConfigError: an option that the space does not have.
        UnknownNameError: no space or no relaxation has this name.

    Example:
        >>> net = nas.Supernet("darts", channels=4, cells=3)
        >>> weights = torch.optim.SGD(net.weights(), 0.025, momentum=0.9)
        >>> arch = torch.optim.Adam(net.logits(), 3e-4)
        >>> network = net.derive().build()
    """

    def __init__(
        self,
        space: SearchSpace | str,
        *,
        relaxation: str | Mapping[str, Any] | nn.Module = "softmax",
        wrappers: Sequence[str | Mapping[str, Any] | Wrapper] = (),
        seed: int = 0,
        evaluation: Evaluation = "planned",
        memory: Memory = "keep",
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(space, str):
            space = find_space(space)
        if not isinstance(space, SearchSpace):
            raise ConfigError(
                f"a supernet must be given a search space or its name, got {space!r}; write @nas.search_space('name')"
                " above the function"
            )
        _require_known("evaluation", evaluation, Evaluation)
        _require_known("memory", memory, Memory)
        self.space = space
        self.options = space.options(**options)
        self.relaxation = _relaxation(relaxation)
        self.wrappers = [_wrapper(entry, f"wrappers[{i}]") for i, entry in enumerate(wrappers)]
        require_composed(self.parts())
        if self.wrappers:
            decisions = space.whole.describe(**options).decisions
            for wrapper in self.wrappers:
                wrapper.require(decisions)
        reader = _Reader(self)
        choose = Relaxed(reader, seed, self.wrappers, reader.moment)
        self.network = space(choose, **options)
        self.decisions: dict[str, Decision] = choose.decisions
        self._candidates = {label: decision.candidates for label, decision in self.decisions.items()}
        self._terms = choose.terms
        self.seed = seed
        passes = getattr(self.relaxation, "passes", None)
        self.passes: int = 1 if passes is None else passes(self.decisions)
        """How many forward passes a step consists of: the sum of their losses is minimized (see `in_pass`)."""
        self._turn = 0
        self._learned_at_random = False
        """Whether the latest pass with a gradient of the logits had random draws."""
        self.on_progress(0, 1)
        self._untold: int | None = 0
        """Number of steps without a call of `on_progress`; None after one."""
        self.arch = nn.ParameterDict(
            {
                label: nn.Parameter(torch.zeros(len(decision.candidates)))
                for label, decision in self.decisions.items()
                if decision.kind != "inputs" or self._weigher is not None
            }
        )
        self.evaluation = evaluation
        if evaluation == "planned":
            plan_cells(self.network)
        if memory == "checkpoint":
            checkpoint_activations(self.network, self._hold)
        self._weights: Mapping[str, Tensor | Sampled] | None = None
        self._moment: Moment | None = None
        self._fixed: dict[str, Tensor | Sampled] | None = None
        self._made: dict[str, Tensor | Sampled] = {}
        self._zeros: dict[str, Tensor] = {}
        self._loss: Callable[[], Tensor] | None = None
        self._transformed: Mapping[str, Tensor | Sampled] | None = None

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        self._warn_if_stuck()
        self._moment = self._now()
        self._weights = self._drawn()
        try:
            with self._layout():
                return given_back(self.network(*inputs, **keywords))
        finally:
            self._weights = self._moment = None

    def _layout(self) -> AbstractContextManager[Any]:
        return channels_last(self) if self.evaluation == "planned" else nullcontext()

    def weights(self) -> list[nn.Parameter]:
        """Return the operation weights, in the order of the network's parameters, for an optimizer."""
        return list(self.network.parameters())

    def logits(self) -> list[nn.Parameter]:
        """Return the arch parameters, in the order of the decisions, for an optimizer."""
        return list(self.arch.values())

    def parts(self) -> list[Part]:
        """Return the relaxation and the wrappers, with what they declare."""
        parts = [("relaxation", self.relaxation, USUAL), *(("wrapper", wrapper, None) for wrapper in self.wrappers)]
        return [
            Part(f"{what} '{kind(what).name_of(type(part)) or type(part).__name__}'", declaration_of(part, default))
            for what, part, default in parts
        ]

    def candidate_logits(self) -> dict[str, Tensor]:
        """Return the arch parameters of every decision with candidates, by label; not those of in-edges.

        Shape:
            Each `(candidates,)`.
        """
        return {label: logits for label, logits in self.arch.items() if self.decisions[label].kind != "inputs"}

    def edge_weights(self) -> dict[str, Tensor]:
        """Return the factors of the in-edges of each node, by label; empty unless a wrapper weighs them.

        Shape:
            Each `(sources,)`.
        """
        if self._weigher is None:
            return {}
        others = self.candidate_logits()
        return {label: self._weigher.edge_weights(b) for label, b in self.arch.items() if label not in others}

    @property
    def _weigher(self) -> Wrapper | None:
        """The wrapper that weighs in-edges."""
        return next((wrapper for wrapper in self.wrappers if wrapper.weighs_edges), None)

    def mixing_weights(self) -> dict[str, Tensor]:
        """Return the mixing weights of every decision with candidates, by label.

        They are those of eval mode, whatever the mode is: a relaxation that samples does not make a genotype random.

        Shape:
            Each `(candidates,)`, with values in [0, 1].
        """
        return self._read(self.relaxation)

    def strengths(self) -> dict[str, Tensor]:
        """Return what a genotype is derived from: the mixing weights, unless the relaxation has `strengths` of its own.

        The factors of in-edges are included, if a wrapper weighs them.

        Shape:
            Each `(candidates,)`, with values in [0, 1].
        """
        return {**self._read(getattr(self.relaxation, "strengths", self.relaxation)), **self.edge_weights()}

    def _read(self, function: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        if self._fixed is not None:
            return {label: _weights_of(self._fixed[label]) for label in self.candidate_logits()}
        with in_mode(self.relaxation, "eval"):
            found = self._partly({label: function(logits) for label, logits in self.candidate_logits().items()})
        return {label: _weights_of(w) for label, w in found.items()}

    def on_progress(self, step: int, steps: int) -> None:
        """Set the step of the search, on which annealing, sampling and the schedules of wrappers depend.

        A relaxation that samples draws the same candidates at the same step, and different ones at another.

        Args:
            step: counted from 0.
            steps: of the whole search.
        """
        self._step, self._steps = step, steps
        self._progress = step / max(steps - 1, 1)
        self._untold = None

    @contextmanager
    def in_pass(self, turn: int) -> Iterator[None]:
        """Inside, the supernet computes forward pass number `turn` of `passes`, from 0, of a step.

        `nas.search` and `nas.Levels` do this. Only relaxations that compute several paths in a step have several.
        """
        outer, self._turn = self._turn, turn
        try:
            yield
        finally:
            self._turn = outer

    @contextmanager
    def probed(self, loss: Callable[[], Tensor]) -> Iterator[None]:
        """Inside, wrappers know the loss of the step; the mixing weights that they choose are those of all passes.

        `nas.search` and `nas.Levels` do this.

        Args:
            loss: evaluates the loss of the step in eval mode, without side effects.
        """
        outer, self._loss = (self._loss, self._transformed), loss
        self._transformed = None
        try:
            yield
        finally:
            self._loss, self._transformed = outer

    def _loss_at(self, weights: Mapping[str, Tensor | Sampled]) -> Tensor:
        """The loss of the step at given mixing weights."""
        loss, outer = self._loss, (self._loss, self._transformed, self._weights, self._moment)
        assert loss is not None
        dense = spread({label: w for label, w in weights.items() if isinstance(w, Tensor)})
        self._loss, self._transformed = None, {**weights, **dense}
        try:
            return loss()
        finally:
            self._loss, self._transformed, self._weights, self._moment = outer

    def correct_steps(self, optimizer: Optimizer) -> None:
        """Let the relaxation correct each later step of an optimizer of logits, if it asks for this.

        `nas.search` and `nas.Levels` call it for each optimizer. Only relaxations with a method `after_step` ask.

        Args:
            optimizer: of any parameters; only steps of this supernet's logits are corrected.
        """
        after_step = getattr(self.relaxation, "after_step", None)
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        labels = [label for label, logits in self.candidate_logits().items() if id(logits) in own]
        if after_step is None or not labels:
            return
        before: dict[str, Tensor] = {}

        def keep(*_: Any) -> None:
            before.update({label: self.arch[label].detach().clone() for label in labels})

        def correct(*_: Any) -> None:
            for label, logits, draw in self._draws(before, self._learned_at_random):
                self.arch[label].data.copy_(after_step(logits, self.arch[label].detach(), draw))

        optimizer.register_step_pre_hook(keep)
        optimizer.register_step_post_hook(correct)

    def _warn_if_stuck(self) -> None:
        """Warn once, at the second step in train mode, if `on_progress` was never called."""
        changing = isinstance(self.relaxation, Sampling) or any(each.schedule != "none" for each in self.wrappers)
        if self._untold is None or not (changing and self.relaxation.training):
            return
        self._untold += 1
        if self._untold == 2:
            warnings.warn(
                "the supernet repeats the draws and schedules of one step, since the step of the search is not set;"
                " call supernet.on_progress(step, steps) before each step",
                stacklevel=4,
            )

    def _drawn(self) -> Mapping[str, Tensor | Sampled]:
        """The mixing weights of one forward pass, by label, with the factors of further terms and of in-edges."""
        moment = self._moment or self._now()
        if self._fixed is not None:
            return {label: self._with_terms(label, w, moment) for label, w in self._fixed.items()}
        weights = self._transformed
        if weights is None:
            weights = self._relaxed()
            for wrapper in self.wrappers:
                weights = wrapper.transform(weights, moment)
            if self._loss is not None:
                self._transformed = weights
        drawn = {label: self._with_terms(label, w, moment) for label, w in self._partly(weights).items()}
        return {**drawn, **self.edge_weights()}

    def _relaxed(self) -> dict[str, Tensor | Sampled]:
        """What the relaxation returns for each decision in the present step."""
        relaxation, arch = self.relaxation, self.candidate_logits()
        if not isinstance(relaxation, Sampling):
            return {label: relaxation(logits) for label, logits in arch.items()}
        if any(map(learns, arch.values())):
            self._learned_at_random = relaxation.training
        drawn = self._draws(arch, relaxation.training)
        return {label: relaxation.draw(logits, draw) for label, logits, draw in drawn}

    def _partly(self, weights: Mapping[str, Tensor | Sampled]) -> dict[str, Tensor | Sampled]:
        """Mixing weights with the choices of `partly_fixed`."""
        found = {**weights, **self._made}
        for label, zeros in self._zeros.items():
            own = found[label]
            found[label] = own._replace(weights=own.weights * zeros) if isinstance(own, Sampled) else own * zeros
        return found

    def _with_terms(self, label: str, weights: Tensor | Sampled, moment: Moment) -> Tensor | Sampled:
        """The weights of a decision followed by those of its further terms, which are 0 in a fixed supernet."""
        terms = self._terms.get(label, ())
        if not terms or (moment.fixed and isinstance(weights, Sampled)):
            return weights
        dense = weights.weights if isinstance(weights, Sampled) else weights
        factors = dense.new_tensor([0.0 if moment.fixed else term.weight(moment) for term in terms])
        joined = torch.cat([dense, factors])
        if not isinstance(weights, Sampled):
            return joined
        return weights._replace(weights=joined, further=tuple(range(len(dense), len(joined))))

    def _now(self) -> Moment:
        """The moment of a forward pass that starts now."""
        return Moment(
            seed=self.seed,
            step=self._step,
            steps=self._steps,
            progress=self._progress,
            turn=self._turn,
            learns=any(map(learns, self.arch.values())),
            training=self.training,
            fixed=self._fixed is not None,
            loss=None if self._loss is None else self._loss_at,
            candidates=self._candidates,
        )

    def _draws(self, arch: Mapping[str, Tensor], random: bool) -> Iterator[tuple[str, Tensor, Draw]]:
        """Label, logits and draw of each decision in the present step."""
        how: Any = {"seed": self.seed, "step": self._step, "progress": self._progress, "turn": self._turn}
        return draws(arch, self._candidates, random=random, **how)

    def _hold(self) -> Callable[[], AbstractContextManager[None]]:
        """Capture the mixing weights; returns a context manager that restores them."""
        weights = self._drawn() if self._weights is None else self._weights
        moment = self._moment or self._now()

        @contextmanager
        def held() -> Iterator[None]:
            outer = self._weights, self._moment
            self._weights, self._moment = weights, moment
            try:
                with self._layout():
                    yield
            finally:
                self._weights, self._moment = outer

        return held

    @contextmanager
    def fixed(self, genotype: Genotype) -> Iterator[None]:
        """Inside, the supernet computes what the network derived from `genotype` computes.

        Mixing weights are one for the chosen candidates and zero for all others, and nodes sum the in-edges they keep.

        Raises:
            ConfigError: the genotype has other options than the supernet.
            SpaceError: the genotype does not fit the space.
        """
        self._check(genotype)
        chosen = {label: _chosen(decision, genotype.choices) for label, decision in self.decisions.items()}
        outer, self._fixed = self._fixed, {label: self._one_hot(label, chosen[label]) for label in self.arch}
        try:
            with self._keeping(chosen):
                yield
        finally:
            self._fixed = outer

    @contextmanager
    def partly_fixed(
        self, choices: Mapping[str, Choice], without: tuple[str, str | int] | None = None
    ) -> Iterator[None]:
        """Inside, some decisions are made; all others are mixed as before.

        Args:
            choices: what was chosen, by label.
            without: label and candidate, or the label of in-edges and a source: this one contributes nothing.

        Raises:
            SpaceError: a decision does not exist, or cannot take its choice.
        """
        label, candidate = without or ("", "")
        for each, choice in choices.items():
            decision = self.decisions.get(each)
            if decision is None or not decision.accepts(choice):
                expected = f"of a decision of '{self.space.name}'" if decision is None else decision.expected
                raise SpaceError(f"the choice of '{each}' must be {expected}, got {choice!r}")
        if without is not None and (label not in self.decisions or candidate not in self.decisions[label].candidates):
            raise SpaceError(f"'without' must be a candidate of a decision of '{self.space.name}', got {without!r}")
        outer = self._made, self._zeros
        mixed = self.candidate_logits()
        self._made = {each: self._one_hot(each, choice) for each, choice in choices.items() if each in mixed}
        self._zeros = {label: 1 - _weights_of(self._one_hot(label, candidate))} if label in mixed else {}
        try:
            with self._keeping(choices, without):
                yield
        finally:
            self._made, self._zeros = outer

    @contextmanager
    def _keeping(
        self, choices: Mapping[str, Choice | None], without: tuple[str, str | int] | None = None
    ) -> Iterator[None]:
        """Inside, nodes keep the in-edges that were chosen, and none from the source to leave out."""
        nodes = [(module, module.kept) for module in self.network.modules() if isinstance(module, Node)]
        for node, kept in nodes:
            sources = choices.get(node.label)
            own = sources if isinstance(sources, tuple) else kept
            node.kept = tuple(source for source in own if (node.label, source) != without)
        try:
            yield
        finally:
            for node, kept in nodes:
                node.kept = kept

    def derive(
        self,
        provenance: Provenance | None = None,
        costs: Mapping[str, Sequence[float]] | None = None,
        at_most: Mapping[str, int] | None = None,
        *,
        derivation: str | Mapping[str, Any] | Derivation = "strongest",
        shares: Callable[[Unit], Sequence[Share]] | None = None,
        evaluate: Callable[[Mapping[str, Choice]], float] | None = None,
        evaluate_recalibrated: Callable[[Mapping[str, Choice]], float] | None = None,
        project: Begin | None = None,
    ) -> Genotype:
        """Derive a genotype, by default that of the strongest candidates.

        Args:
            provenance: what the genotype records of its origin; its margins are filled in.
            costs: what each candidate of a decision costs, by label; `strongest` settles ties by it.
            at_most: limits on candidates, by `CANDIDATE` for each cell or `CELL/CANDIDATE` for one.
            derivation: name of the policy; a mapping of its `name` and its arguments; or a policy
                (see `nas.derive.policy.Derivation`).
            shares: the cost of a derived network as a sum, by unit, for policies that ask for it; by default that of
                parameters.
            evaluate: the validation score of this supernet fixed to given choices, for policies that ask for it.
            evaluate_recalibrated: the same, with the statistics of batch norms computed again.
            project: begins a copy of this supernet to train between decisions, for policies that ask for it.

        Raises:
            UnknownNameError: no policy has this name.
            ConfigError: the policy cannot work with what is given, or no genotype keeps the limits.
            DivergedError: a mixing weight is not finite.
        """
        weights = {label: weight.detach() for label, weight in self.strengths().items()}
        choices = choose(
            derivation,
            self.decisions,
            weights=weights,
            logits={label: logits.detach() for label, logits in self.arch.items()},
            costs=costs or {},
            shares=shares or (lambda unit: costs_of(self.space.describe(**self.options), unit).shares),
            at_most=at_most or {},
            generator=torch.Generator().manual_seed(self.seed),
            supernet=self,
            evaluate=evaluate,
            evaluate_recalibrated=evaluate_recalibrated,
            project=project,
        )
        margins = margins_of(self.decisions, weights, choices)
        record = msgspec.structs.replace(provenance or Provenance(), margins=margins)
        return Genotype(space=self.space.name, options=self.options, choices=choices, provenance=record)

    def derived(self, genotype: Genotype, *, seed: int = 0) -> nn.Module:
        """Build the derived network of `genotype`, with this supernet's operation weights, dtype, device and mode.

        Args:
            genotype: of the same space and options.
            seed: of the network before it receives these weights.

        Raises:
            ConfigError: the genotype has other options than the supernet; the message names them.
            SpaceError: the genotype does not fit the space.
        """
        self._check(genotype)
        for part, wrapper in zip(self.parts()[1:], self.wrappers, strict=True):
            if wrapper.reshapes:
                raise ConfigError(
                    f"{part.what}: operation weights have other shapes than those of derived networks, so nothing can"
                    " be inherited. Build the network by genotype.build() and retrain it"
                )
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
        if self.decisions[label].kind == "inputs":
            return torch.ones_like(self.arch[label], requires_grad=False)
        chosen = [candidate == choice for candidate in self.decisions[label].candidates]
        weights = torch.tensor(chosen).to(self.arch[label])
        return Sampled(chosen.index(True), weights) if any(chosen) else weights


class _Reader:
    """Gives mixed operations their mixing weights and moment: those of the running forward pass, else new ones."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet

    def __call__(self, label: str) -> Tensor | Sampled:
        weights = self.supernet._weights
        if weights is not None:
            return weights[label]
        return self.supernet._drawn()[label]

    def moment(self) -> Moment:
        return self.supernet._moment or self.supernet._now()


def _relaxation(chosen: str | Mapping[str, Any] | nn.Module) -> nn.Module:
    if isinstance(chosen, nn.Module):
        return chosen
    made = kind("relaxation").create(chosen, "relaxation")
    if not isinstance(made, nn.Module):
        raise ConfigError(f"relaxation {chosen!r} must be a torch.nn.Module, got {type(made).__name__}")
    return made


def _wrapper(chosen: str | Mapping[str, Any] | Wrapper, where: str) -> Wrapper:
    made = chosen if isinstance(chosen, Wrapper) else kind("wrapper").create(chosen, where)
    if not isinstance(made, Wrapper):
        raise ConfigError(f"{where} must be a nas.space.wrapper.Wrapper, got {type(made).__name__}")
    return made


def _require_known(what: str, value: object, known: Any) -> None:
    if value not in get_args(known):
        raise UnknownNameError(what, value, get_args(known))


def _leading(tensor: Tensor, like: Tensor) -> Tensor:
    """The leading part of `tensor`, of the shape of `like`: a chosen width keeps the first channels."""
    return tensor[tuple(slice(size) for size in like.shape)]


def _weights_of(weights: Tensor | Sampled) -> Tensor:
    return weights.weights if isinstance(weights, Sampled) else weights


def _chosen(decision: Decision, choices: Mapping[str, Choice]) -> Choice | None:
    """What a decision took; None if it does not exist."""
    if not decision.active(choices):
        return None
    if decision.label not in choices or not decision.accepts(choices[decision.label]):
        found = choices.get(decision.label)
        raise SpaceError(f"the genotype's '{decision.label}' must be one of {decision.expected}, got {found!r}")
    return choices[decision.label]
