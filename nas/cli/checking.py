"""Commands that check hypergradients against exact ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nas.cli.app import app
from nas.cli.terminal import say
from nas.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from nas.hypergradient.response import Response
    from nas.run.config import Config
    from nas.run.hypergradient_comparison import Accuracy, Method, Taken


@app.command
def check_hypergradient(
    config: str,
    /,
    *overrides: str,
    method: list[str] | None = None,
    tolerance: list[str] | None = None,
    level: str | None = None,
    below: str | None = None,
    steps: int = 1,
    after: int = 0,
    moments: int = 0,
    most: int = 16,
    double: bool = False,
) -> None:
    """Compare hypergradient methods on the supernet and data of a configuration.

    Every method computes the gradient of one level while one lower level responds, on the same batches and dropout
    masks. The reference is the exact unroll of the lower level's optimizer. The table lists cosine and relative error
    of the whole gradient, and of the part that the response adds to the first-order gradient. It also lists the cost
    of one gradient: forward passes of the supernet, FLOPs relative to first order, peak memory of tensors, seconds.

    The methods neumann, conjugate_gradient, gauss_newton and implicit approximate the response of the optimum, not of
    one step. Compare them with more steps: `--steps 20`. Use overrides to make the supernet small. The exit code is 1
    if an error exceeds its tolerance.

    With `--moments` it takes the steps of the search. At so many moments it prints how much the response of each lower
    level adds to the gradient of the highest one, as a share of its first-order gradient. The rows are the configured
    method (or `--method`) and the reference. The number of steps of the reference is then doubled until the response
    changes by less than 10%.

    Args:
        config: A YAML file, or the name of a shipped configuration (`nas config` lists them).
        overrides: key.path=value, such as options.channels=4.
        method: A name, or a mapping as in a configuration, {name: neumann, terms: 20}. Repeatable. All by default.
        tolerance: NAME=ERROR, the largest relative error of the whole gradient for a method. Repeatable.
        level: The level whose gradient is compared; by default the highest.
        below: The level that responds; by default the lowest. Others respond as configured.
        steps: Steps of the lower level that the exact reference unrolls.
        after: Steps of the search to take first.
        moments: Moments of the search at which to print the shares of all levels; the last is its end.
        most: With `--moments`, the largest number of steps of the reference.
        double: Compute in double precision, to exclude rounding errors.
    """
    from nas.hypergradient.methods import create_response
    from nas.registry import kind
    from nas.report.tables import table
    from nas.run.config import load_config
    from nas.run.hypergradient_comparison import Comparison, prepare

    methods = [_method(text) for text in method or kind("hypergradient").names()]
    for each in [{"name": "unrolled", "steps": steps}, *methods]:
        create_response(each, f"--method {each['name']}")
    allowed = _tolerances(tolerance or [], [each["name"] for each in methods])
    if after < 0:
        raise ConfigError(f"--after must be at least 0 steps, got {after}")
    loaded = load_config(config, overrides)
    if moments:
        asked = {_label(each): create_response(each, "--method") for each in methods} if method else {}
        _print_shares(loaded, asked, below, moments, most, double)
        return
    levels = prepare(loaded, after=after, double=double)
    check = Comparison(levels, level, below, k=after, steps=steps, seed=loaded.seed)
    base: Method = {"name": "first_order"}
    first = check.taken(base)
    rows, exceeded, remarks = [], [], []
    for each in [base, check.reference, *(m for m in methods if m not in (base, check.reference))]:
        try:
            found = check.accuracy(each)
        except ConfigError as error:
            remarks.append(str(error))
            continue
        rows.append(_row(each, found, first if each is base else check.taken(each), first))
        limit = allowed.get(each["name"])
        if limit is not None and not found.error <= limit:
            exceeded.append(f"{_label(each)}: relative error {found.error:.4g}, allowed {limit:g}")
    title = f"Gradient of '{check.level}' where '{check.below}' responds, against {steps} exact step{'s'[: steps > 1]}"
    table(title, COLUMNS, rows)
    for remark in remarks:
        say(f"skipped: {remark}")
    if exceeded:
        say("\n".join(f"nas: {line}" for line in exceeded), error=True)
        sys.exit(1)


def _print_shares(
    config: Config, methods: dict[str, Response], below: str | None, moments: int, most: int, double: bool
) -> None:
    """Take the steps of a search, and print the shares of responses at each moment."""
    from nas.report.tables import table
    from nas.run.hypergradient_comparison import prepare, stepping
    from nas.run.response_shares import Share, shares

    steps = config.search.steps
    due = {-(-steps * (i + 1) // moments) for i in range(moments)}
    levels = prepare(config, double=double)
    columns = (*(name.replace("_", " ") for name in Share._fields), "agrees")
    for step in stepping(levels, config.seed):
        if step in due:
            found = shares(levels, step, most, methods, below=below, seed=config.seed)
            rows = [(*(None if each != each else each for each in row), "yes" if row.agrees else "no") for row in found]
            table(f"Responses as a share of the first-order gradient, after {step} of {steps} steps", columns, rows)


COLUMNS = (
    "method",
    "cosine",
    "error",
    "response cosine",
    "response error",
    "forward passes",
    "FLOPs ratio",
    "MiB",
    "seconds",
)


def _row(method: Method, found: Accuracy, taken: Taken, first: Taken) -> tuple[str | int | float | None, ...]:
    numbers = (found.cosine, found.error, found.response_cosine, found.response_error)
    shown = [None if number != number else number for number in numbers]
    work, least = taken.footprint, first.footprint
    ratio = work.flops / least.flops if least.flops else None
    return (_label(method), *shown, taken.forwards, ratio, work.memory / 2**20, work.seconds)


def _label(method: Method) -> str:
    arguments = (f"{key}={value}" for key, value in method.items() if key != "name")
    return " ".join([str(method["name"]), *arguments])


def _method(text: str) -> Method:
    from nas.files import parse_yaml

    parsed = parse_yaml(text, f"--method {text}")
    method = {"name": parsed} if isinstance(parsed, str) else parsed
    if not isinstance(method, dict) or "name" not in method:
        raise ConfigError(f"--method must be a name, or a mapping such as {{name: neumann, terms: 20}}, got '{text}'")
    return method


def _tolerances(texts: list[str], methods: list[str]) -> dict[str, float]:
    allowed = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in methods:
            raise UnknownNameError("method of --tolerance", name, methods)
        try:
            allowed[name] = float(value)
        except ValueError:
            raise ConfigError(f"--tolerance must be NAME=ERROR, such as {name}=0.1, got '{text}'") from None
    return allowed
