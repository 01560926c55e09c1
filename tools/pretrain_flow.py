"""Pretrain the learned optical flow, on known motions or on films without ground truth.

    python tools/pretrain_flow.py street.mp4 harbour.mp4 --out flow.safetensors
    python tools/pretrain_flow.py --config compact task.train.root=DATA --out flow.safetensors
    python tools/pretrain_flow.py --check tmics-compact
    python tools/pretrain_flow.py --check compact

On films, the loss is how well the flow explains each frame by the next. With `--config`, films, rain and the flow's
options are those of a configuration: a clean frame is moved by a random smooth motion, each of the two pictures gets
the rain of another frame, and the loss is the distance from the motion. The weights go into a safetensors file. A
configuration takes them with

    initial: {alignment.ofm.flow: flow.safetensors}

At the end, the mean endpoint error on known motions is printed; with `--check` that of a model, of a run, or of the
flow that a configuration begins with.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas
from nas.errors import NASError
from nas.report.progress import Progress
from nas.run.checkpoint import save_weights
from nas.run.config import load_config
from nas.run.models import model_folder
from nas.run.searching import build_supernet
from tmics_space.alignment import OpticalFlow
from tmics_space.data.clips import sample
from tmics_space.data.sources import Films
from tmics_space.data.texture import moving_texture
from tmics_space.flow import make_flow, photometric_loss, warp

SHIFTS = ((0, 0), (1, 0), (0, 1), (4, 0), (0, 4), (8, 4), (16, 0), (0, 16))
"""Motions of `endpoint_errors` along (x, y), in px."""
SIDE, BORDER = 192, 24
"""Size of its frames, and what is left out at each side, since it has no partner; in px."""

MARGIN = 16
"""What is cut off at each side of moved pictures, most of which has no partner; in px."""
FASTEST = 28.0
"""The greatest speed of the known motions of training, in px; half of them are slower than a quarter of it."""
EXACT = 0.1
"""Distances from a known motion below this count by their square, those above by themselves; in px."""

Loss = Callable[[nn.Module, int], tuple[Tensor, dict[str, float]]]
"""Computes the loss of a flow network at a step, and values for the progress line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="*", help="video files, folders of frames, or bundled:NAME; or KEY=VALUE")
    parser.add_argument("--out", type=Path, help="file of weights to write (.safetensors)")
    parser.add_argument("--config", help="a configuration; the films are changes of it then")
    parser.add_argument("--check", help="print the errors of this model, run or configuration, and train nothing")
    parser.add_argument("--width", type=int, default=16, help="channels of the flow network (default 16)")
    parser.add_argument("--levels", type=int, default=4, help="levels of its pyramid (default 4)")
    parser.add_argument("--rain", default="light25", help="rain on the films (default light25)")
    parser.add_argument("--size", type=int, nargs=2, default=(180, 320), help="greatest height and width of frames")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default 1000)")
    parser.add_argument("--crop", type=int, default=96, help="height and width of the crops (default 96)")
    parser.add_argument("--batch", type=int, default=4, help="pairs of frames a step (default 4)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate, falling to 0 by a cosine (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_intermixed_args()
    if arguments.check is None and (arguments.out is None or not (arguments.films or arguments.config)):
        parser.error("films or --config, and --out, must be given")
    try:
        if arguments.check is not None:
            print(*table(flow_of(network_of(arguments.check))), sep="\n")
            return
        make = of_config if arguments.config else of_films
        flow, loss = make(arguments)
    except NASError as error:
        sys.exit(str(error))
    train(flow, loss, arguments.steps, arguments.lr)
    save_weights(arguments.out, flow.state_dict())
    print(f"{arguments.out}: {sum(p.numel() for p in flow.parameters()):,} parameters")
    print(*table(flow), sep="\n")


def of_films(arguments: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return the flow network, and its photometric loss on frames one after the other."""
    films = {f"film{i}": film for i, film in enumerate(arguments.films)}
    clips = Films(films=films, rain=arguments.rain, size=tuple(arguments.size)).load(arguments.seed)

    def loss(flow: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        rainy = sample(clips, step, arguments.seed, frames=3, crop=arguments.crop, batch=arguments.batch).rainy
        reference, neighbour = rainy[:, 1], rainy[:, 2]
        motion = flow(reference, neighbour)
        warped = warp(neighbour, motion)
        still, left = ((reference - other).abs().mean().item() for other in (neighbour, warped))
        return photometric_loss(reference, warped, motion), {"difference": left, "without flow": still}

    torch.manual_seed(arguments.seed)
    return make_flow("pyramid", width=arguments.width, levels=arguments.levels), loss


def of_config(arguments: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return the flow network of a configuration, and its distance from known motions.

    Raises:
        NASError: the configuration cannot be read or has no learned flow.
    """
    size = arguments.crop + 2 * MARGIN
    changes = [f"seed={arguments.seed}", f"task.crop={size}", f"task.batch={arguments.batch}"]
    config = load_config(arguments.config, [*changes, *arguments.films])
    task: Any = config.build_task()

    def loss(flow: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        reference, neighbour, motion = moved(
            task.batch("all", step), torch.Generator().manual_seed(arguments.seed * arguments.steps + step)
        )
        distance = (flow(reference, neighbour) - motion).square().sum(1).add(EXACT**2).sqrt()
        return distance.mean(), {"still": motion.norm(dim=1).mean().item()}

    torch.manual_seed(arguments.seed)
    options = config.options.get("flow", "pyramid")
    named = {"name": options} if isinstance(options, str) else dict(options)
    return make_flow(named.pop("name"), **named), loss


def moved(batch: Any, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Move clean frames by known motions, and give both pictures the rain of different frames.

    Args:
        batch: windows `rainy` and `window`, `(batch, frames, 3, height, width)` in [0, 1].
        generator: of the motions.

    Returns:
        References and neighbours, `(batch, 3, height, width)`, and the motions, `(batch, 2, height, width)` in px, all
        without a border of `MARGIN`. A neighbour's pixel at x + motion(x) is the reference's at x.
    """
    clean = batch.window[:, batch.window.shape[1] // 2]
    rain = batch.rainy[:, [0, -1]] - batch.window[:, [0, -1]]
    motion = random_motion(len(clean), clean.shape[2], clean.shape[3], generator)
    pictures = (warp(clean, motion) + rain[:, 0]).clamp(0, 1), (clean + rain[:, 1]).clamp(0, 1), motion
    reference, neighbour, motion = (each[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for each in pictures)
    return reference, neighbour, motion


def random_motion(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw smooth motions, `(count, 2, height, width)` in px: a pan, up to a quarter of it more or less in places."""
    speed = FASTEST * torch.rand(count, 1, generator=generator).square()
    heading = 2 * math.pi * torch.rand(count, generator=generator)
    pan = speed * torch.stack([heading.cos(), heading.sin()], 1)
    places = (2 * torch.rand(count, 2, 3, 3, generator=generator) - 1) * (0.25 * speed + 0.5)[..., None, None]
    return pan[..., None, None] + F.interpolate(places, (height, width), mode="bicubic", align_corners=True)


def train(flow: nn.Module, loss: Loss, steps: int, lr: float) -> None:
    """Minimize a loss."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with Progress("pretrain", steps) as progress:
        for step in range(steps):
            value, shown = loss(flow, step)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(step + 1, {"loss": value.item(), **shown})


def network_of(target: str) -> nn.Module:
    """Return the network of a model or of a run, or the supernet that a configuration begins with."""
    if model_folder(target).is_dir():
        return nas.load(target)
    return build_supernet(load_config(target)).eval()


def flow_of(network: nn.Module) -> nn.Module:
    """Return the flow network of a deraining network; exit if it has none."""
    for module in network.modules():
        if isinstance(module, OpticalFlow):
            return module.flow
    sys.exit("the network has no optical flow")


@torch.no_grad()
def endpoint_errors(flow: nn.Module) -> list[float]:
    """Return the mean distance in px between the flow and the truth, for each of `SHIFTS` of a textured picture."""
    reach = max(map(max, SHIFTS))
    picture = moving_texture(1, SIDE + reach, SIDE + reach, seed=0)[0].float() / 255
    reference = picture[None, :, reach:, reach:]
    errors = []
    for right, down in SHIFTS:
        neighbour = picture[None, :, reach - down :, reach - right :][..., :SIDE, :SIDE]
        off = flow(reference, neighbour) - torch.tensor([right, down]).view(1, 2, 1, 1)
        errors.append(off.norm(dim=1)[..., BORDER:-BORDER, BORDER:-BORDER].mean().item())
    return errors


def table(flow: nn.Module) -> list[str]:
    """Return the lines of a Markdown table of the errors."""
    found = zip(SHIFTS, endpoint_errors(flow), strict=True)
    rows = [f"| {right}, {down} | {error:.2f} |" for (right, down), error in found]
    return ["| motion in px | endpoint error in px |", "|---|---|", *rows]


if __name__ == "__main__":
    main()
