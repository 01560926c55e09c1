"""Score networks, the rainy input and a temporal median on unseen films, rain by rain, and print a Markdown table.

    python tools/quality.py --root DATA --network compact=runs/a --network compact=runs/b --network plain=runs/c

Networks of one name are trainings with other seeds: the table has their mean and standard deviation. Each score is a
line of OUT/rows.jsonl as soon as it is taken, so that a repeated command does only what is missing. OUT/rows.csv has
the same, OUT/quality.md the table.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import json
import math
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from nas.errors import NASError
from nas.files import write_text
from nas.run.models import model_folder
from nas.run.retraining import WEIGHTS, load_network
from tmics_space.data import iterate_frames, rain, temporal_median
from tmics_space.data.clips import fit
from tmics_space.data.compression import jpeg
from tmics_space.data.rainfall import find_preset
from tmics_space.flow import DenseInverseSearch
from tmics_space.metrics.clip_meter import RAINY, ClipMeter
from tmics_space.predict import derain

FILMS = {
    "moving": (
        "davis_blackswan",
        "davis_bmx-trees",
        "davis_car-shadow",
        "davis_tennis",
        "efficienttam_desertroad",
        "vipe_dog_grass",
    ),
    "static": ("davis_schoolgirls", "gsam2_car"),
}
"""By camera; the films that the configuration `compact` tests on."""
MEDIAN = "temporal median"
BASELINES = {RAINY: lambda rainy: rainy, MEDIAN: temporal_median}
PRESETS = ("ntu", "light25", "complex25")
FILMED = "filmed-other"
"""The preset that imitates filmed rain, but that no network of the project trains on."""
ROWS, CROP = 480, (256, 320)
"""Films are scaled down to this height, and this size is cut from their middle."""
PAN, FAST = 20, "fast pan"
"""Pixels a frame, and the name of the camera that moves so over the scaled film, beside its own motion."""
QUALITY = 75
SEEDS = (101, 102, 103)
"""Of the rain; no configuration of the project uses them."""
CLEAN = "clean"
REPEATED = ("ntu", "light25", "complex25", "filmed")
"""Rains of which every seed is scored; of the others, the first."""
GAIN = {"ntu": 10.0, "light25": 12.0, "complex25": 10.0}
"""The gain in dB over the rainy input that is aimed at where the camera moves."""
RATIO = {"ntu": 0.25, "light25": 0.25, "complex25": 0.4}
UNTOUCHED = 42.0
"""The least PSNR of a clean film against itself, in dB."""
COLUMNS = ("psnr", "ssim", "off_rain", "rmse_on_rain", "rmse_off_rain", "warping_ratio")


class Protocol(NamedTuple):
    """What is scored."""

    films: Mapping[str, Sequence[Path]]
    """By camera."""
    frames: int
    start: int
    seeds: Sequence[int]
    rows: int = ROWS
    crop: tuple[int, int] = CROP


class Network(NamedTuple):
    """A method: a network, or a baseline without `module`."""

    name: str
    run: str
    version: str
    """Changes with the weights."""
    module: nn.Module | None = None

    def __call__(self, rainy: Tensor) -> Tensor:
        if self.module is None:
            return BASELINES[self.name](rainy)
        frames = int(getattr(self.module, "frames", 5))
        return torch.stack([(each.frame * 255).round().byte() for each in derain(self.module, rainy, frames=frames)])


Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds clean/FILM.mp4")
    parser.add_argument("--network", action="append", default=[], metavar="NAME=RUN", help="a run, or a model by name")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--frames", type=int, default=8, help="frames of a film")
    parser.add_argument("--start", type=int, default=10, help="first frame")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the rain")
    parser.add_argument("--film", action="append", metavar="CAMERA=FILE", help="in place of those of --root")
    arguments = parser.parse_args()
    films: dict[str, list[Path]] = {}
    for text in arguments.film or ():
        camera, _, file = text.partition("=")
        films.setdefault(camera, []).append(Path(file))
    films = films or {camera: [arguments.root / "clean" / f"{n}.mp4" for n in names] for camera, names in FILMS.items()}
    protocol = Protocol(films, arguments.frames, arguments.start, tuple(arguments.seeds))
    try:
        networks = [*(Network(name, "", "") for name in BASELINES), *map(load, arguments.network)]
        print(run(networks, protocol, arguments.out))
    except NASError as error:
        sys.exit(str(error))


def load(text: str) -> Network:
    """The network of NAME=RUN, or of RUN."""
    name, equals, target = text.partition("=")
    target = target if equals else text
    folder = model_folder(target)
    module = load_network(folder)
    return Network(
        name if equals else Path(target).name, target, f"{zlib.crc32((folder / WEIGHTS).read_bytes()):08x}", module
    )


def run(networks: Sequence[Network], protocol: Protocol, out: Path) -> str:
    """Score what is missing; write and return the table."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "rows.jsonl"
    rows = read_rows(path)
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows.values()))  # without a line that a kill has cut
    started = time.process_time()
    with path.open("a", encoding="utf-8") as file:
        for case in cases(protocol):
            lacking = [each for each in networks if key(each, case.labels) not in rows]
            if not lacking:
                continue
            for row in score(lacking, case):
                rows[row_key(row)] = row
                print(json.dumps(row), file=file, flush=True)
            told_case = ", ".join(str(case.labels[label]) for label in ("camera", "film", "rain", "seed"))
            print(f"{time.process_time() - started:6.0f} CPU s  {told_case}", file=sys.stderr)
    wanted = [key(each, case.labels) for each in networks for case in cases(protocol)]
    chosen = [rows[each] for each in wanted]
    write_csv(out / "rows.csv", chosen)
    text = "\n".join([*table(chosen), "", statement(protocol), ""])
    write_text(out / "quality.md", text)
    return text


# --- what is scored ---


class Case(NamedTuple):
    """A film with rain; `make` returns its rainy and its clean frames."""

    labels: dict[str, Any]
    make: Callable[[], tuple[Tensor, Tensor]]


def cases(protocol: Protocol) -> Iterator[Case]:
    """Every film with every rain; films are read only if `make` is called."""
    for camera, files in protocol.films.items():
        for file, name in itertools.product(files, (*RAINS, FAST, CLEAN)):
            for seed in protocol.seeds if name in REPEATED else protocol.seeds[:1]:
                labels = {
                    "camera": FAST if name == FAST else camera,
                    "rain": "filmed" if name == FAST else name,
                    "seed": seed,
                    "preset": preset_hash(name),
                    "film": file.stem,
                    "frames": protocol.frames,
                    "start": protocol.start,
                    "crop": "{}x{}".format(*protocol.crop),
                }
                yield Case(labels, functools.partial(rained, name, file, protocol, seed))


def rained(name: str, file: Path, protocol: Protocol, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rainy and the clean frames of a case."""
    frames = film(file, protocol)
    clean = panned(frames, protocol) if name == FAST else middle(frames, protocol)
    make = filmed if name == FAST else RAINS.get(name, lambda clean, _: (clean, clean))
    return make(clean, zlib.crc32(f"{file.stem}/{seed}".encode()))


def _preset(name: str) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    return lambda clean, seed: (rain(clean, name, seed), clean)


def filmed(clean: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Rain that no network of the project trains on, in JPEG files."""
    return jpeg(rain(clean, FILMED, seed), QUALITY), clean


def doubled(clean: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The same, with every third frame shown twice, as conversions between frame rates do."""
    rainy, clean = filmed(clean, seed)
    order = [frame for frame in range(len(clean)) for _ in range(2 if frame % 3 == 2 else 1)][: len(clean)]
    return rainy[order], clean[order]


RAINS: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    **{name: _preset(name) for name in PRESETS},
    "filmed": filmed,
    "filmed, doubled": doubled,
}


def preset_hash(name: str) -> str:
    """What changes with the parameters of the rain, so that rows of other rain are not taken for its own."""
    if name == CLEAN:
        return ""
    preset = find_preset(name if name in PRESETS else FILMED)
    return f"{zlib.crc32(msgspec.json.encode(preset)):08x}"


def film(file: Path, protocol: Protocol) -> Tensor:
    """The clean frames of a film, scaled down to a number of rows."""
    frames = itertools.islice(iterate_frames(file), protocol.start, protocol.start + protocol.frames)
    found = [fit(frame, (protocol.rows, -(-frame.shape[2] * protocol.rows // frame.shape[1]))) for frame in frames]
    if len(found) < protocol.frames:
        sys.exit(f"{file}: must have {protocol.start + protocol.frames} frames, got {protocol.start + len(found)}")
    return torch.stack(found)


def middle(frames: Tensor, protocol: Protocol) -> Tensor:
    """Cut a size from the middle of frames."""
    (height, width), (top, left) = protocol.crop, (0, 0)
    top, left = (max(0, side - most) // 2 for side, most in zip(frames.shape[2:], protocol.crop, strict=True))
    return frames[..., top : top + height, left : left + width].contiguous()


def panned(frames: Tensor, protocol: Protocol) -> Tensor:
    """Cut a size that moves by `PAN` pixels a frame; it is narrower if the film has no room for the way."""
    width = min(protocol.crop[1], frames.shape[3] - PAN * (len(frames) - 1))
    tall = middle(frames, protocol._replace(crop=(protocol.crop[0], frames.shape[3])))
    return torch.stack([frame[..., PAN * i : PAN * i + width] for i, frame in enumerate(tall)])


# --- rows ---


def key(network: Network, labels: Mapping[str, Any]) -> str:
    return json.dumps([network.name, network.run, network.version, labels], sort_keys=True)


def row_key(row: Row) -> str:
    return json.dumps([row["network"], row["run"], row["version"], row["case"]], sort_keys=True)


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of a file, by key; a line that a kill has cut is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row_key(row)] = row
    return found


def score(networks: Sequence[Network], case: Case) -> Iterator[Row]:
    """Score networks on a case."""
    rainy, clean = case.make()
    meter = ClipMeter("y", DenseInverseSearch() if case.labels["rain"] != CLEAN else None)
    outputs = {f"{place}": network(rainy) for place, network in enumerate(networks)}
    for index, frame in enumerate(clean):
        meter.add(frame, {RAINY: rainy[index]} | {name: output[index] for name, output in outputs.items()})
    scores = meter.scores()
    for place, network in enumerate(networks):
        found = {name: value if math.isfinite(value) else None for name, value in scores[f"{place}"].items()}
        yield {"network": network.name, "run": network.run, "version": network.version, "case": case.labels, **found}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    labels = list(rows[0]["case"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["network", "run", *labels, *COLUMNS])
        for row in rows:
            values = [row["case"][name] for name in labels]
            writer.writerow([row["network"], row["run"], *values, *(row.get(name) for name in COLUMNS)])


# --- the table ---


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table: per camera, rain and network the means over films and seeds of the rain."""
    groups: dict[tuple[str, str], dict[str, dict[str, list[Row]]]] = {}
    for row in rows:
        of_case = groups.setdefault((row["case"]["camera"], row["case"]["rain"]), {})
        of_case.setdefault(row["network"], {}).setdefault(row["run"], []).append(row)
    lines = [
        "| camera | rain | method | PSNR_Y in dB | gain | SSIM_Y | error off the rain | E ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (camera, name), methods in groups.items():
        if name == CLEAN:
            continue
        base = mean(methods[RAINY][""], "psnr")
        for method, runs in methods.items():
            each = [
                [mean(found, metric) for metric in ("psnr", "ssim", "off_rain", "warping_ratio")]
                for found in runs.values()
            ]
            psnr, ssim, off, ratio = zip(*each, strict=True)
            gains = [value - base for value in psnr]
            aim = GAIN.get(name) if camera == "moving" else None
            best = RATIO.get(name)
            cells = [
                camera,
                name,
                method + (f" ({len(runs)} seeds)" if len(runs) > 1 else ""),
                told(psnr, ".2f"),
                "" if method == RAINY else told(gains, "+.2f") + (f" (aim {aim:+.0f})" if aim else ""),
                told(ssim, ".4f"),
                told([100 * value for value in off], ".0f") + " %",
                told(ratio, ".3f") + (f" (at most {best:g})" if best and method != RAINY else ""),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Clean films against themselves (at least {UNTOUCHED:g} dB):", ""]
    lines += ["| camera | method | PSNR_Y in dB | the worst film |", "|---|---|---|---|"]
    for (camera, name), methods in groups.items():
        for method, runs in methods.items():
            if name != CLEAN or method == RAINY:
                continue
            means = [mean(found, "psnr") for found in runs.values()]
            worst = min((row["psnr"] or math.inf, row["case"]["film"]) for found in runs.values() for row in found)
            lines.append(f"| {camera} | {method} | {told(means, '.2f')} | {worst[0]:.2f} ({worst[1]}) |")
    return lines


def statement(protocol: Protocol) -> str:
    """How the scores were taken."""
    films = ", ".join(file.stem for files in protocol.films.values() for file in files)
    height, width = protocol.crop
    return (
        f"Protocol `y`, means over films and over rains of the seeds {', '.join(map(str, protocol.seeds))};"
        " clean films, doubled frames and pans have the first seed. ± is the standard deviation over trainings."
        f" {protocol.frames} frames from {protocol.start} on of each of {films}, scaled down to at most"
        f" {protocol.rows} rows and cut to at most {width}x{height}. `filmed` is the preset `{FILMED}` in JPEG files"
        f" of quality {QUALITY}; doubled: every third frame is shown twice; {FAST}: {PAN} pixels a frame beside the"
        " film's own motion. Error off the rain: its share of the squared error. E ratio: (E_warp − that of the truth)"
        " / (that of the rainy input − that of the truth)."
    )


def mean(rows: Iterable[Row], metric: str) -> float:
    """The mean of a score over rows that have it."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    return statistics.fmean(values) if values else math.nan


def told(values: Sequence[float], form: str) -> str:
    """The mean of runs and, for several, their standard deviation."""
    text = format(statistics.fmean(values), form)
    return text + (f" ± {format(statistics.stdev(values), form.lstrip('+'))}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
