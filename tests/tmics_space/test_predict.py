from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import filmed
from nas.cost.meter import footprint
from nas.cost.system_memory import total_memory
from nas.errors import ConfigError, DivergedError, InvalidFileError
from nas.supernet import Supernet
from tmics_space import predict
from tmics_space.data import iterate_frames, moving_texture, read_frames, windows, write_frames
from tmics_space.flow import PyramidFlow
from tmics_space.network import Restored
from tmics_space.predict import OVERLAP, derain, derain_file, fitting_tile, memory
from tmics_space.space import tmics


class Stub(nn.Module):
    """Stands for a network, and keeps what it saw."""

    def __init__(self, body: nn.Module | None = None, frames: int = 5) -> None:
        super().__init__()
        self.body = body
        self.frames = frames
        self.gain = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def forward(self, frames: Tensor) -> Restored:
        self.seen.append(frames)
        centre = self.gain * frames[:, self.frames // 2]
        output = centre if self.body is None else centre + self.body(frames.flatten(1, 2))
        weight = torch.full((len(frames), 1, 1, 1), 0.25)
        return Restored(output, output, output, weight, frames.new_zeros(()))


def convolutions(reach: int = 4) -> nn.Module:
    """Convolutions alone, of a field of view of `reach` pixels to each side."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(15, 8, 3, padding=1), nn.PReLU(), nn.Conv2d(8, 3, 2 * reach - 1, padding=reach - 1))
    for parameter in body.parameters():
        parameter.data *= 0.3
    return body


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("frames", [3, 5, 7])
def test_the_network_sees_the_window_around_every_frame(length: int, frames: int) -> None:
    clip, network = moving_texture(length, 20, 18), Stub(frames=frames)
    out = list(derain(network, clip, frames=frames))
    expected = torch.stack(list(windows(clip, frames)))
    assert torch.equal(torch.cat(network.seen), expected.float() / 255)
    assert torch.equal(torch.stack([each.frame for each in out]), clip.float() / 255)
    assert [each.weight for each in out] == [0.25] * length


def test_only_a_window_of_a_film_is_held() -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def film() -> Iterator[Tensor]:
        nonlocal most
        for _ in range(40):
            frame = torch.zeros(3, 16, 16, dtype=torch.uint8)
            alive.add(frame)
            most = max(most, len(alive))
            yield frame
            del frame

    gc.disable()  # what is held is held by reference, not by chance
    try:
        assert sum(1 for _ in derain(Stub(frames=1), film())) == 40
    finally:
        gc.enable()
    assert most <= 6 + 4  # those in which twins are looked for, and some on their way


def test_frames_come_as_soon_as_their_window_is_there() -> None:
    taken: list[int] = []

    def film() -> Iterator[Tensor]:
        for index in range(20):
            taken.append(index)
            yield torch.zeros(3, 16, 16, dtype=torch.uint8)

    out = derain(Stub(), film())
    next(out)
    assert taken == [*range(3 + 1 + 6)]  # the frame after the window, and those around it, tell a twin


def test_a_window_of_a_film_with_doubled_frames_has_different_frames(tmp_path: Path) -> None:
    """A film of 25 frames a second as one of 30: every fifth frame is shown twice, once coded slightly differently."""
    clip = moving_texture(15, 20, 18)
    order = [index for index in range(15) for _ in range(2 if index % 5 == 2 else 1)]
    doubled = clip[order]
    doubled[3, 0, 0, 0] += 1  # the twin of frame 2 is near it, the other twins are equal
    network, alone = Stub(), Stub()
    out, expected = list(derain(network, doubled)), list(derain(alone, clip))
    assert [index for index, each in enumerate(out) if each.twin] == [3, 9, 15]
    seen = torch.cat(alone.seen)
    near = seen[2].clone()
    near[2] = doubled[3].float() / 255
    assert torch.equal(torch.cat(network.seen), torch.cat([seen[:3], near[None], seen[3:]]))
    frames = torch.stack([each.frame for each in expected])[order]
    frames[3] = near[2]
    assert torch.equal(torch.stack([each.frame for each in out]), frames)

    with write_frames(tmp_path / "in") as write:
        for frame in doubled:
            write(frame)
    facts = derain_file(Stub(), tmp_path / "in", tmp_path / "out")
    assert (facts["frames"], facts["doubled"]) == (18, 3)
    assert torch.equal(read_frames(tmp_path / "out"), (frames * 255).round().to(torch.uint8))


def test_memory_is_kept_while_frames_are_computed_and_not_between_them(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[bool] = [False]
    computed: list[bool] = []

    @contextmanager
    def kept() -> Iterator[None]:
        inside.append(True)
        yield
        inside.append(False)

    monkeypatch.setattr(predict, "memory_kept", kept)
    network.register_forward_pre_hook(lambda *_: computed.append(inside[-1]))
    frames = derain(network, moving_texture(3, 32, 32))
    for _ in frames:
        assert not inside[-1]
        if len(computed) == 2:
            frames.close()
    assert not inside[-1]
    assert computed == [True] * 2


def test_no_graph_is_kept_and_outputs_are_clamped() -> None:
    network = Stub()
    with torch.no_grad():
        network.gain.mul_(3)
    (first, *_) = derain(network, moving_texture(2, 20, 18))
    assert not first.frame.requires_grad
    assert first.frame.max() == 1


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network of the space, with guided filters, norms and both attentions."""
    options: dict[str, Any] = {"channels": 4, "dna_cells": 1, "cna_cells": 1, "layers": 2, "normalize": "group"}
    supernet = Supernet(tmics, **options, alignment=["tgm"], frequency=["gf3"])
    return supernet.derived(supernet.derive()).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 31), (13, 14), (15, 16), (33, 17), (65, 70)])
def test_frames_of_any_size(network: nn.Module, size: tuple[int, int]) -> None:
    clip = moving_texture(2, *size)
    for tile in (None, 2 * OVERLAP):
        for each in derain(network, clip, tile=tile):
            assert each.frame.shape == (3, *size)
            assert each.frame.isfinite().all()
            assert 0 <= each.frame.min() <= each.frame.max() <= 1


def test_small_frames_are_continued_beyond_their_edges() -> None:
    network, clip = Stub(), moving_texture(1, 3, 20)
    (each,) = derain(network, clip)
    assert torch.equal(each.frame, clip[0] / 255)
    assert network.seen[0].shape == (1, 5, 3, 16, 20)
    assert torch.equal(network.seen[0][0, 0, :, 3:], network.seen[0][0, 0, :, 2:3].expand(-1, 13, -1))


def test_one_tile_is_the_whole_frame_bit_for_bit(network: nn.Module) -> None:
    clip = moving_texture(2, 48, 64)
    for whole, tiled in zip(derain(network, clip), derain(network, clip, tile=64), strict=True):
        assert torch.equal(whole.frame, tiled.frame)
        assert whole.weight == tiled.weight


@pytest.mark.parametrize(("size", "tile"), [((64, 150), 64), ((100, 97), 64), ((65, 64), 64), ((130, 40), 97)])
def test_tiles_of_convolutions_differ_only_near_their_ends(size: tuple[int, int], tile: int) -> None:
    reach = 4
    network, clip = Stub(convolutions(reach)), moving_texture(1, *size)
    (whole,), (tiled,) = derain(network, clip), derain(network, clip, tile=tile)
    boxes = [frames.shape[-2:] for frames in network.seen[1:]]
    assert max(max(box) for box in boxes) <= tile
    near = torch.zeros(size, dtype=torch.bool)
    for axis, length in enumerate(size):
        for start, stop in spans(length, tile):
            ends = [end for end in (start, stop) if 0 < end < length]
            for end in ends:
                near.narrow(axis, max(end - reach, 0), min(end + reach, length) - max(end - reach, 0)).fill_(True)
    difference = (whole.frame - tiled.frame).abs().amax(0)
    assert difference[~near].max() < 1e-6
    assert 1e-4 < difference[near].max() < 0.1  # fading leaves little of what a tile's end does
    assert tiled.weight == pytest.approx(0.25)


def spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Evenly placed tiles, as few as overlap by 32 pixels at least."""
    count = 1
    while length > count * tile - (count - 1) * OVERLAP:
        count += 1
    gap = (length - tile) / max(count - 1, 1)
    return [(round(i * gap), min(round(i * gap) + tile, length)) for i in range(count)] if count > 1 else [(0, length)]


def test_tiles_fade_into_one_another_without_a_seam() -> None:
    """Tiles that disagree by a constant leave a ramp."""

    class Brighter(Stub):
        def forward(self, frames: Tensor) -> Restored:
            restored = super().forward(frames)
            return restored._replace(output=torch.full_like(restored.output, 0.3 * len(self.seen)))

    (each,) = derain(Brighter(), torch.zeros(1, 3, 20, 96, dtype=torch.uint8), tile=64)
    row = each.frame[0, 0]
    assert torch.equal(row, row.sort().values)
    assert row[:32].tolist() == pytest.approx([0.3] * 32)
    assert row[64:].tolist() == pytest.approx([0.6] * 32)
    assert row.diff().max() < 0.3 / 32


@pytest.mark.parametrize("tile", [0, -1, 2 * OVERLAP - 1])
def test_tiles_too_small(tile: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'tile' must be at least 64 .*got {tile}"):
        derain(Stub(), [], tile=tile)
    source = saved(tmp_path / "in")
    with pytest.raises(ConfigError, match="'tile' must be at least 64"):
        derain_file(Stub(), source, tmp_path / "out", tile=tile)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def saved(path: Path, frames: int = 6, rate: float = 30) -> Path:
    with write_frames(path, rate) as write:
        for index, frame in enumerate(moving_texture(frames, 48, 64)):
            write(frame, f"shot_{2 * index:03d}")
    return path


def test_a_folder_keeps_the_names_of_its_frames(tmp_path: Path) -> None:
    facts = derain_file(Stub(), saved(tmp_path / "in"), tmp_path / "deep" / "out")
    names = [f"shot_{2 * index:03d}.png" for index in range(6)]
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == names
    assert torch.equal(read_frames(tmp_path / "deep" / "out"), moving_texture(6, 48, 64))
    assert facts.keys() == {"frames", "seconds", "frames_per_second", "weight"}
    assert facts["frames"] == 6
    assert facts["weight"] == 0.25
    assert facts["frames_per_second"] == pytest.approx(6 / facts["seconds"])


@pytest.mark.parametrize(("source", "sink"), [("in.mkv", "out.mkv"), ("in", "out.mkv"), ("in.mkv", "out")])
def test_films_and_folders(tmp_path: Path, source: str, sink: str) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    progress: list[tuple[int, int]] = []
    path = saved(tmp_path / source)
    derain_file(Stub(), path, tmp_path / sink, progress=lambda done, total: progress.append((done, total)))
    assert torch.equal(read_frames(tmp_path / sink), moving_texture(6, 48, 64))  # a lossless film
    assert progress == [(done, 6) for done in range(1, 7)]
    if source.endswith("mkv") and sink.endswith("mkv"):
        assert iterate_frames(tmp_path / sink).frame_rate == pytest.approx(30)


def test_no_window_reaches_across_a_gap(tmp_path: Path) -> None:
    """Frames 1, 2, 3, 7 and 8: each side is reflected at its own ends."""
    clip, network = moving_texture(5, 20, 18), Stub()
    with write_frames(tmp_path / "in") as write:
        for number, frame in zip((1, 2, 3, 7, 8), clip, strict=True):
            write(frame, f"{number}")
    derain_file(network, tmp_path / "in", tmp_path / "out")
    expected = torch.cat([torch.stack(list(windows(part))) for part in (clip[:3], clip[3:])])
    assert torch.equal(torch.cat(network.seen[-5:]), expected.float() / 255)  # behind the estimate of the memory
    assert iterate_frames(tmp_path / "out").stems == ("1", "2", "3", "7", "8")
    alone = Stub()
    out = list(derain(alone, clip, cuts=(3,)))
    assert torch.equal(torch.cat(alone.seen), expected.float() / 255)
    assert torch.equal(torch.stack([each.frame for each in out]), clip / 255)


def test_a_film_keeps_its_times_and_its_sound(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    times = [0, 40, 80, 500, 540, 1500, 1540]
    pixels = moving_texture(7, 32, 48).permute(0, 2, 3, 1).numpy()
    source = filmed.film(tmp_path / "in.mp4", [*pixels], times, sound="aac")
    derain_file(Stub(), source, tmp_path / "out.mp4")
    assert [span.start * 1000 for _, span in iterate_frames(tmp_path / "out.mp4").timed() if span] == times
    assert filmed.heard(tmp_path / "out.mp4") == filmed.heard(source)


@pytest.mark.parametrize("name", ["in.mkv", "in.webm"])
def test_a_film_that_is_cut_leaves_no_sink(tmp_path: Path, name: str) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    pixels = moving_texture(20, 32, 48).permute(0, 2, 3, 1).numpy()
    codec = "libvpx-vp9" if name == "in.webm" else "libx264"
    source = filmed.film(tmp_path / name, [*pixels], range(0, 800, 40), codec=codec)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * 0.8)])
    with pytest.raises(InvalidFileError, match=rf"{name}: frame \d+: .*the file must have at least"):
        derain_file(Stub(), source, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("source", "sink"), [("a.png", "b.png"), ("a.tif", "b.webp"), ("a.webp", "b.tif"), ("a1.bmp", "b")]
)
def test_one_picture_in_and_one_out(tmp_path: Path, source: str, sink: str) -> None:
    (frame,) = moving_texture(1, 20, 18)
    Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / source, lossless=True)
    assert derain_file(Stub(), tmp_path / source, tmp_path / sink)["frames"] == 1
    assert torch.equal(read_frames(tmp_path / sink)[0], frame)


def test_the_estimate_of_the_memory_is_no_part_of_the_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a frame moves by a second, the estimate by a hundred, and folding norms by a thousand."""
    now = 0.0

    def move(seconds: float, result: Any) -> Any:
        nonlocal now
        now += seconds
        return result

    class Slow(Stub):
        def forward(self, frames: Tensor) -> Restored:
            return move(1, super().forward(frames))

    monkeypatch.setattr(predict.time, "perf_counter", lambda: now)
    monkeypatch.setattr(predict, "fitting_tile", lambda *a: move(100, None))
    monkeypatch.setattr(predict, "folded", lambda network: move(1000, network))
    facts = derain_file(Slow(), saved(tmp_path / "in"), tmp_path / "out")
    assert (facts["frames"], facts["seconds"], facts["frames_per_second"]) == (6, 6, 1)


def test_the_window_is_the_networks_own(tmp_path: Path) -> None:
    network = Stub(frames=3)
    derain_file(network, saved(tmp_path / "in", 4), tmp_path / "out")
    assert {frames.shape[1] for frames in network.seen} == {3}


def test_what_is_missing_or_unreadable(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    for name, message in (("nothing", "nothing: no such folder or file"), ("text.mp4", "text.mp4: not a readable")):
        with pytest.raises(InvalidFileError, match=message):
            derain_file(Stub(), tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sink_that_exists_or_cannot_be_written(tmp_path: Path) -> None:
    network, source = Stub(), saved(tmp_path / "in")
    kept = sorted(source.iterdir())
    (tmp_path / "file").write_text("mine")
    for sink, message in (
        (source, "exists already"),
        (tmp_path / "file", "exists already"),
        (tmp_path / "file" / "out", "cannot be written"),
    ):
        with pytest.raises(InvalidFileError, match=message):
            derain_file(network, source, sink)
    with pytest.raises(ConfigError, match=r"out\.gif: the suffix must .*, got '\.gif'"):
        derain_file(network, source, tmp_path / "out.gif")
    with pytest.raises(ConfigError, match=r"out\.png: one image must"):
        derain_file(network, source, tmp_path / "out.png")
    assert network.seen == []  # told before any work
    assert sorted(source.iterdir()) == kept
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_midway_leaves_no_sink(tmp_path: Path) -> None:
    source = saved(tmp_path / "in")
    (source / "shot_006.png").write_bytes(b"broken")
    with pytest.raises(InvalidFileError, match="shot_006"):
        derain_file(Stub(), source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("gain", [torch.nan, torch.inf, -torch.inf])
def test_frames_that_are_not_finite_are_no_black_or_white_ones(tmp_path: Path, gain: float) -> None:
    network = Stub()
    network.gain.data.fill_(gain)
    with pytest.raises(DivergedError, match=r"^deraining stopped: the network's output must be finite"):
        derain_file(network, saved(tmp_path / "in"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("times", [2.0, 1.9])
def test_frames_too_large_for_memory_are_tiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    """One window of 96x128 has 3 times the pixels of the estimate's 64x64."""
    network = Stub(convolutions()).eval()
    with write_frames(tmp_path / "in") as write:
        for frame in moving_texture(3, 96, 128):
            write(frame)
    window = torch.zeros(1, 5, 3, 64, 64)
    with torch.no_grad():
        taken = footprint(lambda: network(window), network.parameters()).memory
    monkeypatch.setattr(predict, "memory", lambda device: math.ceil(times * 3 * taken))
    facts = derain_file(network, tmp_path / "in", tmp_path / "out")
    side = None if times == 2 else math.isqrt(int(96 * 128 * 0.95))
    assert facts.get("tile") == side
    expected = [each.frame for each in derain(network, moving_texture(3, 96, 128), tile=side)]
    assert torch.equal(read_frames(tmp_path / "out"), (torch.stack(expected) * 255).round().to(torch.uint8))


def test_tiles_are_no_smaller_than_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "memory", lambda device: 1000)
    assert fitting_tile(Stub(convolutions()), 5, 500, 900) == 2 * OVERLAP


def test_the_memory_of_this_machine() -> None:
    assert 2**28 < memory(torch.device("cpu")) == total_memory() < 2**44


# --- what windows share ---


@pytest.fixture(scope="module")
def flowing() -> nn.Module:
    """A network that aligns by a learned flow, away from its initial weights."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"channels": 4, "dna_cells": 1, "cna_cells": 1, "layers": 1, "frequency": ["none"]}
    supernet = Supernet(tmics, **options, alignment=["ofm"], flow={"name": "pyramid", "width": 4})
    network = supernet.derived(supernet.derive()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("size", [(20, 18), (9, 33)])
def test_sharing_between_windows_changes_nothing(flowing: nn.Module, size: tuple[int, int]) -> None:
    clip = moving_texture(6, *size)
    beyond = (0, max(16 - size[1], 0), 0, max(16 - size[0], 0))
    for each, window in zip(derain(flowing, clip), windows(clip), strict=True):
        with torch.no_grad():
            padded = nn.functional.pad(window / 255, beyond, mode="replicate")
            expected = flowing(padded.unsqueeze(0)).output[0, :, : size[0], : size[1]].clamp(0, 1)
        torch.testing.assert_close(each.frame, expected, rtol=0, atol=1e-5)


def test_every_frame_is_described_once(flowing: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[int] = []
    kind = PyramidFlow.describe
    monkeypatch.setattr(
        PyramidFlow, "describe", lambda self, frames: described.append(len(frames)) or kind(self, frames)
    )
    clip = moving_texture(7, 20, 18)
    list(derain(flowing, clip))
    assert described == [1] * 7
    described.clear()
    list(derain(flowing, clip, tile=64))  # a tile is another picture
    assert described == [5] * 7


def test_bfloat16_is_close(flowing: nn.Module) -> None:
    clip = moving_texture(3, 20, 18)
    for exact, narrow in zip(derain(flowing, clip), derain(flowing, clip, bfloat16=True), strict=True):
        assert narrow.frame.dtype == torch.float32
        assert not torch.equal(narrow.frame, exact.frame)
        assert (narrow.frame - exact.frame).square().mean() < 1e-5  # 50 dB
        assert not torch.is_autocast_enabled("cpu")  # also while the caller has the frame
