"""A network as an ONNX file, for any height and width, checked against the network by onnxruntime."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import ExportError, MissingPackageError
from nas.export.equality import output_difference, worst
from nas.export.pooling import DECOMPOSED
from nas.export.program import Program, probes
from nas.files import write_atomic

OPSET = 20
"""The version of ONNX' operators, which has `grid_sample`."""
TOLERANCE = 1e-4


def save(network: nn.Module, program: Program, path: Path, genotype: str) -> None:
    """Write a program to an `.onnx` file, atomically; the text of its genotype goes along in its metadata.

    Inputs have the names of the parameters of the network's `forward`, outputs those of the fields of its result.
    Raises `ConfigError` where the extra `export` is not installed, `ExportError` for an operation that ONNX lacks.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"ONNX needs {error.name}", "export") from error
    names = [n for n, p in inspect.signature(network.forward).parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
    with _quiet():
        try:
            converted = torch.onnx.export(
                program.exported.run_decompositions(DECOMPOSED),
                dynamo=True,
                opset_version=OPSET,
                input_names=names[: len(program.exported.graph_signature.user_inputs)],
                output_names=program.outputs or ["output"],
                external_data=False,
                optimize=False,  # onnxruntime does it itself, and the pass of onnxscript fails on `chunk`
                verbose=False,
            )
        except Exception as error:  # whatever the converter's parts do
            raise ExportError(_explained(error, program)) from error
    assert converted is not None
    converted.model.metadata_props["genotype"] = genotype
    data = converted.model_proto.SerializeToString()
    write_atomic(path, lambda file: file.write(data))


def check(network: nn.Module, program: Program, path: Path, example: Sequence[Tensor]) -> float:
    """The greatest difference of outputs between a network and the ONNX file of its program, run by onnxruntime.

    Raises `ConfigError` where onnxruntime is not installed, `ExportError` above the tolerance.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("ONNX files are checked by onnxruntime", "export") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is an error of ours
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _failed(error, path, "read") from error
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        try:
            return [torch.from_numpy(output) for output in session.run(None, given)]
        except Exception as error:
            raise _failed(error, path, "run") from error

    found = worst(output_difference(network, run, inputs) for inputs in probes(program, example))
    if not found <= TOLERANCE:
        raise ExportError(f"the ONNX file's outputs differ from the network's by {found:g}, more than {TOLERANCE:g}")
    return found


def _explained(error: BaseException, program: Program) -> str:
    """The module that the operation at fault stands in, and the reason."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(" ".join(str(cause).split()))
        cause = cause.__cause__
    lacking = re.search(r"op='([\w.]+)', overload='(\w+)'", " ".join(texts))
    if lacking is not None:
        for node in program.exported.run_decompositions().graph.nodes:
            if str(node.target) == ".".join(lacking.groups()):
                return f"{_place(node)} uses {node.target}, which ONNX (operators of version {OPSET}) lacks"
    return f"the network cannot be written as ONNX: {texts[-1][:300]}"


def _failed(error: Exception, path: Path, what: str) -> ExportError:
    """The error that onnxruntime cannot do something with a file; it names the module of the operator at fault."""
    import onnx

    reason = " ".join(str(error).split())
    names = {name for pair in re.findall(r"Name:'([^']+)'|Node \(([^)]+)\)", reason) for name in pair if name}
    for node in onnx.load(path).graph.node:
        if node.name in names:
            scopes = next((each.value for each in node.metadata_props if each.key == "namespace"), "").split("/")
            module, _, kind = scopes[-2].partition(": ") if len(scopes) > 1 else ("", "", "")
            where = f"{module.removeprefix('network.') or 'the network'} ({kind.rpartition('.')[2]})"
            return ExportError(f"{where} uses {node.op_type}, which onnxruntime cannot {what}: {reason[-200:]}")
    return ExportError(f"onnxruntime cannot {what} the ONNX file: {reason[:300]}")


def _place(node: Any) -> str:
    """The path and class of the module that a node of a program comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return f"{str(path).removeprefix('network.') or 'the network'} ({str(kind).rpartition('.')[2]})"


@contextmanager
def _quiet() -> Iterator[None]:
    """The converter warns about packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
