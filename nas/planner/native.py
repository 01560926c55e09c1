"""A kernel in C++ for what torch is slow at: the gradient of depthwise kernels that are large or dilated.

Nothing needs it. `python -m nas.planner` builds it once, with a C++ compiler and ninja; from then on every process
loads it when it starts, until torch, the processor or the source is another one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import ConfigError

SOURCE = Path(__file__).with_name("depthwise.cpp")
FLAGS = {"AVX512": ("-mavx512f",), "AVX2": ("-mavx2", "-mfma")}
"""What the compiler may use, by what torch has found the processor to have."""

enabled = True
"""Whether the kernel is used where it has been built: for comparisons."""


def library() -> Path:
    """Where the built kernel lies, or would: in torch's folder of extensions."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    content = SOURCE.read_bytes() + f"{torch.__version__} {sys.platform}".encode()
    name = f"nas_depthwise_{_capability().lower()}_{hashlib.sha256(content).hexdigest()[:12]}"
    return Path(root, name, f"{name}.so")


def build() -> Path:
    """Build the kernel, load it, and return where it lies; raises `ConfigError` where that fails, and says why."""
    from torch.utils import cpp_extension

    path = library()
    search = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), search))  # where pip puts ninja
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cpp_extension.load(
            path.stem,
            [str(SOURCE)],
            extra_cflags=["-O3", *FLAGS.get(_capability(), ())],
            build_directory=str(path.parent),
            is_python_module=False,
        )
        _batch()
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"the kernel cannot be built, and is not needed (compiler: c++, ninja): {error}") from error
    finally:
        os.environ["PATH"] = search
    return path


def load() -> None:
    """Load the kernel, where it has been built."""
    if not is_loaded() and (path := library()).is_file():
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]  # torch has no types here
        _batch()


def is_loaded() -> bool:
    """Whether this process has the kernel."""
    return hasattr(torch.ops.nas, "depthwise_kernel_gradient")


def suits(x: Tensor) -> bool:
    """Whether the kernel is there for images like x."""
    return enabled and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and is_loaded()


def kernel_gradient(
    x: Tensor, gradient: Tensor, kernel: tuple[int, ...], padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """The gradient of the kernel `(channels, 1, *kernel)` of a depthwise convolution of stride 1, given its input
    `(batch, channels, height, width)` and the gradient of its output."""
    found: Tensor = torch.ops.nas.depthwise_kernel_gradient(x, gradient, kernel, padding, dilation)
    return found


def _batch() -> None:
    """Tell `vmap` of the kernel: what is batched stands side by side as channels."""

    def rule(info: Any, dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
        x, gradient = (
            _side_by_side(image, dim, info.batch_size) for image, dim in zip(arguments, dims[:2], strict=False)
        )
        return torch.unflatten(kernel_gradient(x, gradient, *arguments[2:]), 0, (info.batch_size, -1)), 0

    torch.library.register_vmap("nas::depthwise_kernel_gradient", rule)


def _side_by_side(image: Tensor, dim: int | None, count: int) -> Tensor:
    """`(batch, count * channels, height, width)` of a batched image, or of `count` copies of one."""
    images = image.expand(count, *image.shape) if dim is None else image.movedim(dim, 0)
    return images.movedim(0, 1).flatten(1, 2)


def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability()
