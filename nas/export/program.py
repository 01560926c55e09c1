"""A network as a program of torch (`torch.export`), for any height and width; it runs without the code it came from."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.fx.experimental._config as symbolic
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas.errors import ExportError
from nas.export.compare import difference
from nas.files import write_atomic

TOLERANCE = 1e-5


class Program(NamedTuple):
    """An exported network."""

    exported: ExportedProgram
    outputs: list[str]
    """Names of the outputs; empty where the network returns one tensor."""
    any_batch: bool
    any_sides: bool
    """Whether it takes any height and width, or those of the example alone."""

    @property
    def sizes(self) -> str:
        """What it takes, in words."""
        batch = "any batch size" if self.any_batch else "batches of 1"
        return f"{batch}, {'any height and width' if self.any_sides else 'the height and width of the example alone'}"


def export(network: nn.Module, example: Sequence[Tensor]) -> Program:
    """Trace `network`, in eval mode, with inputs like `example`.

    Inputs of four dimensions or more, `(batch, ..., height, width)`, may have any batch size, height and width, as far
    as the network itself allows. A network that returns a named tuple becomes a program that returns a dict. Raises
    `ExportError`, which names the module and the reason, for what cannot be traced.
    """
    flat = Flat(_contiguous(network)).eval()
    inputs = tuple(_varied(tensor) for tensor in example)
    dynamic = any(tensor.dim() >= 4 for tensor in inputs) and _takes(network, inputs)
    inputs = inputs if dynamic else tuple(example)
    for batch in (True, False) if dynamic else (False,):
        given = inputs if batch else tuple(tensor[:1] for tensor in inputs)
        try:
            exported = _traced(flat, given, [_shape(tensor, batch, dynamic) for tensor in inputs])
        except ExportError:
            if not batch:
                raise
            continue
        if batch and not _takes(exported.module(), [tensor[:1] for tensor in inputs]):
            continue  # such as where a reshape copies two items, and not one
        with torch.no_grad():
            names = list(getattr(network(*given), "_fields", ()))
        _lay_out(exported, network)
        return Program(exported, names, batch, dynamic)
    raise AssertionError("the last attempt returns or raises")


def save(program: Program, path: Path, genotype: str) -> None:
    """Write a program to a `.pt2` file, atomically; the text of its genotype goes along as `genotype.yaml`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program.exported, buffer, extra_files={"genotype.yaml": genotype})
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def check(network: nn.Module, program: Program, example: Sequence[Tensor]) -> float:
    """The greatest difference of outputs between a network and its program, at the example's size and, where the
    program takes any, another. Raises `ExportError` above the tolerance."""
    module = program.exported.module()
    found = max(difference(network, module, inputs) for inputs in probes(program, example))
    if not found <= TOLERANCE:
        raise ExportError(f"the program's outputs differ from the network's by {found:g}, more than {TOLERANCE:g}")
    return found


def probes(program: Program, example: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Random inputs of the example's size, and of another that a program takes."""
    found = [_random(example)]
    if program.any_sides:
        found.append(_random([_varied(tensor) for tensor in example]))
    return found if program.any_batch else [tuple(tensor[:1] for tensor in inputs) for inputs in found]


def _random(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.rand_like(tensor) if tensor.is_floating_point() else tensor for tensor in example)


class Flat(nn.Module):
    """A network that returns a dict where it returned a named tuple, so that its program needs no class of ours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        output = self.network(*inputs)
        return output._asdict() if hasattr(output, "_fields") else output


def _contiguous(network: nn.Module) -> nn.Module:
    """A copy with its weights in plain order: with channels last, a program is bound to several items in a batch."""
    plain = copy.deepcopy(network)
    for parameter in plain.parameters():
        parameter.data = parameter.data.contiguous()
    return plain


def _lay_out(exported: ExportedProgram, network: nn.Module) -> None:
    """Give a program the network's own weights, whose order in memory makes it fast on the CPU."""
    for name, parameter in network.named_parameters(remove_duplicate=False):
        key = f"network.{name}"
        if key in exported.state_dict:
            exported.state_dict[key].data = parameter.detach().clone(memory_format=torch.preserve_format)


def _takes(network: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Whether a network works on inputs of these sizes."""
    try:
        with torch.no_grad():
            network(*inputs)
    except Exception:  # noqa: BLE001 - whatever it raises for other sizes than its own
        return False
    return True


def _varied(tensor: Tensor) -> Tensor:
    """Two items or more, of odd and different height and width: no dimension may be taken for a constant or another."""
    if tensor.dim() < 4:
        return tensor
    height, width = tensor.shape[-2] + 3, tensor.shape[-1] + 11
    return tensor.new_zeros(max(2, len(tensor)), *tensor.shape[1:-2], height, width)


def _shape(tensor: Tensor, batch: bool, dynamic: bool) -> dict[int, Any]:
    """The dimensions that may have any size."""
    last = tensor.dim() - 1
    free = [*([0] if batch else []), last - 1, last] if dynamic and last >= 3 else []
    return dict.fromkeys(free, Dim.DYNAMIC)


def _traced(flat: Flat, inputs: tuple[Tensor, ...], shapes: list[dict[int, Any]]) -> ExportedProgram:
    # Without this, sizes that happen to be whole multiples of a network's steps, or not, would be required ever after.
    oblivious = symbolic.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]  # made at run time
    with oblivious, warnings.catch_warnings(), _entered(flat.network) as entered:
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad():
                return torch.export.export(flat, inputs, dynamic_shapes={"inputs": tuple(shapes)}, strict=False)
        except Exception as error:  # a tracer meets whatever the modules do
            where = entered[-1] if entered else "the network"
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ExportError(f"{where} cannot be traced: {reason}") from error


@contextmanager
def _entered(network: nn.Module) -> Iterator[list[str]]:
    """The path, and class, of each module whose `forward` is running."""
    running: list[str] = []
    handles = []
    for path, module in network.named_modules():
        text = f"{path or 'the network'} ({type(module).__name__})"
        handles.append(module.register_forward_pre_hook(lambda *_, text=text: running.append(text)))
        handles.append(module.register_forward_hook(lambda *_: (running.pop(), None)[1]))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()
