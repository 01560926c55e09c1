from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from nas.errors import ConfigError
from nas.kernels import native
from nas.kernels.convolution import conv2d

pytestmark = pytest.mark.xdist_group("native kernels")  # which are compiled once
compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of extensions in which the command built the kernel; this process has it."""
    root = tmp_path_factory.mktemp("extensions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(root))
        done = subprocess.run([sys.executable, "-m", "nas.kernels"], capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()) == native.library()
        native.load.cache_clear()
        assert native.load()
    return root


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for every time that the kernel is used."""
    times: list[int] = []
    monkeypatch.setattr(native, "kernel_gradient", lambda *a, real=native.kernel_gradient: times.append(1) or real(*a))
    return times


@compiler
@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 35),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    dtype=st.sampled_from((torch.float64, torch.float32)),
)
def test_the_kernels_gradient_is_that_of_torch(built, channels, kernel, dilation, size, share, dtype):
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = tuple(round(part * r) for part, r in zip(share, reach, strict=True))
    size = tuple(max(s, r + 1 - 2 * p) for s, r, p in zip(size, reach, padding, strict=True))
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size, dtype=dtype)
    weight = torch.randn(channels, 1, *kernel, dtype=dtype, requires_grad=True)
    out = F.conv2d(x, weight, None, 1, padding, dilation, channels)
    gradient = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, weight, gradient)
    found = native.kernel_gradient(x, gradient, kernel, padding, dilation)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-4)


@compiler
def test_it_reads_images_in_any_layout(built):
    x, gradient = torch.randn(2, 3, 8, 9, dtype=torch.float64), torch.randn(2, 3, 8, 9, dtype=torch.float64)
    last = [image.contiguous(memory_format=torch.channels_last) for image in (x, gradient)]
    geometry = ((5, 5), (2, 2), (1, 1))
    assert torch.equal(native.kernel_gradient(x, gradient, *geometry), native.kernel_gradient(*last, *geometry))


@compiler
@pytest.mark.parametrize(("kernel", "dilation"), [(5, 1), (3, 2)])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, for `jvp`
def test_all_derivatives_of_a_depthwise_convolution_stay_exact(built, used, kernel, dilation):
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    pad = dilation * (kernel // 2)

    def convolve(x, weight):
        return conv2d(x, weight, None, 1, pad, dilation, 2)

    assert gradcheck(convolve, (x, weight), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(convolve, (x, weight), check_fwd_over_rev=True)
    assert used


@compiler
@pytest.mark.parametrize(("kernel", "dilation", "faster"), [(5, 1, True), (3, 2, True), (3, 1, False)])
def test_it_is_used_where_it_is_faster(built, used, kernel, dilation, faster):
    x, weight = torch.randn(1, 2, 6, 7), torch.randn(2, 1, kernel, kernel, requires_grad=True)
    conv2d(x, weight, None, 1, dilation * (kernel // 2), dilation, 2).sum().backward()
    assert bool(used) is faster


@compiler
@pytest.mark.usefixtures("built")
def test_it_is_for_floating_point_numbers_of_the_processor_and_can_be_switched_off(monkeypatch):
    x = torch.zeros(1)
    assert native.suits(x)
    assert native.suits(x.double())
    assert not native.suits(x.bfloat16())
    assert not native.suits(x.to("meta"))
    monkeypatch.setattr(native, "enabled", False)
    assert not native.suits(x)


USE = """
import torch
from nas.kernels import native
from nas.kernels.convolution import conv2d
from nas.kernels.memory_format import channels_last
import nas.supernet
print(native.is_loaded())
x, weight = torch.randn(1, 2, 6, 7), torch.randn(2, 1, 5, 5, requires_grad=True)
with channels_last():
    conv2d(x, weight, None, 1, 2, 1, 2).sum().backward()
print(native.is_loaded())
"""


def loaded(root: Path) -> tuple[list[bool], str]:
    """Whether a new process has the kernel after its imports and after its first use, and what it warns of."""
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(root)}
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True, env=environment)
    return [word == "True" for word in done.stdout.split()], done.stderr


@compiler
def test_a_command_builds_it_and_later_processes_load_it_at_first_use(built, tmp_path):
    assert loaded(tmp_path)[0] == [False, False]
    assert loaded(built) == ([False, True], "")


@compiler
def test_what_others_may_write_to_is_not_loaded(built, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(built))
    path = native.library()
    for each, mode in ((path, 0o722), (path.parent, 0o770), (path.parent, 0o777)):
        safe = each.stat().st_mode
        each.chmod(mode)
        problem = native._shared(each)
        assert f"{each} must be owned" in problem
        assert stat.filemode(mode)[1:] in problem
        seen, warning = loaded(built) if mode == 0o777 else ([False, False], problem)
        assert seen == [False, False]
        assert problem in warning
        each.chmod(safe)
    if os.getuid() == 0:
        os.chown(path, 65534, -1)
        assert "got owner 65534" in native._shared(path)
        os.chown(path, 0, -1)
    assert native._shared(path) is native._shared(path.parent) is None


def test_it_is_not_built_in_a_folder_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    folder = native.library().parent
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"{folder} .* got owner {os.getuid()} and mode drwxrwxrwx"):
        native.build()
    assert not list(folder.iterdir())


def test_another_source_is_another_library(tmp_path, monkeypatch):
    before = native.library()
    changed = tmp_path / "depthwise.cpp"
    changed.write_text(native.SOURCE.read_text() + "\n")
    monkeypatch.setattr(native, "SOURCE", changed)
    assert native.library() != before


def test_without_a_compiler_the_message_says_so_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = subprocess.run([sys.executable, "-m", "nas.kernels"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot build" in done.stderr
    assert "Traceback" not in done.stderr
    assert not native.library().exists()


def test_what_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot build"):
        native.build()
