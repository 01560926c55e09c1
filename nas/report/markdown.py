"""`report.md`: what a run did, in one page that links its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nas.files import write_text
from nas.genotype import Choice, Genotype
from nas.report import history
from nas.report.charts import loss_chart, mixing_chart
from nas.report.tables import Cell, format_cell
from nas.run import GENOTYPE, Record, Versions, read_records, read_versions

REPORT = "report.md"
SHOWN = 20
"""The most evaluations listed: the last ones."""


def write_report(folder: str | Path) -> Path:
    """Write `report.md`, `mixing.svg` and `losses.svg` of a run, finished or not, from the files in its folder alone.

    Every picture that lies in the folder is linked. Raises `InvalidFileError` where the folder is no run, or cannot be
    written.
    """
    folder = Path(folder)
    versions, records = read_versions(folder), read_records(folder)
    genotype, origin = _genotype(folder)
    mixing, losses = history.mixing(records), history.losses(records)
    if mixing:
        mixing_chart(folder / "mixing.svg", mixing, genotype.choices if genotype else {})
    if losses:
        loss_chart(folder / "losses.svg", losses)
    parts = [f"# Run {folder.resolve().name}", *_summary(versions, records, genotype, origin)]
    if genotype:
        parts += ["## Genotype", *_decisions(genotype, mixing)]
    if losses:
        parts += ["## Losses", _losses(losses)]
    parts += _evaluations([record for record in records if record.get("kind") == "evaluate"])
    pictures = sorted(path.name for kind in ("svg", "png") for path in folder.glob(f"*.{kind}"))
    parts += ["## Pictures"] * bool(pictures) + [f"![{Path(name).stem}](<{name}>)" for name in pictures]
    write_text(folder / REPORT, "\n\n".join(parts) + "\n")
    return folder / REPORT


def _genotype(folder: Path) -> tuple[Genotype | None, str]:
    """The final genotype, else that of the latest step, and the name of its file."""
    paths = [*sorted((folder / "genotypes").glob("step-*.yaml")), folder / GENOTYPE]
    found = [path for path in paths if path.exists()]
    return (Genotype.load(found[-1]), found[-1].relative_to(folder).as_posix()) if found else (None, "")


def _summary(versions: Versions, records: list[Record], genotype: Genotype | None, origin: str) -> list[str]:
    steps = max((record["step"] for record in records if "step" in record), default=0)
    rows: dict[str, Cell] = {"Steps": steps, "Seed": versions.seed}
    if genotype:
        rows["Search space"] = genotype.space
        rows["Options"] = ", ".join(f"{name}={value}" for name, value in genotype.options.items()) or None
    rows["Started"] = versions.started
    rows["Package"] = versions.package
    rows["Python, torch"] = f"{versions.python}, {versions.torch}"
    rows["Platform"] = versions.platform
    rows["Configuration"] = f"[config.yaml](config.yaml), hash {versions.config}"
    rows["Genotype"] = f"[{origin}]({origin})" if origin else None
    state = [] if origin == GENOTYPE else ["This run has no final genotype yet."]
    return [*state, _table(("", ""), rows.items())]


def _decisions(genotype: Genotype, mixing: Mapping[str, history.Mixing]) -> list[str]:
    margins = genotype.provenance.margins if genotype.provenance else {}
    rows = []
    for label, choice in genotype.choices.items():
        weights = dict(zip(mixing[label].candidates, mixing[label].weights[-1], strict=True)) if label in mixing else {}
        others = sorted((name for name in weights if name != _text(choice)), key=lambda name: -weights[name])
        second = others[0] if others else None
        rows.append(
            (
                f"`{label}`",
                _text(choice),
                weights.get(_text(choice)),
                second,
                weights[second] if second else None,
                margins.get(label),
            )
        )
    columns = ("Decision", "Chosen", "Mixing weight", "Runner-up", "Mixing weight", "Margin")
    parts = [_table(columns, rows)]
    if margins:
        label = min(margins, key=lambda label: margins[label])
        parts.append(f"The least decided is `{label}`, by a margin of {format_cell(margins[label])}.")
    return parts


def _losses(losses: Mapping[str, history.Series]) -> str:
    rows = []
    for level, (steps, values) in losses.items():
        least = min(range(len(values)), key=lambda i: (values[i] != values[i], values[i]))
        rows.append((level, values[0], values[-1], values[least], steps[least]))
    return _table(("Level", "First", "Last", "Least", "at step"), rows)


def _evaluations(records: list[Record]) -> list[str]:
    if not records:
        return []
    names = dict.fromkeys(name for record in records for name in record)
    columns = [name for name in names if name not in ("kind", "statement", "parts")]
    rows = [[record.get(name) for name in columns] for record in records[-SHOWN:]]
    note = [f"The last {SHOWN} of {len(records)}."] if len(records) > SHOWN else []
    statements = dict.fromkeys(record["statement"] for record in records if record.get("statement"))
    parts = records[-1].get("parts") or {}
    each = []
    if len(parts) > 1:
        each = [_table(("", *next(iter(parts.values()))), [(name, *part.values()) for name, part in parts.items()])]
    return ["## Evaluation", *note, _table(columns, rows), *each, *statements]


def _text(choice: Choice) -> str:
    return ", ".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[format_cell(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
