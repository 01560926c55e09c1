"""Time TMICS against a plain evaluation of it (tools/tmics_plain.py): a search step, its parts, and prediction.

Each round runs every option once, so that a change of the machine's speed affects all of them. A gain is the CPU time
of the first option divided by that of another in the same round. Peak memory is measured in another process, without
that of a process that only builds. Set OMP_NUM_THREADS=1, as `make bench` does: gains at one thread do not depend on
other processes.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from measured import KINDS, OUTSIDE, gains, high_water, shares, timed
from nas.cost.network_cost import measure
from nas.genotype.file import Genotype
from nas.kernels.memory_format import channels_last
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.definition import find_space
from nas.supernet import Supernet
from tmics_plain import PlainLevels, decompose, plain
from tmics_space import frequency
from tmics_space.data.clips import Batch
from tmics_space.data.sources import Films
from tmics_space.data.texture import moving_texture
from tmics_space.data.windowing import windows
from tmics_space.inference import folded
from tmics_space.predict import derain
from tmics_space.task import DerainConfig, DerainTask

GENOTYPES = Path(__file__).resolve().parents[1] / "genotypes"
SPACE: dict[str, Any] = {"channels": 16, "dna_cells": 2, "cna_cells": 2}
RESPONSES: dict[str, dict[str, dict[str, Any]]] = {
    "first order": {},
    "middle unrolled": {"middle": {"name": "unrolled"}},
    "middle implicit": {"middle": {"name": "implicit"}},
    "lower unrolled": {"lower": {"name": "unrolled"}},
}
PLAIN = "plain"
Options = dict[str, Callable[[], object]]


# --- what is timed ---


class Textures(DerainTask):
    """Deraining of moving textures, which needs no clip."""

    def batch(self, split: str, index: int) -> Batch:
        clip = moving_texture(5, self.config.crop, self.config.crop, seed=index).float() / 255
        window = clip.expand(self.config.batch, -1, -1, -1, -1)
        return Batch(window, window)


def search_step(crop: int, response: str, kind: str = "fast") -> Callable[[], object]:
    """Return one step of all three levels: fast, plain, or a plain network with the levels of the engine."""
    task = Textures(DerainConfig(train=Films(films={}), test=Films(films={}), crop=crop, batch=1))
    supernet = Supernet(find_space("tmics"), **SPACE)
    lower = ("network.*", "!network.averaging.*")
    hypergradient = RESPONSES[response]
    levels = {
        "lower": Level(parameters=lower, loss="lower", split="train", optimizer={"name": "adam", "lr": 3e-4}),
        "middle": Level(
            parameters=("network.averaging.*",), loss="fused", split="middle", optimizer={"name": "adam", "lr": 1e-3}
        ),
        "upper": Level(
            parameters=("arch.*",),
            loss="all",
            split="val",
            optimizer={"name": "adam", "lr": 1e-3},
            hypergradient=hypergradient,
        ),
    }
    if kind == PLAIN:
        return functools.partial(PlainLevels(plain(supernet), levels, task.losses, task.batch, 1000).step, 0)
    model = supernet if kind == "fast" else plain(supernet)
    return functools.partial(Multilevel(model, levels, task.losses, task.batch, 1000).step, 0)


def derived(name: str, channels: int) -> nn.Module:
    """The network of a published genotype at some width, in eval mode.

    Its last layers start at torch's own scale, for a change that is not near zero.
    """
    genotype = published(name, channels)
    network = find_space("tmics").derived(genotype).eval()
    torch.manual_seed(0)
    for route in ("dna", "cna"):
        network.get_submodule(route).head[-1].reset_parameters()
    return network


def published(name: str, channels: int) -> Genotype:
    genotype = Genotype.load(GENOTYPES / f"tmics-{name}.yaml")
    return msgspec.structs.replace(genotype, options={**genotype.options, "channels": channels})


def passes(network: nn.Module, size: int) -> Callable[[], object]:
    window = torch.rand(1, 5, 3, size, size)

    @torch.no_grad()
    def run() -> None:
        with channels_last(network):
            network(window)

    return run


def split(function: Callable[..., Tensor], channels: int, size: int, *, gradient: bool) -> Callable[[], object]:
    p = torch.randn(1, channels, size, size, requires_grad=gradient)
    p = p if function is decompose else p.to(memory_format=torch.channels_last)

    def run() -> None:
        out = function(p, (4, 6))
        if gradient:
            out.sum().backward(inputs=[p])

    return run


@torch.no_grad()
def window_by_window(network: nn.Module, clip: Tensor) -> list[Tensor]:
    """Prediction as a loop of one's own."""
    outputs = []
    for window in windows(clip):
        outputs.append(network(window.unsqueeze(0).float() / 255).output[0].clamp(0, 1))
    return outputs


def prediction(name: str, channels: int, frames: int, height: int, width: int) -> Options:
    network, clip = derived(name, channels), moving_texture(frames, height, width)
    reference = plain(network)
    return {
        PLAIN: lambda: window_by_window(reference, clip),
        "derain": lambda: list(derain(network, clip)),
        "derain, bfloat16": lambda: list(derain(network, clip, bfloat16=True)),
    }


# --- how it is timed ---


def compare(title: str, options: Options, rounds: int) -> Iterator[tuple[str, ...]]:
    """A row for each option: its median time, and its gain over the first one, round by round."""
    times = timed(options, rounds, time.process_time)
    for number, (name, values) in enumerate(times.items()):
        ratios = gains(times, name)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        row = (f"{statistics.median(values):.4f}", f"{statistics.median(ratios):.2f}", spread)
        yield ("" if number else title, name, *row)


def peak_memory(crop: int, response: str, kind: str, steps: int = 1) -> float:
    """MiB at the peak of a fresh process that builds a supernet, and takes so many steps of all levels."""
    command = [sys.executable, __file__, "--child", json.dumps([crop, response, kind, steps])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(crop: int, response: str, kind: str, steps: int) -> None:
    if steps:
        step = search_step(crop, response, kind)
        for _ in range(steps):
            step()
    else:
        Supernet(find_space("tmics"), **SPACE)
    print(high_water())


# --- what is printed ---


def show(title: str, columns: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def speeds(crop: int, size: int, rounds: int) -> Iterator[tuple[str, ...]]:
    steps: Options = {
        PLAIN: search_step(crop, "first order", PLAIN),
        "plain network, levels of the engine": search_step(crop, "first order", "engine"),
        "all": search_step(crop, "first order"),
    }
    yield from compare(f"three-level step, crop {crop}", steps, rounds)
    for channels, side, gradient in ((96, 128, False), (16, crop, True)):
        splits: Options = {
            PLAIN: split(decompose, channels, side, gradient=gradient),
            "shared, separable": split(frequency.decompose, channels, side, gradient=gradient),
        }
        title = f"guided decomposition{' and its gradient' * gradient}, {channels} channels, {side}x{side}"
        yield from compare(title, splits, rounds)
    heavy = derived("heavy", 96)
    forward: Options = {PLAIN: passes(plain(heavy), 128), "all but folding": passes(heavy, 128)}
    forward["all"] = passes(folded(heavy), 128)
    yield from compare("heavy network, 96 channels, 128x128", forward, rounds)
    small, large = (6, size, size), (1, 480, 640)
    clips = (("heavy", 32, small), ("light", 32, small), ("light", 16, small), ("light", 32, large))
    for name, channels, clip in clips:
        frames, height, width = clip
        title = f"predict, {name}, {channels} channels, {frames} frame{'s' * (frames > 1)} of {width}x{height}"
        yield from compare(title, prediction(name, channels, *clip), rounds)


def parts(crop: int, size: int) -> Iterator[tuple[str, ...]]:
    """The share of each kind of operator in what was timed."""
    heavy = derived("heavy", 96)
    light = prediction("light", 32, 6, size, size)
    works: dict[str, Options] = {
        f"three-level step, crop {crop}": {
            PLAIN: search_step(crop, "first order", PLAIN),
            "all": search_step(crop, "first order"),
        },
        "heavy network, 96 channels": {PLAIN: passes(plain(heavy), 128), "all": passes(folded(heavy), 128)},
        "predict, light, 32 channels": {option: light[option] for option in (PLAIN, "derain")},
    }
    for work, options in works.items():
        for option, run in options.items():
            run()
            found = shares(run)
            yield ("" if option != PLAIN else work, option, *(f"{100 * share:.1f} %" for share in found.values()))


def memories(crop: int) -> Iterator[tuple[str, ...]]:
    base = peak_memory(crop, "first order", "fast", 0)
    options = {PLAIN: ("first order", PLAIN), **{response: (response, "fast") for response in RESPONSES}}
    peaks = {name: peak_memory(crop, *option) - base for name, option in options.items()}
    for name, peak in peaks.items():
        yield (name, f"{peak:.0f}", f"{peak / peaks[PLAIN]:.2f}")


def widths(size: int, rounds: int) -> Iterator[tuple[str, ...]]:
    """What a pixel costs, what of it windows share, and how many pixels a second of one core derains."""
    clip = moving_texture(3, size, size)
    for name in ("heavy", "light"):
        for channels in (4, 8, 16, 32, 48):
            network = derived(name, channels)
            flops = measure(network, "flops", (torch.zeros(1, 5, 3, size, size),))
            with FlopCounterMode(display=False) as shared:  # four frames of a window were in the one before
                cast(Any, network).describe(torch.zeros(1, 4, 3, size, size))
            percent = 100 * shared.get_total_flops() / flops
            row = [name, str(channels), f"{flops / 2 / size**2 / 1000:.0f}", f"{percent:.1f} %"]
            for bfloat16 in (False, True):
                run = functools.partial(lambda n, b: list(derain(n, clip, bfloat16=b)), network, bfloat16)
                seconds = min(timed({"": run}, max(rounds // 2, 1), time.process_time)[""])
                row.append(f"{len(clip) * size**2 / seconds / 1e6:.2f}")
            yield tuple(row)


def agreement(size: int) -> Iterator[tuple[str, ...]]:
    """How far bfloat16 is from float32, where the network changes a frame by more than a trained one does."""
    clip = moving_texture(4, size, size)
    for name, channels in (("heavy", 32), ("heavy", 16), ("light", 16)):
        network = derived(name, channels)
        exact = torch.stack([each.frame for each in derain(network, clip)])
        narrow = torch.stack([each.frame for each in derain(network, clip, bfloat16=True)])
        change = (exact - clip / 255).abs().mean() * 255
        psnr = -10 * (exact - narrow).square().mean().log10()
        yield (f"{name}, {channels} channels", f"{change:.1f}", f"{psnr:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default 5)")
    parser.add_argument("--crop", type=int, default=64, help="height and width of the training crops (default 64)")
    parser.add_argument("--size", type=int, default=160, help="height and width of predicted frames (default 160)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    crop, size, rounds = arguments.crop, arguments.size, arguments.rounds
    if arguments.child is not None:
        child(*json.loads(arguments.child))
        return
    print(f"TMICS, supernet {SPACE}, batch 1, {torch.get_num_threads()} threads, torch {torch.__version__}")
    columns = ("work", "option", "CPU s", "gain", "smallest to largest")
    show("Speed", columns, speeds(crop, size, rounds))
    show("Where the time of a profiled call goes", ("work", "option", *KINDS.values(), OUTSIDE), parts(crop, size))
    show("Peak memory of a three-level step", ("option", "MiB over building", "ratio"), memories(crop))
    show("bfloat16", ("network", "mean change, of 255", "PSNR against float32, dB"), agreement(size))
    columns = ("network", "channels", "kMAC a pixel", "shared by windows", "Mpixel a second", "with bfloat16")
    show("Width", columns, widths(size, rounds))


if __name__ == "__main__":
    main()
