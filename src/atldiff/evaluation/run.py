"""`atldiff evaluate`: pairs of videos, or a checkpoint on a split of people it was not trained on, become one report.

The rows of a report are the system under the ruler, the real clip against itself, its first frame held, and for a
checkpoint the renderer alone, driven by the real landmarks.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atldiff import checkpoint as checkpoints
from atldiff.config import SampleConfig
from atldiff.data.hold_out import why_empty
from atldiff.data.manifest import Manifest, Split
from atldiff.data.sources.raw import VIDEO_SUFFIXES
from atldiff.errors import AtlDiffError, DataError
from atldiff.evaluation.footage import Footage, Sight, cut_out, hold_first, watch
from atldiff.evaluation.measure import ClipFigures, measure_clip
from atldiff.evaluation.metrics.fid import Fid
from atldiff.evaluation.networks import network_figures
from atldiff.evaluation.pictures import Backbones
from atldiff.evaluation.protocol import GROUND_TRUTH, REAL_LANDMARKS, STATIC_PHOTO
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.geometry import to_canonical
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.steady import steady
from atldiff.loading import load
from atldiff.pipeline import TalkingHead
from atldiff.timebase import FPS, SAMPLE_RATE, frame_count
from atldiff.types import Controls, LandmarkTrack, Portrait

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from atldiff.methods.portrait import Size

    Progress = Callable[[int, int, str], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A generated video and the real clip it is measured against."""

    name: str
    generated: Path
    real: Path


@dataclass
class Measured:
    """What an evaluation has gathered: `clips` and `failed` as the report has them, and by clip what else is known."""

    rows: list[str]
    main_row: str
    fid: dict[str, Fid] = field(default_factory=dict)
    clips: list[dict] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    networks: dict[str, dict] = field(default_factory=dict)
    sights: dict[str, dict[str, Sight]] = field(default_factory=dict)
    parameters: int | None = None
    interrupted: bool = False
    """The user stopped it: what was measured until then is reported."""


def find_pairs(generated: Path, real: Path) -> tuple[list[Pair], list[dict]]:
    """Pair the videos of two folders by their paths inside them, suffixes aside; two files are one pair.

    Returns:
        pairs, and for each generated video without a real one `{"clip", "reason"}`.

    Raises:
        DataError: a path is missing, a file is paired with a folder, two videos share a name, or nothing pairs.
    """
    for name, path in (("generated", generated), ("real", real)):
        if not path.exists():
            raise DataError(f"{name} {path}: no such file or folder; expected a video or a folder of videos")
    if generated.is_file() and real.is_file():
        return [Pair(generated.stem, generated, real)], []
    if generated.is_file() or real.is_file():
        raise DataError(
            f"generated {generated}, real {real}: got a file and a folder, expected two files or two folders"
        )
    made, true = _videos(generated), _videos(real)
    pairs = [Pair(name, made[name], true[name]) for name in sorted(made.keys() & true.keys())]
    if not pairs:
        raise DataError(
            f"generated {generated}: none of its {len(made)} videos has the name of one of the {len(true)} in "
            f"{real}; expected pairs by file name such as a.mp4 in both"
        )
    lone = [{"clip": name, "reason": f"no video of this name in {real}"} for name in sorted(made.keys() - true.keys())]
    return pairs, lone


def _videos(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file() or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"folder {folder}: {found[name].name} and {path.name} share a name; expected one video each"
            )
        found[name] = path
    return found


def measure_folders(
    pairs: Iterable[Pair], backbones: Backbones, *, name: str, paired: bool = True, progress: Progress | None = None
) -> Measured:
    """Measure generated videos against real ones.

    name: what the row of the generated videos is called. paired: self-driven videos, whose frames belong to the real
    frames of the same time; False for cross-driven ones. A pair that cannot be measured is listed and left out; an
    interruption (Ctrl-C) ends the measuring and keeps what there is.
    """
    pairs = list(pairs)
    measured = _started([GROUND_TRUTH, STATIC_PHOTO, name], name, backbones)
    with FaceTracker() as tracker:
        for index, pair in enumerate(pairs):
            if progress:
                progress(index, len(pairs), pair.name)
            try:
                real = watch(pair.real, tracker)
                rows = {GROUND_TRUTH: real, STATIC_PHOTO: hold_first(real), name: watch(pair.generated, tracker)}
                figures = measure_clip(real, rows, backbones, measured.fid, paired=paired)
            except AtlDiffError as error:
                _leave_out(measured, pair.name, str(error))
                continue
            except KeyboardInterrupt:
                _stop(measured, pair.name, len(pairs) - index)
                break
            _keep(measured, pair.name, Path(pair.name).parent.as_posix(), real, figures)
    if progress:
        progress(len(pairs), len(pairs), "")
    return measured


def measure_checkpoint(
    checkpoint: str | os.PathLike[str],
    data: Path,
    split: str,
    source: Path,
    videos: Path,
    backbones: Backbones,
    *,
    name: str,
    controls: Controls,
    sampling: SampleConfig,
    generator: str | None = None,
    renderer: str | None = None,
    co_driven: bool = False,
    size: Size = None,
    most_clips: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Render every clip of a split, self-driven, and measure it against the real one.

    data: prepared folder. source: folder of the raw videos it was prepared from. videos: where the rendered videos go:
    `NAME.mp4`, driven by the sound, and `NAME.real-landmarks.mp4`; of a part of a long recording also the part itself,
    `NAME.real.mp4`. The portrait is the clip's first frame with a face.
    generator, renderer: checkpoints whose stage is measured instead of `checkpoint`'s. co_driven: head, eyes and brows
    are the real clip's; only the mouth is made from its sound (and, by generators that see landmarks, from theirs).
    size: longest side of what is rendered, as for a call of `TalkingHead`. most_clips: takes this many, evenly spread.

    Raises:
        DataError: an unknown split, one without clips, or raw videos that are not there. CheckpointError: not ours.
    """
    manifest = Manifest.load(data)
    entries = split_entries(manifest, split, most_clips)
    missing = [entry.record.path for entry in entries if not (source / entry.record.path).is_file()]
    if missing:
        raise DataError(
            f"source {source}: {missing[0]} is not there ({len(missing)} of {len(entries)} clips are missing); "
            "expected the folder that was prepared: name it with --source"
        )
    speaks, renders = checkpoints.locate_stages(checkpoint, generator, renderer)
    model = checkpoints.load_stages(speaks, renders)
    measured = _started([GROUND_TRUTH, STATIC_PHOTO, name, REAL_LANDMARKS], name, backbones)
    measured.parameters = sum(parameter.numel() for parameter in model.parameters())
    for index, entry in enumerate(entries):
        if progress:
            progress(index, 2 * len(entries), "networks")
        measured.networks[entry.record.name] = network_figures(model, manifest, entry)
    head = TalkingHead(load(speaks, renders), motion=checkpoints.motion_of(speaks))
    with FaceTracker() as tracker:
        for index, entry in enumerate(entries):
            clip = entry.record.name
            if progress:
                progress(len(entries) + index, 2 * len(entries), clip)
            path = source / entry.record.path
            try:
                if entry.record.part is not None:
                    path = cut_out(path, entry.record.part, videos / f"{clip}.real.mp4")
                real = watch(path, tracker)
                driver = path if co_driven else None
                spoken, seconds = _render_spoken(head, path, videos / f"{clip}.mp4", controls, sampling, size, driver)
                driven = _render_driven(head, real, videos / f"{clip}.real-landmarks.mp4", sampling, size)
                rows = {
                    GROUND_TRUTH: real,
                    STATIC_PHOTO: hold_first(real),
                    name: watch(spoken, tracker),
                    REAL_LANDMARKS: watch(driven, tracker),
                }
                figures = measure_clip(real, rows, backbones, measured.fid)
            except AtlDiffError as error:
                _leave_out(measured, clip, str(error))
                continue
            except KeyboardInterrupt:
                _stop(measured, clip, len(entries) - index)
                break
            figures.values[name]["rtf"] = seconds
            _keep(measured, clip, entry.record.source, real, figures)
    if progress:
        progress(2 * len(entries), 2 * len(entries), "")
    return measured


def split_entries(manifest: Manifest, split: str, most_clips: int | None = None) -> list:
    """Return the usable clips of a split, or `most_clips` of them evenly spread.

    Raises:
        DataError: an unknown split, or one without usable clips.
    """
    if split not in ("train", "val", "test"):
        raise DataError(f"split: got {split!r}, expected train, val or test")
    entries = manifest.usable(Split(split))
    if not entries:
        raise DataError(f"data {manifest.folder}: the split {split!r} has no usable clip: {why_empty(manifest)}")
    if most_clips is not None and most_clips < len(entries):
        entries = [entries[i] for i in np.linspace(0, len(entries) - 1, most_clips).astype(int)]
    return entries


def _started(rows: list[str], main_row: str, backbones: Backbones) -> Measured:
    fid = {} if backbones.inception is None else {row: Fid(backbones.inception.num_features) for row in rows}
    return Measured(rows, main_row, fid)


def _leave_out(measured: Measured, clip: str, reason: str) -> None:
    logger.warning("clip %s is left out: %s", clip, reason)
    measured.failed.append({"clip": clip, "reason": reason})


def _stop(measured: Measured, clip: str, left: int) -> None:
    """Note that the user stopped at a clip; without any clip measured there is nothing to report."""
    if not measured.clips:
        raise KeyboardInterrupt
    measured.interrupted = True
    measured.failed.append({"clip": clip, "reason": f"interrupted: this and the clips after it, {left} in all"})


def _keep(measured: Measured, name: str, group: str, real: Footage, figures: ClipFigures) -> None:
    measured.sights[name] = figures.sights
    measured.clips.append(
        {
            "name": name,
            "group": "" if group == "." else group,
            "frames": len(real),
            "notes": figures.notes,
            "values": figures.values,
            "series": {"lip_opening": {row: [round(float(v), 4) for v in o] for row, o in figures.opening.items()}},
        }
    )


def _render_spoken(
    head: TalkingHead,
    real: Path,
    out: Path,
    controls: Controls,
    sampling: SampleConfig,
    size: Size,
    driver: Path | None,
) -> tuple[Path, float]:
    """Render a clip's first face speaking its own sound; return the file and the real-time factor."""
    started = time.perf_counter()
    video = head(real, real, controls=controls, driving=driver, sampling=sampling, size=size)
    video.save(out, keep_part=False)
    return out, (time.perf_counter() - started) / float(video.duration)


def _render_driven(head: TalkingHead, real: Footage, out: Path, sampling: SampleConfig, size: Size) -> Path:
    """Render a clip's first face moved by its own landmarks, steadied: what the renderer adds to the errors."""
    first = int(np.flatnonzero(real.found)[0])
    image = next(frame for index, frame in enumerate(real.frames()) if index == first)
    portrait = Portrait(image, real.points[first])
    shapes, rotation, scale, translation = to_canonical(real.filled.astype(np.float64), mean_shape())
    neutral = shapes[first]
    track = LandmarkTrack(
        neutral=neutral.astype(np.float32),
        displacements=(shapes - neutral).astype(np.float32),
        rotation=rotation.astype(np.float32),
        translation=translation.astype(np.float32),
        scale=scale.astype(np.float32),
        fps=Fraction(FPS),
        size=real.size,
    )
    sound = None if real.samples is None else real.samples[: len(track) * SAMPLE_RATE // FPS]
    if sound is not None and frame_count(len(sound)) < len(track):
        sound = np.pad(sound, (0, len(track) * SAMPLE_RATE // FPS - len(sound)))
    head.render(portrait, steady(track), audio=sound, sampling=sampling, size=size).save(out, keep_part=False)
    return out
