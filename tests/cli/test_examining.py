from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.run import checkpoint
from nas.run.folder import Run

Nas = Callable[..., Any]


def test_a_doctor_repairs_and_says_how_to_continue(nas: Nas, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    out = tmp_path / "run"
    whole = (out / "genotype.yaml").read_bytes()
    (out / "genotype.yaml").unlink()  # so that the search is not finished
    with (out / "genotypes" / "step-000003.yaml").open("a") as file:
        file.write("# mine\n")
    result = nas("doctor", out)
    assert (result.code, result.err) == (1, "")
    assert result.out.startswith(f"{out}: a search, step 12 of 12\n  genotypes/step-000003.yaml: changed since")
    assert "to continue" not in result.out
    result = nas("doctor", out, "--repair")
    assert result.code == 0
    assert result.out.startswith(f"{out}/genotypes/step-000003.yaml: repaired\n{out}: a search, step 12 of 12\n")
    command = result.out.splitlines()[-1].partition("to continue: ")[2]
    assert nas(*shlex.split(command)[1:], "--quiet").code == 0
    assert (out / "genotype.yaml").read_bytes() == whole
    assert nas("doctor", tmp_path) == (0, f"{out}: a search, step 12 of 12, finished\n", "")


def test_a_doctor_repairs_nothing_that_is_in_use(
    refused: Callable[..., str], nas: Nas, searched: Path, tmp_path: Path
) -> None:
    shutil.copytree(searched, tmp_path / "run")
    (tmp_path / "run" / "genotypes" / "step-000003.yaml").write_text("mine")
    with Run.open(tmp_path / "run"):
        result = nas("doctor", tmp_path / "run", "--repair")
    assert (result.code, "in use by process" in result.out, "repaired" in result.out) == (1, True, False)
    assert (tmp_path / "run" / "genotypes" / "step-000003.yaml").read_text() == "mine"
    assert "no such folder" in refused("doctor", tmp_path / "nowhere")


def test_what_a_file_says_reaches_the_terminal_escaped(nas: Nas, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    checkpoint.save(tmp_path / "run" / "diverged.pt", {"step": 12, "message": "\x1b[31mred\x07", "batches": {}})
    result = nas("doctor", tmp_path / "run")
    assert result.code == 1
    assert r"diverged.pt: \x1b[31mred\x07" in result.out
    assert "\x1b" not in result.out


def test_a_retraining_continues_by_the_command(nas: Nas, searched: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    short = ("retrain.stages.backbone.steps=3", "retrain.stages.averaging.steps=2", "retrain.epochs=1")
    assert nas("retrain", searched, *short, "--out", out, "--quiet").code == 0
    (out / "weights.safetensors").rename(tmp_path / "whole")
    result = nas("doctor", out)
    assert result.out.startswith(f"{out}: a retraining, step 5 of 5\n")
    assert nas(*shlex.split(result.out.partition("to continue: ")[2])[1:], "--quiet").code == 0
    assert (out / "weights.safetensors").read_bytes() == (tmp_path / "whole").read_bytes()
