"""Evaluation on files: what methods wrote, beside what networks write, against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nas.errors import ConfigError, InvalidFileError
from nas.files import listed
from nas.front.targets import config_of
from nas.report.live import predict_view
from nas.report.progress import watched
from nas.report.scoring_page import write_scoring
from nas.run.models import model_folder
from nas.run.retraining import load_network
from nas.run.scoring import Files, Scoring, score_files, scores_files
from nas.run.task import TASKS

Named = Mapping[str, str | Path]


def evaluate_files(
    truth: str | Path,
    outputs: Named | None = None,
    *,
    out: str | Path,
    source: str | Path | None = None,
    models: Named | None = None,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Scoring:
    """Score what methods wrote, and what networks write, on equal terms; write a page and two CSV files.

    Args:
        truth: what the outputs should be. TMICS takes a video, a folder of frames, or a folder of these.
        outputs: of each method, by its name.
        out: the folder to write, new or empty: `evaluation.html`, the CSV files, and the outputs of networks.
        source: the input of the methods, such as the rainy video. Models need it.
        models: folders of retrainings or names of models, by the names of their columns.
        task: the name of the task; by default that of the models, or the only one that can score files.
        options: of the task, such as `{"protocol": "nturain"}`.
        progress: whether to show progress; by default in terminals and notebooks only.

    Returns:
        The scores.

    Raises:
        ConfigError: there is nothing to score, two methods have one name, or the task cannot score files.
        InvalidFileError: files cannot be read or do not match, or `out` is not empty.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> for folder, colour in (("clean", 90), ("derained", 100)):
        ...     Path(folder).mkdir()
        ...     for frame in range(2):
        ...         Image.new("RGB", (16, 16), (colour, colour, colour)).save(f"{folder}/{frame}.png")
        >>> found = nas.evaluate_files("clean", {"ours": "derained"}, out="evaluation", options={"temporal": False})
        >>> ours = found.totals["ours"]
        >>> round(ours["psnr"], 2)
        29.45
    """
    outputs, out = dict(outputs or {}), Path(out)
    models = {name: model_folder(model) for name, model in (models or {}).items()}
    if not outputs and not models:
        raise ConfigError("evaluation needs outputs of a method or a model, got neither")
    for name in [*models, *outputs]:
        if name in (".", "..") or not name.strip() or "/" in name or "\\" in name:
            raise ConfigError(f"the name of a method must be a name for a folder, got '{name}'. Give NAME=FOLDER")
    if repeated := outputs.keys() & models.keys():
        raise ConfigError(f"names of methods must be unique, got '{min(repeated)}' twice. Give NAME=FOLDER")
    if out.exists() and (not out.is_dir() or listed(out)):
        raise InvalidFileError(f"{out}: must be a new or empty folder. Remove it or choose another --out")
    found = _task(task, models)
    files = Files(
        Path(truth),
        {name: Path(path) for name, path in outputs.items()},
        None if source is None else Path(source),
        {name: _network(path) for name, path in models.items()},
        out,
    )
    with predict_view(quiet=not watched(progress), title="evaluate") as update:
        scoring = score_files(TASKS.find(found), found, files, options or {}, update)
    write_scoring(scoring, out)
    return scoring


def named(texts: Sequence[str], what: str) -> dict[str, str]:
    """Return the paths in texts `NAME=PATH`, or `PATH` named after its last part, a file without its suffix; raises
    `ConfigError`."""
    paths: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            last = Path(text).resolve()
            name, path = last.name if last.is_dir() else last.stem, text
        if name in paths:
            raise ConfigError(f"{what}: names must be unique, got '{name}' twice. Give NAME=FOLDER")
        paths[name] = path
    return paths


def _task(given: str | None, models: Named) -> str:
    """Return the name of the task of an evaluation."""
    names = {str(config_of(folder).task.get("name", "")) for folder in models.values()}
    if given is not None:
        return given
    if len(names) > 1:
        raise ConfigError(f"models must have one task, got {', '.join(sorted(names))}")
    if not names:
        names = {name for name, each in TASKS.working() if scores_files(each)}
        if len(names) != 1:
            raise ConfigError(f"task must be given, one of {', '.join(sorted(names)) or 'none that can score files'}")
    return names.pop()


def _network(folder: str | Path) -> nn.Module:
    return load_network(folder).to(config_of(folder).torch_device())
