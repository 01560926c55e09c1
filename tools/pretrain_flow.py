"""Pretrain the learned optical flow on films, without ground truth: by how well it explains each frame by the next.

The weights go into a safetensors file. A configuration takes them with

    initial: {alignment.ofm.flow: flow.safetensors}
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from nas.checkpoint import save_weights
from nas.errors import NASError
from nas.report.progress import Progress
from tmics_space.data.clips import sample
from tmics_space.data.sources import Films
from tmics_space.flow import make_flow, photometric_loss, warp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+", help="video files, folders of frames, or bundled:NAME")
    parser.add_argument("--out", type=Path, required=True, help="file of weights to write (.safetensors)")
    parser.add_argument("--width", type=int, default=16, help="channels of the flow network (default 16)")
    parser.add_argument("--levels", type=int, default=4, help="levels of its pyramid (default 4)")
    parser.add_argument("--rain", default="light25", help="rain on the films (default light25)")
    parser.add_argument("--size", type=int, nargs=2, default=(180, 320), help="greatest height and width of frames")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default 1000)")
    parser.add_argument("--crop", type=int, default=96, help="height and width of the crops (default 96)")
    parser.add_argument("--batch", type=int, default=4, help="pairs of frames a step (default 4)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate, falling to 0 by a cosine (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    films = {f"film{i}": film for i, film in enumerate(arguments.films)}
    try:
        clips = Films(films=films, rain=arguments.rain, size=tuple(arguments.size)).load(arguments.seed)
    except NASError as error:
        sys.exit(str(error))
    torch.manual_seed(arguments.seed)
    flow = make_flow("pyramid", width=arguments.width, levels=arguments.levels)
    optimizer = torch.optim.Adam(flow.parameters(), lr=arguments.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    with Progress("pretrain", arguments.steps) as progress:
        for step in range(arguments.steps):
            batch = sample(clips, step, arguments.seed, frames=3, crop=arguments.crop, batch=arguments.batch)
            reference, neighbour = batch.rainy[:, 1], batch.rainy[:, 2]
            motion = flow(reference, neighbour)
            warped = warp(neighbour, motion)
            loss = photometric_loss(reference, warped, motion)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            still = (reference - neighbour).abs().mean().item()
            difference = (reference - warped).abs().mean().item()
            progress.update(step + 1, {"loss": loss.item(), "difference": difference, "without flow": still})
    save_weights(arguments.out, flow.state_dict())
    print(f"{arguments.out}: {sum(p.numel() for p in flow.parameters()):,} parameters")


if __name__ == "__main__":
    main()
