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
from nas.cost.space_cost import costs
from nas.genotype.file import Genotype
from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.folder import Run, read_records
from nas.run.retraining import load_network
from nas.space.definition import find_space
from runs import last, run_retrain

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


def test_what_ranks_in_edges_is_shown(nas: Nas, tmp_path: Path) -> None:
    few = ("search.steps=4", "search.epochs=2", "search.levels.upper.warmup=0", "search.levels.upper.optimizer.lr=0.1")
    printed = nas("search", "digits", *few, "search.wrappers=[edge_normalization]", "--out", tmp_path / "run").out
    state = last(tmp_path / "run")["network"]
    genotype = Genotype.load(tmp_path / "run" / "genotype.yaml")
    factors = state["arch.cell/3"].softmax(0)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What ranks in-edges" in page
    for source, factor in enumerate(factors.tolist()):
        weight = state[f"arch.cell/3<-{source}"].softmax(0).max().item()  # this space has no `none`
        kept = "yes" if source in genotype.choices["cell/3"] else "no"
        shown = (kept, f"{factor:.4g}", f"{weight:.4g}", f"{factor * weight:.4g}")
        assert re.search(rf"^cell/3<-{source} +{' +'.join(shown)}$", printed, re.M)
    assert not nas("search", "toy", *SHORT, "--out", tmp_path / "toy").out.count("In-edges")


def test_limits_of_what_is_derived(nas: Nas, refused: Refused, searched: Path) -> None:
    def chosen(*limits: str) -> object:
        flags = [part for limit in limits for part in ("--at-most", limit)]
        return Genotype.parse(nas("derive", searched, *flags).out).choices["first"]

    assert chosen("conv=0", "scale=0") == "depthwise"
    assert chosen("conv=0", "depthwise=0") == "scale"
    assert "candidate of a limit 'cnv' (did you mean 'conv'?)" in refused("derive", searched, "--at-most", "cnv=0")
    assert "Expected 'int', got 'str'" in refused("derive", searched, "--at-most", "conv=few")


def test_other_policies_than_the_configured_one(nas: Nas, refused: Refused, searched: Path) -> None:
    def chosen(*flags: str) -> dict[str, object]:
        return dict(Genotype.parse(nas("derive", searched, *flags).out).choices)

    outside = 2 * 4 * 9 + 4 + 2 * 4 + 4 * 2 + 2 + 6  # of the toy network: stem, norm, head, averaging
    assert chosen("--budget", f"params={outside + 4}") == toy.CHEAPEST
    assert chosen("--policy", "budgeted", "--budget", "params=50k") == chosen("--policy", "strongest") == chosen()
    assert chosen("--policy", f"{{name: budgeted, params: {outside + 4}}}") == toy.CHEAPEST
    assert chosen("--budget", "flops=0.1M") == chosen()
    assert f"params must be at least {outside + 4}," in refused("derive", searched, "--budget", "params=9")
    other = ("--policy", "random", "--budget", "flops=1G")
    assert "policy 'budgeted', got 'random'" in refused("derive", searched, *other)
    assert "search.derivation" in refused("derive", searched, "--policy", "strngest")
    assert "got relaxation 'softmax'" in refused("derive", searched, "--policy", "threshold")
    for wrong in ("params", "params=-1", "params=1kk", "memory=5", "params=nan"):
        assert f"got '{wrong}'" in refused("derive", searched, "--budget", wrong)


def test_the_front_of_a_search(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    result = nas("derive", searched, "--pareto", "params", "--out", tmp_path / "front")
    assert result.code == 0
    found = [Genotype.load(path) for path in sorted((tmp_path / "front").glob("*.yaml"))]
    cost = costs(find_space(found[0].space).describe(**found[0].options))
    sizes = [cost.of(each.choices) for each in found]
    assert sizes == sorted(set(sizes))
    assert f"{sizes[0]:.0f}" in result.out.split()
    assert found[-1].choices == Genotype.load(searched / "genotype.yaml").choices, "at any cost: the strongest"
    nas("derive", searched, "--budget", f"params={sizes[0]:.0f}", "--out", tmp_path / "cheapest.yaml")
    assert Genotype.load(tmp_path / "cheapest.yaml").choices == found[0].choices
    picture = (tmp_path / "front" / "pareto.svg").read_text(encoding="utf-8")
    assert picture.count("<circle") == len(found)
    assert picture.count("derived by the search") == 1
    assert "new or empty folder" in refused("derive", searched, "--pareto", "params", "--out", tmp_path / "front")
    assert "--pareto must go without" in refused("derive", searched, "--pareto", "flops", "--policy", "random")


def test_policies_are_compared(nas: Nas, refused: Refused, searched: Path, tmp_path: Path) -> None:
    result = nas("derive", searched, "--compare", "--budget", "params=110")
    assert (result.code, result.err) == (0, "")
    rows = {line.split("  ")[0]: re.split(r" {2,}", line.strip()) for line in result.out.splitlines()}
    columns = rows["decision"]
    whole = Genotype.load(searched / "genotype.yaml")
    column = columns.index("strongest")
    for label, choice in whole.choices.items():
        assert re.fullmatch(rf"{choice} \(0\.\d+\)", rows[label][column])
    cost = sum(p.numel() for p in whole.build().parameters())
    assert rows["parameters"][column] == str(cost)
    assert int(rows["parameters"][columns.index("budgeted")]) <= 110
    assert result.out.splitlines()[-1].startswith("threshold: derivation 'threshold' needs mixing weights that do not")
    assert "budgeted: derivation 'budgeted' must have one budget" in nas("derive", searched, "--compare").out
    assert "without --policy" in refused("derive", searched, "--compare", "--policy", "random")
    assert "not the folder of a search" in refused("derive", tmp_path, "--compare")


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
    assert "got 'toy' too" in refused("search", "toy", "--from", searched, "--out", out)
    assert "--from FOLDER, got neither" in refused("search", "--out", out)


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


@pytest.fixture(scope="module")
def net(genotype: Path) -> Path:
    """A retrained network, and a file `in.txt` beside it."""
    (genotype.parent / "in.txt").write_text("0 " * 50)
    run_retrain(genotype.parent / "net", toy.config(*BRIEF), genotype=Genotype.load(genotype))
    return genotype.parent / "net"


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
        (Own, ["name=1e3", "strength=2"], "refused: name must be a text, got 1000.0"),
        (Own, ["name=b", "strength=1e-1", "steps=[1, 2]"], ": strength 0.1, name b, steps [1, 2]"),
        (Own, ["name=b", "steps=[a]"], "refused: steps[0] must be an integer, got ['a']"),
        (Own, [], "refused: predict of task 'toy' needs the option 'name': give name=VALUE"),
        (
            Own,
            ["name=b", "strenght=2"],
            "refused: takes no 'strenght' (did you mean 'strength'?); it takes strength, name,",
        ),
        (Own, ["name=b", "--tile", "64"], "refused: predict of task 'toy' takes no 'tile'"),
        (Plain, ["--bfloat16"], "refused: predict of task 'toy' takes no 'bfloat16'; it takes no options"),
        (Plain, ["big"], "refused: an option must be name=value, got 'big'"),
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
    weights = checkpoint.load(searched / "checkpoints" / "last.pt")["state"]["network"]
    for name, value in load_network(tmp_path / "net").named_parameters():
        assert torch.equal(value, weights[f"network.{name}"])
    assert nas("retrain", searched, *BRIEF, *STILL, "--out", tmp_path / "new").code == 0
    assert not torch.equal(load_network(tmp_path / "new").get_parameter("head.weight"), weights["network.head.weight"])
    message = refused("retrain", searched / "genotype.yaml", "--inherit", "--out", tmp_path / "file")
    assert "inherit needs the folder or the result of a search, got" in message


def test_weights_are_not_inherited_across_options(refused: Refused, searched: Path, tmp_path: Path) -> None:
    message = refused("retrain", searched, "--inherit", "retrain.options.channels=6", "--out", tmp_path / "net")
    assert "cannot be inherited across other options: genotype channels=6, supernet 4" in message


def test_a_retraining_begins_with_the_weights_of_another(
    nas: Nas, refused: Refused, genotype: Path, tmp_path: Path
) -> None:
    """Given as its folder, which is also the genotype, or as a file."""
    first = tmp_path / "first"
    assert nas("retrain", genotype, *BRIEF, "--out", first).code == 0
    ways = {"folder": (first, first), "file": (genotype, first / "weights.safetensors")}
    for name, (target, weights) in ways.items():
        assert nas("retrain", target, *BRIEF, *STILL, "--weights", weights, "--out", tmp_path / name).code == 0
        for parameter, value in load_network(first).named_parameters():
            assert torch.equal(value, load_network(tmp_path / name).get_parameter(parameter))
    assert "no retrained network" in refused("retrain", genotype, "--weights", tmp_path, "--out", tmp_path / "x")
    assert "x.safetensors" in refused("retrain", genotype, "--weights", "x.safetensors", "--out", tmp_path / "x")
    assert "inherit" in refused("retrain", first, "--inherit", "--weights", first, "--out", tmp_path / "x")


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_minutes_end_a_run_with_a_result(nas: Nas, command: str, genotype: Path, tmp_path: Path) -> None:
    target = toy.CONFIG if command == "search" else genotype
    told = nas(command, target, "task.pause=0.02", "--minutes", 0.001, "--out", tmp_path / "run").out
    assert re.search(r"stopped after step \d+ of 60, since the time is spent; --resume continues", told)
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "genotype.yaml").is_file()
    told = nas(command, target, "task.pause=0.02", "--resume", "--out", tmp_path / "run").out
    assert "60/60 (100%)" in told
    assert "stopped" not in told


def test_inheriting_from_a_retraining(nas: Nas, refused: Refused, genotype: Path, tmp_path: Path) -> None:
    nas("retrain", genotype, *BRIEF, "--out", tmp_path / "net")
    message = refused("retrain", tmp_path / "net", "--inherit", "--out", tmp_path / "other")
    assert "net must be the folder of a search, got that of a retraining" in message
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
    assert "run must be the folder of a retraining, got that of a search" in message


def test_a_learning_rate_that_was_lowered_is_told(nas: Nas, tmp_path: Path) -> None:
    lower = "search.levels.lower"
    wild = (f"{lower}.optimizer.lr=1e38", f"{lower}.backoff=1e-40", f"{lower}.patience=2")
    told = nas("search", "toy", *SHORT, *wild, "--out", tmp_path / "run", "--quiet").out
    assert "level 'lower': the learning rate was multiplied by 1e-40 after step 2, since steps before were not" in told


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
        (["toy", "search.steps=many"], "toy.yaml search.steps=many: search.steps: Expected 'int', got 'str'"),
        (["toy", "seed=\\x1b[31m"], "seed: Expected 'int', got 'str'"),
        (["toy", "options.\x1b[31mred=1"], r"unknown option of space 'toy' '\x1b[31mred'"),
        (["toy", f"space={'x' * 1_000_000}"], "characters ...]"),
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
    remedy = r"batches of 'train', 'middle', 'val' must be finite"
    assert re.search(rf"{row}; .*{remedy}\. \S+ has the batches, \S+ the state of step 13$", message)
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
        assert "nowhere: no such folder and no model of this name" in refused(*command, tmp_path / "nowhere")
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
