"""Classify picture files and write a table of their classes."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nas.distributed.ranks import each
from nas.errors import ConfigError, InvalidFileError
from nas.files import write_text
from nas.kernels.finite import require_finite
from search_spaces.picture_files import list_images, read_image


def classify_files(
    classify: Callable[[Tensor], Tensor],
    source: Path,
    sink: Path,
    *,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Classify a picture file or a folder of them, and write a CSV file with `file`, `class` and `probability`.

    A failed call writes nothing.

    Args:
        classify: maps images `(batch, *shape)` uint8 to class scores `(batch, classes)`.
        source: the picture file, or a folder of them.
        sink: the CSV file to write.
        shape: the channels, height and width to which pictures are scaled and cropped.
        classes: the names of the classes.
        progress: called with the number of pictures done and the number of all pictures.

    Returns:
        `pictures`, `seconds` and `pictures_per_second`.

    Raises:
        InvalidFileError: a source cannot be read, or the sink exists or cannot be written.
        ConfigError: the sink is no .csv file.
        DivergedError: scores are not finite; nothing is written.
    """
    if sink.suffix.lower() != ".csv":
        raise ConfigError(f"{sink}: the suffix must be .csv, got '{sink.suffix}'")
    if sink.exists():
        raise InvalidFileError(f"{sink}: exists already. Remove it or choose another name")
    paths = [source] if source.is_file() else list_images(source)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class", "probability"))
    started = time.perf_counter()

    def classified(item: tuple[int, Path]) -> tuple[str, str, str]:
        number, path = item
        with torch.no_grad():
            scores = classify(read_image(path, shape).unsqueeze(0))
        require_finite(scores, f"{path}")
        (probabilities,) = scores.softmax(1)
        best = int(probabilities.argmax())
        if progress is not None:
            progress(number, len(paths))
        return path.name, classes[best], f"{probabilities[best].item():.4f}"

    rows.writerows(each(classified, enumerate(paths, start=1)))
    seconds = time.perf_counter() - started
    write_text(sink, table.getvalue())
    return {"pictures": len(paths), "seconds": seconds, "pictures_per_second": len(paths) / seconds}
