"""Test random convolutions, poolings and norms of images channels last, and list wrong results and crashes.

Each case compares the output, the gradients and their gradients with those of float64 in the default memory format,
once as computed by PyTorch and once by this package. Both run in processes of their own, in which the C library checks
its heap, and blocks of memory beside the tensors must keep their content. A case depends on the seed and its number
alone. `--log FILE` records the results, and resumes after the last one. The exit code is 1 if the package fails in a
case.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import os
import random
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from nas.kernels.memory_format import channels_last

Case = dict[str, Any]
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 24, 31, 32, 33, 48, 64)
SIDES = (1, 2, 3, 5, 7, 8, 9, 13, 14, 16, 28, 31, 32, 33, 46, 47, 48, 49, 50, 56, 63, 64, 96)
LARGEST = 3e8
"""Multiplications of one forward pass."""
PATIENCE = 60
"""Time limit of a case in seconds."""


def draw(seed: int, number: int) -> Case:
    """Draw case `number`: a kind of layer with settings, the shape of the image, and what lies channels last."""
    pick = random.Random(f"{seed}/{number}")
    while True:
        case = _draw(pick)
        if case is not None:
            return {"seed": seed, "number": number, **case}


def _draw(pick: random.Random) -> Case | None:
    kind = pick.choices(list(KINDS), [weight for weight, *_ in KINDS.values()])[0]
    case: Case = {"kind": kind, "dtype": pick.choice(["float32"] * 5 + ["float64"])}
    case["shape"] = [pick.randint(1, 4), pick.choice(CHANNELS), pick.choice(SIDES), pick.choice(SIDES)]
    if pick.random() < 0.5:
        case["shape"][3] = case["shape"][2]
    case["last"] = pick.choice(["image", "weight", "both", "both"])
    case |= KINDS[kind][1](pick, case["shape"])
    if math.prod(case["shape"]) * case.get("out", 1) * math.prod(case.get("kernel", [1])) > LARGEST:
        return None
    try:
        output = KINDS[kind][2](case, *_operands(case, torch.float32, "meta"))
    except (RuntimeError, ValueError):  # no such layer, or none on so small an image
        return None
    return case if output.numel() else None


def _pair(pick: random.Random, values: list[int]) -> list[int]:
    """Two numbers, equal ones more often than not."""
    first = pick.choice(values)
    return [first, first if pick.random() < 0.7 else pick.choice(values)]


def _convolution(pick: random.Random, shape: list[int]) -> Case:
    kernel = _pair(pick, [1, 1, 1, 2, 3, 3, 5, 7])
    groups = pick.choice([1, 1, 1, shape[1], pick.choice([g for g in range(1, shape[1] + 1) if shape[1] % g == 0])])
    return {
        "kernel": kernel,
        "stride": _pair(pick, [1, 2, 2, 3]),
        "padding": [pick.choice([0, k // 2, k // 2, k - 1]) for k in kernel],
        "dilation": _pair(pick, [1, 1, 1, 2, 3]),
        "groups": groups,
        "out": groups * max(1, pick.choice(CHANNELS) // groups),
        "bias": pick.random() < 0.5,
    }


def _pointwise(pick: random.Random, shape: list[int]) -> Case:
    return _convolution(pick, shape) | {"kernel": [1, 1], "padding": [pick.choice([0, 0, 1])] * 2}


def _pooling(pick: random.Random, shape: list[int]) -> Case:
    kernel = _pair(pick, [1, 2, 3, 5])
    padding = [pick.choice([0, k // 2]) for k in kernel]
    return {
        "kernel": kernel,
        "stride": _pair(pick, [1, 2, 3]),
        "padding": padding,
        "ceil": pick.random() < 0.3,
        "include": pick.random() < 0.5,
    }


def _adaptive(pick: random.Random, shape: list[int]) -> Case:
    return {"size": [pick.randint(1, side) for side in shape[2:]]}


def _normalization(pick: random.Random, shape: list[int]) -> Case:
    return {"affine": pick.random() < 0.7, "groups": pick.choice([g for g in (1, 2, 3, 4, 8) if shape[1] % g == 0])}


def _resizing(pick: random.Random, shape: list[int]) -> Case:
    return {"scale": pick.choice([0.5, 2, 3]), "mode": pick.choice(["nearest", "bilinear"])}


def _conv2d(case: Case, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return F.conv2d(x, w, b, case["stride"], case["padding"], case["dilation"], case["groups"])


def _conv_transpose2d(case: Case, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    return F.conv_transpose2d(x, w, b, case["stride"], case["padding"], 0, case["groups"], case["dilation"])


def _flat_conv1d(case: Case, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    settings = (case[name][0] for name in ("stride", "padding", "dilation"))
    return F.conv1d(x.flatten(2), w[:, :, :, 0], b, *settings, case["groups"])


def _max_pool(case: Case, x: Tensor) -> Tensor:
    return F.max_pool2d(x, case["kernel"], case["stride"], case["padding"], 1, case["ceil"])


def _avg_pool(case: Case, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, case["kernel"], case["stride"], case["padding"], case["ceil"], case["include"])


def _batch_norm(case: Case, x: Tensor, *terms: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, *terms, training=True)


def _group_norm(case: Case, x: Tensor, *terms: Tensor) -> Tensor:
    return F.group_norm(x, case["groups"], *terms)


Layer = Callable[..., Tensor]
KINDS: dict[str, tuple[int, Callable[[random.Random, list[int]], Case], Layer]] = {
    "conv2d": (10, _convolution, _conv2d),
    "conv2d 1x1": (4, _pointwise, _conv2d),
    "conv_transpose2d": (3, _convolution, _conv_transpose2d),
    "conv1d of a flattened image": (1, _convolution, _flat_conv1d),
    "max_pool2d": (2, _pooling, _max_pool),
    "avg_pool2d": (2, _pooling, _avg_pool),
    "adaptive_avg_pool2d": (1, _adaptive, lambda case, x: F.adaptive_avg_pool2d(x, case["size"])),
    "adaptive_max_pool2d": (1, _adaptive, lambda case, x: F.adaptive_max_pool2d(x, case["size"])),
    "batch_norm": (2, _normalization, _batch_norm),
    "group_norm": (1, _normalization, _group_norm),
    "instance_norm": (1, _normalization, lambda case, x, *terms: F.instance_norm(x, None, None, *terms)),
    "interpolate": (1, _resizing, lambda case, x: F.interpolate(x, scale_factor=case["scale"], mode=case["mode"])),
}
"""How often each kind is drawn, its settings, and what it computes."""
WHO: dict[str, Callable[[], AbstractContextManager[Any]]] = {"torch": nullcontext, "package": channels_last}
"""Whose functions are tried, by the context that they run in."""


def _operands(case: Case, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """The image, then weights, in the default layout: the same numbers in every type."""
    generator = torch.Generator().manual_seed(case.get("number", 0))
    channels, groups = case["shape"][1], case.get("groups", 1)
    shapes = [case["shape"]]
    if case["kind"] == "conv_transpose2d":
        shapes += [[channels, case["out"] // groups, *case["kernel"]]] + [[case["out"]]] * case["bias"]
    elif "out" in case:
        shapes += [[case["out"], channels // groups, *case["kernel"]]] + [[case["out"]]] * case["bias"]
    elif case.get("affine"):
        shapes += [[channels]] * 2
    if device == "meta":
        return [torch.empty(shape, dtype=dtype, device=device) for shape in shapes]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def derivatives(case: Case, dtype: torch.dtype, lay: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """The output, the gradients, and the gradients of a product with those, by name."""
    layer = KINDS[case["kind"]][2]
    leaves = dict(zip(("image", "weight", "bias"), _operands(case, dtype), strict=False))
    leaves = {name: lay(name, leaf).requires_grad_() for name, leaf in leaves.items()}
    output = layer(case, *leaves.values())
    generator = torch.Generator().manual_seed(case["number"] + 1)

    def random(like: Tensor, name: str) -> Tensor:
        return lay(name, torch.randn(like.shape, generator=generator).to(dtype))

    along = random(output, "image").requires_grad_()
    firsts = torch.autograd.grad(output, list(leaves.values()), along, create_graph=True)
    found = {"output": output, **{f"gradient of the {name}": g for name, g in zip(leaves, firsts, strict=True)}}
    total = sum((g * random(g, name)).sum() for name, g in zip(leaves, firsts, strict=True))
    names = [*leaves, "gradient of the output"]
    if total.requires_grad:
        seconds = torch.autograd.grad(total, [*leaves.values(), along], allow_unused=True)
        found |= {f"second, {name}": g for name, g in zip(names, seconds, strict=True) if g is not None}
    return {name: value.detach() for name, value in found.items()}


def check(case: Case, context: AbstractContextManager[Any]) -> str:
    """What is wrong in a context: names and relative differences; empty if nothing is."""

    def last(name: str, x: Tensor) -> Tensor:
        wanted = x.dim() == 4 and case["last"] in (name, "both")
        return x.contiguous(memory_format=torch.channels_last) if wanted else x

    dtype = getattr(torch, case["dtype"])
    beside = [torch.full((size,), 0.5) for size in (8, 64, 512, 4096, 32768) * 4]
    spare = [torch.empty(size) for size in (8, 64, 512, 4096, 32768) * 4]
    del spare  # room between what is held, for the tensors of the layer
    with context:
        found = derivatives(case, dtype, last)
    if not all(bool((block == 0.5).all()) for block in beside):
        return "memory of other tensors written to"
    expected = derivatives(case, torch.float64, lambda _, x: x)
    worst = {}
    for name, value in expected.items():
        scale = max(value.abs().max().item(), 1e-3)
        difference = (found[name].double() - value).abs().max().item() / scale if name in found else math.inf
        if not difference <= TOLERANCE[case["dtype"]]:
            worst[name] = difference
    return ", ".join(f"{name} {difference:.1g}" for name, difference in worst.items())


def forked(case: Case, context: AbstractContextManager[Any]) -> str:
    """What is wrong with a case, found in a process of its own; the name of the signal if one ended it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            wrong = check(case, context)
        except Exception as error:  # noqa: BLE001 - it is what the case found
            wrong = f"{type(error).__name__}: {error}"
        os.write(writing, wrong.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        done, *_ = select.select([pipe], [], [], PATIENCE)
        if not done:  # a heap that is corrupted can end in a lock
            os.kill(child, signal.SIGKILL)
        wrong = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if not done:
        return "crash: hangs"
    return f"crash: {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else wrong


def checked() -> dict[str, str]:
    """The environment in which the GNU C library checks its heap, and fills what is freed."""
    libraries = [
        path for folder in ("/usr/lib/*", "/usr/lib*") for path in glob.glob(f"{folder}/libc_malloc_debug.so.0")
    ]
    preload = {"LD_PRELOAD": libraries[0]} if libraries else {}
    return {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1", **preload}


def show(results: list[Case]) -> None:
    """By kind how many cases were tried, and in how many torch and the package were wrong or crashed; then which."""
    table = Table("kind", "tried", *(f"{who}: {what}" for who in WHO for what in ("wrong", "crashed")))
    count = Counter((case["kind"], who, case[who].startswith("crash")) for case in results for who in WHO if case[who])
    for kind in KINDS:
        tried = sum(case["kind"] == kind for case in results)
        table.add_row(kind, str(tried), *(str(count[kind, who, crashed]) for who in WHO for crashed in (False, True)))
    console = Console(width=118)
    console.print(table)
    for case in results:
        if any(case[who] for who in WHO):
            console.print(json.dumps(case), highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="how many cases (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases (default 0)")
    parser.add_argument("--log", type=Path, help="where results are kept, a line of JSON each; resumed if it exists")
    arguments = parser.parse_args()
    if os.environ.get("MALLOC_CHECK_") != "3":
        os.execve(sys.executable, [sys.executable, *sys.argv], checked())
    results: list[Case] = []
    if arguments.log is not None and arguments.log.exists():
        results = [json.loads(line) for line in arguments.log.read_text(encoding="utf-8").splitlines()]
    with nullcontext() if arguments.log is None else arguments.log.open("a", encoding="utf-8") as log:
        for number in range(len(results), arguments.count):
            case = draw(arguments.seed, number)
            results.append(case | {who: forked(case, context()) for who, context in WHO.items()})
            if log is not None:
                print(json.dumps(results[-1]), file=log, flush=True)
    show(results)
    return int(any(case["package"] for case in results))


if __name__ == "__main__":
    sys.exit(main())
