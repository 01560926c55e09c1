"""Print the statistics of generated rain beside those of pairs of rainy and clean clips.

    python tools/rain_report.py --film street.mp4 --preset filmed --preset ntu --pair data/a1_Rain data/a1_GT

Every preset falls on every film, with seeds 0, 1, ...; `--jpeg` writes the rainy frames as JPEG first.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tmics_space.data.clips import fit
from tmics_space.data.compression import jpeg
from tmics_space.data.frames import iterate_frames
from tmics_space.data.rainfall import coverage_by_brightness, rain, rain_shape, rain_statistics
from tmics_space.data.rainfall.shape import BRIGHTNESS, LAGS

CLASSES = [f"coverage on {low}-{high - 1}" for low, high in itertools.pairwise(BRIGHTNESS)]
ROWS = (
    "PSNR_Y, dB", "mean", "coverage", *CLASSES, "brightness, mean", "brightness, median", "brightness, 95 %",
    "correlation 1 px across", *(f"correlation {lag} px along" for lag in LAGS),
    "with the next frame, same place", "with the next frame, best shift", "that shift: right, px",
    "that shift: down, px", "angle, degrees",
)  # fmt: skip
FILMED: dict[str, float] = dict(
    zip(
        (ROWS[1], *ROWS[2:13], ROWS[13]),
        (2.1, 0.048, 0.077, 0.045, 0.015, 0.001, 34.6, 27, 79, 0.41, 0.54, 0.31, 0.05),
        strict=True,
    )
) | {ROWS[14]: 0.255}
"""What was measured by these statistics on filmed clips with known ground truth, which the project does not include."""


def measured(rainy: Tensor, clean: Tensor) -> list[float]:
    """The statistics of a clip, one for each of `ROWS`."""
    pixels, shape = rain_statistics(rainy, clean), rain_shape(rainy, clean)
    dark = coverage_by_brightness(rainy, clean)
    bright = pixels.brightness_mean, pixels.brightness_median, pixels.brightness_p95
    place = (shape.across, *shape.along, shape.still, shape.falling)
    return [pixels.psnr_y, pixels.mean, pixels.coverage, *dark, *bright, *place, *shape.fall, shape.angle]


def read(source: Path, frames: int, size: tuple[int, int]) -> Tensor:
    """The first frames of a clip, scaled down to a size and cropped."""
    return torch.stack([fit(frame, size) for frame in itertools.islice(iterate_frames(source), frames)])


def columns(arguments: argparse.Namespace) -> Iterator[tuple[str, list[list[float]]]]:
    """The name of each column, and the statistics of each of its clips."""
    films = [read(film, arguments.frames, tuple(arguments.size)) for film in arguments.film]
    for preset in arguments.preset:
        rows = []
        for seed, clean in itertools.product(range(arguments.seeds), films):
            rainy = rain(clean, preset, seed)
            rows.append(measured(jpeg(rainy, arguments.jpeg) if arguments.jpeg else rainy, clean))
        yield preset, rows
    for rainy, clean in arguments.pair:
        frames = [read(Path(side), arguments.frames, tuple(arguments.size)) for side in (rainy, clean)]
        yield Path(rainy).name, [measured(*frames)]


def line(name: str, values: Sequence[float]) -> str:
    """The mean of a statistic over clips, and its standard deviation for angles."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.1f}" if name == ROWS[-1] and len(known) > 1 else ""
    return f"{statistics.fmean(known):.3g}{spread}"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, action="append", default=[], help="a clean clip for the presets")
    parser.add_argument("--preset", action="append", default=[], help="a rain preset (default: filmed)")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar=("RAINY", "CLEAN"), help="two clips")
    parser.add_argument("--frames", type=int, default=4, help="frames of each clip (default: 4)")
    parser.add_argument("--seeds", type=int, default=1, help="rains of each film (default: 1)")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), help="greatest height and width")
    parser.add_argument("--jpeg", type=int, help="quality at which rainy frames of presets are written first")
    arguments = parser.parse_args(given)
    if not arguments.film and not arguments.pair:
        parser.error("give at least one --film or one --pair")
    arguments.preset = (arguments.preset or ["filmed"]) if arguments.film else []
    found = list(columns(arguments))
    print("| statistic | filmed clips |", " | ".join(name for name, _ in found), "|")
    print("|---|---|", "---|" * len(found), sep="")
    for index, name in enumerate(ROWS):
        cells = [line(name, [row[index] for row in rows]) for _, rows in found]
        print(f"| {name} | {FILMED.get(name, '-')} |", " | ".join(cells), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
