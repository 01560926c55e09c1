"""The command that says what a configuration takes, before it runs."""

from __future__ import annotations

import sys

from nas.cli.app import app
from nas.cli.terminal import say


@app.command
def plan(config: str, /, *overrides: str, fit: str | None = None, tries: int = 3) -> None:
    """Predict the memory and the time of a search and a retraining, before they start.

    Memory is that of the process at its peak. It is simulated, so nothing large is computed. If it suffices, a few
    steps are taken to measure the time. If not, the cheapest exact change that fits is printed, as overrides for this
    configuration, then changes that make it another search; the exit code is 1 then. The retraining is that of
    the largest of 8 genotypes drawn at random.

    Args:
        config: A YAML file, or the name of a shipped configuration (`nas config` lists them).
        overrides: key.path=value, such as task.batch=32.
        fit: The memory that should suffice, such as 8GiB or 500MB; by default what is available now.
        tries: Steps to time, of each kind: kinds differ by the levels that move. 0 for none.
    """
    from nas.front import planning
    from nas.report.tables import table
    from nas.run.config import load_config

    found = planning.plan(load_config(config, overrides), fit=fit, tries=tries)
    rows = [
        (
            work,
            each.need.parameters,
            each.need.flops / 1e9,
            _mib(each.need.tensors),
            _mib(each.need.memory),
            each.steps,
            None if each.speed is None else each.speed.step,
            None if each.speed is None else each.speed.whole / 3600,
            None if each.speed is None else each.speed.elapsed / 3600,
        )
        for work, each in found.works.items()
    ]
    costs = ("work", "parameters", "GFLOPs a step", "tensors (MiB)", "peak memory (MiB)")
    table("", (*costs, "steps", "CPU s a step", "CPU hours", "hours"), rows)
    for work, each in found.works.items():
        verdict = "fits into" if each.fits else "does not fit into"
        say(f"{work}: {verdict} {_mib(found.memory):,} MiB")
        for proposal in each.proposals:
            what = f"another {work}: {proposal.effect}" if proposal.effect else "exact"
            ratio = proposal.need.flops / max(each.need.flops, 1)
            say(f"  {proposal}\n    {_mib(proposal.need.memory):,} MiB, {ratio:.2f} of the FLOPs; {what}")
        if not each.fits and not each.proposals:
            say("  no change that was tried fits: choose fewer channels or cells, or smaller images")
    if not found.fits:
        sys.exit(1)


def _mib(count: int) -> int:
    return round(count / 2**20)
