"""What a search and a retraining will take, before they start: memory, time per step, and changes that make it fit.

The steps are simulated (see `nas.cost.simulated_step`): the check before the first one, forward and backward passes,
hypergradients, and the states of optimizers. With glibc, the simulation allocates its tensors in the heap of a child
process, as the run will, and never writes them. So the growth of this heap includes free memory between tensors, which
no later tensor fits into. `SLACK` and `OVERHEAD` account for the working memory of operators and for what is loaded.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from nas.cost.network_cost import measure
from nas.cost.simulated_step import Simulation
from nas.errors import ConfigError, NASError
from nas.genotype.file import Genotype
from nas.kernels.freed_memory import fill_heap, heap_size, memory_kept
from nas.kernels.memory_format import channels_last
from nas.kernels.torch_internals import tree_map_only, unwatched
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.relaxation.sampling import Sampling
from nas.run.config import Config
from nas.run.retraining import build_network, build_stages
from nas.run.searching import build_levels, build_supernet
from nas.run.stages import stages_of, survivors
from nas.run.task import Task
from nas.space.chooser import Kept
from nas.space.definition import find_space
from nas.supernet import Supernet

SLACK = 1.0
"""Bytes that a process takes for each byte by which its simulated heap grows."""
OVERHEAD = 40 * 2**20
"""Bytes that it takes besides, for what is loaded with the first step."""
SCATTER = 1.25
"""Growth of the heap for each byte of tensors that live at the peak, if there is no glibc to ask."""
DRAWS = 6
"""Further steps that are simulated if the relaxation draws candidates, since steps then differ."""
GENOTYPES = 8
"""Of so many genotypes, drawn at random, the largest one is retrained."""
MOST = 100_000
"""Steps of a run that are looked at to find which levels move together."""

Work = Literal["search", "retrain"]

Batches = Callable[[str, int], Any]


class Need(NamedTuple):
    """What a search or a retraining takes, predicted."""

    parameters: int
    """Of the largest network that it trains."""
    tensors: int
    """Bytes of the tensors that live at the peak of a step, or of the check before the first one."""
    heap: int
    """Bytes by which the heap of the process grows until then."""
    memory: int
    """Bytes of the process at that moment."""
    flops: int
    """FLOPs of the largest step; 1 multiply-add = 2 FLOPs."""


class Speed(NamedTuple):
    """How long a search or a retraining takes, by the steps that were tried."""

    step: float
    """CPU seconds per step, the mean over the run."""
    whole: float
    """CPU seconds of all steps, without the ends of epochs."""
    elapsed: float
    """The same in wall time."""


def needs(config: Config, work: Work, task: Task, base: int) -> Need:
    """Predict what a search or a retraining takes.

    Nothing large is computed. A retraining is that of the largest of `GENOTYPES` genotypes,
    drawn by the seed of the configuration.

    Args:
        config: of both.
        work: which of them.
        task: of the work, with its data loaded.
        base: bytes that a process takes with this task, before it builds a network (see `resident`).

    Raises:
        ConfigError: the configuration cannot work, or cannot be planned.
    """
    return Need(*in_child(lambda: [*_needs(config, work, task, base)]))


def _needs(config: Config, work: Work, task: Task, base: int) -> Need:
    """What `needs` returns, in this process, whose heap grows."""
    tally = Simulation()

    def batch(split: str, index: int) -> Any:
        with unwatched():
            made = task.batch(split, index)
        return tree_map_only(Tensor, tally.add, made)

    flops = parameters = 0

    def visit(network: nn.Module, levels: Multilevel) -> None:
        nonlocal flops, parameters
        for k in _telling(network, levels):
            spent = tally.flops
            levels.step(k)
            flops = max(flops, tally.flops - spent)
        parameters = max(parameters, sum(p.numel() for p in network.parameters()))

    with torch.random.fork_rng(), memory_kept():
        torch.manual_seed(config.seed)
        filled = fill_heap()  # what this process freed, such as networks of earlier runs, a new one does not have
        before = heap_size()
        _train(config, work, task, batch, visit, tally)
        del filled
        after = heap_size()
    heap = round(SCATTER * tally.peak) if before is None or after is None else max(after - before, tally.peak)
    return Need(parameters, tally.peak, heap, round(base + OVERHEAD + SLACK * heap), flops)


def in_child(call: Callable[[], Sequence[int]]) -> Sequence[int]:
    """Return what a function returns in a copy of this process, so that this one stays as it is.

    Raises:
        ConfigError: the function raises an error of the package, or the child ended before the function did.
    """
    if heap_size() is None:  # nothing would be gained
        return call()
    source, sink = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings(action="ignore"):  # of threads: only this one goes on in the child
        child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # noqa: TID251 - of the child, which has no other threads of OpenMP
            warnings.simplefilter("ignore")  # the data were loaded before, and the run warns again
            try:
                answer: Any = [*call()]
            except NASError as error:
                answer = str(error)
            os.write(sink, msgspec.json.encode(answer))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not go on with what its parent does
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(sink)
    with os.fdopen(source, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise ConfigError(f"the simulation must end by itself, got the exit status {os.waitstatus_to_exitcode(status)}")
    found: list[int] | str = msgspec.json.decode(text)
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def speed(config: Config, work: Work, task: Task, tries: int = 3) -> Speed:
    """Measure how long a search or a retraining takes, by steps that are really taken.

    Args:
        config: of both.
        work: which of them.
        task: of the work.
        tries: number of steps that are taken of each kind; kinds differ by the levels that move.
    """
    cpu = wall = 0.0

    def visit(_: nn.Module, levels: Multilevel) -> None:
        nonlocal cpu, wall
        counted = min(levels.steps, MOST)
        for ks in _kinds(levels).values():
            taken = [_timed(levels, k) for k in ks[:tries]]
            count = len(ks) / counted * levels.steps
            cpu += count * statistics.median(each[0] for each in taken)
            wall += count * statistics.median(each[1] for each in taken)

    with torch.random.fork_rng(), memory_kept():
        torch.manual_seed(config.seed)
        _train(config, work, task, None, visit)
    return Speed(cpu / steps_of(config, work), cpu, wall)


def steps_of(config: Config, work: Work) -> int:
    """Return the number of steps of a search or a retraining."""
    return config.search.steps if work == "search" else config.retrain.steps


def splits_of(config: Config, work: Work) -> list[str]:
    """Return the splits whose batches a search or a retraining trains on."""
    return list(dict.fromkeys(level.split for level in levels_of(config, work).values()))


def levels_of(config: Config, work: Work) -> Mapping[str, Level]:
    """Return the levels of a search, or those of the stages of a retraining by the stage, by name."""
    if work == "search":
        return config.search.levels
    return {name: stage.level for name, stage in config.retrain.stages.items()}


def resident() -> int:
    """Return the bytes of memory that this process takes now; where the system does not say, the most it ever took."""
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmRSS:\s+(\d+)", status.read_text(encoding="ascii"))):
        return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _train(
    config: Config,
    work: Work,
    task: Task,
    batch: Batches | None,
    visit: Callable[[nn.Module, Multilevel], None],
    tally: Simulation | None = None,
) -> None:
    """Build the networks that are trained one after another, with their levels, and visit each; within a simulation if
    one is given."""
    watched = nullcontext() if tally is None else tally
    if work == "retrain":
        network = build_network(config, drawn_genotype(config))
        _count(network, tally)
        with channels_last(network), watched:
            stages = list(build_stages(config, network, task, batch))  # a retraining keeps the optimizers of all stages
            for levels in stages:
                visit(network, levels)
        return
    if config.search.searcher is not None:
        raise ConfigError("search.searcher must be left out of what is planned, because its proposals differ in cost")
    kept: Kept = {}
    for stage in stages_of(config):
        part, space = stage.over(kept)
        supernet = build_supernet(replace(part, initial={}), space)
        _count(supernet, tally)
        with watched:
            visit(supernet, build_levels(part, supernet, task, batch))
        kept = survivors(supernet, stage.keep)


def drawn_genotype(config: Config) -> Genotype:
    """Return, of some genotypes drawn at random, the one whose network has most parameters."""
    generator = torch.Generator().manual_seed(config.seed)
    drawn = (find_space(config.space).sample(generator, **config.options) for _ in range(GENOTYPES))
    return max(drawn, key=lambda genotype: measure(config.retrained(genotype)))


def _count(network: nn.Module, tally: Simulation | None) -> None:
    if tally is not None:
        for tensor in (*network.parameters(), *network.buffers()):
            tally.add(tensor)


def _kinds(levels: Multilevel) -> dict[frozenset[str], list[int]]:
    """The steps at which the same levels move, by these levels."""
    found: dict[frozenset[str], list[int]] = {}
    for k in range(min(levels.steps, MOST)):
        if moving := frozenset(name for name, level in levels.levels.items() if level.due(k, levels.steps)):
            found.setdefault(moving, []).append(k)
    return found


def _telling(network: nn.Module, levels: Multilevel) -> Iterator[int]:
    """The steps to simulate: those at which most levels move, first without and then with states of optimizers."""
    drawn = isinstance(network, Supernet) and isinstance(network.relaxation, Sampling)
    kinds = _kinds(levels)
    for moving, ks in kinds.items():
        if not any(moving < other for other in kinds):
            yield from (ks * 2)[:2]
            if drawn:
                yield from ks[2 : 2 + DRAWS]


def _timed(levels: Multilevel, k: int) -> tuple[float, float]:
    """CPU and wall seconds of a step."""
    cpu, wall = time.process_time(), time.perf_counter()
    levels.step(k)
    return time.process_time() - cpu, time.perf_counter() - wall
