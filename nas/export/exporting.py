"""Export trained networks: as Python source, a program of torch.export, ONNX, or weights only."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from nas.compare.canonical_form import canon
from nas.errors import ConfigError, ExportError
from nas.export import isolated, onnx, program
from nas.export.equality import greatest_difference
from nas.export.source.module import own_packages, write_source
from nas.files import write_atomic, write_text
from nas.genotype.file import Genotype
from nas.kernels.finite import require_finite
from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.folder import CONFIG, GENOTYPE, package_version
from nas.run.models import recorded_scores
from nas.run.retraining import load_network
from nas.run.task import Task
from nas.space.definition import find_space

Format = Literal["source", "pt2", "onnx", "safetensors"]
SUFFIXES: dict[Format, str] = {"source": ".py", "pt2": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}


class Exported(NamedTuple):
    """Written files."""

    files: tuple[Path, ...]
    facts: str
    """The greatest difference of outputs, and the sizes of inputs that the file accepts."""


def export_run(
    run: str | Path, format: Format | None = None, out: str | Path | None = None, *, task: Task | None = None
) -> Exported:
    """Write the retrained network of a run folder, and check what is written.

    Args:
        run: the folder of a retraining.
        format: by default that of the suffix of `out`, else `source`.
        out: the file; by default `network.*` in the folder.
        task: gives the example input; by default that of the run's configuration.

    Raises:
        ConfigError: the folder holds no retrained network, or the format cannot have this suffix.
        ExportError: the network cannot be written in this format.
    """
    format = format or (_format_of(Path(out)) if out is not None else "source")
    network = load_network(run)
    genotype = Genotype.load(Path(run) / GENOTYPE)
    example = (task or load_config(Path(run) / CONFIG).build_task()).example()
    path = Path(out) if out is not None else Path(run) / f"network{SUFFIXES[format]}"
    return export(network, genotype, example, path, format, recorded_scores(run))


def export(
    network: nn.Module,
    genotype: Genotype,
    example: Sequence[Tensor],
    path: Path,
    format: Format = "source",
    scores: dict[str, float] | None = None,
) -> Exported:
    """Export a derived network, and compare the outputs of the file with those of the network.

    Args:
        network: the network, in eval mode.
        genotype: its genotype, which is written too.
        example: inputs of one forward pass; only their shapes and types count.
        path: the file to write.
        format: the format.
        scores: scores to state in the source.

    Raises:
        ExportError: the format cannot represent a module, or outputs differ; the message names module and reason.
        DivergedError: weights, or outputs on random inputs, are not finite.
        ConfigError: a package is missing, or the path does not fit the format.
    """
    suffix = SUFFIXES[format]
    if path.suffix != suffix:
        raise ConfigError(f"{path}: the suffix of format '{format}' must be {suffix}, got '{path.suffix}'")
    with torch.no_grad():
        require_finite(network(*program.drawn(example)), f"{path} was not written")
    if format == "safetensors":
        checkpoint.save_weights(path, network.state_dict(), {"genotype": genotype.dump()})
        return Exported((path,), "weights alone")
    if format == "source":
        return _export_source(network, genotype, example, path, scores or {})
    gaps: list[float] = []  # the last is that of the accepted program
    if format == "pt2":
        made = program.export(network, example, lambda made: gaps.append(program.check(network, made, example)))
        program.save(made, path, genotype.dump())
    else:
        with tempfile.TemporaryDirectory() as folder:
            checked = Path(folder, path.name)

            def accept(made: program.Program) -> None:
                onnx.save(network, made, checked, genotype.dump())
                gaps.append(onnx.check(network, made, checked, example))

            made = program.export(network, example, accept)
            data = checked.read_bytes()
        write_atomic(path, lambda file: file.write(data))
    return Exported((path,), f"{made.sizes}; greatest difference of outputs {gaps[-1]:g}")


def _format_of(path: Path) -> Format:
    for format, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return format
    known = ", ".join(f"{suffix} ({format})" for format, suffix in SUFFIXES.items())
    raise ConfigError(f"{path}: the suffix must be that of a format: {known}; got '{path.suffix}'")


def about(genotype: Genotype, example: Sequence[Tensor], scores: dict[str, float]) -> str:
    """Return the docstring of an exported file: the network and its origin."""
    whole = find_space(genotype.space).options(**genotype.options)
    plain = msgspec.structs.replace(genotype, options=whole, provenance=None)
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in example)
    found = {**(genotype.provenance.scores if genotype.provenance else {}), **scores}
    stated = "".join(f"\n    {name}: {value:.6g}" for name, value in found.items())
    lines = "\n".join(f"    {line}" for line in plain.dump().splitlines())
    text = (
        f"A network of the search space '{genotype.space}', written by {package_version()}; it needs torch alone.\n\n"
        "`load()` returns it with the weights of the safetensors file beside this one, `build()` without them.\n"
        f"Inputs have shapes such as {shapes}.\n\n"
        f"Genotype (canonical hash {canon(plain).canonical}):\n\n{lines}\n"
        + (f"\nScores:\n{stated}\n" if stated else "")
    )
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _export_source(
    network: nn.Module, genotype: Genotype, example: Sequence[Tensor], path: Path, scores: dict[str, float]
) -> Exported:
    if not path.stem.isidentifier():
        raise ConfigError(f"{path}: the name must be an identifier of Python, got '{path.stem}'")
    text, tensors = write_source(network, about(genotype, example, scores))
    weights = path.with_suffix(".safetensors")
    inputs = program.drawn(example)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, path.name)
        write_text(trial, text)
        checkpoint.save_weights(trial.with_suffix(".safetensors"), tensors)
        with torch.no_grad():
            gap = greatest_difference(network(*inputs), isolated.outputs(trial, inputs, own_packages(network)))
    if not gap <= program.TOLERANCE:
        raise ExportError(
            f"{path} was not written: its outputs must equal the network's to {program.TOLERANCE:g}, got {gap:g} apart"
        )
    write_text(path, text)
    checkpoint.save_weights(weights, tensors, {"genotype": genotype.dump()})
    return Exported((path, weights), f"greatest difference of outputs {gap:g}")
