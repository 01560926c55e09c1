"""The whole path on real frames, by the commands a user would type: search, draw, retrain, derain; then a comparison.

Everything goes to one folder, where a former demo, and nothing else, is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from generated_page import markdown_table
from nas.report.tables import table
from nas.run.config import load_config
from tmics_space.data import temporal_median
from tmics_space.data.clips import Clip
from tmics_space.data.frames import iterate_frames
from tmics_space.data.writer import write_frames
from tmics_space.metrics.protocol import evaluate_clip, find_protocol

OURS = "TMICS, searched here"
CONFIG = "compact-demo"
GOALS = {"rainy": 2.0, "temporal median": 2.0}
"""By how many dB the network is to exceed the other rows."""
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "demo.md"
QUICK = (
    "task.train.size=[48,80]",
    "task.test.size=[48,80]",
    "task.test.limit=6",
    "task.crop=32",
    "task.batch=1",
    "retrain.task={}",
)
QUICK_SEARCH = ("search.steps=6", "search.epochs=2")
MARK = ".demo"
CONTENTS = {
    "report.md": "the table and the pictures",
    "before-after.png": "rainy, temporal median, ours, truth",
    "before-after.mp4": "rainy beside derained",
    "genotype.svg": "the architecture that was found",
    "search/report.html": "how the search went",
    "network/report.html": "everything on one page, to open in a browser",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--quick", action="store_true", help="a few steps on small frames, to try the commands out")
    arguments = parser.parse_args()
    run_demo(arguments.out, arguments.seed, quick=arguments.quick)


def run_demo(out: Path, seed: int, *, quick: bool = False) -> None:
    """Run the demo into the folder `out`; its `scores.json` is what other programs read."""
    started = time.monotonic()
    prepare(out)
    search, network, rainy, derained = (out / name for name in ("search", "network", "rainy", "derained"))
    settings = (f"seed={seed}", *(QUICK if quick else ()))

    say("1. Search: three levels learn operation weights, averaging and architecture side by side")
    nas("search", CONFIG, *settings, *(QUICK_SEARCH if quick else ()), "--out", search)
    say("2. What was found")
    nas("show", search)
    nas("draw", search)
    nas("draw", search, "--out", out / "genotype.svg")
    say("3. Retrain: the derived network learns from new weights")
    before = commands_seconds()
    nas("retrain", search, *(short_stages(search) if quick else ()), "--out", network)
    retrain_seconds = commands_seconds() - before
    say("4. Derain a clip that neither search nor retraining saw")
    clip = test_clip(network)
    with write_frames(rainy) as write:
        for frame in clip.rainy[0]:
            write(frame)
    nas("predict", rainy, derained, "--model", network)

    say("5. Compare")
    outputs = {
        "rainy": clip.rainy[0],
        "temporal median": temporal_median(clip.rainy[0]),
        OURS: torch.stack(list(iterate_frames(derained))),
    }
    scores = {name: score(output, clip) for name, output in outputs.items()}
    (out / "scores.json").write_text(json.dumps({"scores": scores, "retrain_seconds": retrain_seconds}, indent=2))
    pictures(out, {**outputs, "truth": clip.frames})
    report(out, scores)
    print(f"\n{time.monotonic() - started:.0f} seconds in all. Look at:")
    for name, what in CONTENTS.items():
        print(f"  {out / name!s:<36} {what}")


def prepare(out: Path) -> None:
    """An empty folder: that of a former demo is emptied, any other that holds something is refused."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        sys.exit(f"{out}: holds something that is no demo's; give another folder by --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()


def nas(*arguments: object) -> None:
    """Show a command and run it."""
    words = [str(argument) for argument in arguments]
    print("$ nas", *words, flush=True)
    status = subprocess.run([Path(sys.executable).with_name("nas"), *words], check=False).returncode
    if status:
        sys.exit(status)


def say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def short_stages(search: Path) -> list[str]:
    """Overrides that leave two steps of each stage of retraining."""
    stages = load_config(search / "config.yaml").retrain.stages
    return [f"retrain.stages.{name}.steps=2" for name in stages]


def test_clip(run: Path) -> Clip:
    """The clip that a run's configuration keeps for the test."""
    (clip,) = load_config(run / "config.yaml").build_task().test_clips
    return clip


def commands_seconds() -> float:
    """Processor time of the commands that have run so far: unlike the clock's it is the same on a busy machine."""
    times = os.times()
    return times.children_user + times.children_system


def score(output: Tensor, clip: Clip) -> dict[str, float]:
    """PSNR and SSIM of frames (length, 3, height, width) uint8."""
    found = evaluate_clip("y", output.float() / 255, clip.frames.float() / 255)
    return {"psnr": found.psnr, "ssim": found.ssim}


def report(out: Path, scores: dict[str, dict[str, float]]) -> None:
    """Print the table and save it beside the pictures."""
    columns = ("", "PSNR_Y in dB", "SSIM_Y")
    rows = [(name, f"{each['psnr']:.2f}", f"{each['ssim']:.4f}") for name, each in scores.items()]
    table("astronaut under a moving camera, filmed-other rain, JPEG 75, all frames", columns, rows)
    gains = [
        f"{scores[OURS]['psnr'] - scores[name]['psnr']:+.2f} dB over {name} (goal: {goal:+.0f})"
        for name, goal in GOALS.items()
    ]
    statement = find_protocol("y").statement
    beside = reference_table()
    print(*gains, statement, *beside, sep="\n")
    lines = [
        "# Demo",
        "",
        *markdown_table(columns, rows),
        "",
        *(f"- {gain}" for gain in gains),
        "",
        statement,
        "",
        *beside,
    ]
    pictures_ = ["", "![rainy, median, ours, truth](before-after.png)", "", "![genotype](genotype.svg)", ""]
    (out / "report.md").write_text("\n".join(lines + pictures_), encoding="utf-8")


def reference_table() -> list[str]:
    """The committed comparison with a plain network, from the documentation."""
    lines = REFERENCE.read_text(encoding="utf-8").splitlines() if REFERENCE.exists() else []
    rows = [line for line in lines if line.startswith("|")]
    return (
        ["A plain network of equal multiply-adds, trained for equal seconds (docs/demo.md):", "", *rows] if rows else []
    )


def pictures(out: Path, clips: dict[str, Tensor]) -> None:
    """Three frames of every clip (length, 3, height, width) uint8 side by side, and a film of the first beside ours."""
    length = len(clips[OURS])
    rows = [torch.cat([clip[i] for clip in clips.values()], 2) for i in (length // 4, length // 2, 3 * length // 4)]
    grid = torch.cat(rows, 1).permute(1, 2, 0).numpy()
    image = Image.fromarray(grid).resize((2 * grid.shape[1], 2 * grid.shape[0]), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for place, name in enumerate(clips):
        pen.text((place * image.width // len(clips) + 6, 4), name, fill="white", stroke_fill="black", stroke_width=2)
    image.save(out / "before-after.png")
    with write_frames(out / "before-after.mp4") as write:
        for before, after in zip(clips["rainy"], clips[OURS], strict=True):
            write(torch.cat((before, after), 2))


if __name__ == "__main__":
    main()
