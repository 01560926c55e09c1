"""The authors' tuples, as their published evaluation scripts state them."""

from __future__ import annotations

import msgspec
import pytest

from nas.errors import ConfigError, NASError
from nas.genotype.file import Genotype
from nas.importing.formats import import_genotype
from tmics_space.published import read, write

HEAVY = """
from collections import namedtuple

def vimeo_evaluate(input_dir):
    Genotype = namedtuple('Genotype', 'normal_1 normal_1_concat normal_2 normal_2_concat normal_3 normal_3_concat')
    # Make network
    video = Genotype(normal_1=[('aligned modules', 0)], normal_1_concat=[1, 2, 3],
                     normal_2=[('Residualblocks_5_1', 0), ('SPAattention_3', 1), ('ECAattention_3', 3),
                               ('Residualblocks_3_1', 4), ], normal_2_concat=[1, 2, 3, 4],
                     normal_3=[('filter of 2', 0)], normal_3_concat=[1, 2, 3])
"""
LIGHT = """
    video_light = Genotype(normal_1=[('optical flow', 0)], normal_1_concat=[1, 2, 3],
                     normal_2=[('Residualblocks_5_1', 0), ('SPAattention_3', 1), ('DilConv_3_2', 2),
                               ('ECAattention_3', 3)], normal_2_concat=[1, 2, 3], normal_3=[('filter of 2', 0)],
                     normal_3_concat=[1, 2, 3])
    genotype = eval("%s" % 'video_light')
"""


@pytest.mark.parametrize(("text", "name"), [(HEAVY, "tmics-heavy"), (f"if True:\n{LIGHT}", "tmics-light")])
def test_the_published_tuples_are_the_shipped_genotypes(text: str, name: str) -> None:
    found, shipped = import_genotype("tmics", text, "script.py"), Genotype.load(name)
    assert found.choices == shipped.choices
    assert {option: found.options[option] for option in shipped.options} == shipped.options


def test_one_of_several_and_other_options() -> None:
    text = HEAVY + LIGHT
    assert read(text, name="video_light", channels=16).options["channels"] == 16
    assert read(text, name="video").choices["alignment"] == "tgm"
    with pytest.raises(ConfigError, match=r"got video, video_light[.]"):
        read(text)


def test_what_is_written_reads_the_same() -> None:
    for name in ("tmics-heavy", "tmics-light"):
        shipped = Genotype.load(name)
        assert read(write(shipped)).choices == shipped.choices
        assert write(shipped).startswith("Genotype(normal_1=[('")
    assert "normal_2=[('Residualblocks_5_1', 0), ('SPAattention_3', 1), " in write(Genotype.load("tmics-heavy"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency": "gf3"}, "alignment 'tgm' .* must be 'gf2', got 'gf3'"),
        ({"alignment": "ofm"}, "alignment 'ofm' .* must be 'none', got 'gf2'"),
        ({"cell/2": "residual_7x7"}, "'residual_7x7' .did you mean 'residual_5x5'"),
        ({"dna/1": "residual_3x3"}, "tied=true"),
    ],
)
def test_what_the_authors_cannot_build_is_not_written(change: dict[str, str], message: str) -> None:
    heavy = Genotype.load("tmics-heavy")
    with pytest.raises(NASError, match=message):
        write(msgspec.structs.replace(heavy, choices={**heavy.choices, **change}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("aligned modules", "alined modules", r"line 7: .*got 'alined modules' .*'aligned modules'"),
        ("ECAattention_3", "ECAattention_5", "line 8: .*got 'ECAattention_5' .*'ECAattention_3'"),
        ("filter of 2", "filter of 4", "line 10: .*filter of 2, got 'filter of 4'"),
        ("('SPAattention_3', 1)", "'SPAattention_3'", "line 8: 'normal_2' .*2 items, got 'SPAattention_3'"),
        ("[('aligned modules', 0)]", "[]", "'normal_1' must .*, got 0"),
        ("normal_3=", "normal_4=", r"line 7: .*got 'normal_4' .*'normal_3'"),
    ],
)
def test_errors_name_the_token(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(HEAVY.replace(old, new))
