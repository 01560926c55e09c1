"""The searcher `reinforce`: a policy of independent decisions, trained by the scores of its draws."""

from __future__ import annotations

from random import Random
from typing import Annotated

import msgspec

from nas.registry import Positive
from nas.searchers.categorical import Policy, Values
from nas.searchers.searcher import Searcher
from nas.searchers.variation import Choices
from nas.space.definition import Description

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam, as torch has them."""


class Reinforce(Searcher):
    """Draws by a policy, and takes a step of Adam along (score - baseline) times the gradient of the log-probability.

    The baseline is the exponential moving average of the scores, this one included, without the bias of its start.

    Args:
        description: the decisions of the space.
        lr: learning rate of Adam.
        decay: of the moving average.
        seed: of the course.

    References:
        Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine
        Learning 1992. Policy, optimizer and baseline are those of Dong et al., "NATS-Bench", PAMI 2021
        (`exps/NATS-algos/reinforce.py` of their code, `--learning_rate 0.01`).
    """

    settings = ("lr", "decay")
    state = ("logits", "average", "weight", "moments", "steps")

    def __init__(
        self,
        description: Description,
        *,
        lr: Positive = 0.01,
        decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__(description, seed=seed)
        self.lr, self.decay = lr, decay
        self.logits: Values = Policy(self.variation).logits
        self.average, self.weight = 0.0, 0.0
        """The moving average times its weight, which tends to 1."""
        self.moments: dict[str, list[list[float]]] = {
            label: [[0.0] * len(logits), [0.0] * len(logits)] for label, logits in self.logits.items()
        }
        """Adam's averages of gradients and of their squares."""
        self.steps = 0

    @property
    def policy(self) -> Policy:
        """The distribution of the next proposal."""
        return Policy(self.variation, self.logits)

    def propose(self, random: Random) -> Choices:
        return self.policy.draw(random)

    def learn(self, choices: Choices, score: float) -> None:
        self.average = self.decay * self.average + (1 - self.decay) * score
        self.weight = self.decay * self.weight + (1 - self.decay)
        advantage = score - self.average / self.weight
        gradient = self.policy.gradient(choices)
        self.steps += 1
        scales = [1 - beta**self.steps for beta in BETAS]
        for label, logits in self.logits.items():
            first, second = self.moments[label]
            for i, g in enumerate(gradient.get(label, [0.0] * len(logits))):
                ascent = advantage * g
                first[i] = BETAS[0] * first[i] + (1 - BETAS[0]) * ascent
                second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * ascent**2
                logits[i] += self.lr * (first[i] / scales[0]) / ((second[i] / scales[1]) ** 0.5 + EPSILON)
