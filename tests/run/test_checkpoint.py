from __future__ import annotations

import copy
import errno
import io
import os
import resource
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from nas.errors import DivergedError, InvalidFileError, UnknownNameError
from nas.run import checkpoint
from states import same


def state(seed: int = 0) -> dict[str, Any]:
    """What a search keeps: weights, an optimizer's state, a random state, nested plain values."""
    torch.manual_seed(seed)
    network = nn.Linear(8, 4)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(2, 8)).sum().backward()
    optimizer.step()
    return {
        "step": seed,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": checkpoint.random_state(),
        "order": [3, 1, 2],
        "best": (0.5, None, "dna", True),
    }


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "new folder" / "last.pt", state(3))
    assert same(checkpoint.load(tmp_path / "new folder" / "last.pt"), state(3))
    assert os.listdir(tmp_path / "new folder") == ["last.pt"]


@pytest.mark.parametrize("version", range(1, checkpoint.FORMAT + 1))
def test_every_version_stays_loadable(version: int) -> None:
    """Files of released versions never change; a new version brings its own."""
    found = checkpoint.load(Path(__file__).parents[1] / "golden" / f"checkpoint-{version}.pt")
    assert same(found, {"step": 3, "weight": torch.tensor([0.5, -1.0]), "names": ["a", "b"]})


def test_every_kind_of_plain_state_comes_back(tmp_path: Path) -> None:
    """Saving looks at types alone, so each that it lets pass must be one that loading makes."""
    plain = [None, True, -1, 2**70, 0.5, float("inf"), 1j, "text", "\ud800", b"bytes", torch.Size([2]), torch.float16,
             torch.device("cpu"), (1, [2, {3: "x"}]), OrderedDict(a=1), nn.Linear(2, 1).state_dict()]  # fmt: skip
    dtypes = (torch.bool, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64)
    tensors = [torch.zeros(2, 3, dtype=dtype).T for dtype in dtypes]
    checkpoint.save(tmp_path / "last.pt", {"plain": plain, "tensors": tensors, "keys": {1: 2, (3, "a"): 4}})
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert same(loaded, {"plain": plain, "tensors": tensors, "keys": {1: 2, (3, "a"): 4}})
    checkpoint.save(tmp_path / "last.pt", {"set": {1, 2}, "parameter": nn.Parameter(torch.ones(2))})
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert loaded["set"] == {1, 2}
    assert torch.equal(loaded["parameter"], torch.ones(2))


def test_the_file_before_is_kept_under_another_name(tmp_path: Path) -> None:
    for seed in range(3):
        checkpoint.save(tmp_path / "last.pt", state(seed), keep=tmp_path / "previous.pt")
        assert same(checkpoint.load(tmp_path / "last.pt"), state(seed))
    assert same(checkpoint.load(tmp_path / "previous.pt"), state(1))
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.float64(1.0), "numpy"),
        (nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (Path("x"), "pathlib"),
        ([{"deep": (frozenset({1}),)}], "builtins.frozenset"),
        ({Path("key"): 1}, "pathlib"),
    ],
)
def test_state_that_could_not_be_loaded_is_not_saved(tmp_path: Path, value: object, named: str) -> None:
    checkpoint.save(tmp_path / "last.pt", state())
    with pytest.raises(TypeError, match=f"only plain state can be saved, got {named}"):
        checkpoint.save(tmp_path / "last.pt", {"value": value})
    assert same(checkpoint.load(tmp_path / "last.pt"), state())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"last\.pt: cannot be read: No such file"):
        checkpoint.load(tmp_path / "last.pt")


def test_an_empty_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(InvalidFileError, match=r"last\.pt: damaged, or no checkpoint \(File is not a zip file\)$"):
        checkpoint.load(tmp_path / "last.pt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "last.pt"
    checkpoint.save(path, state())
    return path.read_bytes()


@given(data=st.data())
def test_every_truncated_file_is_refused(
    saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("truncated") / "last.pt"
    path.write_bytes(saved[: data.draw(st.integers(0, len(saved) - 1))])
    with pytest.raises(InvalidFileError, match=r"last\.pt: damaged, or no checkpoint"):
        checkpoint.load(path)


@given(data=st.data())
def test_a_flipped_bit_is_refused_or_harmless(
    saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flipped") / "last.pt"
    damaged = bytearray(saved)
    damaged[data.draw(st.integers(0, len(saved) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        loaded = checkpoint.load(path)
    except InvalidFileError:
        return
    assert same(loaded, state())


def test_a_flipped_bit_in_a_tensor_is_refused(saved: bytes, tmp_path: Path) -> None:
    weight = state()["network"]["weight"].numpy().tobytes()
    assert saved.count(weight) == 1
    (tmp_path / "last.pt").write_bytes(saved.replace(weight, bytes([weight[0] ^ 1]) + weight[1:]))
    with pytest.raises(InvalidFileError, match="wrong checksum"):
        checkpoint.load(tmp_path / "last.pt")


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def test_no_code_is_run_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoint.FORMAT, "state": {"x": Trap()}}, tmp_path / "last.pt")
    with pytest.raises(InvalidFileError, match="no checkpoint"):
        checkpoint.load(tmp_path / "last.pt")
    assert not Path("sprung").exists()


def foreign() -> dict[str, bytes]:
    weights, newer, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, weights)
    torch.save({"format": 99, "state": {}}, newer)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "not a checkpoint")
    return {
        "text": b"genotype: 1\n",
        "weights": weights.getvalue(),
        "newer": newer.getvalue(),
        "archive": archive.getvalue(),
    }


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "no checkpoint"),
        ("weights", "no checkpoint of this package, expected format 1"),
        ("newer", "a checkpoint of format 99, expected format 1"),
        ("archive", "no checkpoint"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    (tmp_path / "last.pt").write_bytes(foreign()[kind])
    with pytest.raises(InvalidFileError, match=message):
        checkpoint.load(tmp_path / "last.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InvalidFileError, match=r"last\.pt: cannot be written: No space left on device; fix this and try"
    ):
        checkpoint.save(path, state(2))
    assert same(checkpoint.load(path), state(1))
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the system refuses more, as a full disk does
    try:
        with pytest.raises(InvalidFileError, match=r"last\.pt: cannot be written: File too large"):
            checkpoint.save(path, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(checkpoint.load(path), state(1))
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFileError, match=r"file/last\.pt: cannot be written"):
        checkpoint.save(tmp_path / "file" / "last.pt", state())


def test_killed_while_saving_the_file_is_whole(tmp_path: Path) -> None:
    """A process saves again and again and is killed, twelve times over, at moments spread over a save."""
    program = """
import itertools, os, signal, sys, time
from pathlib import Path
import torch
from nas.run import checkpoint

path = Path(sys.argv[1])
began, interrupted = 0, 0
for kill in range(12):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for step in itertools.count(began):
            checkpoint.save(path, {"step": step, "weights": torch.full((300_000,), float(step))})
            os.write(writer, b".")
    os.close(writer)
    os.read(reader, 1)
    time.sleep(0.0015 * kill)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    saved = began + len(os.read(reader, 10_000))  # besides the first, read above
    state = checkpoint.load(path)
    if not saved <= state["step"] <= saved + 1:
        sys.exit(f"step {state['step']} after {saved}")
    if not torch.equal(state["weights"], torch.full((300_000,), float(state["step"]))):
        sys.exit("mixed state")
    began = state["step"] + 1
sys.stdout.write(str(len(list(path.parent.glob(".last.pt.*")))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "last.pt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "no kill came in the middle of a save"


def test_a_random_state_repeats_the_numbers() -> None:
    before = checkpoint.random_state()
    first = torch.randn(5)
    checkpoint.set_random_state(before)
    assert torch.equal(torch.randn(5), first)
    checkpoint.set_random_state({**before, "cuda": [before["cpu"]] * 9})  # of a machine with more devices
    assert torch.equal(torch.randn(5), first)


def test_weights_are_kept_tied_and_strided(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    network[2].weight = network[0].weight
    weights = {**network.state_dict(), "turned": torch.randn(4, 6).T}
    checkpoint.save_weights(tmp_path / "weights.safetensors", weights)
    assert same(
        dict(sorted(checkpoint.load_weights(tmp_path / "weights.safetensors").items())), dict(sorted(weights.items()))
    )
    with safe_open(tmp_path / "weights.safetensors", framework="numpy") as other:  # as another program reads it
        assert np.array_equal(other.get_tensor("turned"), weights["turned"].numpy())


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100, b"\x08" + bytes(7) + b"{}      "[:4]])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(InvalidFileError, match=r"weights\.safetensors: damaged, or no safetensors file"):
        checkpoint.load_weights(tmp_path / "weights.safetensors")
    with pytest.raises(InvalidFileError, match="cannot be read"):
        checkpoint.load_weights(tmp_path / "other.safetensors")


def test_weights_are_loaded_into_the_named_part_alone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    other = nn.Linear(3, 3)
    checkpoint.save_weights(tmp_path / "part.safetensors", other.state_dict())
    checkpoint.load_parts(network, {"1.0": str(tmp_path / "part.safetensors")})
    after = network.state_dict()
    assert torch.equal(after["1.0.weight"], other.weight)
    assert torch.equal(after["1.0.bias"], other.bias)
    assert all(torch.equal(after[key], before[key]) for key in ("0.weight", "0.bias"))


def test_the_whole_network_is_a_part(tmp_path: Path) -> None:
    network, other = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    checkpoint.save_weights(tmp_path / "all.safetensors", other.state_dict())
    checkpoint.load_parts(network, {".": str(tmp_path / "all.safetensors")})
    assert same(network.state_dict(), other.state_dict())


def test_weights_are_found_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, other, decoy = (nn.Sequential(nn.Linear(2, 3)) for _ in range(3))
    checkpoint.save_weights(tmp_path / "shipped.safetensors", other[0].state_dict())
    checkpoint.save_weights(tmp_path / "first-layer", decoy[0].state_dict())
    monkeypatch.setattr(checkpoint.SHIPPED, "_registered", {})
    monkeypatch.setattr(checkpoint.SHIPPED, "_origins", {})
    monkeypatch.chdir(tmp_path)
    checkpoint.SHIPPED.register("first-layer")(lambda: tmp_path / "shipped.safetensors")
    checkpoint.load_parts(network, {"0": "first-layer"})
    assert same(network.state_dict(), other.state_dict())
    checkpoint.load_parts(network, {"0": "./first-layer"})
    assert same(network.state_dict(), decoy.state_dict())
    with pytest.raises(InvalidFileError, match=r"first-lair: cannot be read: .*did you mean 'first-layer'"):
        checkpoint.load_parts(network, {"0": "first-lair"})
    with pytest.raises(InvalidFileError, match=r"shipped\.safetensors: weights of another.*; initial=null begins"):
        checkpoint.load_parts(nn.Sequential(nn.Linear(3, 3)), {"0": "first-layer"})


@pytest.mark.parametrize("place", ["inner.frist", "0.inner", "", ".0", "..", "0."])
def test_a_part_that_no_network_has_is_an_error(place: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3))
    files = {place: str(tmp_path / "missing.safetensors")}
    with pytest.raises(UnknownNameError, match=r"unknown part of the network \(in 'initial'\) '") as error:
        checkpoint.load_parts(network, files, lambda: ["inner", "inner.first"])
    assert ("did you mean 'inner.first'?" in str(error.value)) == (place == "inner.frist")
    assert str(error.value).endswith("; '.' is the whole network; initial=null loads nothing")


def test_the_file_of_a_part_is_read_also_if_only_others_have_it(tmp_path: Path) -> None:
    network, files = nn.Sequential(nn.Linear(2, 3)), {"inner": str(tmp_path / "inner.safetensors")}
    with pytest.raises(InvalidFileError, match=r"inner\.safetensors: cannot be read"):
        checkpoint.load_parts(network, files, lambda: ["inner"])
    checkpoint.save_weights(tmp_path / "inner.safetensors", nn.Linear(1, 1).state_dict())
    before = copy.deepcopy(network.state_dict())
    checkpoint.load_parts(network, files, lambda: ["inner"])
    assert same(network.state_dict(), before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(value: float, tmp_path: Path) -> None:
    net, path = nn.Linear(2, 2), tmp_path / "weights.safetensors"
    with torch.no_grad():
        net.weight[1, 0] = value
    with pytest.raises(DivergedError, match=r"safetensors: weights must be finite to be saved, got values of 'weight'"):
        checkpoint.save_weights(path, net.state_dict())
    assert not path.exists()
    path.write_bytes(safetensors.torch.save(dict(net.state_dict())))
    with pytest.raises(InvalidFileError, match=r"safetensors: weights must be finite, got values of 'weight' that are"):
        checkpoint.load_weights(path)


def test_the_mask_of_an_attention_is_saved(tmp_path: Path) -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    checkpoint.save_weights(tmp_path / "weights.safetensors", {"mask": mask})
    assert torch.equal(checkpoint.load_weights(tmp_path / "weights.safetensors")["mask"], mask)
