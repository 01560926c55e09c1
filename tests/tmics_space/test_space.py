from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError
from nas.files import parse_yaml
from nas.genotype.file import Genotype, json_schema
from nas.space.definition import find_space
from nas.space.operations import OperationSet, operation
from nas.supernet import Supernet
from nas.testing import SearchSpaceTests
from tmics_space.flow import FLOW_PROVIDERS, ZeroFlow, make_flow
from tmics_space.network import Deraining
from tmics_space.operations import OPERATIONS
from tmics_space.space import tmics

GENOTYPES = Path(__file__).parents[2] / "genotypes"
SMALL: dict[str, Any] = {
    "channels": 4,
    "dna_cells": 1,
    "cna_cells": 1,
    "layers": 1,
    "flow": "zero",
    "frequency": ["none"],
    "operations": {"residual": {"factory": "residual"}, "dilated": {"factory": "dilated"}},
}


class Conformance(SearchSpaceTests):
    """The conformance tests on small windows of 14 pixels, the least for guided filters of radius 6."""

    space = tmics
    options = SMALL
    trials = 2

    def example_input(self) -> Tensor:
        return torch.rand(2, 5, 3, 14, 15, generator=torch.Generator().manual_seed(0))


class TestTmics(Conformance):
    options = SMALL | {"dna_cells": 2, "layers": 2, "frequency": ["none", "gf2", "gf3"], "operations": "tmics"}
    trials = 3


class TestHalfSize(Conformance):
    """Frames of odd width, and every choice that is open only on request."""

    options = SMALL | {
        "scale": 2,
        "consistency": ["none", "photometric"],
        "frequency": ["none", "gf2"],
        "flow": {"name": "pyramid", "width": 4, "levels": 1, "finest": 4},
        "operations": {"gated": {"factory": "gated"}, "inverted": {"factory": "inverted_residual", "kernel": 3}},
    }

    def example_input(self) -> Tensor:
        return torch.rand(2, 5, 3, 16, 17, generator=torch.Generator().manual_seed(0))


class TestUntied(Conformance):
    options = SMALL | {"tied": False, "dna_input": "concat"}


class TestLearnedFlow(Conformance):
    options = SMALL | {"alignment": ["ofm"], "flow": {"name": "pyramid", "width": 4, "levels": 2}}


class TestTemporalGroupsAlone(Conformance):
    options = SMALL | {"alignment": ["tgm"], "streaks": False}


class TestDominantAlone(Conformance):
    options = SMALL | {"cna_cells": 0}


class TestCompanionAlone(Conformance):
    options = SMALL | {"dna_cells": 0}


class TestNormalized(Conformance):
    options = SMALL | {"normalize": "group", "averaging": "fixed"}


class TestBatchNormalized(Conformance):
    options = SMALL | {"normalize": "batch", "averaging": "free"}


class TestSevenFrames(Conformance):
    options = SMALL | {"frames": 7, "averaging": "pixel"}

    def example_input(self) -> Tensor:
        return torch.rand(2, 7, 3, 9, 8, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parts(supernet: Supernet) -> Any:
    assert isinstance(supernet.network, Deraining)
    return supernet.network


def labels(**options: Any) -> dict[str, tuple[str | int, ...]]:
    return {label: decision.candidates for label, decision in tmics.describe(**SMALL | options).decisions.items()}


def network(**options: Any) -> Deraining:
    found = tmics.describe(**SMALL | options).network
    assert isinstance(found, Deraining)
    return found


def genotype(name: str, **options: Any) -> Genotype:
    loaded = Genotype.load(GENOTYPES / f"{name}.yaml")
    return Genotype(space=loaded.space, options=loaded.options | options, choices=loaded.choices)


@pytest.fixture
def on_meta() -> Iterator[None]:
    """Networks of the published size, without their memory."""
    with torch.device("meta"):
        yield


def test_it_is_found_by_name() -> None:
    assert find_space("tmics") is tmics
    assert tmics.options()["operations"] == "tmics"


def test_decisions_by_default() -> None:
    found = tmics.describe().decisions
    assert {label: decision.candidates for label, decision in found.items()} == {
        "alignment": ("ofm", "tgm"),
        "frequency": ("none", "gf2", "gf3"),
        **{f"cell/{i}": tuple(OPERATIONS) for i in range(1, 5)},
    }


@pytest.mark.parametrize(("name", "legacy"), [("tmics-heavy", 7_621_152), ("tmics-light", 5_510_855)])
def test_point_01_totals_of_the_shipped_genotypes(name: str, legacy: int, on_meta: None) -> None:
    def total(**options: Any) -> int:
        return count(tmics.derived(genotype(name, flow="zero", **options)))

    assert total(averaging="legacy") == legacy
    assert total() == legacy - 122  # as shipped
    with_flow = count(tmics.derived(genotype(name)))
    assert with_flow - total() == (count(make_flow("pyramid")) if name == "tmics-light" else 0)


@pytest.mark.parametrize(("channels", "mixed"), [(16, 2_447_200), (32, 9_743_200)])
def test_point_01_totals_of_the_supernet(channels: int, mixed: int, on_meta: None) -> None:
    """The closed forms of all parts; `mixed` are 8 cells of 4 mixed operations."""
    c, half = channels, channels // 2
    assert mixed == 8 * 4 * (296 * c**2 + 42 * c + 27)
    residual, enhancement, attention = c**2 + 20 * c + 1, c**2 + 45 * c + 1, 18 * c**2 + 4
    merged = residual + enhancement
    ofm = 9 * 15 * c + c + merged
    tgm = 2 * (9 * 9 * c + c + merged) + 9 * 2 * c**2 + c + merged

    def frequency(bands: int) -> int:
        band = bands * c**2 + attention + 2 * enhancement
        return 9 * c**2 + c + 2 * band + 2 * c**2 + enhancement

    def two_convs(hidden: int, outputs: int) -> int:
        return 9 * c * hidden + hidden + 1 + 9 * hidden * outputs + outputs

    streaks = two_convs(half, 32) + 3 * 32 * 81
    rest = ofm + tgm + frequency(4) + frequency(6) + streaks + (27 * c + c) + 2 * two_convs(half, 3) + 338
    supernet = Supernet(tmics, channels=channels, flow="zero")
    assert count(supernet.arch) == 2 + 3 + 4 * 8
    assert count(supernet.network) == mixed + rest
    assert count(parts(supernet).dna.cells) + count(parts(supernet).cna.cells) == mixed


@pytest.mark.parametrize("name", ["tmics-heavy", "tmics-light"])
def test_shipped_genotypes_follow_the_schema(name: str) -> None:
    schema = json.loads((GENOTYPES / "genotype.schema.json").read_text(encoding="utf-8"))
    assert schema == json_schema()
    data = parse_yaml((GENOTYPES / f"{name}.yaml").read_text(encoding="utf-8"), name)
    jsonschema.validate(data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data | {"choice": {}}, schema)
    assert tmics.options(**genotype(name).options).items() >= genotype(name).options.items()


def test_published_choices() -> None:
    heavy, light = (genotype(name).choices for name in ("tmics-heavy", "tmics-light"))
    assert (heavy["alignment"], heavy["frequency"]) == ("tgm", "gf2")
    assert (light["alignment"], light["frequency"]) == ("ofm", "none")
    assert [light[f"cell/{i}"] for i in range(1, 5)] == [
        "residual_5x5",
        "spatial_attention",
        "dilated_3x3",
        "channel_attention",
    ]


def test_tied_networks_share_decisions_and_no_weights() -> None:
    assert {"cell/1", "cell/2"} <= labels(layers=2).keys()
    untied = labels(layers=2, tied=False)
    assert {"dna/1", "dna/2", "cna/1", "cna/2"} <= untied.keys()
    assert not any(label.startswith("cell") for label in untied)
    found = parts(Supernet(tmics, **SMALL))
    dna, cna = (dict(route.cells.named_parameters()) for route in (found.dna, found.cna))
    assert dna.keys() == cna.keys()
    assert not any(dna[name] is cna[name] for name in dna)
    assert not all(torch.equal(dna[name], cna[name]) for name in dna)


def test_ablations_leave_out_their_parts() -> None:
    def kept(**options: Any) -> set[str]:
        found = network(**options)
        return {name for name in ("streaks", "stem", "dna", "cna", "averaging") if getattr(found, name) is not None}

    everything = {"streaks", "stem", "dna", "cna", "averaging"}
    assert kept() == kept(dna_input="concat") == everything
    assert kept(streaks=False) == {"dna", "cna", "averaging"}
    assert kept(cna_cells=0) == {"streaks", "stem", "dna"}
    assert kept(dna_cells=0) == {"cna"}
    assert count(network(averaging="fixed").averaging) == 0  # type: ignore[arg-type]
    assert labels(alignment=["tgm"])["alignment"] == ("tgm",)
    assert labels(frequency=["none", "gf3"])["frequency"] == ("none", "gf3")


HALF = SMALL | {
    "scale": 2,
    "flow": {"name": "pyramid", "width": 4, "levels": 1, "finest": 4},
    "consistency": ["photometric"],
    "averaging": "pixel",
    "operations": {"gated": {"factory": "gated"}},
}


def at_half_size(**options: Any) -> nn.Module:
    """A network of one choice each in eval mode, with weights away from the zeros that some start with."""
    supernet = Supernet(tmics, **HALF | {"alignment": ["ofm"]} | options)
    network = supernet.derived(supernet.derive()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("options", [{}, {"alignment": ["tgm"]}, {"dna_input": "concat"}], ids=str)
def test_at_half_size_an_odd_frame_is_a_frame_with_its_border_repeated(options: dict[str, Any]) -> None:
    network = at_half_size(**options)
    for height, width in ((1, 1), (2, 3), (13, 16), (16, 13), (17, 15)):
        frames = torch.rand(1, 5, 3, height, width)
        rows, columns = (torch.arange(size + size % 2).clamp(max=size - 1) for size in (height, width))
        with torch.no_grad():
            odd, even = network(frames), network(frames[..., rows, :][..., columns])
            described: Any = network.describe(frames)  # type: ignore[operator]  # of `Deraining`
            again = network(frames, described) if described else odd
        for found, whole, shared in zip(odd[:4], even[:4], again[:4], strict=True):
            assert found.shape == (1, 3, height, width)
            assert torch.equal(found, whole[..., :height, :width])
            assert torch.equal(found, shared)
        assert odd.weight.std() > 0


def test_at_half_size_every_parameter_learns() -> None:
    network = at_half_size(streaks="search", dna_input="concat").train()
    frames = torch.rand(2, 5, 3, 15, 17)
    restored = network(frames)
    (restored.output.square().sum() + restored.photometric).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_decisions_on_request() -> None:
    found = tmics.describe(**HALF | {"consistency": ["none", "photometric"], "streaks": "search"}).decisions
    assert {label: decision.candidates for label, decision in found.items()} == {
        "alignment": ("ofm", "tgm"),
        "consistency": ("none", "photometric"),
        "frequency": ("none",),
        "streaks": ("none", "rain"),
        "cell/1": ("gated",),
    }
    assert "streaks" not in labels(streaks="search", dna_cells=0)


@pytest.mark.parametrize("rain", ["none", "rain"])
def test_the_rain_layer_may_be_decided(rain: str) -> None:
    supernet = Supernet(tmics, **SMALL | {"streaks": "search"})
    found = supernet.derive()
    choices = {**found.choices, "streaks": rain}
    network: Any = supernet.derived(Genotype(space="tmics", options=found.options, choices=choices))
    features = torch.rand(1, 4, 6, 5)
    layer = network.streaks(features)
    assert layer.shape == (1, 3, 6, 5)
    assert bool(layer.any()) == (rain == "rain")
    assert ("streaks", "stem") in network.wiring


@pytest.mark.parametrize("scale", [1, 2])
def test_filters_have_their_radii_in_pixels_of_the_frame(scale: int) -> None:
    frequency: Any = network(scale=scale, frequency=["gf2", "gf3"]).frequency
    assert (frequency.gf2.radii, frequency.gf3.radii) == (
        tuple(r // scale for r in (4, 6)),
        tuple(r // scale for r in (2, 4, 6)),
    )


@pytest.mark.parametrize("normalize", ["group", "batch"])
def test_normalized_candidates_have_one_scale(normalize: str) -> None:
    supernet = Supernet(tmics, channels=8, dna_cells=1, cna_cells=0, layers=1, flow="zero", normalize=normalize)
    for candidate in parts(supernet).dna.cells[0][0].children():
        assert abs(candidate(100 * torch.randn(4, 8, 12, 12)).std().item() - 1) < 0.02


def test_the_flow_takes_arguments() -> None:
    def flow(**options: Any) -> nn.Module:
        alignment = network(alignment=["ofm"], **options).alignment
        return alignment.get_submodule("ofm.flow")

    assert count(flow(flow={"name": "pyramid", "width": 4})) == count(make_flow("pyramid", width=4))
    assert count(flow(flow="pyramid")) == count(make_flow("pyramid"))


def test_the_flow_may_be_a_users_module() -> None:
    FLOW_PROVIDERS.register("test_tmics_space_still")(ZeroFlow)
    supernet = Supernet(tmics, **SMALL | {"flow": "test_tmics_space_still"})
    assert isinstance(supernet.network.get_submodule("alignment.ofm.flow"), ZeroFlow)
    assert tmics.options(**supernet.derive().options)["flow"] == "test_tmics_space_still"


@operation("test_tmics_space_blur")
def blur(channels: int, *, size: int = 3) -> nn.Module:
    """Like an operation of a user, which knows nothing of TMICS."""
    return nn.AvgPool2d(size, 1, size // 2)


@pytest.mark.parametrize("source", ["python", "mapping", "file"])
def test_candidates_may_be_replaced(tmp_path: Path, source: str) -> None:
    entries = {"blur": {"factory": "test_tmics_space_blur", "size": 5}, "mine": {"factory": "residual", "kernel": 7}}
    path = tmp_path / "operations.yaml"
    path.write_text(json.dumps({"operations": entries}))
    chosen: Any = {"python": OperationSet.of(entries), "mapping": entries, "file": str(path)}[source]
    supernet = Supernet(tmics, evaluation="plain", **SMALL | {"operations": chosen, "normalize": "group"})
    assert supernet.decisions["cell/1"].candidates == ("blur", "mine")
    found = supernet.derive()
    assert found.options["operations"] == entries  # so a genotype stands by itself, without the file
    frames = torch.rand(1, 5, 3, 16, 16)
    with torch.no_grad(), supernet.eval().fixed(found):
        mixed = supernet(frames).output
        assert torch.equal(mixed, supernet.derived(found)(frames).output)


def test_a_registered_set_is_named() -> None:
    mine = OperationSet({"blur": blur}).register("test_tmics_space")
    assert tmics.options(operations=mine)["operations"] == "test_tmics_space"
    assert labels(operations="test_tmics_space")["cell/1"] == ("blur",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"flow": "pyramide"}, UnknownNameError, "flow provider 'pyramide' .*did you mean 'pyramid'"),
        ({"flow": {"width": 4}}, ConfigError, r"options\.flow must .*'name', got {'width': 4}"),
        ({"flow": {"name": "pyramid", "widht": 4}}, ConfigError, r"options\.flow\.widht .*'width'"),
        ({"flow": 3}, ConfigError, "option 'flow' of space 'tmics'"),
        ({"operations": "tmisc"}, UnknownNameError, "operation set 'tmisc' .*did you mean 'tmics'"),
        ({"operations": {"a": {"factory": "residul"}}}, InvalidFileError, "did you mean 'residual'"),
        ({"operations": {"a": {"factory": "residual", "kernal": 3}}}, InvalidFileError, "did you mean 'kernel'"),
        ({"operations": {"a": {"factory": "residual", "kernel": 4}}}, ConfigError, "odd positive number .*got 4"),
        ({"operations": "missing.yaml"}, InvalidFileError, "missing.yaml: cannot be read"),
        ({"operations": {}}, InvalidFileError, "'operations' must .*, got none"),
        ({"alignment": ["ofn"]}, ConfigError, "option 'alignment'.*'ofn'"),
        ({"alignment": []}, SpaceError, "'alignment' must .*, got none"),
        ({"consistency": ["flow"]}, ConfigError, "option 'consistency'.*'flow'"),
        ({"streaks": "serch"}, ConfigError, "option 'streaks'.*'serch'"),
        ({"scale": 3}, ConfigError, "option 'scale'.*3"),
        ({"flow": {"name": "pyramid", "finest": 3}}, ConfigError, "'finest' .* power of 2.*got 3"),
        ({"frequency": ["gf4"]}, ConfigError, "option 'frequency'.*'gf4'"),
        ({"averaging": "chanel"}, UnknownNameError, "averaging 'chanel' .*'channel'"),
        ({"channels": 0}, ConfigError, "option 'channels'"),
        ({"layers": 0}, ConfigError, "option 'layers'"),
        ({"dna_cells": -1}, ConfigError, "option 'dna_cells'"),
        ({"dna_cells": 0, "cna_cells": 0}, ConfigError, "'dna_cells' .* 'cna_cells' must .*, got 0 for both"),
        ({"frames": 4}, ConfigError, "'frames' must be odd .*got 4"),
        ({"chanels": 8}, ConfigError, "did you mean 'channels'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tmics.describe(**SMALL | options)


def test_a_genotype_of_another_set_of_candidates_is_refused() -> None:
    heavy = genotype("tmics-heavy", channels=4, operations={"blur": {"factory": "test_tmics_space_blur"}})
    with pytest.raises(UnknownNameError, match="candidate of 'cell/1' 'residual_5x5'"):
        tmics.derived(heavy)
