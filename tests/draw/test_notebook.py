"""What genotypes and supernets show in a notebook."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import torch

import toy
from nas.genotype.file import Genotype, Provenance
from nas.supernet import Supernet

MINE = Genotype(space="toy", choices=toy.DEAREST, options={"channels": 4})


def test_a_genotype_shows_its_picture() -> None:
    svg = MINE._repr_svg_()
    assert svg is not None
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg in MINE._repr_html_()


def test_a_genotype_of_an_unknown_space_shows_its_choices() -> None:
    margins = Provenance(margins={"first": 0.25})
    lost = Genotype(space="<lost>\x1b\x07", choices={"first": "conv", "node": (0, 2)}, provenance=margins)
    assert lost._repr_svg_() is None
    html = lost._repr_html_()
    assert r"&lt;lost&gt;\x1b\x07" in html
    assert "<td>first</td><td>conv</td><td>0.25</td>" in html
    assert "<td>node</td>" not in html, "it has no margin, so it had no alternative"
    ET.fromstring(html)


def test_a_supernet_shows_what_leads() -> None:
    supernet = Supernet(toy.toy)
    with torch.no_grad():
        supernet.arch["second"][1] = 3.0
    html = supernet._repr_html_()
    ET.fromstring(html)
    assert "<td>second</td><td>tanh</td><td>linear 0.05, tanh 0.95</td>" in html
    assert f"{sum(p.numel() for p in supernet.network.parameters()):,} operation weights, 2 decisions" in html


def test_a_supernet_shows_how_many_edges_a_node_keeps() -> None:
    import crafted

    assert "<td>cell/3</td><td>2 of 3 in-edges</td>" in Supernet(crafted.crafted)._repr_html_()
