"""Searches and retrainings from Python: what the commands do, and tasks of one's own."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import nas
import processes
import shipping
import toy
from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError
from nas.front.running import default_config
from nas.run.folder import CONFIG, GENOTYPE, METRICS, ORIGIN, read_records
from nas.run.models import pack
from nas.run.observer import observed
from nas.run.validation import best_epoch

SHORT = {
    "search.steps": 12,
    "search.epochs": 3,
    "retrain.stages.backbone.steps": 4,
    "retrain.stages.averaging.steps": 2,
    "retrain.epochs": 2,
}
TEXTS = [f"{key}={value}" for key, value in SHORT.items()]


def config(**changes: Any) -> nas.Config:
    return nas.load_config(toy.CONFIG, {**SHORT, **changes})


def same(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_configuration_is_a_name_a_path_or_a_mapping(tmp_path: Path) -> None:
    data = {"space": "toy", "task": {"name": "toy"}, **_sections()}
    changes: Mapping[str, Any] = {"search.steps": 7, "options": {"channels": 2}, "search.levels.upper.warmup": None}
    found = nas.load_config(data, changes)
    assert (found.search.steps, found.options, found.search.levels["upper"].warmup) == (7, {"channels": 2}, 0.0)
    assert data == {"space": "toy", "task": {"name": "toy"}, **_sections()}, "the mapping stays as it was"
    texts = ["search.steps=7", "options={channels: 2}", "search.levels.upper.warmup=null"]
    assert nas.load_config(str(toy.CONFIG), texts) == nas.load_config(toy.CONFIG, changes) == found
    assert nas.load_config("digits").space == "digits"
    with pytest.raises(UnknownNameError, match=r"'digit' \(did you mean 'digits'\?\)"):
        nas.load_config("digit")
    with pytest.raises(InvalidFileError, match=r"search\.stops.*steps"):
        nas.load_config(toy.CONFIG, {"search.stops": 3})


def _sections() -> dict[str, Any]:
    text = nas.files.parse_yaml(toy.CONFIG.read_text(), "toy")
    return {name: text[name] for name in ("options", "search", "retrain")}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> nas.SearchResult:
    return nas.search(config(), out=tmp_path_factory.mktemp("python") / "search")


def test_a_search_is_the_command(found: nas.SearchResult, tmp_path: Path) -> None:
    arguments = ["search", str(toy.CONFIG), *TEXTS, "--out", str(tmp_path / "run"), "--import", "toy", "--quiet"]
    assert processes.finish(processes.start(*arguments)) == 0
    assert same(found.path, tmp_path / "run", METRICS, "config.yaml", "genotype.yaml", "best.yaml")
    assert found.report().path == found.path / "report.html"
    assert found.best == nas.Genotype.load(found.path / "best.yaml")
    assert found.derive().choices == found.genotype.choices
    assert [r["step"] for r in observed(found.records, "collapse")] == [4, 8, 12]
    assert nas.SearchResult(found.path).genotype == found.genotype
    assert "<svg" in str(found._repr_html_())
    assert repr(found) == f"SearchResult({str(found.path)!r})"


def test_a_result_is_that_of_a_run(tmp_path: Path) -> None:
    for kind in (nas.SearchResult, nas.RetrainResult):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            kind(tmp_path / "nothing")
    (tmp_path / "config.yaml").write_text(config().dump())
    result = nas.SearchResult(tmp_path)
    assert result.best is result._repr_html_() is None
    with pytest.raises(ConfigError, match="has not ended"):
        _ = result.genotype
    with pytest.raises(ConfigError, match="no retrained network"):
        _ = nas.RetrainResult(tmp_path).network


def test_a_run_that_is_stopped_resumes_as_if_nothing_had_happened(
    found: nas.SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C in a notebook: the step at hand ends, and the message says what to do."""
    batch, out = toy.ToyTask.batch, tmp_path / "run"

    def interrupted(self: toy.ToyTask, split: str, index: int) -> tuple[Tensor, Tensor]:
        if index == 5 and (out / METRICS).stat().st_size:
            monkeypatch.setattr(toy.ToyTask, "batch", batch)
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, split, index)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(toy.ToyTask, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt, match=rf"{re.escape(str(out))}: stopped; .* resume=True"):
            nas.search(config(), out=out)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ConfigError, match="not empty"):
        nas.search(config(), out=out)
    with pytest.raises(ConfigError, match=r"search\.steps \(was 12, now 13\)"):
        nas.search(config(**{"search.steps": 13}), out=out, resume=True)
    resumed = nas.search(config(), out=out, resume=True)
    assert same(found.path, out, METRICS, "genotype.yaml")
    assert nas.search(config(), out=out, resume=True).genotype == resumed.genotype, "also after its end"


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    results: list[nas.SearchResult] = []
    thread = threading.Thread(
        target=lambda: results.append(
            nas.search(config(**{"search.steps": 1, "search.epochs": 1}), out=tmp_path / "run")
        )
    )
    thread.start()
    thread.join()
    assert results[0].genotype.space == "toy"


def test_a_call_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fusedd"):
        nas.search(config(**{"search.levels.upper.loss": "fusedd"}), out=tmp_path / "run")
    nas.search(config(**{"search.steps": 1, "search.epochs": 1}), out=tmp_path / "run")


def test_a_retraining_takes_a_genotype_a_file_or_a_search(found: nas.SearchResult, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    found.genotype.save(file)
    results = {
        "genotype": nas.retrain(found.genotype, config(), out=tmp_path / "genotype"),
        "file": nas.retrain(file, config(), out=tmp_path / "file"),
        "result": nas.retrain(found, out=tmp_path / "result"),
        "folder": nas.retrain(str(found.path), out=tmp_path / "folder"),
    }
    networks = [result.network.state_dict() for result in results.values()]
    for network in networks[1:]:
        assert all(torch.equal(network[name], value) for name, value in networks[0].items())
    origins = {name: [r for r in result.records if r["kind"] == "origin"] for name, result in results.items()}
    assert [name for name, records in origins.items() if records] == ["result", "folder"]
    result = results["result"]
    assert result.scores == nas.evaluate(result) == nas.evaluate(tmp_path / "file")
    assert result.scores != nas.evaluate(result, split="train")
    assert "noise" in result.report().path.read_text(), "with the previews of the task"
    loaded = nas.load(tmp_path / "file")
    assert not loaded.training
    assert all(torch.equal(networks[0][name], value) for name, value in loaded.state_dict().items())
    again = nas.RetrainResult(tmp_path / "file")
    assert (again.scores, again.genotype) == (result.scores, result.genotype)
    (tmp_path / "in.txt").write_text("0.5 " * 50)
    assert nas.predict(again, tmp_path / "in.txt", tmp_path / "out.txt") == {"pictures": 1, "seed": 0}
    assert again.export().files[0] == tmp_path / "file" / "network.py"


def test_a_retraining_takes_the_folder_of_a_model_or_of_a_genotype_alone(
    found: nas.SearchResult, tmp_path: Path
) -> None:
    """These have no records, and the latter no configuration: then it is that named as the space."""
    found.genotype.save(tmp_path / "mine" / GENOTYPE)
    retrained = nas.retrain(tmp_path / "mine", config(), out=tmp_path / "net")
    model = pack(retrained.path, tmp_path / "model", shipping.card(tmp_path)).folder
    assert default_config(model) == model / CONFIG
    assert default_config(tmp_path / "mine") == "toy"
    again = nas.retrain(model, out=tmp_path / "again")
    assert again.scores == nas.retrain(model, out=tmp_path / "again", resume=True).scores == retrained.scores
    assert not [record for record in again.records if record["kind"] == ORIGIN]
    with pytest.raises(ConfigError, match=f"inherit needs .* got '{re.escape(str(model))}'"):
        nas.retrain(model, out=tmp_path / "other", inherit=True)


def test_a_retraining_inherits_from_a_search_alone(found: nas.SearchResult, tmp_path: Path) -> None:
    still = config(**{f"retrain.stages.{stage}.level.optimizer.lr": 0 for stage in ("backbone", "averaging")})
    result = nas.retrain(found, still, out=tmp_path / "net", inherit=True)
    expected = dict(found.network().named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in result.network.named_parameters())
    with pytest.raises(ConfigError, match=r"inherit needs .* got Genotype"):
        nas.retrain(found.genotype, config(), out=tmp_path / "other", inherit=True)


def test_a_retraining_of_another_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space .toy.*darts"):
        nas.retrain("darts-v2", config(), out=tmp_path / "net")


# --- tasks in Python ---


def loss(network: nn.Module, batch: Any) -> Tensor:
    return nn.functional.mse_loss(network(batch[0]), batch[1])


def pictures(count: int, seed: int) -> TensorDataset:
    x = torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, 2 * x)


def mine(**changes: Any) -> nas.Task:
    given = {"train": pictures(12, 0), "val": pictures(12, 1), "test": pictures(12, 2), "batch": 4}
    losses = {"lower": loss, "fused": loss}
    return nas.task_of(**{**given, "loss": losses, "metrics": {"error": (loss, "min")}, **changes})


OWN = {"search.levels.middle.split": "train"}


def test_a_task_from_datasets_searches_resumes_and_retrains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, whole = mine(), tmp_path / "whole"
    found = nas.search(config(**OWN), out=whole, task=task)
    errors = {record["step"]: record["error"] for record in observed(read_records(whole), "validation")}
    assert best_epoch(read_records(whole)) == min(errors, key=errors.__getitem__)
    assert found.best is not None
    steps = 0

    def stopping(self: Any, split: str, index: int) -> Any:
        nonlocal steps
        steps += split == "train"
        if steps == 9:
            raise KeyboardInterrupt
        return batch(self, split, index)

    batch = type(task).batch
    monkeypatch.setattr(type(task), "batch", stopping)
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        nas.search(config(**OWN), out=tmp_path / "run", task=task)
    monkeypatch.setattr(type(task), "batch", batch)
    with pytest.raises(ConfigError, match=r"task\.train\.samples \(was 12, now 10\)"):
        nas.search(config(**OWN), out=tmp_path / "run", task=mine(train=pictures(10, 0)), resume=True)
    nas.search(config(**OWN), out=tmp_path / "run", task=mine(), resume=True)
    assert same(whole, tmp_path / "run", METRICS, "genotype.yaml")

    result = nas.retrain(found, out=tmp_path / "net", task=task)
    assert result.scores.keys() == {"error"}
    assert result.scores == pytest.approx(nas.evaluate(result, task=task))
    assert (nas.load(tmp_path / "net")(torch.zeros(1, 2, 5, 5))).shape == (1, 2, 5, 5)
    assert found.report().path.is_file()
    assert "error ↓" in result.report().path.read_text()
    assert result.export(tmp_path / "network.py").files[0].is_file()
    assert found.derive().choices == found.genotype.choices


def test_the_command_line_says_which_task_is_missing(tmp_path: Path) -> None:
    nas.search(config(**OWN, **{"search.steps": 1, "search.epochs": 1}), out=tmp_path / "run", task=mine())
    arguments = ["search", str(tmp_path / "run" / "config.yaml"), "--resume", "--out", str(tmp_path / "run")]
    process = processes.start(*arguments, "--import", "toy", errors=tmp_path / "errors")
    assert processes.finish(process) == 2
    message = (tmp_path / "errors").read_text()
    assert "nas.run.datasets:DatasetTask" in message
    assert "resume=True" in message
    assert processes.finish(processes.start("report", str(tmp_path / "run"), "--import", "toy")) == 0


def test_what_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"inherits nas\.Task, got dict"):
        nas.search(config(), out=tmp_path / "run", task={})  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_mapping_needs_no_task_beside_one_given(tmp_path: Path) -> None:
    data = {"space": "toy", **_sections()}
    data["search"] = {**data["search"], "steps": 1, "epochs": 1}
    data["search"]["levels"]["middle"]["split"] = "train"
    assert nas.search(data, out=tmp_path / "run", task=mine()).genotype.space == "toy"


class Largest(nas.Observer):
    """Tells the largest mixing weight, and counts its own calls."""

    def __init__(self) -> None:
        self.calls = 0

    def on_epoch(self, step: int, network: Any, genotype: nas.Genotype, /) -> dict[str, float]:
        self.calls += 1
        return {"largest": max(weights.max().item() for weights in network.mixing_weights().values())}


def test_observers_of_a_search_are_recorded(tmp_path: Path) -> None:
    observer = Largest()
    found = nas.search(config(), out=tmp_path / "run", observers=[observer])
    values = [record["largest"] for record in observed(found.records, "Largest")]
    assert len(values) == observer.calls == 3
    assert values == sorted(values)
    with pytest.raises(ConfigError, match=r"nas\.Observer, got 3"):
        nas.search(config(), out=tmp_path / "other", observers=[3])  # type: ignore[list-item]


# --- supernets and genotypes ---


def test_a_space_called_with_options_alone() -> None:
    with pytest.raises(ConfigError, match=r"nas\.Supernet\(toy, channels=8\)"):
        toy.toy(channels=8)


def test_a_supernet_from_a_name_trains_and_derives() -> None:
    net = nas.Supernet("toy", channels=2)
    assert net.space is nas.find_space("toy")
    assert [id(p) for p in (*net.weights(), *net.logits())] == [id(p) for p in net.parameters()]
    genotype = net.derive()
    network, again = genotype.build(), genotype.build()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(network.parameters()), next(genotype.build(seed=1).parameters()))


def test_samples_are_genotypes_of_the_space(tmp_path: Path) -> None:
    space = nas.find_space("toy")
    generator = torch.Generator().manual_seed(0)
    drawn = [space.sample(generator, channels=2) for _ in range(30)]
    assert {str(each.choices) for each in drawn} == {
        str({"first": first, "second": second})
        for first in ("conv", "depthwise", "scale")
        for second in ("linear", "tanh")
    }
    assert drawn[0].options == {"channels": 2}
    text = drawn[0].draw(tmp_path / "cell.svg")
    assert drawn[0].choices["first"] in text
    assert "<svg" in (tmp_path / "cell.svg").read_text()
    with pytest.raises(UnknownNameError, match=r"svgg"):
        drawn[0].draw(tmp_path / "cell.svgg")
    with pytest.raises((SpaceError, UnknownNameError), match="none"):
        nas.Genotype(space="toy", choices={"first": "none", "second": "tanh"}).build()


def test_progress_is_shown_if_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brief = config(**{"search.steps": 1, "search.epochs": 1})
    nas.search(brief, out=tmp_path / "quiet")
    assert capsys.readouterr().out == ""
    nas.search(brief, out=tmp_path / "shown", progress=True)
    assert "search 1/1" in capsys.readouterr().out
    assert "rich" in sys.modules
