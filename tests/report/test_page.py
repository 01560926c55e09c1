"""The page of a run as text; what it does in a browser is tested in `test_browser`."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nas.errors import InvalidFileError
from nas.genotype.file import Genotype, Provenance
from nas.report.page import write_report
from nas.run.folder import Run
from nas.run.task import Preview
from parsed_page import Page


def report(folder: Path, tmp_path: Path, **arguments: object) -> str:
    path = tmp_path / "report.html"
    assert write_report(folder, path, **arguments).path == path  # type: ignore[arg-type]
    return path.read_text(encoding="utf-8")


def test_a_search_has_every_section(searched: Path, tmp_path: Path) -> None:
    page = Page(report(searched, tmp_path))
    sections = ["genotype", "timeline", "decisions", "losses", "collapse", "cost", "configuration", "provenance"]
    assert [name for name in page.ids if name in sections] == sections
    assert len(page.ids) == len(set(page.ids))
    text = " ".join(page.text.split())
    final = Genotype.load(searched / "genotype.yaml")
    for label, choice in final.choices.items():
        assert f"{label} → {choice}" in text
    assert "c0ffee" in text
    assert final.provenance is not None
    count = len(final.provenance.undecided)
    assert count > 0
    assert f"{count} of {len(final.contested())} decisions are undecided" in text
    assert text.count(" undecided ") >= count
    assert "scored best on validation batches at step 40; best.yaml has the genotype" in text
    assert "Cell 'cell' has collapsed: 75% of its operations" in text
    assert "step 60 of 60" in text
    assert re.search(r"budget \(uniform mixing\) [\d,]+ of the budget \d+%", text)
    assert re.search(r"FLOPs of one input [\d,]+ \(1 multiply-add = 2 FLOPs\)", text)
    assert "no final genotype yet" not in text


def test_a_retraining_has_what_its_search_recorded(retrained: Path, preview: Preview, tmp_path: Path) -> None:
    page = Page(report(retrained, tmp_path, previews=[preview]))
    assert {"before-after", "timeline", "collapse"} <= set(page.ids)
    text = " ".join(page.text.split())
    assert "a <square>" in text
    assert "psnr 36.25 ssim 0.975" in text
    assert text.count("PSNR on Y") == 2
    for level in ("lower", "upper", "backbone", "joint"):
        assert f" {level} " in text
    assert "Retraining: " in text
    assert "Search: " in text


def test_a_retraining_whose_search_is_elsewhere(
    retrained: Path, searched: Path, preview: Preview, tmp_path: Path
) -> None:
    moved = tmp_path / "alone" / "network"
    shutil.copytree(retrained, moved)
    assert "timeline" not in Page(report(moved, tmp_path)).ids
    named = report(moved, tmp_path, search=searched)
    assert "timeline" in Page(named).ids


def test_it_needs_nothing_else(retrained: Path, preview: Preview, tmp_path: Path) -> None:
    text = report(retrained, tmp_path, previews=[preview])
    page = Page(text)
    assert [link for link in page.links if not link.startswith(("#", "data:image/webp;base64,"))] == []
    assert page.handlers == []
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "default-src 'none'; img-src data:;" in html.unescape(text)


def test_equal_runs_give_equal_pages(retrained: Path, preview: Preview, tmp_path: Path) -> None:
    pages = [report(retrained, tmp_path, previews=[preview]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_it_stays_below_three_megabytes(retrained: Path, tmp_path: Path) -> None:
    noise = [torch.randint(0, 256, (5, 3, 240, 320), dtype=torch.uint8) for _ in range(3)]
    previews = [Preview("noise", dict(zip("abc", noise, strict=True)))] * 2
    assert 1_000_000 < len(report(retrained, tmp_path, previews=previews).encode()) < 3_000_000


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\""


def test_texts_of_a_run_are_never_markup(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", f"seed: 1\nnote: {json.dumps(HOSTILE)}\n", 1) as run:
        run.record("decisions", 0, decisions={HOSTILE: [HOSTILE, "b"]})
        run.record("mixing", 0, weights={HOSTILE: [0.25, None]})
        run.record("train", 1, level=HOSTILE, loss=1.0)
        run.record("observer", 1, observer="collapse", entropy=0.5, **{f"skips/{HOSTILE}": 0.9})
        run.record("evaluate", 1, statement=f"\x1b[31m{HOSTILE}", **{HOSTILE: 2.0})
        source = Provenance(source=HOSTILE, margins={HOSTILE: 0.5})
        run.save_genotype(Genotype(space=HOSTILE, choices={HOSTILE: HOSTILE}, provenance=source))
    layers = {HOSTILE: torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}
    text = report(run.path, tmp_path, previews=[Preview(HOSTILE, layers)])
    page = Page(text)
    assert page.handlers == []
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert f"\N{REPLACEMENT CHARACTER}[31m{HOSTILE}" in page.text
    assert "\x1b" not in text
    assert text.count("<script") == 2, "the data of the timeline, and our own"


def test_a_run_of_a_space_that_is_not_known(folder: Path) -> None:
    assert write_report(folder).path == folder / "report.html"
    page = Page((folder / "report.html").read_text())
    assert "No picture." in page.text
    assert {"timeline", "decisions", "losses"} <= set(page.ids)
    assert "cost" not in page.ids


def test_a_run_that_goes_on(make_search: Callable[..., Path], tmp_path: Path) -> None:
    text = report(make_search("unfinished", finished=False), tmp_path)
    assert "This run has no final genotype yet" in text


def test_a_run_that_has_only_begun(folder: Path, tmp_path: Path) -> None:
    (folder / "genotype.yaml").unlink()
    for path in (folder / "genotypes").iterdir():
        path.unlink()
    (folder / "metrics.jsonl").write_text("")
    page = Page(report(folder, tmp_path))
    assert "Nothing is derived yet." in page.text
    assert not {"timeline", "decisions", "losses", "collapse", "cost"} & set(page.ids)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="folder of a run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written(searched: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFileError, match=r"report\.html"):
        write_report(searched, tmp_path / "file" / "report.html")
