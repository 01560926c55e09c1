"""A network as one readable Python file that needs torch alone, and its weights beside it.

The file holds the classes of the network's modules, as they were written, with the functions and constants that their
forward passes use; `build()`, which puts the network together; and `load()`, which gives it its weights.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.export.source.bare import bare
from nas.export.source.carry import Carrier, is_layer
from nas.export.source.construct import Construction, listed
from nas.export.source.expression import Builder
from nas.export.source.origin import FREE, Imported
from nas.export.source.render import Names, name_all, render

_LOAD = '''\
def load(weights: str | Path = WEIGHTS) -> {network}:
    """The network with the weights of a safetensors file, on the CPU and in eval mode."""
    data = bytearray(Path(weights).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {{}}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = torch.frombuffer(data[start + begin : start + end], dtype=DTYPES[entry["dtype"]])
            tensors[name] = values.view(entry["shape"])
    network = build()
{constants}    network.load_state_dict(tensors)
    return network.eval()
'''
_CONSTANTS = """\
for name in {names}:  # what no state_dict holds
    network.get_buffer(name).copy_(tensors.pop(name))
"""
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
_DTYPES |= {"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


def source(network: nn.Module, about: str) -> tuple[str, dict[str, Tensor]]:
    """The text of a Python file, with the docstring `about`, that builds `network`, and the tensors it loads.

    Raises `ExportError`, which names the module and the reason, for what cannot be carried: code that needs another
    package than torch, classes without source, attributes without a form in source, hooks.
    """
    with bare(network):
        return _written(network, about)


def _written(network: nn.Module, about: str) -> tuple[str, dict[str, Tensor]]:
    carrier = Carrier(own_packages(network))
    names = Names(("build", "load", "network", "DTYPES", "WEIGHTS", "Path", "json", "torch", "nn"))
    names.reserve(Imported("torch"), "torch")
    names.reserve(Imported("torch.nn"), "nn")
    names.reserve(Imported("json"), "json")
    names.reserve(Imported("pathlib", "Path"), "Path")
    construction = Construction(network, carrier, names)
    carrier.close(construction.carry_values)
    name_all(carrier, names)
    definitions = [
        render(carrier, item, names, construction.constructor(item.value) if is_layer(item.value) else "")
        for item in carrier.items.values()
    ]
    root = construction.root()
    builder = Builder(root, names.new)
    functions = builder.functions()
    kind = root.opening[:-1]
    build = f'def build() -> {kind}:\n    """The network, its weights yet to be loaded or learned."""\n'
    statements = construction.statements()
    if statements:
        lines = "\n".join(textwrap.indent(each, "    ") for each in statements)
        build += f"    network = {builder.body(4)}\n{lines}\n    return network"
    else:
        build += f"    return {builder.body(4)}"
    constants = construction.constants
    load = _LOAD.format(
        network=kind, constants=textwrap.indent(_CONSTANTS.format(names=listed(constants)), "    ") if constants else ""
    )
    tensors = {**network.state_dict(), **constants}
    dtypes = [
        f'    "{k}": torch.{v},\n'
        for k, v in _DTYPES.items()
        if any(t.dtype is getattr(torch, v) for t in tensors.values())
    ]
    table = 'WEIGHTS = Path(__file__).with_suffix(".safetensors")\n'
    table += f'DTYPES = {{\n{"".join(dtypes)}}}\n"""The names of data types in safetensors files."""'
    header = f'"""{about}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(names.imports())
    return "\n\n\n".join([header + "\n\n" + table, *definitions, *functions, build, load]), tensors


def own_packages(network: nn.Module) -> set[str]:
    """The top-level packages whose source is carried: `nas`, those of the network's modules, and what lies beside one
    that is a single file."""
    own = {"nas", *(type(module).__module__.partition(".")[0] for module in network.modules())} - {"torch"}
    files = {name: Path(file) for name, m in list(sys.modules.items()) if (file := getattr(m, "__file__", None))}
    folders = {files[name].parent for name in own if name in files and files[name].name != "__init__.py"}
    folders = {folder for folder in folders if not folder.name.endswith("-packages")}
    return own | {name for name, file in files.items() if file.parent in folders and "." not in name} - FREE
