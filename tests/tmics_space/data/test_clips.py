"""Clips in memory and batches of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.errors import ConfigError, UnknownNameError
from tmics_space.data import (
    CameraMotion,
    Clip,
    PairedClip,
    load_clips,
    load_pairs,
    moving_texture,
    paired_dataset,
    rain,
    sample,
    split_clips,
    window_indices,
    write_frames,
)
from tmics_space.data.clips import fit


def saved(path: Path, *scenes: torch.Tensor) -> Path:
    with write_frames(path) as write:
        for frame in torch.cat(scenes):
            write(frame)
    return path


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    one, two, three = (moving_texture(count, 64, 96, seed) for seed, count in ((0, 12), (1, 3), (2, 8)))
    return [saved(tmp_path / "cut", one, two, three), saved(tmp_path / "whole.mkv", moving_texture(7, 48, 64, 3))]


def test_films_become_shots_with_rain(films: list[Path]) -> None:
    clips = load_clips(films, "light25", 5, rains=2)
    assert [(clip.name, clip.film, len(clip.frames)) for clip in clips] == [
        ("cut/0", "cut", 12),
        ("cut/2", "cut", 8),  # the shot of 3 frames is too short
        ("whole", "whole", 7),
    ]
    assert torch.equal(clips[0].frames, moving_texture(12, 64, 96, 0))
    for clip in clips:
        assert [rainy.shape for rainy in clip.rainy] == [clip.frames.shape] * 2
        assert not torch.equal(*clip.rainy)
    alone = load_clips(films[1:], "light25", 5)
    assert torch.equal(alone[0].rainy[0], clips[2].rainy[0])  # rain depends on the name and the seed only
    assert not torch.equal(load_clips(films[1:], "light25", 6)[0].rainy[0], alone[0].rainy[0])
    with pytest.raises(ConfigError, match=r"3 splits must .*films, got 2"):
        split_clips(clips)


def test_stride_limit_and_size(films: list[Path]) -> None:
    (clip,) = load_clips(films[:1], stride=2, limit=5, size=(40, 40))
    assert clip.rainy == ()
    assert clip.frames.shape == (5, 3, 40, 40)
    assert torch.equal(
        clip.frames, torch.stack([fit(frame, (40, 40)) for frame in moving_texture(12, 64, 96, 0)[:10:2]])
    )


def test_fit_scales_down_to_cover_and_cuts_at_the_centre() -> None:
    frame = moving_texture(1, 80, 120)[0]
    assert torch.equal(fit(frame, None), frame)
    assert torch.equal(fit(frame, (80, 60)), frame[:, :, 30:90])
    assert torch.equal(fit(frame, (200, 300)), frame)  # never up
    assert torch.equal(fit(frame, (200, 60)), frame[:, :, 30:90])
    halved = fit(frame, (40, 60))
    boxes = frame.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((-2, -1))
    assert halved.shape == (3, 40, 60)
    assert (halved - boxes).abs().mean() < 3
    for size in ((33, 47), (7, 101), (79, 13)):
        assert fit(frame, size).shape == (3, *size)


def test_the_camera_moves_over_clips_and_photographs(tmp_path: Path) -> None:
    still = moving_texture(1, 90, 120)
    saved(tmp_path / "photograph", still)
    saved(tmp_path / "static", still.expand(6, -1, -1, -1))
    motion = CameraMotion(pan=2)
    photograph, static = load_clips(
        [tmp_path / "photograph" / "00001.png", tmp_path / "static"], "ntu", size=(32, 48), limit=6, motion=motion
    )
    assert photograph.frames.shape == static.frames.shape == (6, 3, 32, 48)
    assert photograph.name == "00001"
    for clip in (photograph, static):
        assert (clip.frames[0].int() - clip.frames[5].int()).abs().float().mean() > 2
    assert not torch.equal(photograph.frames, static.frames)  # each has a path of its own
    (long,) = load_clips([tmp_path / "photograph" / "00001.png"], size=(32, 48), motion=motion)
    assert len(long.frames) == 60


def test_bad_requests(films: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names of films must be unique, got 'cut'"):
        load_clips([films[0], tmp_path / "other" / "cut.mp4"])
    assert [clip.name for clip in load_clips({"a": films[1], "b": films[1]})] == ["a", "b"]
    with pytest.raises(ConfigError, match="shot of at least 9 frames, got none"):
        load_clips(films[1:], shortest=9)
    with pytest.raises(ConfigError, match=r"'size' must be given .*, got None"):
        load_clips(films, motion=CameraMotion())
    with pytest.raises(ConfigError, match=r"stride, .* must be at least 1, got 0, None and 1"):
        load_clips(films, stride=0)
    with pytest.raises(UnknownNameError, match="rain preset 'drizzle'"):
        load_clips(films, "drizzle")


def test_paired_clips(films: list[Path]) -> None:
    files = tuple(sorted(films[0].iterdir()))
    (clip,) = load_pairs([PairedClip("a_1", "a", tuple(range(3)), files[:3], files[3:6])], limit=2)
    assert (clip.name, clip.film) == ("a_1", "a")
    assert torch.equal(clip.rainy[0][:], moving_texture(12, 64, 96, 0)[:2])
    assert torch.equal(clip.frames[:], moving_texture(12, 64, 96, 0)[3:5])


def clip(seed: int, frames: int = 9) -> Clip:
    clean = moving_texture(frames, 40, 50, seed)
    return Clip(str(seed), str(seed), clean, (rain(clean, "light25", 0), rain(clean, "light25", 1)))


CLIPS = [clip(0), clip(1), clip(2, 1)]


def test_batches_are_functions_of_seed_and_index() -> None:
    batch = sample(CLIPS, 7, 3, crop=16, batch=3)
    assert batch.rainy.shape == batch.window.shape == (3, 5, 3, 16, 16)
    assert batch.rainy.dtype == batch.window.dtype == torch.float32
    assert 0 <= batch.window.min() < batch.window.max() <= 1
    assert torch.equal(batch.clean, batch.window[:, 2])
    for _ in range(2):
        again = sample(CLIPS, 7, 3, crop=16, batch=3)
        assert torch.equal(again.rainy, batch.rainy)
        assert torch.equal(again.window, batch.window)
        sample(CLIPS, 8, 3, crop=16)  # what else is sampled does not matter
    for index, seed in ((8, 3), (7, 4)):
        assert not torch.equal(sample(CLIPS, index, seed, crop=16, batch=3).rainy, batch.rainy)


def test_rainy_and_clean_windows_belong_together() -> None:
    identical = [Clip(c.name, c.film, c.frames, (c.frames,)) for c in CLIPS]
    for index in range(20):
        batch = sample(identical, index, 0, crop=16)
        assert torch.equal(batch.rainy, batch.window)


def test_plain_samples_are_windows_of_the_clip() -> None:
    clean = CLIPS[0].frames
    found = set()
    for index in range(200):
        batch = sample(CLIPS[:1], index, 0, crop=40, batch=1, augment=False, frames=3)
        centre = (batch.clean * 255).round().to(torch.uint8)[0]
        left, t = next((x, t) for x in range(11) for t in range(9) if torch.equal(clean[t, :, :, x : x + 40], centre))
        before = clean[abs(t - 1), :, :, left : left + 40].float() / 255
        assert torch.equal(batch.window[0, 0], before)
        found.add(t)
    assert found == set(range(9))  # the ends too


def test_a_window_with_a_frame_before_holds_the_windows_of_two_frames() -> None:
    """Of a clip whose frames are told by their shade, played either way."""
    shades = torch.arange(9, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    windows = {tuple(window_indices(centre, 9)) for centre in range(9)}
    windows |= {tuple(reversed(each)) for each in windows}
    for index in range(40):
        batch = sample([Clip("a", "a", shades, (shades,))], index, 0, crop=8, batch=1, before=True)
        shown = (batch.window[0, 1:, 0, 0, 0] * 255).round().int().tolist()
        assert tuple(shown) in windows
        assert torch.equal(batch.clean, batch.window[:, 3])


def test_every_clip_rain_and_turn_is_drawn() -> None:
    marked = [
        Clip(str(k), str(k), torch.full((3, 3, 8, 8), k, dtype=torch.uint8),
             tuple(torch.full((3, 3, 8, 8), 100 + 10 * k + v, dtype=torch.uint8) for v in range(2)))
        for k in range(3)
    ]  # fmt: skip
    seen = set()
    for index in range(60):
        batch = sample(marked, index, 1, crop=8, batch=1)
        seen.add((round(255 * batch.clean[0, 0, 0, 0].item()), round(255 * batch.rainy[0, 0, 0, 0, 0].item())))
    assert seen == {(k, 100 + 10 * k + v) for k in range(3) for v in range(2)}


def test_what_cannot_be_sampled() -> None:
    with pytest.raises(ConfigError, match=r"at least one clip .*, got none"):
        sample([], 0, 0)
    with pytest.raises(ConfigError, match="clip '0' must have a rainy version, got none"):
        sample([Clip("0", "0", CLIPS[0].frames)], 0, 0)
    with pytest.raises(ConfigError, match=r"crop must be .* frames of 50x40, got 64"):
        sample(CLIPS, 0, 0)


def test_a_gap_in_the_numbers_divides_a_film(tmp_path: Path) -> None:
    frames = moving_texture(14, 20, 24)
    with write_frames(tmp_path / "film") as write:
        for number, frame in zip([*range(1, 7), *range(10, 18)], frames, strict=True):
            write(frame, str(number))
    whole = load_clips([tmp_path / "film"])
    assert [(clip.name, clip.film, len(clip.frames)) for clip in whole] == [
        ("film/0", "film", 6),
        ("film/1", "film", 8),
    ]
    assert torch.equal(torch.cat([clip.frames for clip in whole]), frames)
    halved = load_clips([tmp_path / "film"], stride=4, shortest=1)  # frames 1, 5, 11, 15
    assert [clip.frames.tolist() for clip in halved] == [frames[[0, 4]].tolist(), frames[[8, 12]].tolist()]
    assert len(load_clips([tmp_path / "film"], limit=6)) == 1


def test_a_gap_in_the_numbers_divides_a_pair(tmp_path: Path) -> None:
    """Also one that is there because a frame has no partner."""
    frames = moving_texture(5, 20, 24)
    for side, numbers in (("rain", (1, 2, 3, 7, 8)), ("gt", (1, 2, 3, 4, 7, 8))):
        with write_frames(tmp_path / side / "a") as write:
            for number in numbers:
                write(frames[min(number, 8) % 4], str(number))
    (pair,) = paired_dataset(tmp_path, "pairs", "all").clips
    assert pair.numbers == (1, 2, 3, 7, 8)
    clips = load_pairs([pair])
    assert [(clip.name, clip.film) for clip in clips] == [("a/0", "a"), ("a/1", "a")]
    for clip, numbers in zip(clips, ((1, 2, 3), (7, 8)), strict=True):
        for side in (clip.frames, *clip.rainy):
            assert torch.equal(side[:], frames[[number % 4 for number in numbers]])
    assert [clip.name for clip in load_pairs([pair], limit=3)] == ["a"]
