from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.genotype.file import Genotype
from nas.report import timeline as module
from nas.report.recorded import read_run
from nas.report.timeline import ABSENT, make_timeline


def test_epochs_weights_and_what_they_would_have_derived(searched: Path) -> None:
    run = read_run(searched)
    course = make_timeline(run)
    assert course is not None
    assert course.steps == [0, 10, 20, 30, 40, 50, 60]
    assert {cell: [each.label for each in group] for cell, group in course.groups.items()} == {
        "": ["alignment", "frequency"],
        "cell": ["cell/1", "cell/2", "cell/3", "cell/4"],
    }
    alignment = course.groups[""][0]
    assert alignment.weights[0] == [0.5, 0.5]
    assert alignment.weights[-1] == run.mixing["alignment"].weights[-1]
    assert alignment.chosen[0] is None
    final = Genotype.load(searched / "genotype.yaml")
    assert alignment.candidates[alignment.chosen[-1] or 0] == final.choices["alignment"]
    assert [line.name for line in alignment.plot.lines if line.bold] == [final.choices["alignment"]]
    assert alignment.plot.level == pytest.approx(0.5 / alignment.top)


def test_equal_cells_share_their_picture(searched: Path) -> None:
    course = make_timeline(read_run(searched))
    assert course is not None
    assert course.shown[0] == {}
    assert course.shown[1:] == [{"cell": 0}] * 6, "the order of the weights is the same from the first epoch on"
    (picture,) = course.pictures
    for label in ("cell/1", "cell/4"):
        assert str(Genotype.load(searched / "genotype.yaml").choices[label]) in picture


def test_where_room_is_short_the_last_epoch_has_its_picture(
    searched: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = read_run(searched)
    other = {**run.genotypes[10].choices, "cell/1": "dense_3x3", "cell/2": "dense_5x5"}
    run.genotypes[10] = Genotype(space="tmics", choices=other, options=run.genotypes[10].options)
    whole = make_timeline(run)
    assert whole is not None
    assert len(whole.pictures) == 2
    monkeypatch.setattr(module, "BYTES", len(whole.pictures[0]) + 10)
    course = make_timeline(run)
    assert course is not None
    assert len(course.pictures) == 1
    assert course.shown[1] == {}
    assert course.shown[-1] == {"cell": 0}


def test_a_decision_that_the_genotype_lacks(searched: Path) -> None:
    run = read_run(searched)
    choices = {label: choice for label, choice in run.genotypes[60].choices.items() if label != "alignment"}
    run.genotypes[60] = Genotype(space="tmics", choices=choices)
    course = make_timeline(run)
    assert course is not None
    alignment = course.groups[""][0]
    assert alignment.chosen[-1] == ABSENT
    assert [line.name for line in alignment.plot.lines if line.bold] == []


def test_many_epochs_are_thinned(make_search: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EPOCHS", 3)
    course = make_timeline(read_run(make_search("thin")))
    assert course is not None
    assert course.steps == [0, 30, 60]


def test_a_space_that_is_not_known_has_no_pictures(folder: Path) -> None:
    course = make_timeline(read_run(folder))
    assert course is not None
    assert course.pictures == []
    assert course.note
    assert [each.candidates for each in course.groups["cell"]] == [["4", "8"]]


def test_a_retraining_has_none(retrained: Path) -> None:
    assert make_timeline(read_run(retrained)) is None
