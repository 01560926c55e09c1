"""Write the tables of recipes in docs/recipes.md from the shipped configurations; with --check, only compare.

docs/recipe-sources.yaml states the settings of each paper, as read in its authors' code. `compared` says of each field
whether the recipe has it; a field that differs must be listed there under `deviations`, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from generated_page import replaced, write
from nas.files import read_text
from nas.multilevel.level import Level
from nas.registry import kind
from nas.run.config import Config, SearchStage, load_config
from nas.run.config_files import find_config, shipped_configs
from nas.space.operations import OperationSet

ROOT = Path(__file__).parent.parent
PAGE, SOURCES = ROOT / "docs" / "recipes.md", ROOT / "docs" / "recipe-sources.yaml"
MARKS = {"table": ("<!-- begin: recipes -->\n", "<!-- end: recipes -->\n")}
MARKS["deviations"] = ("<!-- begin: deviations -->\n", "<!-- end: deviations -->\n")
ABOUT = ("repository", "commit", "deviations", "note", "warning", "command", "quirk", "darts_space", "flops_limit")
"""Fields that are no settings of the search."""
IMAGES = 50_000
"""Training images of CIFAR-10."""

Field = Callable[[Config], Any]


def lower(config: Config) -> Level:
    return config.search.levels["lower"]


def upper(config: Config) -> Level:
    return config.search.levels["upper"]


def part(entry: Any) -> dict[str, Any]:
    """An entry of a configuration as a mapping; empty for none."""
    return {"name": entry} if isinstance(entry, str) else dict(entry or {})


def wrapper(config: Config, name: str, stage: SearchStage | None = None) -> Any:
    """The wrapper of this name, with all its arguments, in a stage or in the whole search; None if there is none."""
    entries = config.search.wrappers if stage is None or stage.wrappers is None else stage.wrappers
    found = next((entry for entry in map(part, entries) if entry["name"] == name), None)
    return None if found is None else kind("wrapper").complete(found, "search.wrappers")


def stages(config: Config) -> list[SearchStage]:
    return list(config.search.stages.values())


def left(config: Config) -> list[int]:
    """How many candidates an edge has in each stage, and in the end."""
    return [len(OperationSet.of(config.options["operations"])), *(stage.keep or 0 for stage in stages(config)[:-1]), 1]


def the_same(values: Sequence[Any]) -> Any:
    """The value that all stages have, or all of them."""
    return values[0] if len(set(values)) == 1 else list(values)


def regularizer(config: Config, name: str) -> dict[str, Any]:
    return next((dict(term) for term in upper(config).regularizers if term["name"] == name), {})


def epochs(config: Config) -> int | float:
    """Epochs of the images that the weights see, if the run's own epochs are as long; else the quotient."""
    share = 1.0 if lower(config).split == "all" else 1 - config.task["val"]
    passes = config.search.steps * config.task["batch"] / (IMAGES * share)
    return config.search.epochs if abs(passes - config.search.epochs) < 0.02 else passes


VALUES: Mapping[str, Field] = {
    "batch": lambda c: c.task["batch"],
    "lr": lambda c: lower(c).optimizer["lr"],
    "lr_min": lambda c: lower(c).optimizer["lr"] * lower(c).schedule["final_lr"],
    "schedule": lambda c: lower(c).schedule["name"],
    "momentum": lambda c: lower(c).optimizer["momentum"],
    "nesterov": lambda c: lower(c).optimizer["nesterov"],
    "weight_decay": lambda c: lower(c).optimizer["weight_decay"],
    "epochs": epochs,
    "init_channels": lambda c: c.options["channels"],
    "layers": lambda c: c.options["cells"],
    "cutout": lambda c: bool(c.task["augment"].get("cutout")),
    "drop_path": lambda c: c.options["drop_path"],
    "dropout": lambda c: c.options["drop_path"],
    "grad_clip": lambda c: lower(c).clip,
    "train_portion": lambda c: 1 - c.task["val"],
    "unrolled": lambda c: "lower" in upper(c).hypergradient,
    "single_level": lambda c: lower(c).split == upper(c).split,
    "arch_lr": lambda c: upper(c).optimizer["lr"],
    "edge_lr": lambda c: upper(c).optimizer["lr"],
    "arch_weight_decay": lambda c: upper(c).optimizer.get("weight_decay", 0.0),
    "arch_optimizer": lambda c: upper(c).optimizer["name"],
    "arch_betas": lambda c: upper(c).optimizer["betas"],
    "arch_grad_clip": lambda c: upper(c).clip or "none",
    "arch_start_epoch": lambda c: round(upper(c).warmup * c.search.epochs, 1),
    "warmup_epochs": lambda c: round(upper(c).warmup * c.search.epochs, 1),
    "arch_step_every": lambda c: upper(c).period,
    "affine": lambda c: c.options["affine"],
    "zero_one_weight": lambda c: regularizer(c, "zero_one").get("weight"),
    "partial_channels": lambda c: wrapper(c, "partial_channels")["k"],
    "learn_edges": lambda c: wrapper(c, "edge_normalization") is not None,
    "proj_interval_epochs": lambda c: part(c.search.derivation)["epochs"],
    "resume_epoch": lambda c: c.search.epochs,
    "threshold": lambda c: {**part(lower(c).freezing), **part(c.search.derivation)}["threshold"],
    "steps": lambda c: part(lower(c).freezing)["window"],
    "epochs_per_stage": lambda c: the_same([stage.epochs for stage in stages(c)]),
    "layers_per_stage": lambda c: [stage.options["cells"] for stage in stages(c)],
    "kept_per_stage": lambda c: left(c)[1:],
    "dropped_per_stage": lambda c: [before - after for before, after in pairwise(left(c))],
    "operations_kept_per_stage": lambda c: left(c)[:-1],
    "partial_channels_per_stage": lambda c: [wrapper(c, "partial_channels", stage)["k"] for stage in stages(c)],
    "skip_dropout": lambda c: [wrapper(c, "skip_dropout", stage)["rate"] for stage in stages(c)],
    "arch_start_epoch_of_each_stage": lambda c: the_same([round(upper(c).warmup * s.epochs, 1) for s in stages(c)]),
    "clamp": lambda c: upper(c).optimizer["floor"],
    "perturb": lambda c: {"adversarial": "pgd_linf"}.get(how := wrapper(c, "perturbation")["attack"], how),
}
"""What a configuration has in the place of a field, in the words of the sources."""


def anneals(config: Config, stated: Mapping[str, Any]) -> bool:
    """The temperature; every relaxation that anneals does so linearly over the steps."""
    own = part(config.search.relaxation)
    return (own["temperature"], own["final_temperature"]) == (stated["from"], stated["to"])


DROPOUT = {"epochs": 25, "warmup": 10, "decay": 0.2}
"""How the probability of P-DARTS falls within a stage."""


STATEMENTS: Mapping[str, Callable[[Config, Any], bool]] = {
    "epochs_per_stage": lambda c, stated: [stage.epochs for stage in stages(c)] == stated,
    "carried_over": lambda c, stated: (
        all(stage.continues == stated.startswith("weights") for stage in stages(c)[1:]) and len(stages(c)) > 1
    ),
    "skip_dropout_schedule": lambda c, _: all(
        DROPOUT.items() <= wrapper(c, "skip_dropout", s).items() for s in stages(c)
    ),
    "drop_path": lambda c, stated: c.options["drop_path"] == (0 if stated == "unused" else stated["default"]),
    "pool_batch_norm": lambda c, stated: stated == "affine false" and c.options["operations"].startswith("darts"),
    "derivation": lambda c, stated: part(c.search.derivation)["name"] == derivation(stated),
    "layers": lambda c, stated: c.options["cells"] == int(str(stated).split()[0]),
    "order": lambda c, stated: (
        [*c.search.levels] == ["lower", "upper"]
        if stated == "weights then arch"
        else part(c.search.derivation)["name"] == "perturbation"
    ),
    "arch_optimizer": lambda c, stated: upper(c).optimizer["name"] == str(stated).split()[0],
    "arch_grad_clip": lambda c, stated: upper(c).clip is None and stated is None,
    "temperature": lambda c, stated: (
        anneals(c, stated) if isinstance(stated, Mapping) else part(c.search.relaxation)["temperature"] >= 1
    ),
    "regularizer": lambda c, stated: upper(c).optimizer["weight_decay"] == stated["scale"],
    "candidates": lambda c, stated: "without none" in stated and c.options["operations"] == "darts-without-none",
    "edge_normalization": lambda c, stated: (stated == "none") == (wrapper(c, "edge_normalization") is None),
    "zero_one_loss": lambda c, _: regularizer(c, "zero_one") != {},
    "beta_weight": lambda c, _: [regularizer(c, "beta_decay")[key] for key in ("weight", "ramp")] == [50.0, True],
    "beta_loss": lambda c, _: regularizer(c, "beta_decay") != {},
    "space": lambda c, stated: c.space == ("darts" if "DARTS space" in stated else stated.split()[0]),
    "cost_additive": lambda c, stated: stated["lambda"] == regularizer(c, "expected_flops").get("weight"),
    "arch_eps": lambda c, stated: upper(c).optimizer["name"] == "adam" and stated == 1e-8,
    "criterion": lambda c, _: c.search.validation_batches * c.task["batch"] >= IMAGES * c.task["val"],
    "edge_order": lambda c, stated: stated == "random" and part(c.search.derivation)["name"] == "perturbation",
    "auxiliary_skip": lambda c, stated: (
        (stated["beta"], stated["decay"]) == (wrapper(c, "auxiliary_skip")["beta"], "linear")
    ),
    "channel_shuffle": lambda c, _: wrapper(c, "partial_channels") is not None,
    "rest_at_stride_2": lambda c, _: wrapper(c, "partial_channels") is not None,
    "epsilon": lambda c, stated: (
        (wrapper(c, "perturbation")["epsilon"], wrapper(c, "perturbation")["start"]) == (stated["max"], 0.03)
    ),
    "attack": lambda c, stated: wrapper(c, "perturbation")["steps"] == stated["steps"],
    "where": lambda c, _: wrapper(c, "perturbation") is not None,
    "similarity": lambda c, _: part(lower(c).freezing)["name"] == "oles",
    "early_stop": lambda c, stated: {"name": "robust_darts", **stated} == c.search.stopping,
    "arch_init": lambda c, stated: (
        stated == "uniform 1/n" and upper(c).optimizer["name"] == "exponentiated_gradient"  # of logits that begin equal
    ),
    "weight_decay": lambda c, stated: lower(c).optimizer["weight_decay"] == stated["default"],
    "supernet": lambda c, _: not differing(c, load_config("darts-v1")) - {"upper.clip"},
}
"""Whether a configuration does what a statement in words says; it knows the statements of the sources alone."""


def derivation(stated: str) -> str:
    """The policy that a statement in words describes."""
    if "beta *" in stated:
        return "strongest"
    return {"threshold_sparse": "threshold"}.get(stated, "strongest")


def differing(a: Config, b: Config) -> set[str]:
    """Names of the fields of the levels, of the batch and of the epochs that differ."""
    levels = {
        f"{name}.{field}"
        for name, level in a.search.levels.items()
        for field in level.__struct_fields__
        if getattr(level, field) != getattr(b.search.levels[name], field)
    }
    rest = {"task": (a.task, b.task), "options": (a.options, b.options), "steps": (a.search.steps, b.search.steps)}
    return levels | {name for name, (one, other) in rest.items() if one != other}


def compared(config: Config, sources: Mapping[str, Any]) -> dict[str, bool]:
    """Whether the recipe has each setting that the sources state; settings that were not found are left out."""
    found = {}
    for field, entry in sources.items():
        if field in ABOUT or (entry[0] is None and field != "arch_grad_clip"):
            continue
        stated = entry[0]
        if field in VALUES and same(value_of(field, config), stated):
            found[field] = True
        else:
            found[field] = field in STATEMENTS and bool(holds(field, config, stated))
    return found


def value_of(field: str, config: Config) -> Any:
    try:
        return VALUES[field](config)
    except (KeyError, AttributeError):  # the recipe has another kind of part in this place
        return None


def holds(field: str, config: Config, stated: Any) -> bool:
    try:
        return STATEMENTS[field](config, stated)
    except (KeyError, AttributeError, TypeError, ValueError):
        return False


def same(found: Any, stated: Any) -> bool:
    if isinstance(found, float) and isinstance(stated, int | float):
        return abs(found - stated) <= 1e-9
    if isinstance(found, list | tuple) and isinstance(stated, list | tuple):
        return list(found) == list(stated)
    return bool(found == stated) and type(found) is type(stated)


def recipes() -> dict[str, Config]:
    """The recipes by name, in the order of the sources."""
    shipped = {name for name, path in shipped_configs().items() if path.parent.name == "recipes"}
    return {name: load_config(name) for name in read_sources() if name in shipped}


def read_sources() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(read_text(SOURCES))  # with aliases, which configurations have not
    return found


def title(name: str) -> str:
    """The first line of a recipe: its method and its paper."""
    first = read_text(find_config(name)).splitlines()[0]
    return first.removeprefix("# ").partition(":")[0].removesuffix(".")


def table() -> str:
    columns = ("recipe", "method", "relaxation", "wrappers", "stages", "stopping", "derivation", "command")
    rows = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name, config in recipes().items():
        how = config.search
        entries = [*how.wrappers, *(entry for stage in stages(config) for entry in stage.wrappers or ())]
        wrappers = ", ".join(dict.fromkeys(f"`{part(entry)['name']}`" for entry in entries)) or "–"
        stopping = part(how.stopping).get("name")
        cells = (
            f"`{name}`",
            title(name),
            f"`{part(how.relaxation)['name']}`",
            wrappers,
            str(len(how.stages) or "–"),
            f"`{stopping}`" if stopping else "–",
            f"`{part(how.derivation)['name']}`",
            f"`nas search {name} --out runs/{name}`",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def deviations() -> str:
    sources = read_sources()
    rows = ["| recipe | field | deviation |", "|---|---|---|"]
    for name in recipes():
        rows += [f"| `{name}` | `{field}` | {text} |" for field, text in sources[name].get("deviations", {}).items()]
    return "\n".join(rows) + "\n"


def updated(page: str) -> str:
    """The page with the tables of today."""
    for name, text in (("table", table()), ("deviations", deviations())):
        begin, end = MARKS[name]
        page = replaced(page, begin, text, end)
    return page


if __name__ == "__main__":
    sys.exit(write(__doc__, PAGE, updated))
