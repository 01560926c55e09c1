"""Scores of derained files: against the truth, frame by frame, with the worst frames and temporal profiles."""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError
from nas.run.scoring import Exhibit, Files, Item, Picture, Scoring
from tmics_space.data.matching import MatchedClip, find_clips, match_clips
from tmics_space.flow import DenseInverseSearch
from tmics_space.metrics.clip_meter import RAINY, TRUTH, ClipMeter, Scores
from tmics_space.metrics.image import mean_psnr
from tmics_space.metrics.interval import confidence_interval
from tmics_space.metrics.protocol import Protocol, find_protocol
from tmics_space.metrics.rain_error import error_map, rain_mask
from tmics_space.metrics.temporal import WARPING_ERROR
from tmics_space.predict import derain_file

METRICS = {
    "psnr": "PSNR in dB; larger is better",
    "psnr_low": "lower end of the 95 % interval of the mean PSNR over clips, by Student's t",
    "psnr_high": "upper end of that interval",
    "ssim": "SSIM; larger is better",
    "off_rain": "share of the squared error at pixels that rain did not change",
    "rmse_on_rain": "root of the mean squared error at pixels that rain changed, in levels of 255",
    "rmse_off_rain": "the same at all other pixels",
    "warping_error": "E_warp; compare with that of the truth",
    "warping_ratio": "(E_warp - that of the truth) / (that of the rainy input - that of the truth); 0 is as steady as"
    " the truth",
}
RAIN = "rain: pixels at which rainy and true frame differ by more than 15 of 255, averaged over colours"
LEGEND = "Errors: orange on the rain, blue off it, grey if there is no rainy input; full colour is 32 of 255 and more."

WORST = 6
"""The number of worst frames with pictures."""
DETAIL = 120
"""The side in pixels of the part with the greatest error, which is shown twice as large."""
APART = 8
"""The least number of frames between two of them in one clip."""
PROFILE = 400
"""The greatest number of frames and of rows in a temporal profile."""


class _Frame(NamedTuple):
    clip: int
    place: int
    """Position among the common frames of the clip."""
    scores: dict[str, Scores]


def score_derained(
    files: Files,
    *,
    protocol: str = "y",
    temporal: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scoring:
    """Score derained clips; `files` are clips, or folders of clips (`tmics_space.data.matching.match_clips`).

    Args:
        files: truth, outputs, and the rainy input.
        protocol: of PSNR and SSIM, by name.
        temporal: whether to measure E_warp, which needs OpenCV; by default if that is installed.
        progress: called with (frames done, all frames).

    Raises:
        UnknownNameError: no protocol has this name.
        ConfigError: a method has the name of an input, or a clip is too short for the protocol.
        InvalidFileError: files cannot be read or do not match.
        MissingPackageError: OpenCV is not installed, but needed.
    """
    how = find_protocol(protocol)
    for name in (RAINY, TRUTH):
        if name in files.networks or name in files.outputs:
            raise ConfigError(f"outputs: the name of a method must not be '{name}'. Give another by NAME=FOLDER")
    given = {TRUTH: files.truth} | ({RAINY: files.source} if files.source else {})
    before = match_clips(given | dict(files.outputs))[0]  # so that nothing is derained for files that do not match
    each = sum(len(clip.numbers) for clip in before)
    count, frames_done = (1 + len(files.networks)) * each, itertools.count(1)

    def done(*_: int) -> None:
        if progress is not None:
            progress(min(next(frames_done), count), count)

    written = _derained(files, done)
    clips, skipped = match_clips(given | written)
    for clip in clips:
        if not _scored(clip, how):
            raise ConfigError(
                f"{clip.versions[TRUTH].source}: must have at least {2 * how.drop + 1} frames for the protocol"
                f" '{how.name}', got {len(clip.versions[TRUTH])}"
            )
    if temporal is None:
        temporal = importlib.util.find_spec("cv2") is not None
    frames, parts, profiles = [], {}, []
    for index, clip in enumerate(clips):
        meter = ClipMeter(how, DenseInverseSearch() if temporal else None)
        scored, columns = _scored(clip, how), dict[str, list[Tensor]]()
        places = clip.places[TRUTH]
        for place, versions in enumerate(clip.frames()):
            truth = versions[TRUTH]
            follows = place > 0 and places[place] == places[place - 1] + 1
            others = {name: frame for name, frame in versions.items() if name != TRUTH}
            found = meter.add(truth, others, scored=place in scored, follows=follows)
            frames += [_Frame(index, place, found)] if found else []
            if place < PROFILE:
                for name in _in_order(versions):
                    columns.setdefault(name, []).append(_column(versions[name]))
            done()
        parts[clip.name] = meter.scores()
        profiles.append(_profile(clip.name, columns))
    judged = next(iter(written))
    frames.sort(key=lambda frame: frame.scores[judged]["psnr"])
    return Scoring(
        totals=_totals(parts),
        judged=judged,
        parts=parts,
        items=[
            Item(clips[frame.clip].name, clips[frame.clip].numbers[frame.place], method, scores)
            for frame in frames
            for method, scores in frame.scores.items()
        ],
        metrics=METRICS,
        statement="\n".join(
            [
                f"protocol '{how.name}': {how.statement}",
                *([RAIN] if files.source else []),
                *([f"warping_error: {WARPING_ERROR}"] if temporal else []),
            ]
        ),
        skipped=[*skipped, *(line for clip in clips for line in clip.skipped)],
        part="clip",
        item="frame",
        worst=list(_worst_frames(clips, frames, how, judged)),
        exhibits={"Temporal profiles": profiles},
        legend=LEGEND,
    )


def _derained(files: Files, progress: Callable[[int, int], None]) -> dict[str, Path]:
    """Apply the networks to the rainy clips; return the outputs of all methods, those of networks first."""
    if files.networks and files.source is None:
        raise ConfigError("a model needs the rainy input: give --rainy")
    written = {}
    for name, network in files.networks.items():
        assert files.source is not None
        written[name] = files.folder / name
        sources = [find_clips(path) for path in (files.source, files.truth, *files.outputs.values())]
        alone = all(len(clips) == 1 for clips in sources)  # only then may the names of clips differ
        for clip, path in sources[0].items():
            sink = written[name] if alone else written[name] / clip
            derain_file(network, path, sink, folder=True, progress=progress)
    return {**written, **files.outputs}


def _scored(clip: MatchedClip, how: Protocol) -> Collection[int]:
    """Return which of the common frames the protocol scores: it excludes frames at the ends of the truth."""
    end = len(clip.versions[TRUTH]) - how.drop
    return {place for place, at in enumerate(clip.places[TRUTH]) if how.drop <= at < end}


def _totals(parts: Mapping[str, Mapping[str, Scores]]) -> dict[str, Scores]:
    """Return the means over clips, by method, and the interval of the mean PSNR."""
    totals = {}
    for method in next(iter(parts.values())):
        rows = [part[method] for part in parts.values()]
        means: Scores = {}
        for metric in rows[0]:
            values = [row[metric] for row in rows if not math.isnan(row[metric])]
            if metric == "psnr":
                means[metric] = mean_psnr(values)
                if (found := confidence_interval([each for each in values if each != math.inf])) is not None:
                    means |= {"psnr_low": found.low, "psnr_high": found.high}
            else:
                means[metric] = statistics.fmean(values) if values else math.nan
        totals[method] = means
    return totals


def worst_window(output: Tensor, truth: Tensor, side: int) -> tuple[slice, slice, slice]:
    """Find the square of a side in pixels with the greatest squared error, as an index of a frame."""
    error = (output - truth).square().sum(0, keepdim=True)
    height, width = (min(side, length) for length in error.shape[1:])
    sums = F.avg_pool2d(error, (height, width), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return slice(None), slice(top, top + height), slice(left, left + width)


def _worst_frames(
    clips: Sequence[MatchedClip], frames: Sequence[_Frame], how: Protocol, judged: str
) -> Iterator[Exhibit]:
    """Show the worst frames, the worst first; below every version are its error and a detail."""
    chosen: list[_Frame] = []
    for frame in frames:
        if all(frame.clip != other.clip or abs(frame.place - other.place) >= APART for other in chosen):
            chosen.append(frame)
        if len(chosen) == WORST:
            break
    wanted = {(frame.clip, frame.place) for frame in chosen}
    read: dict[tuple[int, int], dict[str, Tensor]] = {}
    for index in {frame.clip for frame in chosen}:
        last = max(place for which, place in wanted if which == index)
        for place, versions in enumerate(itertools.islice(clips[index].frames(), last + 1)):
            if (index, place) in wanted:
                read[index, place] = versions
    for frame in chosen:
        clip, versions = clips[frame.clip], read[frame.clip, frame.place]
        images = {name: version.double() / 255 for name, version in versions.items()}
        mask = rain_mask(images[RAINY], images[TRUTH]) if RAINY in images else None
        shown, errors = [], []
        for name in _in_order(versions):
            if name == TRUTH:
                shown.append(Picture(TRUTH, versions[name]))
                continue
            shown.append(Picture(f"{name}, {frame.scores[name]['psnr']:.2f} dB", versions[name]))
            drawn = error_map(how.image(images[name]), how.image(images[TRUTH]), mask)
            off = frame.scores[name].get("off_rain", math.nan)
            errors.append(Picture(f"error of {name}" + ("" if math.isnan(off) else f", {off:.0%} off the rain"), drawn))
        rows = [shown, errors]
        if max(images[TRUTH].shape[1:]) > 2 * DETAIL:
            window = worst_window(how.image(images[judged]), how.image(images[TRUTH]), DETAIL)
            details = {name: versions[name][window] for name in _in_order(versions)}
            rows.append([Picture(f"{name}, twice as large", _doubled(each)) for name, each in details.items()])
        yield Exhibit(f"{clip.name}, frame {clip.numbers[frame.place]}", rows)


def _in_order(versions: Mapping[str, Tensor]) -> list[str]:
    """Return the names of versions as pages show them: rainy, outputs, truth."""
    return [*(name for name in versions if name != TRUTH), TRUTH]


def _doubled(pixels: Tensor) -> Tensor:
    return pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _column(frame: Tensor) -> Tensor:
    """Return the middle column of a frame, `(3, rows)`, without its end if it is long."""
    top = max(0, (frame.shape[1] - PROFILE) // 2)
    return frame[:, top : top + PROFILE, frame.shape[2] // 2].clone()


def _profile(name: str, columns: Mapping[str, Sequence[Tensor]]) -> Exhibit:
    """Show the middle column over time: frames from left to right."""
    length = len(next(iter(columns.values())))
    wide = max(1, min(12, 240 // length))  # pixels a frame
    pictures = [
        Picture(version, torch.stack(list(each), 2).repeat_interleave(wide, 2)) for version, each in columns.items()
    ]
    return Exhibit(f"{name}: middle column of {length} frames", [pictures])
