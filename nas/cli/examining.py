"""The command that examines run folders."""

from __future__ import annotations

import sys
from pathlib import Path

from nas.cli.app import app
from nas.cli.terminal import say


@app.command
def doctor(run: Path, /, *, repair: bool = False) -> None:
    """Examine a run folder: what is wrong with it, what can still be saved, and how to continue.

    The exit code is 1 if a run cannot be resumed as it is.

    Args:
        run: The folder of a search or a retraining, or a folder with several, such as that of a tuning.
        repair: Repair what can be repaired without loss: a file that differs from its copy in the checkpoint is kept
            under another name. Nothing is removed.
    """
    from nas.run.examination import examine, run_folders
    from nas.run.folder import lock

    hindered = False
    for folder in run_folders(run):
        found = examine(folder)
        if repair and any(each.repair for each in found.findings):
            with lock(folder):
                for each in found.findings:
                    if each.repair is not None:
                        each.repair()
                        say(f"{folder / each.file}: repaired")
            found = examine(folder)
        say(found.summary)
        for each in found.findings:
            say(f"  {each.file or '.'}: {each.problem}; {each.advice}")
        if found.command:
            say(f"  to continue: {found.command}")
        hindered |= any(each.hinders for each in found.findings)
    if hindered:
        sys.exit(1)
