"""The task `derain`: losses and data of the levels, scores, and prediction on films."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from nas.distributed.ranks import each
from nas.errors import ConfigError, UnknownNameError
from nas.registry import Count, NonNegative, Positive, register
from nas.run.scoring import Files, Scoring
from nas.run.task import TEST, Preview, Task
from tmics_space.data.clips import Batch, Clip, sample
from tmics_space.data.shots import split_clips
from tmics_space.data.sources import Films, Pairs
from tmics_space.flow import DenseInverseSearch
from tmics_space.losses import ARC_LOSSES, arc_loss, companion_loss, fidelity, temporal_loss
from tmics_space.metrics.image import luminance, mean_psnr, psnr
from tmics_space.metrics.interval import confidence_interval
from tmics_space.metrics.protocol import evaluate_clip, find_protocol
from tmics_space.metrics.temporal import TOF, WARPING_ERROR, tof, warping_error
from tmics_space.network import Restored, restore
from tmics_space.predict import derain, derain_file
from tmics_space.scores import score_derained

SPLITS = ("train", "middle", "val", "all")
VALIDATION = "validation"
"""The split of clips of its own that a retraining is scored on."""

EQUAL = ("equal_frames", "rainy_equal_frames")
"""The scores that count frames equal to the ground truth, after and before deraining."""

PREVIEWS = 2
"""The number of test clips in `previews`."""
PREVIEW = (16, 240, 320)
"""The greatest number of frames, rows and columns of each preview."""


class Fractions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shares of the training clips that the levels of a search get."""

    train: Positive = 0.5
    middle: NonNegative = 0.2
    """If 0, the middle level draws its own windows from the clips of `train`."""
    val: Positive = 0.3


class DerainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `task` section of a configuration."""

    train: Films | Pairs
    test: Films | Pairs
    """Only `evaluate` reads it; use different films than for `train`."""
    test_seed: int = 0
    """Seed of the rain on `test`, independent of the run's seed, so that all runs are scored on the same frames."""
    validation: Films | Pairs | None = None
    """The split `validation`; use films that are in neither `train` nor `test`."""
    validation_seed: int = 1
    """As `test_seed`."""
    fractions: Fractions = Fractions()
    by_film: bool = True
    """Whether all shots of a film go to the same split of the search."""
    frames: Count = 5
    crop: Count = 64
    batch: Count = 2
    l1: NonNegative = 0.75
    structure: NonNegative = 1.1
    """Weight of 1 - SSIM beside the L1 distance."""
    logarithm: NonNegative = 0.0
    """Weight of the logarithm of the squared error (`tmics_space.losses.log_error`), which lets windows with light and
    with heavy rain count alike."""
    epsilon: NonNegative = 0.0
    """If positive, the L1 distance is smooth at zero (`tmics_space.losses.charbonnier`)."""
    final_epsilon: Positive | None = None
    """The epsilon at the end of the run, which it approaches geometrically; by default it does not change."""
    companion: Literal["fidelity", "charbonnier", "rain_prior"] = "fidelity"
    eta: NonNegative = 1.0
    """Weight of the companion branch's loss in the upper level."""
    photometric: NonNegative = 0.1
    """Weight of the optical flow's own loss in the lower level."""
    steadiness: NonNegative = 0.0
    """Weight of L_ST, the change of the output over time apart from motion, in all losses. It needs OpenCV and a second
    forward pass."""
    protocol: str = "y"
    """Selects how PSNR and SSIM are computed (`tmics_space.metrics.protocol`)."""
    temporal: bool = False
    """Let `evaluate` also measure steadiness over time, which needs OpenCV."""

    def epsilon_at(self, progress: float) -> float:
        """Return the epsilon when a share of the run in [0, 1] is done."""
        if self.final_epsilon is None:
            return self.epsilon
        return float(self.epsilon ** (1 - progress) * self.final_epsilon**progress)


@register("task", "derain")
class DerainTask(Task):
    """Video deraining on synthetic rain or paired data sets.

    The splits `train`, `middle` and `val` divide the training clips; `all` is their union. `validation` has clips of
    its own. The losses are:

    - `lower`: both branches, plus the photometric loss of the optical flow
    - `joint`: both branches and their average, plus the photometric loss of the optical flow
    - `fused`, `branches`, `all`, `dna`: see `tmics_space.losses.arc_loss`
    - `squared`: the mean squared error of the output, which is quadratic in the weight of a `free` averaging

    Args:
        config: the settings.
        seed: of the splits, the rain and the crops.

    Raises:
        UnknownNameError: no protocol has the configured name.
        ConfigError: `final_epsilon` without `epsilon`.
    """

    Config = DerainConfig
    config: DerainConfig
    score = "psnr"
    default_model = "tmics-compact"
    threaded = True
    metrics = MappingProxyType({"psnr": "max", "ssim": "max", "warping_error": "min", "tof": "min"})

    def __init__(self, config: DerainConfig, *, seed: int = 0) -> None:
        if config.final_epsilon is not None and not config.epsilon:
            raise ConfigError("task.final_epsilon needs an epsilon above 0 to start from, got epsilon 0")
        super().__init__(config, seed=seed)
        self.losses = {
            "lower": functools.partial(self._loss, "branches", photometric=config.photometric),
            "joint": functools.partial(self._loss, "all", photometric=config.photometric),
            "squared": self._squared,
            **{mode: functools.partial(self._loss, mode, eta=config.eta) for mode in ARC_LOSSES},
        }
        self.statement = (
            f"psnr, ssim: {find_protocol(config.protocol).statement}; of frames in 8 bits, as they are written"
        )
        if config.temporal:
            self.statement += f"\nwarping_error: {WARPING_ERROR}\ntof: {TOF}"

    def batch(self, split: str, index: int) -> Batch:
        """Return windows of random crops: `rainy` and `window`, `(batch, frames, 3, crop, crop)` in [0, 1].

        With `steadiness`, windows begin one frame earlier.
        """
        clips = self._of(split)
        seed = zlib.crc32(f"{self.seed}/{split}".encode())
        config = self.config
        before = config.steadiness > 0
        return sample(clips, index, seed, frames=config.frames, crop=config.crop, batch=config.batch, before=before)

    def example(self) -> tuple[Tensor, ...]:
        """Return one window, `(1, frames, 3, crop, crop)`."""
        return (torch.zeros(1, self.config.frames, 3, self.config.crop, self.config.crop),)

    def check(self, split: str = TEST) -> None:
        """Load the clips of a split.

        Raises:
            ConfigError: a clip is too short for the protocol.
        """
        least = 2 * find_protocol(self.config.protocol).drop + 1
        for clip in self._scored(split):
            if len(clip.frames) < least:
                where = split if split in (TEST, VALIDATION) else "train"
                raise ConfigError(
                    f"task.{where}: clip '{clip.name}' must have at least {least} frames"
                    f" for the protocol '{self.config.protocol}', got {len(clip.frames)}"
                )

    def members(self, split: str) -> list[str]:
        """Return the names of the training clips of a split."""
        return [clip.name for clip in self._of(split)]

    def measure(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Return the mean PSNR in dB over the windows of a batch, on the channels of the protocol."""
        restored = restore(network, batch.rainy[:, -self.config.frames :])
        how = find_protocol(self.config.protocol)
        images = restored.output.double().clamp(0, 1), batch.clean.double()
        output, clean = map(luminance, images) if how.channels == "y" else images
        return {"psnr": mean_psnr(psnr(output, clean, rounded=how.rounded).tolist())}

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Score a network on the test clips, or on the clips of another split.

        A frame that equals the ground truth has no PSNR; the mean PSNR excludes it.

        Args:
            network: to score, in eval mode.
            split: of the clips.

        Returns:
            Means over clips:

            - `psnr` in dB and `ssim`; `rainy_psnr` and `rainy_ssim` of the rainy input
            - `weight` of the dominant branch
            - with `temporal`: `warping_error`, `true_warping_error` of the ground truth, and `tof`
            - with three clips or more: `psnr_low` and `psnr_high`, the 95 % interval of the mean PSNR by Student's t
            - `equal_frames` and `rainy_equal_frames`, the numbers of frames without PSNR, if there are any
        """
        parts: dict[str, dict[str, float]] = {}
        clips = []

        def scored(clip: Clip) -> dict[str, dict[str, float]]:
            versions = clip.versions()
            names = [clip.name + f" #{number}" * (len(versions) > 1) for number in range(1, len(versions) + 1)]
            rows = (self._score(network, clean, rainy) for rainy, clean in versions)
            return dict(zip(names, rows, strict=True))

        for of_clip in each(scored, self._scored(split)):
            parts |= of_clip
            clips.append(mean_psnr([row["psnr"] for row in of_clip.values()]))
        rows = list(parts.values())
        for name in EQUAL:
            if not any(row[name] for row in rows):
                for row in rows:
                    del row[name]
        self.parts = parts
        means = {name: _over_clips(name, [row[name] for row in rows]) for name in rows[0]}
        if (found := confidence_interval([each for each in clips if each != math.inf])) is not None:
            means |= {"psnr_low": found.low, "psnr_high": found.high}
        return means

    def previews(self, network: nn.Module) -> list[Preview]:
        """Return rainy, derained and true frames from the middle of the first test clips, cropped at the centre."""
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
        """Derain a video file, a folder of frames or an image (see `tmics_space.predict.derain_file`)."""
        return derain_file(network, source, sink, tile=tile, bfloat16=bfloat16, progress=progress)

    @classmethod
    def score_files(
        cls,
        files: Files,
        *,
        protocol: str = "y",
        temporal: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Scoring:
        """Score derained videos or folders of frames (see `tmics_space.scores.score_derained`)."""
        return score_derained(files, protocol=protocol, temporal=temporal, progress=progress)

    def _scored(self, split: str) -> list[Clip]:
        return self.test_clips if split == TEST else self._of(split)

    def _of(self, split: str) -> list[Clip]:
        """Return the clips of a split other than `test`."""
        if split == VALIDATION:
            return self._validation_clips
        if split not in SPLITS:
            raise UnknownNameError("split", split, (*SPLITS, VALIDATION))
        return self._clips if split == "all" else self._splits[split]

    @functools.cached_property
    def test_clips(self) -> list[Clip]:
        """The clips that `evaluate` scores, with their rain."""
        return self.config.test.load(self.config.test_seed)

    @functools.cached_property
    def _validation_clips(self) -> list[Clip]:
        if self.config.validation is None:
            raise ConfigError(f"task.validation must be given for the split '{VALIDATION}', got none")
        return self.config.validation.load(self.config.validation_seed)

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
        pair = clip.versions()[0]
        length, _, height, width = pair[1].shape
        spans = [_middle(size, most) for size, most in zip((length, height, width), PREVIEW, strict=True)]
        rainy, truth = (frames[spans[0]][..., spans[1], spans[2]] for frames in pair)
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
        self,
        mode: str,
        network: nn.Module,
        batch: Batch,
        *,
        progress: float = 1.0,
        eta: float = 1.0,
        photometric: float = 0.0,
    ) -> Tensor:
        frames = batch.rainy[:, -self.config.frames :]
        restored = restore(network, frames)
        config = self.config
        dominant = functools.partial(
            fidelity,
            l1=config.l1,
            structure=config.structure,
            logarithm=config.logarithm,
            epsilon=config.epsilon_at(progress),
        )
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
        """Compute L_ST of the output along the motion of the true frames, which rain does not disturb."""
        before = restore(network, batch.rainy[:, :-1])
        previous = batch.window[:, self.config.frames // 2]
        flow = DenseInverseSearch()(batch.clean, previous)
        return temporal_loss(restored.output, before.output, batch.clean, previous, flow)


def _over_clips(name: str, values: list[float]) -> float:
    """Join a score of all clips: the sum of counts, or else the mean."""
    if name in EQUAL:
        return sum(values)
    return mean_psnr(values) if name.endswith("psnr") else sum(values) / len(values)


def _middle(length: int, most: int) -> slice:
    start = max(0, (length - most) // 2)
    return slice(start, start + most)
