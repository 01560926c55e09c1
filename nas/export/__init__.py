"""Trained networks for use without the toolkit: Python source, a program of torch, ONNX, or their weights alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from nas import checkpoint
from nas.canon import canon
from nas.config import load_config
from nas.errors import ConfigError, ExportError
from nas.export import isolated, onnx, program
from nas.export.compare import greatest_difference
from nas.export.source import own_packages, source
from nas.files import write_atomic, write_text
from nas.finite import require_finite
from nas.genotype import Genotype
from nas.retrain import load_network
from nas.run import CONFIG, GENOTYPE, package_version, read_records
from nas.space import find_space

Format = Literal["source", "pt2", "onnx", "safetensors"]
SUFFIXES: dict[Format, str] = {"source": ".py", "pt2": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}


class Exported(NamedTuple):
    """What was written."""

    files: tuple[Path, ...]
    facts: str
    """How it compares with the network, and what sizes it takes."""


def export_run(run: str | Path, format: Format | None = None, out: str | Path | None = None) -> Exported:
    """Write the retrained network of a run folder to `out`, or to `network.*` in the folder, and check it.

    The format is that of the suffix of `out`, and `source` where there is neither. Raises `ConfigError` for a folder
    without a retrained network and for a name of the file that the format cannot have, and what `export` does.
    """
    format = format or (_format_of(Path(out)) if out is not None else "source")
    network = load_network(run)
    genotype = Genotype.load(Path(run) / GENOTYPE)
    example = load_config(Path(run) / CONFIG).build_task().example()
    path = Path(out) if out is not None else Path(run) / f"network{SUFFIXES[format]}"
    scores: dict[str, float] = {}
    for record in read_records(run):
        if record["kind"] == "evaluate":
            scores = {k: v for k, v in record.items() if isinstance(v, float)}
    return export(network, genotype, example, path, format, scores)


def export(
    network: nn.Module,
    genotype: Genotype,
    example: Sequence[Tensor],
    path: Path,
    format: Format = "source",
    scores: dict[str, float] | None = None,
) -> Exported:
    """Write a derived network, in eval mode, to `path` in a format, and compare what was written with it.

    Args:
        example: inputs of one forward pass; only their shapes and types count.
        scores: stated in the source beside the genotype.

    Raises `ExportError`, naming the module and the reason, for what the format cannot hold or holds wrongly;
    `DivergedError` for a network whose weights, or outputs on random inputs like the example, are not finite;
    `ConfigError` where a package is missing or the path does not fit the format.
    """
    suffix = SUFFIXES[format]
    if path.suffix != suffix:
        raise ConfigError(f"{path}: a file of format '{format}' ends in {suffix}")
    with torch.no_grad():
        require_finite(network(*program.drawn(example)), f"{path} was not written")
    if format == "safetensors":
        checkpoint.save_weights(path, network.state_dict(), {"genotype": genotype.dump()})
        return Exported((path,), "weights alone")
    if format == "source":
        return _export_source(network, genotype, example, path, scores or {})
    gaps: list[float] = []  # the last is that of the program which is accepted
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
    """The docstring of an exported file: what the network is, and where it comes from."""
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
        raise ConfigError(f"{path}: Python could not import a module called '{path.stem}'")
    text, tensors = source(network, about(genotype, example, scores))
    weights = path.with_suffix(".safetensors")
    inputs = program.drawn(example)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, path.name)
        write_text(trial, text)
        checkpoint.save_weights(trial.with_suffix(".safetensors"), tensors)
        with torch.no_grad():
            gap = greatest_difference(network(*inputs), isolated.outputs(trial, inputs, own_packages(network)))
    if not gap <= program.TOLERANCE:
        raise ExportError(f"{path}: the outputs of the written network differ by {gap:g}; it was not kept")
    write_text(path, text)
    checkpoint.save_weights(weights, tensors, {"genotype": genotype.dump()})
    return Exported((path, weights), f"greatest difference of outputs {gap:g}")
