"""From the modules of a network to expressions that build them again, and to the `__init__` of their classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas.errors import ExportError
from nas.export.source import torch_layers, values
from nas.export.source.carrier import Carrier
from nas.export.source.definitions import Names
from nas.export.source.expression import Call, Expression, Number
from nas.export.source.initializer import is_name, write_initializer
from nas.export.source.origin import Imported
from nas.kernels.torch_internals import HOOKS, STATE_HOOKS, tables_of, transient_buffers_of
from nas.space.mixed import ChosenDepth, ChosenWidth

STANDS_FOR: Mapping[type[nn.Module], type[nn.Module]] = {ChosenDepth: nn.Sequential, ChosenWidth: nn.Identity}
"""Modules of decisions that are, once decided, layers of torch."""
_HOOKS = (*HOOKS, *STATE_HOOKS)


class Construction:
    """How to build a network from what it is.

    A class of modules is given its submodules, parameters and the attributes that its code reads, by name. Raises
    `ExportError`, naming the module, for state that has no form in source.
    """

    def __init__(self, network: nn.Module, carrier: Carrier, names: Names) -> None:
        self.carrier, self.names = carrier, names
        self.instances: dict[type[nn.Module], list[tuple[str, nn.Module]]] = {}
        """The modules of each class that is not torch's, by path, those inside others first."""
        self.shared: list[tuple[str, str]] = []
        """Paths of modules and of what else has them, under the first path."""
        self.constants: dict[str, Tensor] = {}
        """Large buffers that no `state_dict` holds."""
        self._network = network
        self._first = {id(module): path for path, module in network.named_modules()}
        self._makes: dict[str, set[str]] = {}
        for path, module in _inner_first(network):
            self._check(module, path)
            cls = type(module)
            if cls not in STANDS_FOR and torch_layers.torch_base(cls) is not cls:
                self.instances.setdefault(cls, []).append((path, module))
        for cls, modules in self.instances.items():
            carrier.add(cls, _where(modules[0][0]))

    def carry_values(self) -> None:
        """Carry the functions and classes that attributes hold."""
        for modules in self.instances.values():
            for path, module in modules:
                for name, value in self._parts(module, path).items():
                    if not isinstance(value, (Tensor, nn.Module)):
                        for each in self._referred(value, f"{_where(path)}: the attribute '{name}'"):
                            self.carrier.add(each, _where(path))

    def root(self) -> Call:
        """The expression that builds the network."""
        return self._call(self._network, "")

    def statements(self) -> list[str]:
        """What has to be done to the new network: parts that several places share, and parameters that do not learn."""
        lines = []
        for path, first in self.shared:
            parent, _, name = path.rpartition(".")
            lines.append(f'network.get_submodule("{parent}").add_module("{name}", network.get_submodule("{first}"))')
        parameters: dict[int, str] = {}
        repeated = [path for path, _ in self.shared]
        for path, parameter in self._network.named_parameters(remove_duplicate=False):
            first = parameters.setdefault(id(parameter), path)
            if first != path and not any(path.startswith(f"{each}.") for each in repeated):
                parent, _, name = path.rpartition(".")
                lines.append(f'network.get_submodule("{parent}").{name} = network.get_parameter("{first}")')
        frozen = [path for path, p in self._network.named_parameters() if not p.requires_grad]
        if frozen:
            lines.append(f"for name in {listed(frozen)}:\n    network.get_parameter(name).requires_grad_(False)")
        return lines

    def constructor(self, cls: type[nn.Module]) -> str:
        """The `__init__` of a class of modules; empty where it needs none."""
        modules = [self._parts(module, path) for path, module in self.instances.get(cls, [])]
        base = torch_layers.torch_base(cls)
        item = self.carrier.find(cls)
        assert item is not None
        inherits = bool(item.bases) and any(self._has_constructor(other) for other in cls.__mro__[1:])
        if not modules or not (inherits or self._has_constructor(cls)):
            return ""
        above = f"{self._class(base)}.__init__" if inherits else ""
        try:
            return write_initializer(modules, self._class, self.names, above, wraps=base is not nn.Module)
        except ExportError as error:
            raise ExportError(
                f"{_where(self.instances[cls][0][0])}: modules of class '{cls.__name__}' {error}"
            ) from None

    def _has_constructor(self, cls: type) -> bool:
        return any(self._parts(module, path) for path, module in self.instances.get(cls, []))

    def _parts(self, module: nn.Module, path: str) -> dict[str, Any]:
        """What a module is given by name: attributes that are read, parameters, buffers, submodules."""
        base = torch_layers.torch_base(type(module))
        made = self._made(module, base, path)
        held = {name: part for parts in tables_of(module) for name, part in parts.items()}
        if base in torch_layers.CONTAINERS:
            held = {name: part for name, part in held.items() if not isinstance(part, _content(base))}
        mine = {n: v for n, v in vars(module).items() if n not in torch_layers.PLAIN_STATE}
        mine = {name: value for name, value in mine.items() if self.carrier.reads(type(module), name)}
        return {name: value for name, value in (mine | held).items() if name not in made}

    def _made(self, module: nn.Module, base: type[nn.Module], path: str) -> set[str]:
        """The names of what the layer of torch that a module is makes itself."""
        if base is nn.Module or base in torch_layers.CONTAINERS:
            return set()
        if path not in self._makes:
            made = torch_layers.make(base, torch_layers.arguments(module, base, _where(path)))
            self._makes[path] = set(vars(made)).union(*tables_of(made)) - torch_layers.PLAIN_STATE
        return self._makes[path]

    def _call(self, module: nn.Module, path: str) -> Call:
        first = self._first[id(module)]
        if first != path:  # its place is taken until the whole network is there
            self.shared.append((path, first))
            return Call(f"{self._class(nn.Identity)}(", ())
        cls = type(module)
        base = torch_layers.torch_base(STANDS_FOR.get(cls, cls))
        parts: list[tuple[str, Expression]] = []
        if base in torch_layers.CONTAINERS:
            parts = list(self._contained(module, base, path))
        elif base is not nn.Module:
            given = torch_layers.arguments(module, base, _where(path)) if cls not in STANDS_FOR else {}
            parts = [(self._prefix(name, base), self._value(value, name, path)) for name, value in given.items()]
        if cls in STANDS_FOR or cls is base:
            return Call(
                f"{self._class(base)}(", tuple(parts), _name(module, path) if base in torch_layers.CONTAINERS else ""
            )
        extra = [(name, self._value(value, name, path)) for name, value in self._parts(module, path).items()]
        parts += [(f"{name}=", value) for name, value in extra if is_name(name)]
        if unnamed := [(f'"{name}": ', value) for name, value in extra if not is_name(name)]:
            parts.append(("**", Call("{", tuple(unnamed))))
        return Call(f"{self._class(cls)}(", tuple(parts), _name(module, path))

    def _contained(self, module: nn.Module, base: type[nn.Module], path: str) -> Iterator[tuple[str, Expression]]:
        held = {**tables_of(module).parameters, **tables_of(module).children}
        content = {name: part for name, part in held.items() if isinstance(part, _content(base))}
        children = [(name, self._value(part, name, path)) for name, part in content.items()]
        numbered = list(content) == [str(i) for i in range(len(content))]
        if issubclass(base, (nn.ModuleDict, nn.ParameterDict)) or (base is nn.Sequential and not numbered):
            named = Call("{", tuple((f'"{name}": ', call) for name, call in children))
            if base is not nn.Sequential:
                yield "", named
            else:
                ordered = self.names.give(Imported("collections", "OrderedDict"), "OrderedDict")
                yield "", Call(f"{ordered}(", (("", named),))
        elif base is not nn.Sequential:
            yield "", Call("[", tuple(("", call) for _, call in children))
        else:
            yield from (("", call) for _, call in children)

    def _prefix(self, name: str, base: type[nn.Module]) -> str:
        return "" if name in torch_layers.positional(base) else f"{name}="

    def _value(self, value: Any, name: str, path: str) -> Expression:
        where = f"{_where(path)}: the attribute '{name}'"
        if isinstance(value, nn.Module):
            return self._call(value, _join(path, name))
        if isinstance(value, nn.Parameter):
            return Call(f"{self._class(nn.Parameter)}(", (("", self._zeros(value)),))
        if isinstance(value, Tensor) and _join(path, name) in dict(self._network.named_buffers(remove_duplicate=False)):
            owner = self._network.get_submodule(path)
            fleeting = name in transient_buffers_of(owner)
            content: Expression = self._zeros(value)
            if fleeting and value.numel() <= values.SMALL:
                content = values.written(value, self._refer, where)
            elif fleeting:
                self.constants[_join(path, name)] = value
            kept: tuple[tuple[str, Expression], ...] = (("persistent=", "False"),) if fleeting else ()
            return Call(f"{self._class(nn.Buffer)}(", (("", content), *kept))
        if type(value) is int:
            return Number(value, name)
        return values.written(value, self._refer, where)

    def _zeros(self, tensor: Tensor) -> Call:
        sizes: list[tuple[str, Expression]] = [("", Number(size, "size")) for size in tensor.shape] or [("", "()")]
        if tensor.dtype != torch.get_default_dtype():
            sizes.append(("dtype=", values.written(tensor.dtype, self._refer, "")))
        return Call(f"{self.names.give(Imported('torch'), 'torch')}.zeros(", tuple(sizes))

    def _class(self, cls: type) -> str:
        """The text that names a class."""
        if getattr(nn, cls.__name__, None) is cls:
            return f"{self.names.give(Imported('torch.nn'), 'nn')}.{cls.__name__}"
        return self._refer(cls)

    def _refer(self, value: Any) -> str:
        if value is torch:
            return self.names.give(Imported("torch"), "torch")
        if (item := self.carrier.find(value)) is not None:
            return self.names.give(item.key, item.key.name)
        known = values.named(value)
        assert known is not None  # `_referred` carries all others
        return value.__name__ if known[0] == "builtins" else self.names.give(Imported(*known), known[1])

    def _referred(self, value: Any, where: str) -> Iterator[Any]:
        """The functions and classes in a value that have to be carried."""
        found: list[Any] = []

        def refer(each: Any) -> str:
            found.append(each)
            return ""

        values.written(value, refer, where)
        yield from (each for each in found if each is not torch and values.named(each) is None)

    def _check(self, module: nn.Module, path: str) -> None:
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise ExportError(f"{_where(path)} is lazy and has no weights yet: run the network once")
        if hooks := [name.strip("_") for name in _HOOKS if getattr(module, name, None)]:
            raise ExportError(f"{_where(path)} has {hooks[0].replace('_', ' ')}, which cannot be written as source")


def listed(names: Iterable[str]) -> str:
    """A tuple of names, one a line."""
    return "(\n" + "".join(f'    "{name}",\n' for name in names) + ")"


def _content(base: type[nn.Module]) -> type:
    """What a container of torch holds."""
    return nn.Parameter if issubclass(base, (nn.ParameterList, nn.ParameterDict)) else nn.Module


def _inner_first(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules by path, each behind those inside of it."""
    found: list[tuple[str, nn.Module]] = []

    def visit(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            visit(child, _join(path, name))
        if all(module is not other for _, other in found):
            found.append((path, module))

    visit(network, "")
    return found


def _name(module: nn.Module, path: str) -> str:
    """What a function that makes a module is called: its only candidate, its class, or where it is."""
    cls = type(module)
    names = [part for part in path.split(".") if is_name(part)]
    if torch_layers.torch_base(cls) is cls or cls in STANDS_FOR:
        return names[-1].lower() if names else "network"
    if cls.__module__.startswith("nas.") and len(names := list(tables_of(module).children)) == 1 and is_name(names[0]):
        return names[0].lower()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _where(path: str) -> str:
    return path or "the network"
