"""Commands that run, on the toy space: each one's work, and what is left where it goes wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import toy

from nas import checkpoint
from nas.config import load_config
from nas.genotype import Genotype
from nas.retrain import load_network
from nas.run import Run, read_records

SHORT = ("search.steps=12", "search.epochs=4")
BRIEF = ("retrain.stages.backbone.steps=3", "retrain.stages.averaging.steps=2")
STILL = [f"retrain.stages.{stage}.level.optimizer.lr=0" for stage in ("backbone", "averaging")]

Nas = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def genotype(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genotype") / "mine.yaml"
    Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST).save(path)
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_whole_path(nas: Nas, tmp_path: Path) -> None:
    run, net = tmp_path / "search", tmp_path / "net"
    result = nas("search", "toy", *SHORT, "--out", run)
    assert (result.code, result.err) == (0, "")
    genotype = Genotype.load(run / "genotype.yaml")
    assert "search 12/12 (100%)" in result.out
    for label, choice in genotype.choices.items():
        assert re.search(rf"^{label} +{choice} +0\.\d+$", result.out, re.M)
    assert genotype.provenance is not None
    labels = genotype.provenance.undecided
    undecided = f"undecided: {len(labels)} of 2 decisions ({', '.join(labels)})\n" if labels else ""
    assert result.out.endswith(f"genotype: {run}/genotype.yaml\nreport: {run}/report.html\n{undecided}")
    assert '<th scope="row">first</th>' in (run / "report.html").read_text()
    assert load_config(run / "config.yaml") == toy.config(*SHORT)

    assert nas("derive", run) == (0, (run / "genotype.yaml").read_text(), undecided)
    assert nas("derive", run, "--out", tmp_path / "derived.yaml") == (0, "", undecided)
    assert Genotype.load(tmp_path / "derived.yaml") == genotype

    result = nas("retrain", run, *BRIEF, "--out", net)
    assert (result.code, result.err) == (0, "")
    assert "retrain 5/5 (100%)" in result.out
    assert result.out.endswith(f"report: {net}/report.html\n")
    text = (net / "report.html").read_text()
    assert 'id="before-after"' in text, "the task shows previews"
    assert 'id="timeline"' in text, "that of the search"
    assert load_config(net / "config.yaml") == toy.config(*SHORT, *BRIEF), "that of the search, with the overrides"
    assert Genotype.load(net / "genotype.yaml") == genotype
    (evaluated,) = [record for record in read_records(net) if record["kind"] == "evaluate"]
    assert re.search(rf"^score +{evaluated['score']:.4g}$", result.out, re.M)

    result = nas("evaluate", net)
    assert (result.code, result.err) == (0, "")
    assert re.search(rf"^score +{evaluated['score']:.4g}$", result.out, re.M)
    assert nas("evaluate", net, "seed=5").out != result.out, "other data"

    x = torch.randn(3, 2, 5, 5)
    (tmp_path / "in.txt").write_text(" ".join(map(str, x.flatten().tolist())))
    result = nas("predict", tmp_path / "in.txt", tmp_path / "out.txt", "--model", net)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{tmp_path}/out.txt: pictures 3, seed 0\n"
    y = torch.tensor([float(number) for number in (tmp_path / "out.txt").read_text().split()])
    torch.testing.assert_close(y, load_network(net)(x).flatten())


def test_what_is_undecided_is_said(nas: Nas, tmp_path: Path) -> None:
    still = "search.levels.upper.optimizer.lr=0"
    line = "undecided: 2 of 2 decisions (first, second)"
    assert nas("search", "toy", *SHORT, still, "--out", tmp_path / "run").out.splitlines()[-1] == line
    assert nas("derive", tmp_path / "run").err == f"{line}\n"
    assert "\nundecided: first, second\n" in nas("show", tmp_path / "run").out
    assert "2 of 2 decisions are undecided" in (tmp_path / "run" / "report.html").read_text()


def test_limits_of_what_is_derived(nas: Nas, refused: Refused, searched: Path) -> None:
    def chosen(*limits: str) -> object:
        flags = [part for limit in limits for part in ("--at-most", limit)]
        return Genotype.parse(nas("derive", searched, *flags).out).choices["first"]

    assert chosen("conv=0", "scale=0") == "depthwise"
    assert chosen("conv=0", "depthwise=0") == "scale"
    assert "candidate of a limit 'cnv' (did you mean 'conv'?)" in refused("derive", searched, "--at-most", "cnv=0")
    assert "Expected 'int', got 'str'" in refused("derive", searched, "--at-most", "conv=few")


def test_a_new_run_from_another(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    result = nas("search", "seed=3", "--from", searched, "--steps", "6", "--out", tmp_path / "more")
    assert (result.code, result.err) == (0, "")
    found = load_config(tmp_path / "more" / "config.yaml")
    assert (found.start, found.seed, found.search.steps, found.search.epochs) == (str(searched), 3, 6, 4)
    first = next(record for record in read_records(tmp_path / "more") if record["kind"] == "mixing")
    last = [record for record in read_records(searched) if record["kind"] == "mixing"][-1]
    assert first["weights"] == last["weights"]
    shown = nas("show", tmp_path / "more").out
    assert f"source: a search that started from the last state of {searched}\n" in shown
    out = tmp_path / "x"
    assert "which has no config.yaml" in refused("search", "--from", tmp_path, "--out", out)
    assert "leave 'toy' out" in refused("search", "toy", "--from", searched, "--out", out)
    assert "needs a configuration, or --from" in refused("search", "--out", out)


def test_several_seeds_and_one_report(nas: Nas, refused: Refused, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    command = ("search", "toy", *SHORT, "--out", out)
    result = nas(*command, "--seeds", "0..1,4")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(f"comparison: {out}/comparison.html\n")
    seeds = {path.name: load_config(path / "config.yaml").seed for path in out.iterdir() if path.is_dir()}
    assert seeds == {"seed-0": 0, "seed-1": 1, "seed-4": 4}
    page = (out / "comparison.html").read_text()
    assert all(f"runs/{name}" in page for name in seeds)
    assert nas("search", "toy", *SHORT, "seed=1", "--out", tmp_path / "alone").code == 0
    assert Genotype.load(out / "seed-1" / "genotype.yaml") == Genotype.load(tmp_path / "alone" / "genotype.yaml")
    shutil.rmtree(out / "seed-4")
    before = contents(out / "seed-0")
    assert nas(*command, "--seeds", "0..1,4", "--resume").code == 0
    after = contents(out / "seed-0")
    assert {path for path in before if before[path] != after[path]} <= {out / "seed-0" / "report.html"}
    assert Genotype.load(out / "seed-4" / "genotype.yaml").provenance is not None
    for wrong in ("0..", "a", "-1", "3", "1,1", "4..2"):
        assert f"got '{wrong}'" in refused(*command[:-1], tmp_path / "none", f"--seeds={wrong}")
    assert not (tmp_path / "none").exists()


def test_quiet_shows_no_progress(nas: Nas, tmp_path: Path) -> None:
    assert "12/12" not in nas("search", "toy", *SHORT, "--out", tmp_path / "s", "--quiet").out
    assert "5/5" not in nas("retrain", tmp_path / "s", *BRIEF, "--out", tmp_path / "n", "--quiet").out


def test_overrides_reach_the_run(nas: Nas, tmp_path: Path) -> None:
    nas("search", "toy", *SHORT, "search.levels.upper.optimizer.lr=0", "seed=9", "--out", tmp_path / "run")
    found = load_config(tmp_path / "run" / "config.yaml")
    assert (found.seed, found.search.levels["upper"].optimizer.lr) == (9, 0)
    mixing = [record["weights"] for record in read_records(tmp_path / "run") if record["kind"] == "mixing"]
    assert mixing[0] == mixing[-1]


def test_derive_from_an_unfinished_search(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    (tmp_path / "run" / "genotype.yaml").unlink()
    assert nas("derive", tmp_path / "run").out == (searched / "genotype.yaml").read_text()
    message = refused("draw", tmp_path / "run")
    assert message.endswith("`nas derive` writes that of an unfinished search")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert "no checkpoint yet" in refused("derive", tmp_path / "run")
    assert "nowhere: not the folder of a search" in refused("derive", tmp_path / "nowhere")


# What a task's `predict` takes


@pytest.fixture
def net(nas: Nas, genotype: Path, tmp_path: Path) -> Path:
    """A retrained network, and a file `in.txt` beside it."""
    (tmp_path / "in.txt").write_text("0 " * 50)
    assert nas("retrain", genotype, *BRIEF, "--out", tmp_path / "net", "--quiet").code == 0
    return tmp_path / "net"


def told(**arguments: Any) -> dict[str, Any]:
    """The arguments of a call as facts, each but the function for the progress."""
    return {name: value for name, value in arguments.items() if not callable(value)}


class Plain:
    def predict(self, network: Any, source: Path, sink: Path) -> None:
        sink.write_text("nothing")


class Own:
    def predict(
        self,
        network: Any,
        source: Path,
        sink: Path,
        *,
        strength: float = 1.0,
        name: str,
        steps: list[int] | None = None,
    ) -> dict[str, Any]:
        return told(strength=strength, name=name, steps=steps)


class Known:
    def predict(self, network: Any, source: Path, sink: Path, tile: int | None, bfloat16: bool) -> dict[str, Any]:
        return told(tile=tile, bfloat16=bfloat16)


class Everything:
    def predict(self, network: Any, source: Path, sink: Path, **options: Any) -> dict[str, Any]:
        return told(**options)


@pytest.mark.parametrize(
    ("kind", "arguments", "facts"),
    [
        (Plain, [], ""),
        (Own, ["name=a"], ": strength 1, name a, steps None"),
        (Own, ["name=1e3", "strength=2"], "refused: name: Expected 'str', got 'float', got 1000.0"),
        (Own, ["name=b", "strength=1e-1", "steps=[1, 2]"], ": strength 0.1, name b, steps [1, 2]"),
        (Own, ["name=b", "steps=[a]"], "refused: steps: Expected 'int', got 'str'"),
        (Own, [], "refused: predict of task 'toy' needs the option 'name': give name=VALUE"),
        (
            Own,
            ["name=b", "strenght=2"],
            "refused: takes no 'strenght' (did you mean 'strength'?); it takes strength, name,",
        ),
        (Own, ["name=b", "--tile", "64"], "refused: predict of task 'toy' takes no 'tile'"),
        (Plain, ["--bfloat16"], "refused: predict of task 'toy' takes no 'bfloat16'; it takes no options"),
        (Plain, ["big"], "refused: 'big' is not an option: expected name=value"),
        (Known, [], ": tile None, bfloat16 0"),
        (Known, ["--tile", "64", "--bfloat16"], ": tile 64, bfloat16 1"),
        (Known, ["tile=64"], ": tile 64, bfloat16 0"),
        (Everything, ["mine=3"], ": tile None, bfloat16 0, mine 3"),
    ],
)
def test_predict_gets_what_its_signature_takes(
    kind: type[Plain],
    arguments: list[str],
    facts: str,
    nas: Nas,
    refused: Refused,
    net: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(toy.ToyTask, "predict", kind.predict)
    command = ["predict", net.parent / "in.txt", net.parent / "out.txt", *arguments, "--model", net, "--quiet"]
    if facts.startswith("refused: "):
        assert facts.removeprefix("refused: ") in refused(*command)
    else:
        assert nas(*command) == (0, f"{net.parent}/out.txt{facts}\n", "")


def test_a_task_that_cannot_predict(refused: Refused, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(toy.ToyTask, "predict")
    message = refused("predict", net.parent / "in.txt", net.parent / "out.txt", "--model", net)
    assert "task 'toy' cannot predict: ToyTask has no method predict(network, source, sink)" in message


# Where a retraining begins


def test_a_genotype_file_takes_the_configuration_named_as_its_space(nas: Nas, genotype: Path, tmp_path: Path) -> None:
    assert nas("retrain", genotype, *BRIEF, "--out", tmp_path / "net").code == 0
    assert load_config(tmp_path / "net" / "config.yaml") == toy.config(*BRIEF)
    other = tmp_path / "other.yaml"
    other.write_text(toy.CONFIG.read_text() + "seed: 4\n")
    assert nas("retrain", genotype, *BRIEF, "--config", other, "--out", tmp_path / "other").code == 0
    assert load_config(tmp_path / "other" / "config.yaml").seed == 4


def test_inherited_weights_are_those_of_the_search(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    assert nas("retrain", searched, "--inherit", *BRIEF, *STILL, "--out", tmp_path / "net").code == 0
    weights = checkpoint.load(searched / "checkpoints" / "last.pt")["state"]["supernet"]
    for name, value in load_network(tmp_path / "net").named_parameters():
        assert torch.equal(value, weights[f"network.{name}"])
    assert nas("retrain", searched, *BRIEF, *STILL, "--out", tmp_path / "new").code == 0
    assert not torch.equal(load_network(tmp_path / "new").get_parameter("head.weight"), weights["network.head.weight"])
    message = refused("retrain", searched / "genotype.yaml", "--inherit", "--out", tmp_path / "file")
    assert "--inherit takes weights from the folder of a search, found" in message


def test_weights_are_not_inherited_across_options(refused: Refused, searched: Path, tmp_path: Path) -> None:
    message = refused("retrain", searched, "--inherit", "retrain.options.channels=6", "--out", tmp_path / "net")
    assert "cannot be inherited across other options: genotype channels=6, supernet 4" in message


def test_inheriting_from_a_retraining(nas: Nas, refused: Refused, genotype: Path, tmp_path: Path) -> None:
    nas("retrain", genotype, *BRIEF, "--out", tmp_path / "net")
    message = refused("retrain", tmp_path / "net", "--inherit", "--out", tmp_path / "other")
    assert "net: not the folder of a search, but of a retraining" in message
    assert not (tmp_path / "other").exists()


# Folders


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_a_folder_that_is_not_empty_stays_untouched(
    command: str, refused: Refused, searched: Path, genotype: Path, tmp_path: Path
) -> None:
    shutil.copytree(searched, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    before = contents(tmp_path)
    what = "toy" if command == "search" else genotype
    assert "run: not empty; continue the run in it with --resume" in refused(command, what, "--out", tmp_path / "run")
    assert "mine: not empty" in refused(command, what, "--out", tmp_path / "mine")
    assert contents(tmp_path) == before


def test_resume_names_what_is_nowhere_or_another(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    assert "no run to resume" in refused("search", "toy", "--out", tmp_path / "new", "--resume")
    shutil.copytree(searched, tmp_path / "run")
    before = contents(tmp_path)
    message = refused("search", "toy", *SHORT, "seed=3", "task.batch=2", "--out", tmp_path / "run", "--resume")
    assert "seed (was 0, now 3)" in message
    assert "task.batch (was not set, now 2)" in message
    assert "search.steps" not in message
    assert contents(tmp_path) == before
    assert nas("search", "toy", *SHORT, "--out", tmp_path / "run", "--resume").code == 0
    message = refused("retrain", searched, "--out", tmp_path / "run", "--resume")
    assert "run: not the folder of a retraining, but of a search" in message


def test_a_run_of_another_process(refused: Refused, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    with Run.open(tmp_path / "run"):
        message = refused("search", "toy", *SHORT, "--out", tmp_path / "run", "--resume")
    assert "another process is using it" in message


@pytest.mark.filterwarnings("default")
def test_a_damaged_checkpoint(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    last, previous = (tmp_path / "run" / "checkpoints" / name for name in ("last.pt", "previous.pt"))
    last.write_bytes(b"PK garbage")
    result = nas("derive", tmp_path / "run")
    assert (result.code, result.out) == (0, (searched / "genotypes" / "step-000009.yaml").read_text())
    assert re.fullmatch(
        r"nas: warning: .*last\.pt: damaged, .*; reading previous\.pt, .* before it\n(undecided: .*\n)?", result.err
    )
    kept = previous.read_bytes()
    previous.write_bytes(b"")
    before = contents(tmp_path)
    for command in (["search", "toy", *SHORT, "--resume", "--out"], ["derive"]):
        assert "last.pt: damaged, or no checkpoint" in refused(*command, tmp_path / "run")
    assert contents(tmp_path) == before
    previous.write_bytes(kept)
    result = nas("search", "toy", *SHORT, "--resume", "--out", tmp_path / "run", "--quiet")
    assert result.code == 0
    assert re.fullmatch(r"nas: warning: .*last\.pt: damaged, .*; resuming from previous\.pt, .* it\n", result.err)
    for name in ("metrics.jsonl", "genotype.yaml"):
        assert (tmp_path / "run" / name).read_bytes() == (searched / name).read_bytes()


def test_what_cannot_begin_leaves_no_run(nas: Nas, refused: Refused, genotype: Path, tmp_path: Path) -> None:
    """Once the mistake is mended, the same command works."""
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "there", tmp_path / "new"):
        for command, mistake in (
            (["search", "toy", *SHORT], "search.levels.upper.loss=fusd"),
            (["search", "toy", *SHORT], "task.batsh=1"),
            (["retrain", str(genotype), *BRIEF], "retrain.stages.averaging.level.split=none"),
        ):
            assert "unknown" in refused(*command, mistake, "--out", out)
            assert "no run to resume" in refused(*command, mistake, "--out", out, "--resume")
    assert nas("search", "toy", *SHORT, "--out", tmp_path / "there").code == 0
    assert nas("retrain", genotype, *BRIEF, "--out", tmp_path / "new").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toi"], "unknown configuration 'toi' (did you mean 'toy'?)"),
        (["nowhere.yaml"], "nowhere.yaml: no such file; shipped configurations: "),
        (["toy", "serch.steps=5"], "unknown field 'serch' (did you mean 'search'?)"),
        (["toy", "search.steps=many"], "toy.yaml search.steps=many: search.steps: Expected 'int', got 'str'"),
        (["toy", "search.steps"], "'search.steps' is not an override: expected key.path=value"),
        (["toy", "options.chanels=2"], "unknown option of space 'toy' 'chanels' (did you mean 'channels'?)"),
        (["toy", f"seed={2**70}"], "64 bits"),
        (["toy", "seed=-1"], "seed: Expected 'int' >= 0"),
        (["toy", "seed=\\x1b[31m"], "seed: Expected 'int', got 'str'"),
        (["toy", "options.\x1b[31mred=1"], r"unknown option of space 'toy' '\x1b[31mred'"),
        (["toy", f"space={'x' * 1_000_000}"], "characters ...]"),
        (["toy", "space=tiy"], "unknown search space 'tiy' (did you mean 'toy'?)"),
        (["toy", "search.levels.upper.optimizer.name=adan"], "adan"),
    ],
)
def test_configurations_that_are_wrong(arguments: list[str], message: str, refused: Refused, tmp_path: Path) -> None:
    assert message in refused("search", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# On the way


def test_losses_that_are_not_numbers(nas: Nas, refused: Refused, genotype: Path, tmp_path: Path) -> None:
    command = ["search", "toy", "task.broken=3", "--out", tmp_path / "run", "--quiet"]
    message = refused(*command)
    row = (
        r"level 'lower' since step 3: 10 steps in a row not finite \(loss nan, gradient norm nan, first in its batch\)"
    )
    remedy = r"look at the data: the task's batches of 'train', 'middle', 'val' must be finite"
    assert re.search(f"{row}; .*; {remedy}$", message)
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["state"]["step"] == 13
    assert "level 'lower' since step 3: 11 steps" in refused(*command, "--resume"), "it goes on where it stopped"
    assert nas("derive", tmp_path / "run").code == 0
    command = ["retrain", genotype, "task.broken=3", "--out", tmp_path / "net", "--quiet"]
    assert "level 'backbone' since step 3: 10 steps" in refused(*command)
    assert "net: no retrained network" in refused("evaluate", tmp_path / "net")


def test_models_that_are_none(refused: Refused, searched: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("0")
    predict = ["predict", tmp_path / "in.txt", tmp_path / "out.txt", "--model"]
    for command in (["evaluate"], predict):
        assert "nowhere: no such folder; expected that of a run" in refused(*command, tmp_path / "nowhere")
        assert "search: no retrained network (it has no weights.safetensors)" in refused(*command, searched)
    assert not (tmp_path / "out.txt").exists()


def test_a_genotype_that_cannot_be_written(refused: Refused, searched: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refused("derive", searched, "--out", tmp_path / "file" / "a.yaml")
    assert "file/a.yaml: cannot be written: " in message


def test_flags_and_overrides_come_in_any_order(nas: Nas, tmp_path: Path) -> None:
    words = ["search.steps=2", "--quiet", "search.epochs=1"]
    for number, arguments in enumerate((["toy", *words, "--out"], ["toy", "--out"], ["--quiet", "--out"])):
        out = tmp_path / str(number)
        rest = {0: [], 1: words, 2: ["toy", *words[::2]]}[number]
        assert nas("search", *arguments, out, *rest).code == 0
        assert load_config(out / "config.yaml") == toy.config("search.steps=2", "search.epochs=1")
