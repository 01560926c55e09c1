"""Make one picture of crops of clips, before and after a model: rainy on the left, derained on the right.

    python tools/before_after.py --root DATA        # the four crops of docs/deraining.md
    python tools/before_after.py --clip rainy.mp4@30@120,200 --out runs/mine.jpg

A clip is FILE@FRAME@TOP,LEFT: a rainy film, a folder of frames or a photograph, the number of a frame from 0, and the
corner of the square that is shown. Without `--clip`, clean films of which training did not read these frames get rain
of a preset that it did not use.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

import nas
from nas.errors import NASError
from tmics_space.data import iterate_frames, rain
from tmics_space.data.clips import fit
from tmics_space.data.compression import jpeg
from tmics_space.predict import derain

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "before-after.jpg"
SIDE, GAP = 224, 4
AROUND = 4
"""Frames that are read on each side of the one that is shown."""
QUALITY = 84
RAIN, SEED, FILMED_QUALITY = "filmed-other", 7, 75


class Crop(NamedTuple):
    """A square of one frame of a clip."""

    file: Path
    frame: int
    top: int
    left: int

    @classmethod
    def parse(cls, text: str) -> Crop:
        """Read FILE@FRAME@TOP,LEFT."""
        try:
            file, frame, corner = text.rsplit("@", 2)
            top, left = map(int, corner.split(","))
            found = cls(Path(file), int(frame), top, left)
        except ValueError:
            found = cls(Path(text), -1, 0, 0)
        if min(found[1:]) < 0:
            raise argparse.ArgumentTypeError(f"must be FILE@FRAME@TOP,LEFT, got {text!r}")
        return found


SHOWN = (
    Crop(Path("traffic_camera.mp4"), 480, 200, 180),
    Crop(Path("androidx_roof360p.mp4"), 420, 100, 300),
    Crop(Path("gopro_hero7_path.mp4"), 330, 120, 300),
    Crop(Path("gopro_karma_coast.mp4"), 340, 120, 200),
)
"""Of films of the configuration `compact`, which reads their first 300 frames."""


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds clean/FILM.mp4")
    parser.add_argument("--clip", action="append", type=Crop.parse, help="FILE@FRAME@TOP,LEFT of a rainy clip")
    parser.add_argument("--model", default="tmics-compact", help="a model by name, or the folder of a run")
    parser.add_argument("--out", type=Path, help="the picture; with --root by default that of docs/deraining.md")
    arguments = parser.parse_args(given)
    if (arguments.root is None) == (arguments.clip is None):
        parser.error("either --root or --clip must be given")
    if arguments.clip is not None and arguments.out is None:
        parser.error("--clip needs --out")
    out = arguments.out or PICTURE
    try:
        network = nas.load(arguments.model)
        rows = [torch.cat(pair, 2) for pair in pairs(network, arguments.root, arguments.clip)]
    except NASError as error:
        sys.exit(str(error))
    width = max(row.shape[2] for row in rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = stacked([torch.nn.functional.pad(row, (0, width - row.shape[2]), value=255) for row in rows])
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(out, quality=QUALITY)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")
    return 0


def pairs(network: nn.Module, root: Path | None, clips: Sequence[Crop] | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rainy and the derained square of every crop, `(3, side, side)` uint8."""
    for crop in clips or SHOWN:
        frames, centre = around(crop if root is None else crop._replace(file=root / "clean" / crop.file))
        if root is not None:
            frames = jpeg(rain(torch.stack([fit(frame, (480, 640)) for frame in frames]), RAIN, SEED), FILMED_QUALITY)
        square = (..., slice(crop.top, crop.top + SIDE), slice(crop.left, crop.left + SIDE))
        if not (before := frames[centre][square]).numel():
            size = "x".join(map(str, frames.shape[2:]))
            sys.exit(f"{crop.file}: the corner {crop.top},{crop.left} must be inside of the frame, got {size}")
        derained = next(itertools.islice(derain(network, frames), centre, None)).frame
        after = (derained * 255).round().byte()[square]
        yield before, torch.nn.functional.pad(after, (GAP, 0), value=255)


def around(crop: Crop) -> tuple[Tensor, int]:
    """Return the frames around that of a crop, and its place among them."""
    first = max(crop.frame - AROUND, 0)
    frames = list(itertools.islice(iterate_frames(crop.file), first, crop.frame + AROUND + 1))
    if len(frames) <= crop.frame - first:
        sys.exit(f"{crop.file}: must have a frame {crop.frame}, got {first + len(frames)} frames")
    return torch.stack(frames), crop.frame - first


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Put rows `(3, height, width)` below one another, with gaps, two beside each other."""
    gap = torch.nn.functional.pad
    halves = [rows[half::2] for half in (0, 1) if rows[half::2]]
    columns = [torch.cat([gap(row, (0, 0, 0, GAP), value=255) for row in half], 1) for half in halves]
    tallest = max(column.shape[1] for column in columns)
    return torch.cat([gap(column, (0, 2 * GAP, 0, tallest - column.shape[1]), value=255) for column in columns], 2)


if __name__ == "__main__":
    sys.exit(main())
