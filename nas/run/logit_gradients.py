"""What moves the logits: the gradient of each part of what their level minimizes, decision by decision.

A decision is made by the loss only if its gradient is not held by weight decay or a regularizer. Gradients of single
batches scatter, and what scatters does not move a logit far. Therefore each part is averaged over the steps of an epoch
first, and the norm of this mean is recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Moved
from nas.run.folder import Record
from nas.run.observer import RESERVED, Observer

LOGITS = "logits"
"""The name of the observer."""
LOSS, DECAY, RESPONSE = "loss", "decay", "response"
"""Parts besides regularizers: the loss, weight decay, and the share of the loss that passes through responses."""
MANY = 0.5
"""The share of decisions, outweighed in most epochs, above which there is advice (our choice)."""


class LogitGradients(Observer):
    """Records `PART/DECISION` at each epoch: the norm of the part's mean gradient over the steps of the epoch.

    Parts are `loss` (responses of lower levels included), `response` (their share of it), `decay`, and the
    regularizers by name. A part that is zero for all decisions is left out.
    """

    name = LOGITS

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        for move in moved.values():
            self._steps += bool(move.parts)
            for part, gradients in move.parts.items():
                for name, gradient in gradients.items():
                    key = f"{part}/{name.removeprefix('arch.')}"
                    self._sums[key] = self._sums[key] + gradient if key in self._sums else gradient

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> dict[str, float]:
        norms = {key: float(total.norm()) / self._steps for key, total in self._sums.items() if len(total) > 1}
        parts = {key.partition("/")[0] for key, norm in norms.items() if norm}
        self._sums, self._steps = {}, 0
        return {key: norm for key, norm in norms.items() if key.partition("/")[0] in parts}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": {key: total.cpu() for key, total in self._sums.items()}, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._sums, self._steps = {key: torch.as_tensor(total) for key, total in state["sums"].items()}, state["steps"]


def by_part(record: Record) -> dict[str, dict[str, float]]:
    """Return the norms of one epoch by part and decision; values that were not finite are left out."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for key, norm in record.items():
        part, slash, label = key.partition("/")
        if key not in RESERVED and slash and norm is not None:
            found[part][label] = norm
    return dict(found)


def outweighed(epochs: Sequence[Record]) -> dict[str, list[str]]:
    """Return for each part the decisions in which it is larger than the loss in most epochs."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    recorded: dict[str, int] = defaultdict(int)
    for epoch in map(by_part, epochs):
        for label, loss in epoch.get(LOSS, {}).items():
            recorded[label] += 1
            for part in epoch.keys() - {LOSS, RESPONSE}:
                counts[part][label] += epoch[part].get(label, 0.0) > loss
    return {
        part: [label for label, count in labels.items() if 2 * count > recorded[label]]
        for part, labels in counts.items()
    }


def logit_advice(epochs: Sequence[Record]) -> list[str]:
    """Return advice, a sentence each, for parts that outweigh the loss on at least half of the decisions."""
    total = len({label for epoch in epochs for label in by_part(epoch).get(LOSS, {})})
    said = []
    for part, labels in sorted(outweighed(epochs).items()):
        if labels and len(labels) >= MANY * total:
            name = "weight decay" if part == DECAY else f"the regularizer {part}"
            remedy = (
                "remove weight_decay from the optimizer of the arch parameters"
                if part == DECAY
                else f"lower the weight of {part}"
            )
            said.append(
                f"{name} outweighs the loss on {len(labels)} of {total} decisions: it decides them, not the data;"
                f" {remedy}"
            )
    return said
