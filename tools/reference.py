"""The supernet of DARTS (Liu et al., ICLR 2019) written by hand: what the engine's plain evaluation is held against.

One module call per candidate per edge, every gradient, the default memory format: a straightforward loop as in the
published code, without the engine. `adopt` gives it the weights of a supernet, by position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.space.primitives import FactorizedReduce

NAMES = ("none", "max_pool", "avg_pool", "skip", "sep_3", "sep_5", "dil_3", "dil_5")


def separable(c: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    pad = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, kernel, stride, pad, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
    ]


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride] * 0.0


def candidate(name: str, c: int, stride: int) -> nn.Module:
    if name == "none":
        return Zero(stride)
    if name == "max_pool":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(c, affine=False))
    if name == "avg_pool":
        pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        return nn.Sequential(pool, nn.BatchNorm2d(c, affine=False))
    if name == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, affine=False)
    kind, kernel = name.split("_")
    if kind == "sep":
        return nn.Sequential(*separable(c, int(kernel), stride), *separable(c, int(kernel), 1))
    return nn.Sequential(*separable(c, int(kernel), stride, 2))


class Mixed(nn.ModuleList):
    def __init__(self, c: int, stride: int) -> None:
        super().__init__(candidate(name, c, stride) for name in NAMES)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        first, *rest = (w * operation(x) for w, operation in zip(weights.unbind(), self, strict=True))
        return sum(rest, start=first)


def preprocess(before: int, c: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(before, c, 1, bias=False), nn.BatchNorm2d(c, affine=False))


class HandCell(nn.Module):
    def __init__(self, before: int, last: int, c: int, nodes: int, reduction: bool, halved: bool) -> None:
        super().__init__()
        self.nodes, self.reduction = nodes, reduction
        self.first = FactorizedReduce(before, c, affine=False) if halved else preprocess(before, c)
        self.second = preprocess(last, c)
        strides = [2 if reduction and j < 2 else 1 for i in range(nodes) for j in range(2 + i)]
        self.edges = nn.ModuleList(Mixed(c, stride) for stride in strides)

    def forward(self, s0: Tensor, s1: Tensor, weights: list[Tensor]) -> Tensor:
        states, edge = [self.first(s0), self.second(s1)], 0
        for _ in range(self.nodes):
            terms = []
            for state in states:
                terms.append(self.edges[edge](state, weights[edge]))
                edge += 1
            states.append(sum(terms))
        return torch.cat(states[2:], dim=1)


class HandNetwork(nn.Module):
    def __init__(self, channels: int = 16, cells: int = 8, nodes: int = 4, classes: int = 10) -> None:
        super().__init__()
        before = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
        self.cells = nn.ModuleList()
        reductions = (cells // 3, 2 * cells // 3)
        for number in range(cells):
            reduction = number in reductions
            channels *= 2 if reduction else 1
            self.cells.append(HandCell(before, last, channels, nodes, reduction, number - 1 in reductions))
            before, last = last, nodes * channels
        self.classifier = nn.Linear(last, classes)
        edges = sum(2 + i for i in range(nodes))
        self.normal = nn.ParameterList(nn.Parameter(torch.zeros(len(NAMES))) for _ in range(edges))
        self.reduction = nn.ParameterList(nn.Parameter(torch.zeros(len(NAMES))) for _ in range(edges))

    def arch(self) -> list[nn.Parameter]:
        return [*self.normal, *self.reduction]

    def forward(self, x: Tensor) -> Tensor:
        normal = [logits.softmax(-1) for logits in self.normal]
        reduction = [logits.softmax(-1) for logits in self.reduction]
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, reduction if cell.reduction else normal)
        return self.classifier(s1.mean((2, 3)))
