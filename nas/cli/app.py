"""The application, to which modules add their commands."""

from __future__ import annotations

from importlib import metadata

from cyclopts import App, Parameter

app = App(
    name="nas",
    help="""Differentiable neural architecture search.

    From a configuration (`nas config` lists the shipped ones) to predictions of a network:

    1. `nas config NAME > my.yaml`
    2. `nas search my.yaml --out runs/search`
    3. `nas draw runs/search`
    4. `nas retrain runs/search --out runs/net`
    5. `nas predict rainy.mp4 clean.mp4 --model runs/net`
    6. `nas export runs/net`

    `--import MODULE`, before or after any command, loads your own search spaces, operations and tasks. The current
    folder is searched too. `nas COMMAND --help` explains a command.
    """,
    version=lambda: metadata.version("tmics-nas"),
    default_parameter=Parameter(negative=(), show_default=False),
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `nas.cli.main` says how to continue
)
