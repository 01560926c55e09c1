"""The task `low-light`: pictures, the losses of RUAS, scores, and enhancement of files."""

from __future__ import annotations

import functools
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nas.distributed.ranks import each, is_first
from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.kernels.finite import require_finite
from nas.registry import Count, NonNegative, register
from nas.run.images import read_upright
from nas.run.task import TEST, Task
from search_spaces.low_light.data import Folders, Pictures, Synthetic
from search_spaces.low_light.reference_free import light_loss, noise_loss
from search_spaces.low_light.ruas import Enhanced
from search_spaces.picture_files import list_images

SPLITS = ("train", "val", "all")


class LowLightConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `task` section of a configuration."""

    data: Folders | Synthetic = Synthetic()
    batch: Count = 1
    fidelity: NonNegative = 1e-7
    """Weight of the distance to the picture with noise in the loss `noise`."""


@register("task", "low-light")
class LowLight(Task):
    """Enhancement of low-light pictures, trained without pictures in good light. Networks return `Enhanced`.

    The splits `train` and `val` are halves of the training pictures, at random; `all` is their union. The losses are
    `light`, `noise`, and `both`, their sum.

    Args:
        config: the settings.
        seed: of the splits and batches.
    """

    Config = LowLightConfig
    config: LowLightConfig
    score = "loss"
    threaded = True
    metrics = MappingProxyType({"loss": "min", "psnr": "max"})
    statement = "loss: mean of the loss 'both'; psnr: in dB, mean over the test pictures, against good light"

    def __init__(self, config: LowLightConfig | None = None, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.losses = {"light": self._light, "noise": self._noise, "both": self._both}

    def batch(self, split: str, index: int) -> Tensor:
        """Return pictures of a split, drawn without replacement, `(batch, 3, height, width)`."""
        members = self.members(split)
        rng = np.random.default_rng([self.seed, zlib.crc32(split.encode()), index])
        return self._pictures.train[rng.choice(members, min(self.config.batch, len(members)), replace=False)]

    def example(self) -> tuple[Tensor, ...]:
        """Return one dark picture."""
        return (torch.zeros(1, 3, self.config.data.size, self.config.data.size),)

    def members(self, split: str) -> list[int]:
        """Return the numbers of the training pictures of a split."""
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        order = np.random.default_rng(self.seed).permutation(len(self._pictures.train)).tolist()
        half = (len(order) + 1) // 2
        found: list[int] = {"train": order[:half], "val": order[half:], "all": order}[split]
        if not found:
            raise ConfigError(f"task.data must have at least 2 training pictures, got {len(order)}")
        return found

    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Return the loss on a split, and the PSNR on the test pictures."""
        pictures = self._pictures.test if split == TEST else self._pictures.train[self.members(split)]
        losses = [self._both(network, picture[None]).item() for picture in pictures]
        psnr = [
            _psnr(network(picture[None]).output, truth[None])
            for picture, truth in zip(self._pictures.test, self._pictures.truth, strict=True)
        ]
        return {"loss": sum(losses) / len(losses), "psnr": sum(psnr) / len(psnr)}

    def measure(self, network: nn.Module, batch: Tensor) -> dict[str, float]:
        """Return the loss on a batch."""
        return {"loss": self._both(network, batch).item()}

    def predict(
        self, network: nn.Module, source: Path, sink: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, float]:
        """Enhance a picture file into a file, or a folder of them into a new folder, at their own sizes."""
        paths = [source] if source.is_file() else list_images(source)
        if sink.exists():
            raise InvalidFileError(f"{sink}: exists already. Remove it or choose another name")
        started = time.perf_counter()

        def enhanced(item: tuple[int, Path]) -> Tensor:
            done, path = item
            picture = torch.from_numpy(np.array(read_upright(path, "RGB"))).permute(2, 0, 1)[None] / 255
            output = network(picture.to(next(network.parameters()).device)).output
            require_finite(output, f"{path}")
            if progress is not None:
                progress(done, len(paths))
            pixels: Tensor = (255 * output[0].clamp(0, 1)).round().byte().permute(1, 2, 0).cpu()
            return pixels

        pictures = [Image.fromarray(pixels.numpy()) for pixels in each(enhanced, enumerate(paths, start=1))]
        if is_first():
            if source.is_file():
                pictures[0].save(sink)
            else:
                sink.mkdir(parents=True)
                for path, picture in zip(paths, pictures, strict=True):
                    picture.save(sink / f"{path.stem}.png")
        return {"pictures": len(paths), "seconds": time.perf_counter() - started}

    @functools.cached_property
    def _pictures(self) -> Pictures:
        return self.config.data.load()

    def _light(self, network: nn.Module, batch: Tensor) -> Tensor:
        return light_loss(batch, network(batch).light)

    def _noise(self, network: nn.Module, batch: Tensor) -> Tensor:
        found = network(batch)
        return noise_loss(found.output, found.lit, self.config.fidelity)

    def _both(self, network: nn.Module, batch: Tensor) -> Tensor:
        found: Enhanced = network(batch)
        return light_loss(batch, found.light) + noise_loss(found.output, found.lit, self.config.fidelity)


def _psnr(output: Tensor, truth: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB, of pictures in [0, 1]."""
    return -10 * (output.clamp(0, 1) - truth).square().mean().clamp_min(1e-10).log10().item()
