"""Deraining as a task: the three levels' losses, their data, the scores, and a network's use on a film."""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from nas.task import TEST, Preview, task
from tmics_space.data.clips import Batch, Clip, sample
from tmics_space.data.shots import split_clips
from tmics_space.data.sources import Films, Pairs
from tmics_space.flow import DenseInverseSearch
from tmics_space.losses import ARC_LOSSES, arc_loss, companion_loss, fidelity, temporal_loss
from tmics_space.metrics.image import luminance, mean_psnr, psnr
from tmics_space.metrics.interval import interval
from tmics_space.metrics.protocol import evaluate_clip, protocol
from tmics_space.metrics.temporal import TOF, WARPING_ERROR, tof, warping_error
from tmics_space.network import Restored, restore
from tmics_space.predict import derain, derain_file

SPLITS = ("train", "middle", "val", "all")

EQUAL = ("equal_frames", "rainy_equal_frames")
"""How many frames equal their truth, after and before, in the scores of `evaluate`."""

PREVIEWS = 2
"""The test clips that `previews` shows."""
PREVIEW = (16, 240, 320)
"""The most frames, rows and columns it shows of each."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Weight = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0)]


class Fractions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the training clips are divided between the levels of a search."""

    train: Share = 0.5
    middle: Weight = 0.2
    """With 0 the middle level draws other windows from the clips of `train`."""
    val: Share = 0.3


class DerainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `task` section of a configuration."""

    train: Films | Pairs
    test: Films | Pairs
    """Scored by `evaluate` alone; take other films than for `train`."""
    test_seed: int = 0
    """Of the rain on `test`; not the run's, so that runs of several seeds are scored on the same frames."""
    fractions: Fractions = Fractions()
    by_film: bool = True
    """Whether all shots of a film go to the same split of the search."""
    frames: Count = 5
    crop: Count = 64
    batch: Count = 2
    l1: Weight = 0.75
    structure: Weight = 1.1
    """Weight of 1 - SSIM beside the L1 distance."""
    epsilon: Weight = 0.0
    """In the L1 distance, differences below this count almost by their squares (Charbonnier)."""
    companion: Literal["fidelity", "charbonnier", "rain_prior"] = "fidelity"
    eta: Weight = 1.0
    """Weight of the companion's loss in the upper level."""
    photometric: Weight = 0.1
    """Weight of the optical flow's own loss in the lower level."""
    steadiness: Weight = 0.0
    """Weight of L_ST, how far the output changes but for motion, in all losses; needs OpenCV, and a second pass."""
    protocol: str = "y"
    """How PSNR and SSIM are taken (see `tmics_space.metrics.protocol`)."""
    temporal: bool = False
    """Whether `evaluate` also measures steadiness over time, which needs OpenCV."""


@task("derain")
class DerainTask:
    """Video deraining on synthetic rain or paired data sets. Raises `UnknownNameError` for an unknown protocol.

    Splits: `train`, `middle` and `val` divide the training clips by clip; `all` is their union. Losses: `lower` (both
    branches and the optical flow's own), `fused`, `branches`, `all` and `dna` (see `tmics_space.losses.arc_loss`),
    `joint` (both branches, their average and the optical flow's own), and `squared` (the mean squared distance of the
    output, quadratic in the weight of a `free` averaging).
    """

    Config: ClassVar[type] = DerainConfig
    score: ClassVar[str] = "psnr"

    def __init__(self, config: DerainConfig, *, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.losses: Mapping[str, Callable[[nn.Module, Batch], Tensor]] = {
            "lower": functools.partial(self._loss, "branches", photometric=config.photometric),
            "joint": functools.partial(self._loss, "all", photometric=config.photometric),
            "squared": self._squared,
            **{mode: functools.partial(self._loss, mode, eta=config.eta) for mode in ARC_LOSSES},
        }
        self.statement = f"psnr, ssim: {protocol(config.protocol).statement}; of frames in 8 bits, as they are written"
        """How `evaluate` takes its scores, a line for each."""
        self.parts: dict[str, dict[str, float]] = {}
        """What `evaluate` measured last, clip by clip."""
        if config.temporal:
            self.statement += f"\nwarping_error: {WARPING_ERROR}\ntof: {TOF}"

    def batch(self, split: str, index: int) -> Batch:
        """Windows of random crops: `rainy` and `window`, (batch, frames, 3, crop, crop) in [0, 1]; with `steadiness` of
        one frame more, the first."""
        clips = self._of(split)
        seed = zlib.crc32(f"{self.seed}/{split}".encode())
        config = self.config
        before = config.steadiness > 0
        return sample(clips, index, seed, frames=config.frames, crop=config.crop, batch=config.batch, before=before)

    def example(self) -> tuple[Tensor, ...]:
        """One window, (1, frames, 3, crop, crop)."""
        return (torch.zeros(1, self.config.frames, 3, self.config.crop, self.config.crop),)

    def check(self, split: str = TEST) -> None:
        """Load the clips of a split; raises what that does, and `ConfigError` where one is too short to be scored."""
        least = 2 * protocol(self.config.protocol).drop + 1
        for clip in self._scored(split):
            if len(clip.frames) < least:
                found = f"protocol '{self.config.protocol}' scores {least} frames or more, found {len(clip.frames)}"
                raise ConfigError(f"task.{TEST if split == TEST else 'train'}: clip '{clip.name}': {found}")

    def members(self, split: str) -> list[str]:
        """The names of the training clips of a split."""
        return [clip.name for clip in self._of(split)]

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Mean PSNR in dB over the windows of a batch, on the channels of the protocol."""
        restored = restore(network, batch.rainy[:, -self.config.frames :])
        how = protocol(self.config.protocol)
        images = restored.output.double().clamp(0, 1), batch.clean.double()
        output, clean = map(luminance, images) if how.channels == "y" else images
        return {"psnr": mean_psnr(psnr(output, clean, rounded=how.rounded).tolist())}

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Means over the test clips, or those of another split: PSNR in dB and SSIM, those of the rainy input
        (`rainy_psnr`, ...), and the weight of the dominant branch; with `temporal` also the warping error, that of the
        truth (`true_...`), and tOF. Of three clips or more also the ends of the 95 % interval of the mean PSNR by
        Student's t over clips (`psnr_low`, `psnr_high`). A frame that equals its truth has no PSNR and is left out of
        its mean; if there are any, `equal_frames` and `rainy_equal_frames` count them."""
        self.parts = {
            clip.name + f" #{version}" * (len(clip.rainy) > 1): self._score(network, clip.frames[:], rainy[:])
            for clip in self._scored(split)
            for version, rainy in enumerate(clip.rainy, 1)
        }
        rows = list(self.parts.values())
        for name in EQUAL:
            if not any(row[name] for row in rows):
                for row in rows:
                    del row[name]
        means = {name: _over_clips(name, [row[name] for row in rows]) for name in rows[0]}
        values = iter(row["psnr"] for row in rows)
        clips = [mean_psnr(list(itertools.islice(values, len(clip.rainy)))) for clip in self._scored(split)]
        if (found := interval([each for each in clips if each != math.inf])) is not None:
            means |= {"psnr_low": found.low, "psnr_high": found.high}
        return means

    def previews(self, network: nn.Module) -> list[Preview]:
        """Rainy, derained and true frames of the first test clips: a second or less of each, its middle where large."""
        return [self._preview(network, clip) for clip in self.test_clips[:PREVIEWS]]

    def predict(
        self,
        network: nn.Module,
        source: Path,
        sink: Path,
        *,
        tile: int | None = None,
        bfloat16: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float]:
        """Derain a film: a video file or a folder of frames, to either (see `tmics_space.predict.derain_file`)."""
        return derain_file(network, source, sink, tile=tile, bfloat16=bfloat16, progress=progress)

    def _scored(self, split: str) -> list[Clip]:
        return self.test_clips if split == TEST else self._of(split)

    def _of(self, split: str) -> list[Clip]:
        """The training clips of a split; raises `UnknownNameError`."""
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        return self._clips if split == "all" else self._splits[split]

    @functools.cached_property
    def test_clips(self) -> list[Clip]:
        """The clips that `evaluate` scores, with their rain."""
        return self.config.test.load(self.config.test_seed)

    @functools.cached_property
    def _clips(self) -> list[Clip]:
        return self.config.train.load(self.seed)

    @functools.cached_property
    def _splits(self) -> dict[str, list[Clip]]:
        """The training clips of each level of a search."""
        shares = {name: share for name, share in msgspec.structs.asdict(self.config.fractions).items() if share}
        parts = split_clips(self._clips, list(shares.values()), self.seed, by_film=self.config.by_film)
        splits = dict(zip(shares, parts, strict=True))
        return {"middle": splits["train"], **splits}

    def _preview(self, network: nn.Module, clip: Clip) -> Preview:
        length, _, height, width = clip.frames.shape
        spans = [_middle(size, most) for size, most in zip((length, height, width), PREVIEW, strict=True)]
        rainy, truth = (frames[spans[0]][..., spans[1], spans[2]] for frames in (clip.rainy[0], clip.frames))
        restored = torch.stack([each.frame for each in derain(network, rainy, frames=self.config.frames)])
        derained = (restored * 255).round().to(torch.uint8)
        return Preview(clip.name, {"rainy": rainy, "derained": derained, "truth": truth})

    def _score(self, network: nn.Module, clean: Tensor, rainy: Tensor) -> dict[str, float]:
        restored = list(derain(network, rainy, frames=self.config.frames))
        frames = [(each.frame * 255).round().to(torch.uint8) for each in restored]  # as `predict` writes them
        output, truth = torch.stack(frames).float() / 255, clean.float() / 255
        after, before = (evaluate_clip(self.config.protocol, clip, truth) for clip in (output, rainy.float() / 255))
        scores = {
            "psnr": after.psnr,
            "ssim": after.ssim,
            "rainy_psnr": before.psnr,
            "rainy_ssim": before.ssim,
            "equal_frames": after.equal_frames,
            "rainy_equal_frames": before.equal_frames,
            "weight": sum(each.weight for each in restored) / len(restored),
        }
        if self.config.temporal:
            error = warping_error(output, truth, DenseInverseSearch())
            scores |= {"warping_error": error.output, "true_warping_error": error.truth}
            scores["tof"] = tof(output, truth).output
        return scores

    def _loss(
        self, mode: str, network: nn.Module, batch: Batch, *, eta: float = 1.0, photometric: float = 0.0
    ) -> Tensor:
        frames = batch.rainy[:, -self.config.frames :]
        restored = restore(network, frames)
        l1, structure, epsilon = self.config.l1, self.config.structure, self.config.epsilon
        dominant = functools.partial(fidelity, l1=l1, structure=structure, epsilon=epsilon)
        rainy = frames[:, self.config.frames // 2]
        companion = functools.partial(companion_loss, self.config.companion, rainy=rainy, dominant=dominant)
        loss = arc_loss(mode, restored, batch.clean, dominant=dominant, companion=companion, eta=eta)
        if self.config.steadiness:
            loss = loss + self.config.steadiness * self._unsteadiness(network, batch, restored)
        return loss + photometric * restored.photometric if photometric else loss

    def _squared(self, network: nn.Module, batch: Batch) -> Tensor:
        restored = restore(network, batch.rainy[:, -self.config.frames :])
        return (restored.output - batch.clean).square().mean()

    def _unsteadiness(self, network: nn.Module, batch: Batch, restored: Restored) -> Tensor:
        """L_ST of the output, along the motion of the true frames: in rainy ones, rain would pass for motion."""
        before = restore(network, batch.rainy[:, :-1])
        previous = batch.window[:, self.config.frames // 2]
        flow = DenseInverseSearch()(batch.clean, previous)
        return temporal_loss(restored.output, before.output, batch.clean, previous, flow)


def _over_clips(name: str, values: list[float]) -> float:
    """One score of all clips: a number of frames in all, or the mean."""
    if name in EQUAL:
        return sum(values)
    return mean_psnr(values) if name.endswith("psnr") else sum(values) / len(values)


def _middle(length: int, most: int) -> slice:
    start = max(0, (length - most) // 2)
    return slice(start, start + most)
