"""Searches in stages: what each begins with, what a genotype over fewer candidates is, and exact resumption."""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import processes
import toy
from nas.errors import ConfigError, InvalidFileError, NASError
from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Multilevel
from nas.report.page import write_report
from nas.run.carrying import carry_over, changes
from nas.run.checkpoint import save_weights
from nas.run.config import Config
from nas.run.folder import read_genotypes, read_records
from nas.run.observer import Start
from nas.run.searching import build_levels, build_supernet, derive_from, inherit_from, searched, tradeoffs_from
from nas.run.stages import Stage, stages_of, survivors
from nas.space.chooser import Kept
from nas.space.definition import find_space
from nas.supernet import Supernet
from runs import assert_equal_runs, last, run_search
from watch import Log, Stop, Stopped

UPPER = "search.levels.upper"
SHORT = ("search.steps=12", "search.epochs=4")
ANEW = (
    "search.stages={small: {epochs: 2, keep: 2}, wide: {epochs: 1, keep: 1, options: {channels: 8}}, last: {epochs: 1}}"
)
CONTINUED = "search.stages={all: {epochs: 2, keep: 2}, fewer: {epochs: 2, continues: true}}"
BOTH = {"anew": ANEW, "continued": CONTINUED}


@pytest.fixture(scope="module", params=BOTH)
def staged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A short search in stages that nothing interrupts."""
    folder = tmp_path_factory.mktemp("stages") / request.param
    config = toy.config(*SHORT, BOTH[request.param])
    run_search(folder, config)
    return config, folder


@pytest.mark.parametrize("stop", [5, 6, 7, 10])
def test_a_search_resumes_exactly_before_at_and_after_a_new_stage(
    staged: tuple[Config, Path], stop: int, tmp_path: Path
) -> None:
    config, whole = staged
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(stop))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_a_killed_search_in_stages_resumes_exactly(name: str, tmp_path: Path) -> None:
    config = toy.config("search.steps=120", "search.epochs=4", BOTH[name])
    run_search(tmp_path / "whole", config)
    (tmp_path / "config.yaml").write_text(config.dump())
    size = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    command = ["search", str(tmp_path / "config.yaml"), "--import", "toy"]
    assert processes.run_with_kills(command, tmp_path / "run", size, [0.3, 0.5, 0.52, 0.8], 3) == 0
    (tmp_path / "run" / "report.html").unlink()  # the command writes this as well
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_stage_that_continues_and_drops_nothing_is_no_stage(tmp_path: Path) -> None:
    """Schedules, ramps, batches and random numbers run through it."""
    plain = (*SHORT, f"{UPPER}.warmup=0", "search.relaxation=gumbel_soft")
    run_search(tmp_path / "one", toy.config(*plain))
    stages = "search.stages={a: {epochs: 1}, b: {epochs: 3, continues: true}}"
    run_search(tmp_path / "two", toy.config(*plain, stages))
    found = [[r for r in read_records(tmp_path / name) if r["kind"] != "stage"] for name in ("one", "two")]
    assert [r for r in found[0] if r["kind"] == "train"] == [r for r in found[1] if r["kind"] == "train"]
    assert [r for r in found[0] if r["kind"] == "mixing"] == [r for r in found[1] if r["kind"] == "mixing"]
    for name, tensor in last(tmp_path / "one")["network"].items():
        assert torch.equal(tensor, last(tmp_path / "two")["network"][name]), name


def snapshots(config: Config, folder: Path) -> list[Supernet]:
    """Copies of the supernet: at the start, after each step, and at the beginning of each later stage."""
    found: list[Supernet] = []

    class Look(Log):
        def on_stage(self, start: Start) -> None:
            self.on_start(start)

    run_search(folder, config, Look(lambda supernet: found.append(copy.deepcopy(supernet))))
    return found


def test_a_new_stage_starts_anew_over_the_survivors(tmp_path: Path) -> None:
    config = toy.config(*SHORT, ANEW)
    seen = snapshots(config, tmp_path / "run")
    assert len(seen) == 1 + 12 + 2, "the start, each step, and two later stages"
    before, begun = seen[6], seen[7]
    kept = survivors(before, 2)
    assert {label: len(names) for label, names in kept.items()} == {"first": 2, "second": 2}
    assert [begun.decisions[label].candidates for label in kept] == [tuple(names) for names in kept.values()]
    fresh = Supernet(find_space("toy").restricted(kept), seed=0, channels=8)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, begun.state_dict()[name]), name
    assert not any(logits.any() for logits in begun.logits())
    assert [len(logits) for logits in seen[-1].logits()] == [1, 1]


def test_the_weakest_are_dropped_none_like_any_other_and_of_equals_the_last() -> None:
    supernet = Supernet("darts", channels=4, cells=3, nodes=1)
    with torch.no_grad():
        for logits in supernet.logits():
            logits.copy_(torch.arange(len(logits), 0, -1.0))
        names = supernet.decisions["normal/2<-0"].candidates
        supernet.arch["normal/2<-0"][names.index("none")] = -1
        supernet.arch["normal/2<-1"].zero_()
    kept = survivors(supernet, 3)
    assert kept["normal/2<-0"] == [name for name in names if name != "none"][:3]
    assert kept["normal/2<-1"] == kept["reduce/2<-0"] == list(names[:3])
    assert survivors(supernet, None)["reduce/2<-0"] == list(names)


def test_what_continues_keeps_its_weights_and_logits(tmp_path: Path) -> None:
    seen = snapshots(toy.config(*SHORT, CONTINUED, f"{UPPER}.warmup=0"), tmp_path / "run")
    before, begun = seen[6], seen[7]
    for label, logits in begun.arch.items():
        old = before.decisions[label].candidates
        rows = [old.index(each) for each in begun.decisions[label].candidates]
        assert torch.equal(logits, before.arch[label][rows])
        assert logits.any()
    theirs = before.state_dict()
    mine = {name: value for name, value in begun.state_dict().items() if name.startswith("network.")}
    assert mine.keys() < theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_the_states_of_optimizers_follow_the_names_of_their_parameters() -> None:
    first, second = stages_of(toy.config(*SHORT, CONTINUED, f"{UPPER}.warmup=0"))
    before = levels_of(first, {})
    for k in range(6):
        before.step(k)
    assert isinstance(before.model, Supernet)
    kept = survivors(before.model, first.keep)
    after = levels_of(second, kept)
    carry_over(before, after)
    compared = 0
    for name, stepper in after.steppers.items():
        assert (stepper.skipped, stepper.in_a_row) == (0, 0)
        for parameter, value in stepper.parameters.items():
            source = before.steppers[name]
            own, old = stepper.optimizer.state[value], source.optimizer.state[source.parameters[parameter]]
            assert own.keys() == old.keys() != set()
            for key, moment in old.items():
                if parameter.startswith("arch.") and moment.dim():
                    label = parameter.removeprefix("arch.")
                    every = before.model.decisions[label].candidates
                    moment = moment[[every.index(each) for each in kept[label]]]
                assert torch.equal(own[key], moment), (parameter, key)
                assert own[key].shape in (value.shape, ())
                compared += bool(moment.any())
    assert compared > 20
    for k in range(6, 12):
        after.step(k)


def levels_of(stage: Stage, kept: Kept) -> Multilevel:
    config, space = stage.over(kept)
    return build_levels(config, build_supernet(config, space), config.build_task())


def test_further_channels_are_copies_and_a_norm_has_those_of_its_convolution() -> None:
    def supernet(k: int) -> Supernet:
        wrappers = [{"name": "partial_channels", "k": k}]
        return Supernet("darts", channels=24, cells=3, nodes=1, wrappers=wrappers, operations="darts-without-none")

    small, large = supernet(6), supernet(4)
    found = changes(small, large)
    tensors = [name for name in found if "nodes.0.0.sep_conv_3x3" in name and not name.endswith("tracked")]
    sources: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    for name in tensors:
        old, new = small.state_dict()[name], large.state_dict()[name]
        channels = torch.arange(float(len(old)))
        changed = found[name](channels.view(-1, *(1,) * (old.dim() - 1)).expand_as(old).clone())
        assert changed.shape == new.shape
        sources[len(old), len(new)].append(changed.flatten(1)[:, 0].tolist() if old.dim() > 1 else changed.tolist())
    assert sources.keys() == {(4, 6), (8, 12), (16, 24)}, "of each number of channels"
    for (before, _), each in sources.items():
        assert all(one == each[0] for one in each)
        assert each[0][:before] == list(range(before)), "the first ones are themselves"
        assert set(each[0][before:]) <= set(range(before))
    with pytest.raises(ConfigError, match=r"at least as large, got .*Set continues: false"):
        changes(large, small)


def test_what_a_run_in_stages_holds(staged: tuple[Config, Path]) -> None:
    config, folder = staged
    records = read_records(folder)
    begun = [(r["step"], r["stage"], r["decisions"]) for r in records if r["kind"] == "stage"]
    names = list(config.search.stages)
    assert [(step, name) for step, name, _ in begun] == list(zip([0, 6, 9], names, strict=False))
    sizes = [[len(left) for left in decisions.values()] for _, _, decisions in begun]
    assert sizes == [[3, 2], [2, 2], [1, 1]][: len(names)]
    state = last(folder)
    assert state["stage"] == names[-1]
    assert state["kept"] == begun[-1][2]
    whole = begun[0][2]
    for record in records:
        if record["kind"] == "mixing":
            left = next(decisions for step, _, decisions in reversed(begun) if step < max(record["step"], 1))
            for label, weights in record["weights"].items():
                assert len(weights) == len(whole[label])
                gone = [w for w, name in zip(weights, whole[label], strict=True) if name not in left[label]]
                assert not any(gone)
                assert sum(weights) == pytest.approx(1)


def test_a_genotype_over_fewer_candidates_is_one_of_the_whole_space(staged: tuple[Config, Path]) -> None:
    config, folder = staged
    final = Genotype.load(folder / "genotype.yaml")
    by_step = {step: genotype.options["channels"] for step, genotype in read_genotypes(folder).items()}
    assert by_step == ({3: 4, 6: 4, 9: 8, 12: 4} if "wide" in config.search.stages else dict.fromkeys(by_step, 4))
    network = final.build()
    assert network(torch.zeros(1, 2, 5, 5)).shape == (1, 2, 5, 5)
    for genotype in read_genotypes(folder).values():
        genotype.build()
    assert derive_from(folder) == final
    assert inherit_from(folder, final)(torch.zeros(1, 2, 5, 5)).shape == (1, 2, 5, 5)
    _, supernet, step = searched(folder)
    assert step == 12
    size = len(list(itertools.product(*(d.candidates for d in supernet.decisions.values()))))
    assert 1 <= len(tradeoffs_from(folder, "parameters")) <= size
    write_report(folder)
    assert (folder / "report.html").stat().st_size
    (folder / "report.html").unlink()


REFUSED: dict[tuple[str, ...], str] = {
    ("{a: {epochs: 3}, b: {epochs: 2}}",): r"^search.stages must have search.epochs=4 epochs together, got 5$",
    ("{a: {epochs: 2}, b: {epochs: 2, keep: 2}}",): r"stages.b.keep must be left out, because no stage follows",
    ("{a: {epochs: 2}, b: {epochs: 2, options: {cells: 11}}}",): (
        r"^search.stages.b.options: unknown option that can grow, of space 'toy' 'cells' .*; known: channels$"
    ),
    ("{a: {epochs: 2}, b: {epochs: 2, options: {channels: x}}}",): r"^search.stages.b: option 'channels'",
    ("{a: {epochs: 4, continues: true}}",): r"a.continues must be false in the first stage",
    ("{a: {epochs: 2}, b: {epochs: 2, continues: true, options: {channels: 8}}}",): (
        r"b.continues needs the options of the stage before, \{\}, got \{'channels': 8\}"
    ),
    ("{a: {epochs: 2}, b: {epochs: 2, warmup: {uper: 0}}}",): r"b.warmup: unknown level 'uper'",
    ("{a: {epochs: 2}, b: {epochs: 2, wrappers: [edge_normalization]}}",): r"stages.b: wrapper 'edge_normalization'",
    ("{a: {epochs: 2, keep: 1}, b: {epochs: 2}}", "search.at_most={scale: 0}"): r"a.keep must be at least 2",
    ("{a: {epochs: 4}}", "search.stopping=darts_plus"): r"left out with search.stopping, got both",
    ("{a: {epochs: 4}}", "start=there"): r"left out with 'start', got both",
    ("{a: {epochs: 1}, b: {epochs: 3}}", "search.steps=1"): r"b must have at least one of search.steps=1",
    ("{a: {epochs: 4}}", "search.observers=[responses]"): r"left out with search.observers\[0\], got 'responses'",
}


@pytest.mark.parametrize("changed", REFUSED)
def test_stages_that_cannot_work_are_refused_in_one_line(changed: tuple[str, ...], tmp_path: Path) -> None:
    stages, *others = changed
    with pytest.raises(NASError, match=REFUSED[changed]) as error:
        run_search(tmp_path / "run", toy.config(*SHORT, f"search.stages={stages}", *others))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_stage_from_scratch_begins_with_the_initial_weights(tmp_path: Path) -> None:
    stem = {"weight": torch.randn(4, 2, 3, 3), "bias": torch.randn(4)}
    save_weights(tmp_path / "stem.safetensors", stem)
    stages = "search.stages={all: {epochs: 2, keep: 2}, fewer: {epochs: 2}}"
    seen = snapshots(toy.config(*SHORT, stages, f"initial.stem={tmp_path}/stem.safetensors"), tmp_path / "run")
    begun = [seen[0], seen[7]]
    assert [len(supernet.decisions["first"].candidates) for supernet in begun] == [3, 2]
    for supernet in begun:
        assert torch.equal(supernet.network.get_parameter("stem.weight"), stem["weight"])


@pytest.mark.parametrize(
    ("part", "second"), [("stem", "epochs: 2, options: {channels: 8}"), ("first", "epochs: 2")], ids=["wider", "fewer"]
)
def test_initial_weights_that_a_later_stage_cannot_have_are_refused(part: str, second: str, tmp_path: Path) -> None:
    weights = build_supernet(toy.config()).network.get_submodule(part).state_dict()
    save_weights(tmp_path / "part.safetensors", weights)
    config = toy.config(
        *SHORT,
        f"search.stages={{a: {{epochs: 2, keep: 1}}, b: {{{second}}}}}",
        f"initial.{part}={tmp_path}/part.safetensors",
    )
    with pytest.raises(InvalidFileError, match=rf"^search.stages.b: .*part.safetensors: .*begins without.* '{part}'$"):
        run_search(tmp_path / "run", config)
    assert read_records(tmp_path / "run") == []


def test_each_stage_has_its_own_warm_up_and_rates(tmp_path: Path) -> None:
    """A stage from scratch has the rates of a search of its length; one that continues has those of the whole."""
    text = "{{a: {{epochs: 2}}, b: {{epochs: 2, continues: {}, warmup: {{upper: 0.5}}}}}}"
    overrides = [f"search.stages={text.format(continues)}" for continues in ("false", "true")]
    anew, on = (stages_of(toy.config("search.steps=40", "search.epochs=4", each)) for each in overrides)
    assert [(s.first, s.length, s.config.search.steps) for s in anew] == [(0, 20, 20), (0, 20, 20)]
    assert [(s.first, s.length, s.config.search.steps) for s in on] == [(0, 20, 40), (20, 20, 40)]
    starts = [[s.config.search.levels["upper"].start(s.config.search.steps) for s in plan] for plan in (anew, on)]
    assert starts == [[2, 10], [2, 30]]
    rates = [[s.config.search.levels["lower"].lr(s.first, s.config.search.steps) for s in plan] for plan in (anew, on)]
    assert rates[0] == [0.1, 0.1]
    assert rates[1] == [0.1, pytest.approx(0.05)]
    assert build_supernet(anew[0].config).options == {"channels": 4}
