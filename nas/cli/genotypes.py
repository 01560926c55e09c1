"""Commands on genotype files: lint, diff, canon, import, export, upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from nas.cli.app import app
from nas.cli.targets import options_of
from nas.cli.terminal import say
from nas.errors import ConfigError, InvalidFileError
from nas.front.targets import genotype_file, genotype_of

genotype = App(name="genotype", help="Check, compare, convert and upgrade genotype files.")
app.command(genotype)


@genotype.command
def lint(targets: list[str], /) -> None:
    """Check genotypes strictly. Prints every problem with the path of its field, and exits with 2 if there is one.

    Args:
        targets: Genotype files, shipped names, or folders of runs.
    """
    from nas.compare.problems import lint as problems_of
    from nas.files import read_text

    found = {target: problems_of(read_text(genotype_file(target)), target) for target in targets}
    for target, problems in found.items():
        say("\n".join(problems) if problems else f"{target}: valid")
    wrong = [target for target, problems in found.items() if problems]
    if wrong:
        count = sum(map(len, found.values()))
        raise InvalidFileError(f"{count} problem{'s' if count > 1 else ''} in {len(wrong)} of {len(found)} genotypes")


@genotype.command
def diff(before: str, after: str, /, *, out: Path | None = None) -> None:
    """List the differences of two genotypes by field; with --out also draw them.

    Args:
        before: A genotype file, a shipped name, or the folder of a run.
        after: Another genotype.
        out: A picture of the second network with changes marked: .svg, or another format of `nas draw`.
    """
    from nas.compare.canonical_form import canon
    from nas.compare.changes import diff as changes_of
    from nas.draw.rendering import save_difference
    from nas.report.tables import table

    a, b = genotype_of(before), genotype_of(after)
    changes = changes_of(a, b)
    if changes:
        table("", ("field", before, after), changes)
    differ = sum(change.field.startswith("choices.") for change in changes)
    say(f"{differ} of {len({**a.choices, **b.choices})} decisions differ", end="")
    same = canon(a).canonical == canon(b).canonical
    say("; the networks compute the same (equal canonical hash)" if differ and same else "")
    if out is not None:
        save_difference(out, a, b)


@genotype.command
def canon(targets: list[str], /, *, cells: bool = False) -> None:
    """Print two hashes of genotypes, which are equal for networks that compute the same.

    `iso` is equal up to isomorphism as in NAS-Bench-201. `canonical` also ignores zeros, identities and dead nodes.

    Args:
        targets: Genotype files, shipped names, or folders of runs.
        cells: List the cells of each genotype with their expressions instead.
    """
    from nas.compare.canonical_form import canon as hashes_of
    from nas.report.tables import table

    found = {target: hashes_of(genotype_of(target)) for target in targets}
    if cells:
        rows = [(t, label, c.canonical(), c.iso()) for t, hashes in found.items() for label, c in hashes.cells.items()]
        table("", ("genotype", "cell", "canonical", "expression"), rows)
    else:
        table("", ("genotype", "iso", "canonical"), [(t, h.iso, h.canonical) for t, h in found.items()])


@genotype.command(name="import")
def import_command(
    source: Path,
    /,
    *options: str,
    format: Annotated[str | None, Parameter(name=["--format", "-f"])] = None,
    name: str | None = None,
    out: Path | None = None,
) -> None:
    """Read a genotype from a file of another project. The file is never executed.

    Args:
        source: The file.
        options: Options of the search space: name=value; by default those of the published networks.
        format: The format: darts (named tuples in Python source), nas-bench-201, nni, mmrazor, tmics, or a plugin's.
        name: The name of a genotype in a file with several.
        out: The genotype file to write; by default it is printed.
    """
    from nas.files import read_text
    from nas.importing.formats import import_genotype
    from nas.registry import kind

    if format is None:
        raise ConfigError(f"{source}: --format must be one of {', '.join(kind('importer').names())}, got none")
    chosen = {} if name is None else {"name": name}
    found = import_genotype(format, read_text(source), str(source), **chosen, **options_of(options))
    if out is None:
        say(found.dump(), end="")
    else:
        found.save(out)


@genotype.command(name="export")
def export_command(
    target: str,
    /,
    *,
    format: Annotated[str, Parameter(name=["--format", "-f"])],
    out: Path | None = None,
) -> None:
    """Write a genotype in the format of another project. It contains the choices, but not the options of the space.

    Args:
        target: A genotype file, a shipped name, or the folder of a run.
        format: The format: darts, nas-bench-201, tmics (the authors' tuple), or a plugin's.
        out: The file to write; by default it is printed.
    """
    from nas.files import write_text
    from nas.importing.formats import export_genotype

    text = export_genotype(format, genotype_of(target))
    if out is None:
        say(text)
    else:
        write_text(out, f"{text}\n")


@genotype.command
def upgrade(targets: list[str], /) -> None:
    """Rewrite genotype files of older schema versions in the current one. Comments in them are lost.

    Args:
        targets: Genotype files, or folders of runs.
    """
    from nas.genotype.file import SCHEMA
    from nas.genotype.file import upgrade as upgrade_file

    for target in targets:
        version = upgrade_file(genotype_file(target))
        say(f"{target}: schema {version}, " + ("current" if version == SCHEMA else f"now {SCHEMA}"))
