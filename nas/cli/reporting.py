"""The command that writes reports of runs."""

from __future__ import annotations

from pathlib import Path

from nas.cli.app import app
from nas.cli.terminal import say
from nas.errors import ConfigError


@app.command
def report(
    run: Path, /, *others: Path, out: Path | None = None, search: Path | None = None, tensorboard: bool = False
) -> None:
    """Write a report of a run, or a comparison of several, as one HTML file without external resources.

    A run need not be finished. Searches and retrainings write a report at their end.

    Args:
        run: The folder of a search or a retraining.
        others: More folders, to compare with the first. Runs that differ in the seed alone share a line with a band.
        out: The file to write; by default report.html in the folder, or comparison.html in the current one.
        search: The search from which a retraining started, if it is not the recorded folder.
        tensorboard: Also write the run for TensorBoard, into its folder.
    """
    from nas.front.results import previews_of
    from nas.report.comparison import write_comparison
    from nas.report.page import write_report
    from nas.report.tensorboard import write_tensorboard

    if others:
        if search is not None:
            raise ConfigError(f"--search needs a single run, got {1 + len(others)}")
        say(f"comparison: {write_comparison((run, *others), out or Path('comparison.html')).path}")
    else:
        shown, reason = previews_of(run)
        say(f"report: {write_report(run, out, search=search, previews=shown).path}")
        if reason:
            say(f"without previews: {reason}")
    for folder in (run, *others) if tensorboard else ():
        say(f"tensorboard: {write_tensorboard(folder)}; view it with `tensorboard --logdir {folder}`")
