"""The command that reports what runs did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.app import app
from nas.cli.targets import config_of
from nas.errors import ConfigError, NASError

if TYPE_CHECKING:
    from nas.task import Preview


@app.command
def report(
    run: Path, /, *others: Path, out: Path | None = None, search: Path | None = None, tensorboard: bool = False
) -> None:
    """Write a report of a run, or compare several, as one HTML file that opens anywhere and loads nothing else.

    It works on a run that is not finished, too. Searches and retrainings write theirs when they end.

    Args:
        run: The folder of a search or a retraining.
        others: More folders, to compare with the first; runs that differ in their seed alone are one line with a band.
        out: The file to write; by default report.html in the folder, or comparison.html here.
        search: The search that a retraining began with, where it is not the folder recorded.
        tensorboard: Also write the run for TensorBoard, into its folder.
    """
    from nas.report.compare import write_comparison
    from nas.report.page import write_report
    from nas.report.tensorboard import write_tensorboard

    if others:
        if search is not None:
            raise ConfigError("--search belongs to the report of one run, and several are given")
        print(f"comparison: {write_comparison((run, *others), out or Path('comparison.html')).path}")
    else:
        shown, reason = _previews(run)
        print(f"report: {write_report(run, out, search=search, previews=shown).path}")
        if reason:
            print(f"without pictures of its work: {reason}")
    for folder in (run, *others) if tensorboard else ():
        print(f"tensorboard: {write_tensorboard(folder)}; look at it with `tensorboard --logdir {folder}`")


def _previews(run: Path) -> tuple[list[Preview], str]:
    """What the task shows of a retrained network, and why it shows nothing, if so: its data may have moved."""
    from nas.retrain import WEIGHTS, load_network, previews

    if not (run / WEIGHTS).is_file():
        return [], ""
    try:
        return previews(load_network(run), config_of(run).build_task(retraining=True)), ""
    except NASError as error:
        return [], str(error)
