"""A classifier at work: pictures in, a table of classes out."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nas.errors import ConfigError, InvalidFileError
from nas.files import write_text
from nas.finite import require_finite
from search_spaces.classification.images import list_images, read_image


def classify_files(
    classify: Callable[[Tensor], Tensor],
    source: Path,
    sink: Path,
    *,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Classify a picture file, or those in a folder, and write a CSV file: `file`, `class`, `probability`.

    Args:
        classify: maps images (batch, *shape) uint8 to class scores (batch, classes).
        shape: (channels, height, width) that pictures are brought to.
        progress: called with (pictures done, pictures in all).

    Returns `pictures`, `seconds` and `pictures_per_second`. Raises `InvalidFileError` for a source that cannot be read,
    a sink that exists or cannot be written; `ConfigError` for a sink that is no .csv; `DivergedError` for scores that
    are not finite: nothing is written then.
    """
    if sink.suffix.lower() != ".csv":
        raise ConfigError(f"{sink}: the result is a table, expected a name that ends in .csv")
    if sink.exists():
        raise InvalidFileError(f"{sink}: exists already")
    paths = [source] if source.is_file() else list_images(source)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file", "class", "probability"))
    started = time.perf_counter()
    for done, path in enumerate(paths, start=1):
        with torch.no_grad():
            scores = classify(read_image(path, shape).unsqueeze(0))
        require_finite(scores, f"{path}")
        (probabilities,) = scores.softmax(1)
        best = int(probabilities.argmax())
        rows.writerow((path.name, classes[best], f"{probabilities[best].item():.4f}"))
        if progress is not None:
            progress(done, len(paths))
    seconds = time.perf_counter() - started
    write_text(sink, table.getvalue())
    return {"pictures": len(paths), "seconds": seconds, "pictures_per_second": len(paths) / seconds}
