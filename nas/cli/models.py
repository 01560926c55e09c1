"""Commands on models: list them, show the card of one, make one of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nas.cli.app import app
from nas.cli.terminal import say

models = App(name="models", help="List the models that can be used by name, show the card of one, or make one.")
app.command(models)


@models.default
def show_models(name: str | None = None, /) -> None:
    """List the models that can be used by name, or print the card of one.

    Args:
        name: The name of a model, or its folder; by default all models are listed.
    """
    from nas.report.tables import table
    from nas.run.card import read_card
    from nas.run.models import MODELS, installed_models, model_folder

    if name is not None:
        folder = model_folder(name)
        say(read_card(folder if folder.is_dir() else MODELS.find(name)()).dump(), end="")
        return
    rows = [
        (m.name, m.card.task, f"{m.card.parameters:,}", f"{m.size / 1000:.0f} kB", m.card.license, m.card.summary)
        for m in installed_models()
    ]
    table("Models", ("name", "task", "parameters", "size", "licence", "what it does"), rows)


@models.command
def pack(
    run: Path, folder: Path, /, *, card: Annotated[Path, Parameter(help="Markdown about the model; see above.")]
) -> None:
    """Make the folder of a model: configuration, genotype and weights of a finished retraining, and a card.

    The card is a Markdown file. It begins with `summary` and `license` between two lines `---`; its text has the
    headings Data, Recipe, Scores and Limits.

    Args:
        run: The folder of a retraining.
        folder: The new folder.
    """
    from nas.run.models import pack as packed

    made = packed(run, folder, card)
    say(f"{folder}: {made.card.parameters:,} parameters, {made.size / 1000:.0f} kB")
