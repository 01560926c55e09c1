"""Optional C++ kernel for a gradient that PyTorch computes slowly: that of large or dilated depthwise kernels.

Nothing needs it. `python -m nas.kernels` builds it once, with a C++ compiler and ninja. From then on a process loads it
when it first computes channels last (`nas.kernels.memory_format`), until the version of PyTorch, the processor or the
source changes. Only a library in a folder that belongs to the current user, and that nobody else may write to, is
loaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import ConfigError

SOURCE = Path(__file__).with_name("depthwise.cpp")
FLAGS = {"AVX512": ("-mavx512f",), "AVX2": ("-mavx2", "-mfma")}
"""Flags of the compiler by the capability of the processor, in PyTorch's words."""

enabled = True
"""Whether a built kernel is used; comparisons switch it off."""


def library() -> Path:
    """Return the path of the built kernel, in PyTorch's folder of extensions, whether or not it exists."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions"
    content = SOURCE.read_bytes() + f"{torch.__version__} {sys.platform}".encode()
    name = f"nas_depthwise_{_capability().lower()}_{hashlib.sha256(content).hexdigest()[:12]}"
    return Path(root, name, f"{name}.so")


def build() -> Path:
    """Build the kernel, load it, and return its path.

    Raises:
        ConfigError: the compiler fails, the folder cannot be written, or it is not the current user's alone.
    """
    from torch.utils import cpp_extension

    path = library()
    search = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), search))  # pip installs ninja there
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (problem := _shared(path.parent)) is not None:
            raise ConfigError(problem)
        cpp_extension.load(
            path.stem,
            [str(SOURCE)],
            extra_cflags=["-O3", *FLAGS.get(_capability(), ())],
            build_directory=str(path.parent),
            is_python_module=False,
        )
        path.chmod(0o700)
        _register_vmap()
        load.cache_clear()
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"{path.parent}: cannot build the kernel: {error}. It is optional and needs a C++ compiler and ninja."
        ) from error
    finally:
        os.environ["PATH"] = search
    return path


@cache
def load() -> bool:
    """Load the kernel if it has been built, and return whether this process has it; warn if its folder is not safe.

    Only the first call looks for the library.
    """
    path = library()
    if not is_loaded() and path.is_file():
        problem = _shared(path.parent) or _shared(path)
        if problem is not None:
            warnings.warn(f"the C++ kernel is not used: {problem}", stacklevel=2)
            return False
        torch.ops.load_library(path)  # type: ignore[no-untyped-call]  # torch has no types here
        _register_vmap()
    return is_loaded()


def _shared(path: Path) -> str | None:
    """Return what is wrong with a path that is another user's, or that others may write to; None if nothing is."""
    status = path.stat()
    if status.st_uid == os.getuid() and not status.st_mode & 0o022:
        return None
    found = f"owner {status.st_uid} and mode {stat.filemode(status.st_mode)}"
    must = f"{path} must be owned by user {os.getuid()} and writable by nobody else"
    return f"{must}, got {found}. Delete it, then run `python -m nas.kernels`."


def is_loaded() -> bool:
    """Return whether this process has the kernel."""
    return hasattr(torch.ops.nas, "depthwise_kernel_gradient")


def suits(x: Tensor) -> bool:
    """Return whether this process has the kernel, and it computes images like x."""
    return enabled and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and is_loaded()


def kernel_gradient(
    x: Tensor, gradient: Tensor, kernel: tuple[int, ...], padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """Compute the gradient of the kernel of a depthwise convolution of stride 1.

    Shape:
        x, gradient: `(batch, channels, height, width)`, the input and the gradient of the output
        output: `(channels, 1, *kernel)`
    """
    found: Tensor = torch.ops.nas.depthwise_kernel_gradient(x, gradient, kernel, padding, dilation)
    return found


def _register_vmap() -> None:
    """Register the rule of `vmap` for the kernel: batched images become channels side by side."""

    def rule(info: Any, dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
        x, gradient = (
            _side_by_side(image, dim, info.batch_size) for image, dim in zip(arguments, dims[:2], strict=False)
        )
        return torch.unflatten(kernel_gradient(x, gradient, *arguments[2:]), 0, (info.batch_size, -1)), 0

    torch.library.register_vmap("nas::depthwise_kernel_gradient", rule)


def _side_by_side(image: Tensor, dim: int | None, count: int) -> Tensor:
    """Return `(batch, count * channels, height, width)` of a batched image, or of `count` copies of one."""
    images = image.expand(count, *image.shape) if dim is None else image.movedim(dim, 0)
    return images.movedim(0, 1).flatten(1, 2)


def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability()
