"""Programs that read like a user's. Nothing runs them: type checkers know the names of `nas`, and see each mistake."""

from __future__ import annotations

import nas


def right() -> None:
    config = nas.load_config("digits", {"search.steps": 200})
    found = nas.search(config, out="runs/search")
    found.genotype.draw("cell.svg")
    found.genotype.save("mine.yaml")
    found.report()
    result = nas.retrain(found.genotype, config, out="runs/network")
    scores: dict[str, float] = nas.evaluate("runs/network")
    net = nas.Supernet("darts", channels=16)
    known = (nas.__version__, result.network, scores, nas.load("runs/network")(1))
    assert [*known, net.weights(), net.logits(), net.derive().build()]


def wrong() -> None:
    nas.serch  # type: ignore[attr-defined]  # noqa: B018
    nas.search("digits")  # type: ignore[call-arg]
    nas.load(1)  # type: ignore[arg-type]
