from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.files import dump_yaml
from nas.run.config import load_config
from nas.run.retraining import previews
from nas.run.task import TASKS
from tmics_space import task as task_module
from tmics_space.data import Clip, moving_texture, rain, write_frames
from tmics_space.data.clips import Batch
from tmics_space.data.rainfall import rain_statistics
from tmics_space.data.sources import Films
from tmics_space.flow import DenseInverseSearch
from tmics_space.losses import temporal_loss
from tmics_space.metrics import evaluate_clip, find_protocol, ssim, tof, warping_error
from tmics_space.network import Restored
from tmics_space.predict import Derained, derain
from tmics_space.task import SPLITS, DerainConfig, DerainTask


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Five folders of 6 frames of 24x28."""
    folder = tmp_path_factory.mktemp("films")
    for seed, name in enumerate("abcde"):
        with write_frames(folder / name) as write:
            for frame in moving_texture(6, 24, 28, seed):
                write(frame)
    return {name: str(folder / name) for name in "abcde"}


@pytest.fixture
def build(films: dict[str, str]) -> Callable[..., DerainTask]:
    def build(*, seed: int = 0, train: str = "abcd", test: str = "e", rains: int = 1, **fields: Any) -> DerainTask:
        def clips(names: str) -> dict[str, Any]:
            # a rain with a veil, so that no frame is without
            found = {name: films[name] for name in names}
            return {"kind": "films", "films": found, "rain": "complex25", "rains": rains}

        data = {"train": clips(train), "test": clips(test), "crop": 16, **fields}
        return DerainTask(msgspec.convert(data, DerainConfig), seed=seed)

    return build


class Blur(nn.Module):
    """Stands for a network: three parameters, five frames, and another image at each output."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([0.5, 0.6, 0.9]))

    def forward(self, frames: Tensor) -> Restored:
        mean, centre = frames.mean(1), frames[:, 2]
        dominant, companion = (gain * mean + (1 - gain) * centre for gain in self.gain[:2])
        weight = self.gain[2].expand(len(frames), 1, 1, 1)
        output = weight * dominant + (1 - weight) * companion
        return Restored(output, dominant, companion, weight, frames.square().mean() * self.gain[0])


def l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def fidelity(a: Tensor, b: Tensor) -> Tensor:
    return 0.75 * l1(a, b) + 1.1 * (1 - ssim(a, b).mean())


def test_it_is_found_by_name() -> None:
    assert TASKS.find("derain") is DerainTask


COMPANIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "fidelity": lambda output, target, rainy: fidelity(output, target),
    "charbonnier": lambda output, target, rainy: ((output - target) ** 2 + 1e-6).sqrt().mean(),
    "rain_prior": lambda output, target, rainy: (
        fidelity(output, target) + 0.1 * ((rainy - output)[..., 1:, :] - (rainy - output)[..., :-1, :]).abs().mean()
    ),
}


@pytest.mark.parametrize("companion", COMPANIONS)
def test_losses_are_their_formulas(build: Callable[..., DerainTask], companion: str) -> None:
    task = build(companion=companion, eta=0.3, photometric=0.2)
    network, batch = Blur(), task.batch("train", 0)
    found, target = network(batch.rainy), batch.window[:, 2]
    dominant, fused = fidelity(found.dominant, target), fidelity(found.output, target)
    other = COMPANIONS[companion](found.companion, target, batch.rainy[:, 2])
    expected = {
        "lower": dominant + other + 0.2 * found.photometric,  # eta is of the upper level alone
        "joint": fused + dominant + other + 0.2 * found.photometric,
        "fused": fused,
        "branches": dominant + 0.3 * other,
        "all": fused + dominant + 0.3 * other,
        "dna": dominant,
        "squared": ((found.output - target) ** 2).mean(),
    }
    assert task.losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(task.losses[name](network, batch), value)


@pytest.mark.parametrize(
    ("weight", "structure", "epsilon", "final"),
    [(0.75, 0.0, 0.0, None), (0.0, 2.0, 0.0, None), (3.0, 0.0, 0.1, None), (3.0, 0.0, 0.9, 0.1)],
)
def test_losses_have_the_configured_weights(
    build: Callable[..., DerainTask], weight: float, structure: float, epsilon: float, final: float | None
) -> None:
    """Half way between two epsilons is their geometric mean."""
    middle = epsilon if final is None else math.sqrt(epsilon * final)

    def expected(a: Tensor, b: Tensor) -> Tensor:
        distance = ((a - b).square() + middle**2).sqrt().mean()
        return weight * distance + structure * (1 - ssim(a, b).mean())

    task, network = build(photometric=0.0, l1=weight, structure=structure, epsilon=epsilon, final_epsilon=final), Blur()
    batch = task.batch("val", 1)
    found = network(batch.rainy)
    both = expected(found.dominant, batch.clean), expected(found.companion, batch.clean)
    torch.testing.assert_close(task.losses["dna"](network, batch, progress=0.5), both[0])
    torch.testing.assert_close(task.losses["lower"](network, batch, progress=0.5), both[0] + both[1])


@pytest.mark.parametrize("name", ["lower", "joint", "fused", "all"])
def test_steadiness_adds_the_change_along_the_true_motion(build: Callable[..., DerainTask], name: str) -> None:
    task, plain, network = build(steadiness=0.4, photometric=0.2), build(photometric=0.2), Blur()
    batch = task.batch("train", 2)
    assert batch.rainy.shape == batch.window.shape == (2, 6, 3, 16, 16)
    now = Batch(batch.rainy[:, 1:], batch.window[:, 1:])
    truth, previous = batch.window[:, 3], batch.window[:, 2]
    assert torch.equal(batch.clean, truth)
    flow = DenseInverseSearch()(truth, previous)
    outputs = [network(batch.rainy[:, start : start + 5]).output for start in (1, 0)]
    expected = plain.losses[name](network, now) + 0.4 * temporal_loss(*outputs, truth, previous, flow)
    torch.testing.assert_close(task.losses[name](network, batch), expected)
    assert expected > plain.losses[name](network, now)


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.rainy, b.rainy) and torch.equal(a.window, b.window)


def test_validation_has_clips_and_a_seed_of_its_own(build: Callable[..., DerainTask], films: dict[str, str]) -> None:
    own = {"kind": "films", "films": {"e": films["e"]}, "rain": "complex25"}
    task, other = build(validation=own, seed=0), build(validation=own, seed=5)
    assert task.members("validation") == ["e"]
    assert not set(task.members("validation")) & set(task.members("all"))
    assert equal(task.batch("validation", 0), build(validation=own).batch("validation", 0))
    assert torch.equal(*(each._of("validation")[0].rainy[0][:] for each in (task, other)))
    assert not torch.equal(task.test_clips[0].rainy[0][:], task._of("validation")[0].rainy[0][:])
    assert task.evaluate(Blur(), "validation")["rainy_psnr"] != task.evaluate(Blur())["rainy_psnr"]
    with pytest.raises(ConfigError, match=r"task\.validation must be given .* got none"):
        build().members("validation")


def test_a_mixture_is_drawn_for_windows_and_scored_on_whole_clips(
    build: Callable[..., DerainTask], films: dict[str, str]
) -> None:
    drawn = {"kind": "films", "films": {name: films[name] for name in "abcd"}, "rain": {"mix": ["complex25"]}}
    test = build().config.test
    config = msgspec.convert({"train": drawn, "test": msgspec.to_builtins(test), "crop": 16}, DerainConfig)
    task, again = DerainTask(config), DerainTask(config)
    assert equal(task.batch("train", 3), again.batch("train", 3))
    assert not equal(task.batch("train", 3), task.batch("train", 4))
    assert task._clips[0].rainy == ()
    assert task.evaluate(Blur(), "val") == again.evaluate(Blur(), "val")


def test_batches_are_functions_of_split_index_and_seed(build: Callable[..., DerainTask]) -> None:
    task, again = build(), build()
    expected = {(split, index): task.batch(split, index) for split in SPLITS for index in range(3)}
    for split, index in reversed(expected):  # in another order, by another instance
        assert equal(again.batch(split, index), expected[split, index])
    assert not equal(build(seed=1).batch("train", 0), expected["train", 0])
    pictures = {batch.rainy.numpy().tobytes() for batch in expected.values()}
    assert len(pictures) == len(expected)
    batch = build(batch=3, crop=20, frames=3).batch("all", 0)
    assert batch.rainy.shape == batch.window.shape == (3, 3, 3, 20, 20)


def names(task: DerainTask) -> dict[str, list[str]]:
    return {split: sorted(clip.name for clip in clips) for split, clips in task._splits.items()}


def test_splits_are_of_whole_clips(build: Callable[..., DerainTask]) -> None:
    divided = names(build())
    assert sorted(name for part in divided.values() for name in part) == list("abcd")
    assert {split: len(part) for split, part in divided.items()} == {"train": 2, "middle": 1, "val": 1}
    assert names(build(seed=3)) != divided


def test_batches_show_the_clips_of_their_split_alone(
    build: Callable[..., DerainTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every clip is of one colour, by which its frames are known."""
    clips = [
        Clip(name, name, torch.full((6, 3, 16, 16), shade, dtype=torch.uint8), (torch.zeros(6, 3, 16, 16).byte(),))
        for shade, name in enumerate("abcd")
    ]
    monkeypatch.setattr(Films, "load", lambda self, seed: clips)
    task = build(crop=11)
    divided = names(task)
    seen = {split: set[str]() for split in SPLITS}
    for split in SPLITS:
        for index in range(40):
            shades = (255 * task.batch(split, index).window).round().int()
            assert (shades == shades[:, :1, :1, :1, :1]).all()  # a window is of one clip
            seen[split] |= {"abcd"[shade] for shade in shades[:, 0, 0, 0, 0].tolist()}
    assert {split: sorted(found) for split, found in seen.items()} == {**divided, "all": list("abcd")}


def test_without_a_share_the_middle_level_draws_again_from_train(build: Callable[..., DerainTask]) -> None:
    task = build(train="ab", fractions={"train": 0.5, "middle": 0, "val": 0.5})
    divided = names(task)
    assert divided["middle"] == divided["train"] != divided["val"]
    assert not equal(task.batch("middle", 0), task.batch("train", 0))


def test_a_retraining_needs_one_clip_only(build: Callable[..., DerainTask]) -> None:
    task = build(train="a")
    assert task.batch("all", 0).rainy.shape == (2, 5, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"3 splits must .*films, got 1 \(a\)"):
        task.batch("train", 0)


def test_an_unknown_split(build: Callable[..., DerainTask]) -> None:
    with pytest.raises(UnknownNameError, match=r"split 'trian' .*did you mean 'train'"):
        build().batch("trian", 0)


class Returning(Blur):
    """Gives its result back in another form."""

    def __init__(self, form: Callable[[Restored], object]) -> None:
        super().__init__()
        self.form = form

    def forward(self, frames: Tensor) -> Any:
        return self.form(super().forward(frames))


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (lambda restored: restored._asdict(), "dict"),
        (lambda restored: tuple(restored), "tuple"),
        (lambda restored: restored.output, "Tensor"),
    ],
)
def test_networks_that_return_something_else(
    build: Callable[..., DerainTask], form: Callable[[Restored], object], found: str
) -> None:
    task, network = build(), Returning(form).eval()
    message = rf"^task 'derain': .*tmics_space\.network\.Restored, got a {found}\."
    for name in task.losses:
        with pytest.raises(ConfigError, match=message):
            task.losses[name](network, task.batch("train", 0))
    with pytest.raises(ConfigError, match=message), torch.no_grad():
        task.evaluate(network)


def test_the_example_is_one_window(build: Callable[..., DerainTask]) -> None:
    (frames,) = build(frames=3, crop=20).example()
    assert frames.shape == (1, 3, 3, 20, 20)


@pytest.mark.parametrize("how", ["y", "rgb", "tmics", "nturain"])
def test_evaluation_equals_its_parts(build: Callable[..., DerainTask], how: str) -> None:
    task, network = build(test="de", rains=2, protocol=how), Blur()
    found = task.evaluate(network)
    rows = []
    for clip in task.test_clips:
        assert len(clip.rainy) == 2
        for rainy in clip.rainy:
            truth = clip.frames.float() / 255
            output = written(derain(network, rainy))
            ours, before = (evaluate_clip(how, each, truth) for each in (output, rainy / 255))
            rows.append([ours.psnr, ours.ssim, before.psnr, before.ssim, 0.9])
    means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    assert found == pytest.approx(dict(zip(["psnr", "ssim", "rainy_psnr", "rainy_ssim", "weight"], means, strict=True)))
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert task.score in found
    assert task.statement == f"psnr, ssim: {find_protocol(how).statement}; of frames in 8 bits, as they are written"


def written(frames: Iterable[Derained]) -> torch.Tensor:
    """Frames as a film shows them: of 256 values a channel."""
    return torch.stack([(each.frame * 255).round() / 255 for each in frames])


def test_evaluation_over_time(build: Callable[..., DerainTask]) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    task, network = build(temporal=True), Blur()
    found = task.evaluate(network)
    (clip,) = task.test_clips
    truth = clip.frames.float() / 255
    output = written(derain(network, clip.rainy[0]))
    error, flows = warping_error(output, truth, DenseInverseSearch()), tof(output, truth)
    assert found["warping_error"] == error.output > 0
    assert found["true_warping_error"] == error.truth
    assert found["tof"] == flows.output > 0
    assert task.statement.splitlines() == [
        f"psnr, ssim: {find_protocol('y').statement}; of frames in 8 bits, as they are written",
        f"warping_error: {error.statement}",
        f"tof: {flows.statement}",
    ]


def test_previews_are_the_middle_of_test_clips(
    build: Callable[..., DerainTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_module, "PREVIEW", (4, 24, 20))
    task, network = build(test="cde"), Blur().eval()
    shown = previews(network, task)
    assert [preview.title for preview in shown] == [clip.name for clip in task.test_clips[:2]]
    for preview, clip in zip(shown, task.test_clips, strict=False):
        inside = (slice(1, 5), slice(None), slice(0, 24), slice(4, 24))
        assert torch.equal(preview.layers["rainy"], clip.rainy[0][inside])
        assert torch.equal(preview.layers["truth"], clip.frames[inside])
        restored = torch.stack([each.frame for each in derain(network, clip.rainy[0][inside])])
        assert torch.equal(preview.layers["derained"], (restored * 255).round().to(torch.uint8))


def test_prediction_is_that_of_a_file(build: Callable[..., DerainTask], films: dict[str, str], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    facts = build().predict(Blur(), Path(films["a"]), tmp_path / "out", tile=64, progress=lambda *a: seen.append(a))
    assert facts["frames"] == len(list((tmp_path / "out").iterdir())) == 6
    assert facts["weight"] == pytest.approx(0.9)
    assert seen == [(i, 6) for i in range(1, 7)]


def config(tmp_path: Path, films: dict[str, str], **task: Any) -> str:
    level = {"parameters": ["*"], "loss": "lower", "split": "all", "optimizer": {"name": "adam", "lr": 1e-3}}
    clips = {"kind": "films", "films": films}
    data = {
        "space": "tmics",
        "task": {"name": "derain", "train": clips, "test": clips, "crop": 16, **task},
        "search": {"steps": 1, "levels": {"lower": level}},
        "retrain": {"stages": {"one": {"steps": 1, "level": level}}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(data))
    return str(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"corp": 16}, InvalidFileError, "task: unknown field 'corp'.*did you mean 'crop'"),
        ({"crop": "big"}, InvalidFileError, "task: crop: Expected 'int', got 'str'"),
        ({"companion": "fidelty"}, InvalidFileError, "task: companion: .*'fidelty'.*did you mean 'fidelity'"),
        ({"protocol": "yuv"}, UnknownNameError, "metric protocol 'yuv'"),
        ({"train": {"kind": "films", "films": {"a": "a"}, "rain": "drizzle"}}, InvalidFileError, "train: .*'drizzle'"),
        ({"test": {"kind": "films", "films": {"a": "a"}, "rain": "ntuu"}}, InvalidFileError, "test: .*mean 'ntu'"),
        ({"train": {"kind": "film", "films": {}}}, InvalidFileError, "did you mean 'films'"),
        ({"train": {"kind": "pairs", "root": "x"}}, InvalidFileError, "missing the required field 'layout'"),
        ({"fractions": {"train": 0}}, InvalidFileError, "task: fractions.train"),
        ({"eta": -1}, InvalidFileError, "task: eta"),
        ({"name": "derian"}, UnknownNameError, "task 'derian' .*did you mean 'derain'"),
    ],
)
def test_mistakes_in_the_task_section(
    tmp_path: Path, films: dict[str, str], change: dict[str, Any], error: type[NASError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        load_config(config(tmp_path, films, **change)).build_task()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "override", "message"),
    [
        ({}, "task.train.films={a: missing.mp4}", "missing.mp4: no such"),
        ({}, "task.train.films={a: SELF}", "config.yaml: not a readable video"),
        ({}, "task.crop=25", "crop must be .* to 24 .* frames of 28x24, got 25"),
        ({}, "task.frames=4", "window must be odd, got 4"),
        ({}, "task.train={kind: pairs, root: ., layout: pears, split: all}", "layout 'pears' .*did you mean 'pairs'"),
        ({}, "task.train={kind: pairs, root: nowhere, layout: pairs, split: all}", "nowhere"),
    ],
)
def test_mistakes_in_the_data(
    tmp_path: Path, films: dict[str, str], change: dict[str, Any], override: str, message: str
) -> None:
    path = config(tmp_path, films, **change)
    task = load_config(path, [override.replace("SELF", path)]).build_task()
    with pytest.raises(NASError, match=message) as raised:
        task.batch("all", 0)
    assert "\n" not in str(raised.value)


def test_clips_to_be_scored_are_looked_at_before_a_training(tmp_path: Path, films: dict[str, str]) -> None:
    def check(*overrides: str) -> None:
        load_config(config(tmp_path, films), overrides).build_task().check()

    check()
    with pytest.raises(NASError, match=r"missing\.mp4: no such"):
        check("task.test.films={a: missing.mp4}")
    task = load_config(config(tmp_path, films), ["task.protocol=tmics"]).build_task()
    task.test_clips = [Clip("short", "short", torch.zeros(4, 3, 24, 28).to(torch.uint8))]
    with pytest.raises(ConfigError, match=r"task\.test: clip 'short' must have .* 5 frames .*'tmics', got 4"):
        task.check()


def test_scores_clip_by_clip_and_the_interval_of_their_mean(tmp_path: Path, films: dict[str, str]) -> None:
    """A clip counts once, however many rainy versions it has; two clips have no interval."""
    task = load_config(config(tmp_path, films), ["task.test.rains=2"]).build_task()
    scores = task.evaluate(Blur())
    psnrs = torch.tensor([part["psnr"] for part in task.parts.values()], dtype=torch.float64)
    assert len(psnrs) == 2 * len(task.test_clips) == 10
    assert scores["psnr"] == pytest.approx(psnrs.mean().item())
    clips = psnrs.view(5, 2).mean(1)
    half = 2.7764451052 * clips.std().item() / math.sqrt(5)  # the quantile of four degrees of freedom
    assert (scores["psnr_low"], scores["psnr_high"]) == pytest.approx((scores["psnr"] - half, scores["psnr"] + half))
    two = {name: films[name] for name in "ab"}
    assert "psnr_low" not in load_config(config(tmp_path, two), ["task.test.rains=2"]).build_task().evaluate(Blur())


def test_the_seed_of_a_run_does_not_change_the_test(build: Callable[..., DerainTask]) -> None:
    """Not its rain, and not the motion of a synthetic camera; the rain of the training changes."""
    tests = [build(seed=seed, test="de").test_clips for seed in (0, 1)] + [build(test="de", test_seed=1).test_clips]
    first, same, other = ([clip.rainy[0] for clip in clips] for clips in tests)
    assert all(map(torch.equal, first, same))
    assert not any(map(torch.equal, first, other))
    network = Blur().eval()
    assert build(seed=0).evaluate(network) == build(seed=3).evaluate(network)
    assert not torch.equal(build(seed=0)._clips[0].rainy[0][:], build(seed=3)._clips[0].rainy[0][:])


def test_frames_that_equal_their_truth_are_counted(build: Callable[..., DerainTask]) -> None:
    """A clip without rain at all, and one with rain in its last frames alone, through a network that does nothing."""

    class Nothing(Blur):
        def forward(self, frames: Tensor) -> Restored:
            return super().forward(frames)._replace(output=frames[:, 2])

    task = build(test="cde")
    dry, part, wet = task.test_clips
    half = torch.cat([part.frames[:4], part.rainy[0][4:]])
    task.test_clips[:2] = [replace(dry, rainy=(dry.frames[:],)), replace(part, rainy=(half,))]
    scores = task.evaluate(Nothing())
    assert (scores["equal_frames"], scores["rainy_equal_frames"]) == (6 + 4, 6 + 4)
    truth = {clip.name: clip.frames / 255 for clip in (part, wet)}
    expected = [
        evaluate_clip("y", (half / 255)[4:], truth[part.name][4:]).psnr,
        evaluate_clip("y", wet.rainy[0] / 255, truth[wet.name]).psnr,
    ]
    assert scores["psnr"] == scores["rainy_psnr"] == pytest.approx(sum(expected) / 2)
    assert all(math.isfinite(value) for value in scores.values())
    assert [row["equal_frames"] for row in task.parts.values()] == [6, 4, 0]
    assert "equal_frames" not in build(test="cd").evaluate(Blur())
    both = torch.stack([half[:5], half[1:6]]) / 255, torch.stack([part.frames[:5], part.frames[1:6]]) / 255
    one = [windows[1:, 2:3].mul(1) for windows in both]
    assert task.measure(Nothing(), Batch(*both))["psnr"] == pytest.approx(evaluate_clip("y", one[0][0], one[1][0]).psnr)


def test_the_pixels_of_rain_are_measured_where_it_rains() -> None:
    clean = moving_texture(3, 24, 28)
    wet = clean.clone()
    wet[1] = rain(clean, "complex25", 0)[1]
    assert rain_statistics(wet, clean).psnr_y == rain_statistics(wet[1:2], clean[1:2]).psnr_y
