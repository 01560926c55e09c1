"""The records of a run for TensorBoard: scalars, pictures of the mixing weights, and the derived cells."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nas.draw import render
from nas.errors import ConfigError, InvalidFileError, NASError
from nas.genotype import Genotype
from nas.observe import INDICATORS
from nas.report import history
from nas.report.pictures import describe
from nas.report.recorded import Recorded, read_run

EVENTS = "events.out.tfevents.*"


def write_tensorboard(folder: str | Path) -> Path:
    """Write the run in a folder into its folder `tensorboard`, anew each time; returns that.

    Raises what `tensorboard` does.
    """
    with tensorboard(folder) as update:
        update()
    return Path(folder) / "tensorboard"


@contextmanager
def tensorboard(folder: str | Path) -> Iterator[Callable[[], None]]:
    """Yields a function that writes what was recorded since its last call, for `tensorboard --logdir FOLDER`.

    Raises `ConfigError` where TensorBoard is not installed, and `InvalidFileError` where the folder is no run, or
    cannot be written.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ConfigError("TensorBoard is not installed: pip install 'tmics-nas[tensorboard]'") from error
    target = Path(folder) / "tensorboard"
    told: dict[str, int] = {}
    try:
        for old in target.glob(EVENTS):
            old.unlink()
        with SummaryWriter(str(target)) as writer:

            def update() -> None:
                _write(writer, read_run(folder), told)
                writer.flush()

            yield update
    except OSError as error:
        raise InvalidFileError(f"{target}: cannot be written: {error.strerror}") from error


def mixing_image(mixing: dict[str, history.Mixing], index: int) -> np.ndarray:
    """The mixing weights at one of the recorded epochs: a row for each decision, a field for each candidate, the darker
    the heavier, (height, width, 3) uint8."""
    font = ImageFont.load_default(13)
    label = 12 + max(int(font.getlength(name)) for name in mixing)
    columns = max(len(each.candidates) for each in mixing.values())
    wide, tall = 48, 24
    image = Image.new("RGB", (label + wide * columns, tall * len(mixing)), "white")
    pen = ImageDraw.Draw(image)
    for row, (name, each) in enumerate(mixing.items()):
        pen.text((6, tall * row + 5), name, "black", font)
        for column, weight in enumerate(each.weights[index]):
            shade = round(255 * (1 - min(max(np.nan_to_num(weight), 0.0), 1.0)))
            place = (label + wide * column, tall * row, label + wide * (column + 1) - 2, tall * (row + 1) - 2)
            pen.rectangle(place, (shade, shade, 255))
            pen.text((place[0] + 10, place[1] + 4), f"{weight:.2f}", "white" if weight > 0.5 else "black", font)
    return np.asarray(image)


def _write(writer: Any, run: Recorded, told: dict[str, int]) -> None:
    """Write each series, and each kind of picture, from the point on that `told` says."""

    def new(name: str, steps: Sequence[int]) -> Iterator[tuple[int, int]]:
        yield from list(enumerate(steps))[told.get(name, 0) :]
        told[name] = len(steps)

    for name, series in _scalars(run).items():
        for i, step in new(name, series.steps):
            # The name of a node's edge, `2<-0`, has characters that TensorBoard would blank.
            writer.add_scalar(name.replace("<-", "-from-"), series.values[i], step)
    for i, step in new("mixing", next(iter(run.mixing.values())).steps if run.mixing else []):
        writer.add_image("mixing weights", mixing_image(run.mixing, i), step, dataformats="HWC")
    steps = list(run.genotypes)
    for i, step in new("genotype", steps):
        _picture(writer, run.genotypes[steps[i]], step)


def _scalars(run: Recorded) -> dict[str, history.Series]:
    scalars = {
        f"{kind}/{name}": series
        for kind in ("train", "evaluate", INDICATORS)
        for name, series in history.scalars(run.records, kind).items()
    }
    for label, mixing in run.mixing.items():
        for i, name in enumerate(mixing.candidates):
            scalars[f"mixing/{label}/{name}"] = history.Series(mixing.steps, [weights[i] for weights in mixing.weights])
    return scalars


def _picture(writer: Any, genotype: Genotype, step: int) -> None:
    """The picture of a genotype, where Graphviz is missing as a tree of text; nothing where its space is not loaded."""
    try:
        description = describe(genotype)
        try:
            image = Image.open(io.BytesIO(cast(bytes, render(description, genotype, "png")))).convert("RGB")
            writer.add_image("genotype", np.asarray(image), step, dataformats="HWC")
        except ConfigError:
            writer.add_text("genotype", f"```\n{render(description, genotype, 'text')}\n```", step)
    except NASError:
        return
