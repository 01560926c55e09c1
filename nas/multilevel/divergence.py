"""Why a run has diverged: the levels, losses and candidates whose values are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from nas.distributed.ranks import gathered
from nas.hypergradient.response import differentiate, leaves
from nas.kernels.finite import all_finite
from nas.kernels.torch_internals import tree_leaves
from nas.multilevel.loss_evaluation import Inputs, LossEvaluation
from nas.multilevel.responses import Methods
from nas.multilevel.stepper import Stepper
from nas.space.mixed import ChosenDepth, ChosenWidth, Decided, Node


def diagnosis(
    evaluation: LossEvaluation, steppers: Mapping[str, Stepper], methods: Mapping[str, Methods], k: int
) -> str:
    """What went wrong in the latest steps, level by level from the lowest up, and what to do.

    Args:
        evaluation: of the losses, at the weights that the steps before the skipped ones left.
        steppers: of all levels, of which some skipped their latest steps.
        methods: by level, how the levels below it respond.
        k: the search step that has just ended.
    """
    skipping = [name for name, stepper in steppers.items() if stepper.in_a_row]
    responding = {below: name for name in skipping for below in methods[name]}
    rows, bad_splits = [], dict[str, None]()
    for name, level in evaluation.levels.items():
        if name not in skipping and name not in responding:
            continue
        # Its latest step, or the one that its response to a level above descends.
        when = level.after(k, evaluation.steps, -1 if name in skipping else 0)
        for part in range(evaluation.parts(name)):
            loss, norm, origin = _examine(evaluation, name, steppers[name], evaluation.inputs(name, *when, part))
            if origin or not math.isfinite(loss + norm):
                break
        if origin == _BATCH:
            bad_splits[f"'{level.split}'"] = None
        detail = f", first in {origin}" if origin else ""
        if name in skipping:
            if math.isfinite(loss + norm):
                detail = "; its step leaves the range of numbers"
            count, since = steppers[name].in_a_row, steppers[name].since
            row = f"level '{name}' since step {since}: {count} steps in a row not finite"
            rows.append(f"{row} (loss {loss:g}, gradient norm {norm:g}{detail})")
        elif not math.isfinite(loss + norm):
            rows.append(f"level '{name}', which responds to '{responding[name]}': loss {loss:g}{detail}")
    if bad_splits:
        return f"{'; '.join(rows)}. Check the data: the batches of {', '.join(bad_splits)} must be finite"
    rate = steppers[skipping[0]].optimizer.param_groups[0].get("lr", math.nan)
    return f"{'; '.join(rows)}. Try a learning rate below {rate:g}, or 'clip'"


def _examine(evaluation: LossEvaluation, name: str, stepper: Stepper, inputs: Inputs) -> tuple[float, float, str]:
    """A level's loss, the norm of its gradient without responses, and the place of the first value not finite."""
    values = leaves(evaluation.parameters)
    with evaluation.random_kept(), recording(evaluation.model) as calls:
        loss = evaluation.loss(name, values, inputs, moves_buffers=False).objective
        gradient = differentiate(loss, [values[p] for p in stepper.parameters], retain_graph=True)
        origin = _BATCH if not all_finite(inputs.batch) else calls.origin(loss)
        origin = next(filter(None, gathered(origin)), "")  # of the first rank that knows one
    return loss.item(), math.hypot(*(g.norm().item() for g in gradient)), origin


_BATCH = "its batch"


@dataclass
class Call:
    """One call of a candidate: the tensors with a gradient."""

    place: str
    inputs: list[Tensor]
    parameters: list[Tensor]
    outputs: list[Tensor]
    diverged: bool
    """Whether its inputs are finite and its output is not."""


@dataclass
class Calls:
    """The calls of candidates in one evaluation, in the order in which they ended: inner candidates first."""

    calls: list[Call] = field(default_factory=list)

    def origin(self, loss: Tensor) -> str:
        """The first candidate that makes a value that is not finite from finite ones, or an empty string.

        Searches the forward pass first, then the backward pass from `loss`.
        """
        for call in self.calls:
            if call.diverged:
                return call.place
        for call in self.calls:
            if not call.outputs:
                continue
            above = differentiate(loss, call.outputs, retain_graph=True)
            below = differentiate(call.outputs, [*call.inputs, *call.parameters], above, retain_graph=True)
            if all_finite(above) and not all_finite(below):
                return call.place
        return ""


@contextmanager
def recording(network: nn.Module) -> Iterator[Calls]:
    """A context that records the calls of all candidates of a supernet, or of a derived network."""
    calls = Calls()

    def record(place: str, module: nn.Module, inputs: Any, output: Any) -> None:
        parameters = _attached(list(module.parameters()))
        diverged = all_finite(inputs) and not all_finite(output)
        calls.calls.append(Call(place, _attached(inputs), parameters, _attached(output), diverged))

    handles = [
        candidate.register_forward_hook(partial(record, f"candidate '{name}' of '{decided.label}'"))
        for decided in network.modules()
        if isinstance(decided, Decided) and not isinstance(decided, Node | ChosenWidth | ChosenDepth)
        for name, candidate in decided.named_children()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _attached(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.requires_grad]
