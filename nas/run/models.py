"""Models: trained networks in folders of their own, shipped by packages and found by name.

A model is the folder of a retraining without its history: configuration, genotype and weights, and a card. Whatever
reads a retrained network from the folder of a run reads it from the folder of a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from nas.errors import ConfigError, InvalidFileError
from nas.files import convert, read_bytes, read_text, write_text, writing
from nas.registry import kind, working
from nas.run.card import CARD, Card, front_matter, missing_sections, read_card
from nas.run.config import load_config
from nas.run.folder import CONFIG, GENOTYPE, METRICS, package_version, read_records
from nas.run.retraining import WEIGHTS, load_network, weights_of
from nas.run.task import TASKS

MODELS = kind("model")


class Model(NamedTuple):
    """A model that an installed package ships, or that was registered."""

    name: str
    folder: Path
    card: Card

    @property
    def size(self) -> int:
        """The size of its weights in bytes."""
        return (self.folder / WEIGHTS).stat().st_size


class Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the author of a model states in the front matter of the card."""

    summary: str
    license: str


def model_folder(target: str | Path) -> Path:
    """Return the folder that `target` names: itself if it is a folder, else that of the model of this name.

    A name that is unknown is returned as a path, for the reader to say that it does not exist.

    Raises:
        ConfigError: the package that offers the model is broken.
    """
    name = str(target)
    return Path(target) if Path(target).is_dir() or name not in MODELS.names() else _shipped(name)


def installed_models() -> Iterator[Model]:
    """Return the models by name; one that cannot be read is left out with a warning."""
    return (model for _, model in working(MODELS.names(), _read))


def default_model() -> str:
    """Return the name of the model to use if none is named: the default of the only task that has one.

    Raises:
        ConfigError: no task has a default model, or several have one.
    """
    known = MODELS.names()
    found: dict[str, str] = {task: cls.default_model for task, cls in TASKS.working() if cls.default_model in known}
    if len(found) != 1:
        each = ", ".join(f"'{model}' of task '{task}'" for task, model in found.items())
        raise ConfigError(
            f"a model must be named: the installed packages have {each or 'no default model'}. Give --model NAME|RUN;"
            " `nas models` lists the models"
        )
    return next(iter(found.values()))


def pack(run: str | Path, folder: str | Path, card: str | Path) -> Model:
    """Make the folder of a model from that of a finished retraining.

    Args:
        run: the folder of the retraining.
        folder: the new folder of the model.
        card: a Markdown file. Its front matter states `summary` and `license`; its text has the headings `Data`,
            `Recipe`, `Scores` and `Limits`. The rest of the front matter is computed.

    Raises:
        ConfigError: the retraining has not finished, or the folder is not empty.
        InvalidFileError: the card lacks a field or a heading, or a file is damaged.
    """
    run, folder, card = Path(run), Path(folder), Path(card)
    weights = read_bytes(weights_of(run, ended=True))
    network = load_network(run)
    config = load_config(run / CONFIG)
    fields, text = front_matter(card)
    stated = convert(fields, Stated, str(card))
    if missing := missing_sections(text):
        raise InvalidFileError(f"{card}: must have the heading '{missing[0]}', got none. Write what it names below it")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"{folder}: must be a new or an empty folder")
    made = Card(
        task=str(config.task["name"]),
        summary=stated.summary,
        license=stated.license,
        package=package_version(),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        sha256=hashlib.sha256(weights).hexdigest(),
        scores=recorded_scores(run),
        text=text,
    )
    genotype = read_text(run / GENOTYPE)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(weights)
    write_text(folder / GENOTYPE, genotype)
    write_text(folder / CONFIG, msgspec.structs.replace(config, device="cpu").dump())
    made.save(folder)  # last: a folder that has a card is a model
    return Model(folder.name, folder, made)


def recorded_scores(folder: str | Path) -> dict[str, float]:
    """Return the metrics of the last evaluation of a run or, for a model, those of its card."""
    if not (Path(folder) / METRICS).is_file():
        return dict(read_card(folder).scores) if (Path(folder) / CARD).is_file() else {}
    found = [record for record in read_records(folder) if record["kind"] == "evaluate"]
    return {name: value for name, value in (found[-1] if found else {}).items() if isinstance(value, float)}


def _shipped(name: str) -> Path:
    """The folder of a registered model."""
    return Path(MODELS.find(name)())


def _read(name: str) -> Model:
    folder = _shipped(name)
    if not (folder / WEIGHTS).is_file():
        raise InvalidFileError(f"model '{name}': {folder / WEIGHTS} is missing")
    return Model(name, folder, read_card(folder))
