"""Write the records of a run for TensorBoard: scalars, pictures of mixing weights, and derived cells."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nas.draw.rendering import render
from nas.errors import ConfigError, MissingPackageError, NASError
from nas.files import writing
from nas.genotype.file import Genotype
from nas.report import history
from nas.report.pictures import describe
from nas.report.recorded import Recorded, read_run
from nas.run.observer import OBSERVER, Observer, Start

EVENTS = "events.out.tfevents.*"


class TensorBoard(Observer):
    """Observer that writes the records of a run after each epoch, for `tensorboard --logdir FOLDER`.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """

    name = "tensorboard"

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingPackageError("TensorBoard is not installed", "tensorboard") from error
        self._make_writer: Callable[[str], Any] = SummaryWriter

    def on_start(self, start: Start) -> None:
        self.open(start.folder)

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> None:
        self.update()

    def on_end(self) -> None:
        self._writer.close()

    def open(self, folder: str | Path) -> None:
        """Start over with the run in a folder. Old files of `tensorboard` in this folder are deleted.

        Raises:
            InvalidFileError: the folder cannot be written.
        """
        self._folder, self._told = Path(folder), dict[str, int]()
        self.target = self._folder / "tensorboard"
        with writing(self.target):
            for old in self.target.glob(EVENTS):
                old.unlink()
            self._writer = self._make_writer(str(self.target))

    def update(self) -> None:
        """Write the records since the last call. Raises as `read_run` and `open` do."""
        with writing(self.target):
            _write(self._writer, read_run(self._folder), self._told)
            self._writer.flush()


def write_tensorboard(folder: str | Path) -> Path:
    """Write all records of the run in a folder for TensorBoard.

    Returns:
        The folder `tensorboard` in it, whose old files are replaced.

    Raises:
        MissingPackageError: TensorBoard is not installed.
        InvalidFileError: the folder is no run, or cannot be written.
    """
    board = TensorBoard()
    board.open(folder)
    try:
        board.update()
    finally:
        board.on_end()
    return board.target


def mixing_image(mixing: dict[str, history.Mixing], index: int) -> np.ndarray:
    """Return a picture of the mixing weights at one recorded epoch, `(height, width, 3)` uint8.

    It has a row for each decision and a field for each candidate. Darker fields have higher weights.
    """
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
    """Write each series, and each kind of picture, from the position in `told` on."""

    def new(name: str, steps: Sequence[int]) -> Iterator[tuple[int, int]]:
        yield from list(enumerate(steps))[told.get(name, 0) :]
        told[name] = len(steps)

    for name, series in _scalars(run).items():
        for i, step in new(name, series.steps):
            # TensorBoard replaces `<` in the label of an edge, `2<-0`.
            writer.add_scalar(name.replace("<-", "-from-"), series.values[i], step)
    for i, step in new("mixing", next(iter(run.mixing.values())).steps if run.mixing else []):
        writer.add_image("mixing weights", mixing_image(run.mixing, i), step, dataformats="HWC")
    steps = list(run.genotypes)
    for i, step in new("genotype", steps):
        _picture(writer, run.genotypes[steps[i]], step)


def _scalars(run: Recorded) -> dict[str, history.Series]:
    scalars = {
        f"{kind}/{name}": series
        for kind in ("train", "evaluate", OBSERVER)
        for name, series in history.scalars(run.records, kind).items()
    }
    for label, mixing in run.mixing.items():
        for i, name in enumerate(mixing.candidates):
            scalars[f"mixing/{label}/{name}"] = history.Series(mixing.steps, [weights[i] for weights in mixing.weights])
    return scalars


def _picture(writer: Any, genotype: Genotype, step: int) -> None:
    """Add a picture of a genotype, or a text tree if Graphviz is missing; nothing if its space is not loaded."""
    try:
        description = describe(genotype)
        try:
            image = Image.open(io.BytesIO(cast(bytes, render(description, genotype, "png")))).convert("RGB")
            writer.add_image("genotype", np.asarray(image), step, dataformats="HWC")
        except ConfigError:
            writer.add_text("genotype", f"```\n{render(description, genotype, 'text')}\n```", step)
    except NASError:
        return
