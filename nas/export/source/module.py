"""Write a network as one readable Python file that needs only torch, with its weights beside it.

The file has three parts: the classes of the modules, as written by their authors, with the functions and constants that
their forward passes use; `build()`, which builds the network; and `load()`, which also loads its weights.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.export.source.carrier import Carrier, is_layer
from nas.export.source.construction import Construction, listed
from nas.export.source.definitions import Names, name_all, render_definition
from nas.export.source.expression import Builder
from nas.export.source.origin import FREE, Imported
from nas.export.source.plain_decisions import with_plain_decisions

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


def write_source(network: nn.Module, about: str) -> tuple[str, dict[str, Tensor]]:
    """Return the text of a Python file that builds a network, and the tensors that the file loads.

    Args:
        network: the network.
        about: the docstring of the file.

    Raises:
        ExportError: code needs a package other than torch, a class has no source, a value cannot be written as source,
            or a module has hooks. The message names the module.
    """
    with with_plain_decisions(network):
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
        render_definition(carrier, item, names, construction.constructor(item.value) if is_layer(item.value) else "")
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
    """Return the top-level packages whose source may be copied.

    These are `nas`, the packages of the network's modules, and modules beside a module that is a single file.
    """
    own = {"nas", *(type(module).__module__.partition(".")[0] for module in network.modules())} - {"torch"}
    files = {name: Path(file) for name, m in list(sys.modules.items()) if (file := getattr(m, "__file__", None))}
    folders = {files[name].parent for name in own if name in files and files[name].name != "__init__.py"}
    folders = {folder for folder in folders if not folder.name.endswith("-packages")}
    return own | {name for name, file in files.items() if file.parent in folders and "." not in name} - FREE
