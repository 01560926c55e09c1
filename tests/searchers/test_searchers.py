"""What all searchers have in common: equal seed, equal course; bad input is refused in one line."""

from __future__ import annotations

import logging
import math

import optuna
import pytest

import nas
from nas.searchers.searcher import searcher_of
from nas.space.definition import Description

SPACE = nas.find_space("nas-bench-201").describe()


def searcher(name: str, seed: int = 0, **arguments: object) -> nas.searchers.searcher.Searcher:
    return searcher_of({"name": name, **arguments}, SPACE, seed=seed)


@pytest.mark.parametrize(
    ("seed", "population", "message"), [(1, 4, "seed must be 0.*got 1"), (0, 5, "population must be 4.*got 5")]
)
def test_a_course_continues_with_its_own_settings_alone(seed: int, population: int, message: str) -> None:
    old, new = searcher("evolution", population=4), searcher("evolution", seed, population=population)
    with pytest.raises(nas.NASError, match=message):
        new.load_state_dict(old.state_dict())


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_must_be_finite(score: float) -> None:
    found = searcher("random")
    with pytest.raises(nas.NASError, match=f"must be finite, got {score} for cell") as error:
        found.tell(found.ask(), score)
    assert "\n" not in str(error.value)


def test_optuna_logs_no_study_and_keeps_its_level(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [caplog.handler])
    searcher("optuna").ask()
    assert not caplog.records
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_what_makes_no_searcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.registry.kind("searcher"), "_registered", {})

    def nothing(description: Description) -> dict[str, object]:
        return {}

    nas.register("searcher", "nothing")(nothing)
    with pytest.raises(nas.NASError, match=r"search\.searcher: 'nothing' must make .*Searcher, got dict"):
        searcher_of("nothing", SPACE, where="search.searcher")
