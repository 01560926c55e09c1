"""Hypergradients of nested levels: each level below as a function of the level that moves.

Level `n` has the parameters `a` and the loss `F`. The levels below it, from the lowest up, have the parameters `w_1`,
`w_2`, ... and losses `f_1`, `f_2`, ... . A change of `a` shifts the optimum of these levels. The method that level `n`
names for level `i` (`hypergradient: {i: {name: ...}}`) models this shift as a differentiable function, the *response*

    r_i(a) = method_i(f_i; w_i, r_1(a), ..., r_{i-1}(a), a)          r_i(a) = w_i if no method is named

and level `n` descends the total derivative of its loss

    d/da F(a, r_1(a), r_2(a), ...) = F_a + sum_i F_{r_i} dr_i/da

(DARTS, Liu et al., ICLR 2019, eq. 6, is one level with the response `w - xi f_w(w, a)`.) A level responds to level `n`
and to the responses of levels further below; the levels between it and level `n` stay at their values.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.hypergradient.methods import Repeated, name_of
from nas.hypergradient.response import (
    Loss,
    Parameters,
    Part,
    Response,
    Step,
    constants,
    differentiate,
    leaves,
    summed_gradient,
)
from nas.hypergradient.virtual_step import differentiable_step
from nas.multilevel.loss_evaluation import LossEvaluation, Terms, arch_parameters
from nas.multilevel.stepper import Stepper

Methods = Mapping[str, Response]
"""The method by which each level below responds, by the level's name."""


Taken = Mapping[str, Parameters]
"""The gradient that each level descended in its step of this search step, by the level's name."""


class Gradient(NamedTuple):
    """The gradient of one level."""

    loss: Tensor
    """The loss, a scalar: the mean over micro-batches; with its regularizers, unless the level is `scale_free`."""
    terms: Terms
    """What each regularizer adds to what the level minimizes."""
    parameters: Parameters
    """The gradient by parameter."""
    parts: dict[str, Parameters]
    """Parts of the gradient of arch parameters, by parameter: `loss`, responses included, and one for each regularizer.
    `response`, the sum of `F_r dr/da`, is a part of `loss`."""
    added: Parameters
    """The sum of `F_r dr/da` by parameter; empty if no level responds."""


class Responses:
    """The gradients of levels, through the responses of the levels below.

    Args:
        evaluation: of the losses.
        steppers: of all levels; responses that take virtual steps copy their optimizers.
        methods: by level, how the levels below it respond.
    """

    def __init__(
        self, evaluation: LossEvaluation, steppers: Mapping[str, Stepper], methods: Mapping[str, Methods]
    ) -> None:
        self.methods = methods
        self._evaluation, self._steppers = evaluation, steppers
        self._levels, self._named = evaluation.levels, evaluation.parameters
        self._arch = arch_parameters(evaluation.model)

    def gradient(
        self,
        name: str,
        k: int,
        inner: int = 0,
        *,
        methods: Methods | None = None,
        after: int | None = None,
        also: Sequence[str] = (),
        taken: Taken | None = None,
        moves_buffers: bool = False,
    ) -> Gradient:
        """The gradient that a level descends in inner step `inner` of search step `k`.

        Args:
            name: of the level.
            k: the search step.
            inner: the inner step.
            methods: how levels below respond; None for the configured ones.
            after: the levels below respond as they stand after this search step; None for `k`.
            also: further parameters whose partial derivative the result contains.
            taken: read by methods that set `reuse`.
            moves_buffers: whether the evaluations of the level's own loss move the model's buffers.
        """
        methods = self.methods[name] if methods is None else methods
        live: Parameters = {p: self._named[p] for p in (*self._steppers[name].parameters, *also)}
        fixed = constants({p: v for p, v in self._named.items() if p not in live})
        responses = self._chain(name, methods, k if after is None else after, taken or {}, live, fixed)
        attached = {p: v for p, v in responses.items() if v.requires_grad}
        # F_a and F_r, summed over all parts first: some responses are not linear in F_r.
        inputs = {**live, **leaves(attached)}
        values = {**fixed, **responses, **inputs}
        count = self._evaluation.parts(name)
        arch = [p for p in self._steppers[name].parameters if p in self._arch]
        losses, terms, by_term = list[Tensor](), Terms(), dict[str, list[Tensor]]()

        def objectives() -> Iterator[Tensor]:
            nonlocal terms, by_term
            for part in range(count):
                batch = self._evaluation.inputs(name, k, inner, part)
                loss, objective, terms = self._evaluation.loss(name, values, batch, moves_buffers=moves_buffers)
                by_term = {
                    term: differentiate(value, [live[p] for p in arch], retain_graph=True)
                    for term, value in terms.items()
                }
                losses.append((loss if self._levels[name].scale_free else objective).detach())
                yield objective / count

        partial = summed_gradient(objectives(), list(inputs.values()))
        direct, to_responses = partial[: len(live)], partial[len(live) :]
        total, added = dict(zip(live, direct, strict=True)), Parameters()
        if attached:
            through = differentiate(list(attached.values()), list(live.values()), to_responses)  # sum_i F_{r_i} dr_i/da
            added = dict(zip(live, through, strict=True))
            total = {p: value + added[p] for p, value in total.items()}
        parts = {term: dict(zip(arch, found, strict=True)) for term, found in by_term.items()}
        parts["loss"] = {p: total[p] - sum(part[p] for part in parts.values()) for p in arch}
        if added:
            parts["response"] = {p: added[p] for p in arch}
        return Gradient(torch.stack(losses).mean(), terms, total, parts, added)

    def reused(self, name: str, k: int) -> list[str]:
        """The parameters of levels above that reuse the gradient of the step that a level takes in search step `k`.

        None if levels below respond to this level: its step then descends more than the partial derivative of its loss.
        """
        if self.methods[name]:
            return []
        due = (above for above, level in self._levels.items() if level.due(k, self._evaluation.steps))
        reusing = (above for above in due if getattr(self.methods[above].get(name), "reuse", False))
        return [p for above in reusing for p in self._steppers[above].parameters]

    def _chain(
        self, name: str, methods: Methods, k: int, taken: Taken, live: Parameters, fixed: Parameters
    ) -> Parameters:
        """`r_1(a), r_2(a), ...`: the parameters of the levels that respond, as functions of `live` (`a`)."""
        responses: Parameters = {}
        replay = self._evaluation.random_replayed()
        for below in (each for each in self._levels if each in methods):
            own: Parameters = {p: self._named[p] for p in self._steppers[below].parameters}
            others = {p: v for p, v in {**fixed, **live, **responses}.items() if p not in own}
            loss, step = self._next_step(below, k, taken.get(below, {}), isinstance(methods[below], Repeated))
            try:
                responses |= methods[below](replace(loss, replay=replay), constants(own), others, step)
            except ConfigError as error:
                method = name_of(methods[below])
                raise type(error)(f"level '{name}', response of '{below}' by '{method}': {error}") from error
        return responses

    def _next_step(self, name: str, k: int, taken: Parameters, repeat: bool) -> tuple[Loss, Step]:
        """The loss that a level descends next after search step `k`, and its optimizer's next steps as functions.

        With `repeat`, the loss is that of the step it took last.
        """
        level, steps, evaluation = self._levels[name], self._evaluation.steps, self._evaluation

        def when(count: int) -> tuple[int, int]:
            return level.after(k, steps, -1 if repeat else count)

        def parts(count: int) -> list[Part]:
            return [functools.partial(part, count, number) for number in range(evaluation.parts(name))]

        def part(count: int, number: int, own: Parameters, others: Parameters) -> Tensor:
            inputs = evaluation.inputs(name, *when(count), number)
            return evaluation.loss(name, {**others, **own}, inputs, moves_buffers=False).objective

        def traced(number: int, own: Parameters, others: Parameters) -> tuple[Tensor, list[Tensor]]:
            return evaluation.traced(name, {**others, **own}, evaluation.inputs(name, *when(0), number))

        traces = [functools.partial(traced, number) for number in range(evaluation.parts(name))]
        stepper = self._steppers[name]
        rates = stepper.rates(when(count)[0] for count in itertools.count())
        step = differentiable_step(stepper.optimizer, stepper.parameters, level.clip, rates)
        return Loss(parts(0), taken=taken if repeat else {}, traces=traces, later=parts), step
