"""A network as a program of torch (`torch.export`), for any height and width; it runs without the code it came from."""

from __future__ import annotations

import copy
import functools
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas.errors import ExportError
from nas.export.equality import output_difference, worst
from nas.files import write_atomic
from nas.kernels.torch_internals import size_oblivious

TOLERANCE = 1e-5


MULTIPLES = (1, 2, 4, 8, 16, 32)
"""What heights and widths may have to be multiples of, in networks that halve them again and again."""


Freedom = tuple[bool, int | None]
"""Whether the batch may have any size; of what heights and widths are multiples, None for those of the example."""


class Program(NamedTuple):
    """An exported network."""

    exported: ExportedProgram
    outputs: list[str]
    """Names of the outputs; empty where the network returns one tensor."""
    batch: int | None
    """The batch size; None where it takes any."""
    multiple: int | None
    """Heights and widths are multiples of this; None where they are those of the example alone."""
    pictures: bool = True
    """Whether an input has a height and a width."""

    @property
    def sizes(self) -> str:
        """What it takes, in words."""
        batch = "any batch size" if self.batch is None else f"batches of {self.batch}"
        if not self.pictures:
            return batch
        if self.multiple is None:
            return f"{batch}, the height and width of the example alone"
        sides = "any height and width" if self.multiple == 1 else f"heights and widths in multiples of {self.multiple}"
        return f"{batch}, {sides}"


def export(network: nn.Module, example: Sequence[Tensor], accept: Callable[[Program], object] | None = None) -> Program:
    """Trace `network`, in eval mode, with inputs like `example`, for as many sizes as it allows.

    The batch is the first dimension of inputs of two dimensions or more. Height and width are the last two of inputs of
    four dimensions or more; any are tried, else multiples of the least power of 2 that the network takes, else those of
    the example. A network that returns a named tuple becomes a program that returns a dict.

    Args:
        accept: raises `ExportError` for a program that is not as it must be, by default as `check` does; then fewer
            sizes are tried.

    Raises `ExportError`, which names the module and the reason, for what cannot be traced even with the sizes of the
    example.
    """
    flat = Flat(_contiguous(network)).eval()
    accept = accept or functools.partial(check, network, example=example)
    *freer, fixed = _freedoms(network, example)
    for number, freedom in enumerate(freer):
        try:
            return _accepted(flat, network, example, freedom, accept)
        except ExportError:
            if number == 0:
                _accepted(flat, network, example, fixed, accept)  # else nothing needs to be tried
    return _accepted(flat, network, example, fixed, accept)


def _accepted(
    flat: Flat, network: nn.Module, example: Sequence[Tensor], freedom: Freedom, accept: Callable[[Program], object]
) -> Program:
    """The program that takes these sizes; raises `ExportError` where it cannot be made, or is not accepted."""
    any_batch, multiple = freedom
    inputs = _sized(example, 2 if any_batch else None, multiple)
    single = _sized(example, 1, multiple, torch.rand_like)
    # Oblivious of the sizes it is traced with: else a program would demand ever after that they are, or are not, whole
    # multiples of a network's steps. Where code asks whether there is one item, as attention does, that binds it to
    # several, and it is traced the other way.
    for oblivious in (True, False) if any_batch else (True,):
        exported = _traced(flat, inputs, [_free(tensor, any_batch, multiple) for tensor in inputs], oblivious)
        if not any_batch or _agrees(network, exported.module(), single):
            break
    else:
        raise ExportError("the program is bound to several items in a batch")
    with torch.no_grad():
        names = list(getattr(network(*inputs), "_fields", ()))
    batch = None if any_batch else _batch_size(example)
    program = Program(exported, names, batch, multiple, any(map(_is_picture, example)))
    accept(program)
    return program


def save(program: Program, path: Path, genotype: str) -> None:
    """Write a program to a `.pt2` file, atomically; the text of its genotype goes along as `genotype.yaml`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program.exported, buffer, extra_files={"genotype.yaml": genotype})
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def check(network: nn.Module, program: Program, example: Sequence[Tensor]) -> float:
    """The greatest difference of outputs between a network and its program, at the example's size and at others that
    the program takes. Raises `ExportError` above the tolerance, and where the program fails."""
    module = program.exported.module()
    found = worst(_compared(network, module, inputs, "the program") for inputs in probes(program, example))
    if not found <= TOLERANCE:
        raise ExportError(f"the program's outputs differ from the network's by {found:g}, more than {TOLERANCE:g}")
    return found


def probes(program: Program, example: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Random inputs of the example's size, and of others that a program takes: one item and three, larger sides.

    The largest sides are at least twice those of the example: a coarse level of one pixel is a constant of the trace.
    """
    batches = (_batch_size(example), 1, 3) if program.batch is None else (program.batch,) * 3
    longest = max((side for tensor in example if _is_picture(tensor) for side in tensor.shape[-2:]), default=0)
    step = program.multiple
    sides = (None, step, step and (math.ceil(longest / (3 * step)) | 1) * step)
    cases = dict.fromkeys(zip(batches, sides, strict=True))
    return [_sized(example, batch, multiple, torch.rand_like) for batch, multiple in cases]


def _freedoms(network: nn.Module, example: Sequence[Tensor]) -> Iterator[Freedom]:
    """The sizes that the network takes, freest first; those of the example alone come last."""
    sides = [side for tensor in example if _is_picture(tensor) for side in tensor.shape[-2:]]
    fitting = [multiple for multiple in MULTIPLES if sides and not any(side % multiple for side in sides)]
    taken = [multiple for multiple in fitting if _takes(network, _sized(example, None, multiple))]
    for multiple in (*taken, None):
        if any(map(_has_batch, example)) and _takes(network, _sized(example, 2, multiple)):
            yield True, multiple
        yield False, multiple


def _compared(a: Callable[..., Any], b: Callable[..., Any], inputs: Sequence[Tensor], what: str) -> float:
    """The greatest difference of outputs; raises `ExportError` where what was exported fails on the inputs."""
    try:
        return output_difference(a, b, inputs)
    except Exception as error:
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
        raise ExportError(f"{what} fails on inputs of {shapes}: {' '.join(str(error).split())[:300]}") from error


def drawn(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Random inputs of the example's shapes and types."""
    return _sized(example, None, None, torch.rand_like)


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


def _agrees(a: Callable[..., Any], b: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Whether two networks compute the same on inputs, and neither fails."""
    try:
        return output_difference(a, b, inputs) <= TOLERANCE
    except Exception:  # noqa: BLE001 - whatever a guard of the program raises
        return False


def _takes(network: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    """Whether a network works on inputs of these sizes."""
    try:
        with torch.no_grad():
            network(*inputs)
    except Exception:  # noqa: BLE001 - whatever it raises for other sizes than its own
        return False
    return True


def _has_batch(tensor: Tensor) -> bool:
    return tensor.dim() >= 2


def _batch_size(example: Sequence[Tensor]) -> int:
    return next((len(tensor) for tensor in example if _has_batch(tensor)), 1)


def _is_picture(tensor: Tensor) -> bool:
    return tensor.dim() >= 4


def _sized(
    example: Sequence[Tensor],
    batch: int | None,
    multiple: int | None,
    fill: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> tuple[Tensor, ...]:
    """Inputs like the example with another batch size, and larger sides; None keeps those of the example.

    Height and width become different, and odd multiples where those of the example are even ones: no dimension may be
    taken for a constant or another. Numbers that are not floating-point stay, or are zero if their shape changes.
    """
    found = []
    for tensor in example:
        shape = list(tensor.shape)
        if _has_batch(tensor) and batch is not None:
            shape[0] = batch
        if _is_picture(tensor) and multiple is not None:
            shape[-2:] = shape[-2] + 3 * multiple, shape[-1] + 11 * multiple
        whole = tensor.is_floating_point() or shape != list(tensor.shape)
        resized = tensor.new_zeros(shape) if whole else tensor
        found.append(fill(resized) if tensor.is_floating_point() else resized)
    return tuple(found)


def _free(tensor: Tensor, batch: bool, multiple: int | None) -> dict[int, Any]:
    """The dimensions that may have any size."""
    last = tensor.dim() - 1
    batched = [0] if batch and _has_batch(tensor) else []
    sides = [last - 1, last] if multiple is not None and _is_picture(tensor) else []
    return dict.fromkeys([*batched, *sides], Dim.DYNAMIC)


def _traced(flat: Flat, inputs: tuple[Tensor, ...], shapes: list[dict[int, Any]], oblivious: bool) -> ExportedProgram:
    patched = size_oblivious(oblivious)
    with patched, warnings.catch_warnings(), _entered(flat.network) as entered:
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
