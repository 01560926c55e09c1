"""Compare the demo's network with a plain one: equal multiply-adds, processor time and batches; several seeds.

The plain network is a residual CNN on the stacked frames of the window, trained by Adam with a cosine schedule on the
mean squared error, which PSNR measures; by L1 it would learn to change nothing, and stay there.
A demo that lies in the output folder already is used as it is. The table goes to docs/demo.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import torch
from demo import OURS, REFERENCE, demo, markdown, score, test_clip
from torch import Tensor, nn

from nas.config import load_config
from nas.cost import measure
from nas.genotype import Genotype
from nas.planner.layout import channels_last
from nas.retrain import evaluate, load_network, previews
from nas.task import Task
from tmics_space.data.windows import windows

DEPTH = 3
LR = 1e-3
LEARNED = 1.0
"""A plain network that gains less, in dB, has stayed where it began: another one is trained in its place."""
COLUMNS = ("seed", "rainy", "temporal median", OURS, "plain CNN", "difference", "kMAC/px", "steps", "seconds")


class Plain(nn.Module):
    """The centre frame plus what a row of convolutions makes of the window (batch, frames, 3, height, width)."""

    def __init__(self, width: int, frames: int = 5) -> None:
        super().__init__()
        widths = [3 * frames, *[width] * (DEPTH + 1)]
        hidden = [nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in itertools.pairwise(widths)]
        last = nn.Conv2d(width, 3, 3, padding=1)
        with torch.no_grad():  # begins near the rainy frame, as the demo's network does
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.body = nn.Sequential(*hidden, last)

    def forward(self, window: Tensor) -> Tensor:
        return window[:, window.shape[1] // 2] + self.body(window.flatten(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/reference"))
    parser.add_argument("--doc", type=Path, default=REFERENCE, help="where the table goes")
    parser.add_argument("--quick", action="store_true", help="a few steps on small frames, to try it out")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        out = arguments.out / f"seed-{seed}"
        if not (out / "scores.json").exists():
            demo(out, seed, quick=arguments.quick)
        rows.append(compare(out, seed))
    lines = markdown(COLUMNS, rows)
    print(*lines, sep="\n")
    arguments.doc.write_text("\n".join([*HEAD, *lines, ""]), encoding="utf-8")


def compare(out: Path, seed: int) -> tuple[str, ...]:
    """A row of the table, of the demo in the folder `out`."""
    run = out / "network"
    found = json.loads((out / "scores.json").read_text())
    task = load_config(run / "config.yaml").build_task()
    pixels = task.example()[0].shape[-1] ** 2
    target = measure(Genotype.load(run / "genotype.yaml"), "flops", task.example())
    psnr = {name: each["psnr"] for name, each in found["scores"].items()}
    clip = test_clip(run)
    seconds = found["retrain_seconds"] - seconds_of_scoring(run, task)
    for attempt in itertools.count():
        torch.manual_seed(seed + 1000 * attempt)
        network = min((Plain(width) for width in range(4, 129)), key=lambda plain: abs(cost(plain, task) - target))
        steps = train(network, task, seconds)
        with torch.no_grad():
            restored = [network(window[None].float() / 255)[0] for window in windows(clip.rainy[0])]
        plain = score(torch.stack(restored).clamp(0, 1).mul(255).round().to(torch.uint8), clip)["psnr"]
        if plain > psnr["rainy"] + LEARNED:
            break
    values = [psnr["rainy"], psnr["temporal median"], psnr[OURS], plain]
    macs = f"{target / 2 / pixels / 1000:.1f} / {cost(network, task) / 2 / pixels / 1000:.1f}"
    ours_steps = load_config(run / "config.yaml").retrain.steps
    return (
        str(seed),
        *(f"{value:.2f}" for value in values),
        f"{psnr[OURS] - plain:+.2f}",
        macs,
        f"{ours_steps} / {steps}",
        f"{seconds:.0f}",
    )


def seconds_of_scoring(run: Path, task: Task) -> float:
    """What of the processor time of a retraining went into scores and pictures of the trained network."""
    network = load_network(run)
    task.check()
    started = time.process_time()
    evaluate(network, task)
    previews(network, task)
    return time.process_time() - started


def cost(network: nn.Module, task: Task) -> float:
    return measure(network, "flops", task.example())


def train(network: nn.Module, task: Task, seconds: float) -> int:
    """Train for so many seconds of processor time, the loading of the clips included; returns the number of steps."""
    with channels_last(network):
        return train_for(network, task, seconds)


def train_for(network: nn.Module, task: Task, seconds: float) -> int:
    optimizer = torch.optim.Adam(network.parameters(), lr=LR)
    started, step, spent = time.process_time(), 0, 0.0
    while spent < seconds:
        for group in optimizer.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * spent / seconds)) / 2
        batch = task.batch("all", step)
        loss = (network(batch.rainy) - batch.clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, spent = step + 1, time.process_time() - started
    return step


HEAD = (
    "# The demo, measured",
    "",
    "`make demo` searches on the clips `bikes` and `bigbuckbunny`, retrains what it found, and derains `carphone`, a",
    "film that neither saw, with `light25` rain. `python tools/demo_reference.py` repeats this for three seeds, and",
    "trains a plain residual CNN on five stacked frames beside each: of equal multiply-adds, for the seconds of the",
    "processor that the retraining took, its loading included and its scoring not, on the same batches. PSNR of the",
    "luminance in dB, over all frames; two values are ours / plain. The plain network learns by the squared error, the",
    "searched one by the Charbonnier distance; a plain network that learned to change nothing is replaced by another.",
    "",
)


if __name__ == "__main__":
    main()
