"""Commands that check: hypergradients against the exact ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nas.cli.app import app
from nas.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from nas.check import Accuracy, Method, Taken


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
    double: bool = False,
) -> None:
    """Compare hypergradient methods on the supernet and data of a configuration.

    Every method computes the same gradient of one level, on the same batches and dropout masks, while one level below
    responds. The table holds, against the exact unroll of the level's own optimizer: cosine and relative error of the
    whole gradient, those of what the response adds to the first-order gradient, and what one gradient takes: forward
    passes of the supernet, FLOPs over those of first order, peak memory of the tensors, seconds.

    Methods that approximate the optimum's response (neumann, conjugate_gradient, gauss_newton, implicit) are not meant
    to equal one step: compare them with more, `--steps 20`. Make the supernet small by overrides. The exit code is 1
    where an error exceeds its tolerance.

    Args:
        config: A YAML file, or the name of a configuration that comes along (`nas config` lists them).
        overrides: key.path=value, such as options.channels=4.
        method: As in a configuration, {name: neumann, terms: 20}, or a name; repeat it for more. All where absent.
        tolerance: NAME=ERROR, the largest relative error of the whole gradient for a method; repeat it for more.
        level: The level whose gradient is compared; the highest where absent.
        below: The level that responds; the lowest where absent. Others respond as configured.
        steps: How many steps of the level below the exact reference unrolls.
        after: How many steps of the search to take first.
        double: Compute in double precision: what error is left is not one of rounding.
    """
    from nas.check import Check, prepare
    from nas.config import load_config
    from nas.hypergradient import RESPONSES, response
    from nas.report.tables import table

    methods = [_method(text) for text in method or RESPONSES]
    for each in [{"name": "unrolled", "steps": steps}, *methods]:
        response(**each)
    allowed = _tolerances(tolerance or [], [each["name"] for each in methods])
    if after < 0:
        raise ConfigError(f"--after is a number of steps, at least 0, found {after}")
    loaded = load_config(config, overrides)
    levels = prepare(loaded, after=after, double=double)
    check = Check(levels, level, below, k=after, steps=steps, seed=loaded.seed)
    base: Method = {"name": "first_order"}
    first = check.taken(base)
    rows, exceeded, remarks = [], [], []
    for each in [base, check.reference, *(m for m in methods if m not in (base, check.reference))]:
        try:
            found = check.accuracy(each)
        except ConfigError as error:
            remarks.append(str(error))
            continue
        rows.append(_row(each, found, check.taken(each), first))
        limit = allowed.get(each["name"])
        if limit is not None and not found.error <= limit:
            exceeded.append(f"{_label(each)}: relative error {found.error:.4g}, allowed {limit:g}")
    title = f"Gradient of '{check.level}' where '{check.below}' responds, against {steps} exact step{'s'[: steps > 1]}"
    table(title, COLUMNS, rows)
    for remark in remarks:
        print(f"left out: {remark}")
    if exceeded:
        print("\n".join(f"nas: {line}" for line in exceeded), file=sys.stderr)
        sys.exit(1)


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
        raise ConfigError(f"--method {text}: expected a name, or a mapping such as {{name: neumann, terms: 20}}")
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
            raise ConfigError(f"--tolerance {text}: expected NAME=ERROR, such as {name}=0.1") from None
    return allowed
