"""The task `low-light`: pictures, the losses of RUAS, scores, and enhancement of files."""

from __future__ import annotations

import functools
import itertools
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from nas.distributed.ranks import count, each, is_first
from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.kernels.finite import require_finite
from nas.registry import Count, NonNegative, register
from nas.run.images import read_upright
from nas.run.task import TEST, Task
from search_spaces.low_light.data import Folders, Pictures, Synthetic
from search_spaces.low_light.reference_free import light_loss, noise_loss
from search_spaces.low_light.ruas import Enhanced
from search_spaces.picture_files import WRITTEN_SUFFIXES, by_stem, list_images, new_folder, write_image

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
        """Enhance a picture file into a file, or a folder of them into a new folder of PNG files, at their own sizes.

        A failed call writes nothing.

        Args:
            network: returns `Enhanced`.
            source: the picture file, or a folder of them.
            sink: the file or folder to write.
            progress: called with the number of pictures done and the number of all pictures.

        Returns:
            `pictures` and `seconds`.

        Raises:
            InvalidFileError: a source cannot be read, two pictures have one name, or the sink exists or cannot be
                written.
            ConfigError: the sink of a file has an unknown suffix.
            DivergedError: an output is not finite.
        """
        single = source.is_file()
        paths = [source] if single else list_images(source)
        names = [sink.name] if single else [f"{stem}.png" for stem in by_stem(paths)]
        if single and sink.suffix.lower() not in WRITTEN_SUFFIXES:
            raise ConfigError(f"{sink}: the suffix must be one of {', '.join(WRITTEN_SUFFIXES)}, got '{sink.suffix}'")
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
            pixels: Tensor = (255 * output[0].clamp(0, 1)).round().byte().cpu()
            return pixels

        numbered = enumerate(paths, start=1)
        with nullcontext(sink.parent) if single or not is_first() else new_folder(sink) as folder:
            for first in range(0, len(paths), count()):  # holds one picture of each rank
                pictures = each(enhanced, itertools.islice(numbered, count()))
                for name, pixels in zip(names[first:], pictures, strict=False):
                    if is_first():
                        write_image(folder / name, pixels)
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
