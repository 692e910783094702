"""One call trains the arms, measures them on held-out people and writes the table; the same call goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from atldiff import checkpoint
from atldiff.ablation.arms import ARMS, SAMPLING_STEPS, check_base
from atldiff.ablation.measure import (
    FEWEST_FRAMES,
    figures,
    load_subject,
    real_figures,
    render,
    render_warped,
    telling_frame,
    track,
)
from atldiff.ablation.sheet import contact_sheet, read_strip, strip, write_picture
from atldiff.ablation.table import IDENTITY, REAL, WARPED, assemble, markdown, row_name
from atldiff.devices import choose_dtype
from atldiff.errors import DataError, TrainingError
from atldiff.evaluation import report
from atldiff.evaluation.run import split_entries
from atldiff.files import sha256, write_text
from atldiff.interrupt import end_patience
from atldiff.landmarks.detect import FaceTracker
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.training.loop import STATE_FILE
from atldiff.training.processes import ALONE
from atldiff.training.run import CHECKPOINT_FOLDER, open_data, train_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from atldiff.ablation.measure import Subject
    from atldiff.config import TrainConfig
    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.methods.atl_published.network import PublishedRenderer
    from atldiff.training.processes import Processes

    Progress = Callable[[str, int, int, str], None]
    """Takes the stage, what is done of it, all of it, and a note."""

logger = logging.getLogger(__name__)

RUN_FILE, DOCUMENT, TABLE, SHEET = "run.json", "ablation.json", "ablation.md", "ablation.png"
MEASURED_FORMAT = 1
"""Raised when a figure or a picture of a clip is made differently: kept ones are then made again."""
SHEET_PEOPLE = 6


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far an ablation came.

    steps: training steps done, by arm. document: what `ablation.json` holds; None where training was stopped before
    its end.
    """

    steps: dict[str, int]
    document: dict[str, Any] | None


def ablate(
    data: Path,
    out: Path,
    *,
    base: TrainConfig,
    split: str = "test",
    clips: int | None = None,
    sampling_steps: Sequence[int] = SAMPLING_STEPS,
    processes: Processes = ALONE,
    workers: int = 1,
    minutes: float | None = None,
    dtype: str = "float32",
    command: str = "",
    progress: Progress | None = None,
) -> Outcome:
    """Train every arm into `out/arms/NAME`, measure all on held-out people, write the document, table and pictures.

    data: prepared folder, or the word `synthetic`. base: the training run that the arms are variants of; its seed is
    also that of the noise they are measured with. split: whose people are measured, `val` or `test`; clips: at most
    this many, evenly spread. minutes: stop, with a saved state, after this long in training. dtype: number format that
    the renderers are measured in: float32, bfloat16 or auto. command: the command line that repeats it, for the
    document. progress: called with what is done, how much of how much, and a note.

    An arm that has its steps is not trained again, nor is a clip measured again that was measured with the same
    weights and settings.

    Raises:
        ValueError: `base` trains something else. DataError, TrainingError, CheckpointError: see their rooms.
        TrainingError: `out` holds an ablation with other data or another training.
    """
    config = check_base(base)
    number_format = choose_dtype(dtype, processes.device)
    if split not in ("val", "test"):
        raise DataError(f"split: got {split!r}, expected val or test, whose people are not trained on")
    processes.shares(base.clips_per_batch, base.accumulate)
    out.mkdir(parents=True, exist_ok=True)
    with processes.main_first():
        manifest = open_data(data, out)
        _check_same_run(manifest, base, out)
    entries = split_entries(manifest, split, clips)  # before hours of training
    steps = _train(manifest, out, base, processes=processes, workers=workers, minutes=minutes, progress=progress)
    if min(steps.values()) < base.steps or not processes.is_main:
        return Outcome(steps, None)
    end_patience()  # every clip that is measured is kept at once
    folders = {arm.name: out / "arms" / arm.name / CHECKPOINT_FOLDER for arm in ARMS}
    weights = {name: sha256(folder / checkpoint.WEIGHTS_FILE) for name, folder in folders.items()}
    renderers = {name: _load_renderer(folder).to(processes.device, number_format) for name, folder in folders.items()}
    settings = [MEASURED_FORMAT, weights, config.side, list(sampling_steps), base.seed, str(number_format)]
    measured, skipped = _measure(
        manifest, entries, renderers, settings,
        out / "measured", sampling_steps, base.seed, progress,
    )  # fmt: skip
    if not measured:
        raise DataError(
            f"data {manifest.folder}: no clip of at least {FEWEST_FRAMES + 1} frames in the split {split!r}; "
            "expected longer clips of held-out people"
        )
    document = assemble(
        measured, skipped, base=base, sampling_steps=sampling_steps, split=split, data=str(data), command=command,
        dtype=str(number_format).removeprefix("torch."),
        parameters=sum(p.numel() for p in next(iter(renderers.values())).parameters()),
    )  # fmt: skip
    shown = sheet_clips(measured)
    document["sheet"] = shown
    strips = [read_strip(out / "measured" / f"{name}.png") for name in shown]
    write_picture(out / SHEET, contact_sheet(strips, ARMS, sampling_steps))
    report.save(document, out / DOCUMENT)
    write_text(out / TABLE, markdown(document, SHEET))
    return Outcome(steps, document)


def sheet_clips(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the clips that are shown: one each of a few people, evenly spread over the measured ones."""
    first: dict[str, str] = {}
    for clip in measured:
        first.setdefault(clip["person"], clip["name"])
    names, count = list(first.values()), min(SHEET_PEOPLE, len(first))
    return [names[index * len(names) // count] for index in range(count)]


def _check_same_run(manifest: Manifest, base: TrainConfig, out: Path) -> None:
    """Remember data and training in `out`; arms that were trained differently must not meet in one table."""
    free = {"save_every", "probe_every", "accumulate"}
    wanted = json.loads(json.dumps({key: value for key, value in asdict(base).items() if key not in free}))
    wanted["data"] = _digest([
        (entry.record.name, entry.identity, entry.split.value, entry.record.emotion, entry.record.start,
         entry.record.frames)
        for entry in manifest.entries
        if not entry.record.reason
    ])  # fmt: skip
    path = out / RUN_FILE
    if not path.exists():
        write_text(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(key for key in wanted if saved.get(key) != wanted[key])
    except (ValueError, AttributeError):
        raise DataError(
            f"{path}: not written by `atldiff ablate`; expected an ablation's folder, or a new one"
        ) from None
    if changed:
        key = changed[0]
        values = "" if key in ("data", "model") else f" ({saved.get(key)!r}, now {wanted[key]!r})"
        raise TrainingError(
            f"{path}: an ablation with another {key}{values}; go on with the same, or choose another --out"
        )


def _train(
    manifest: Manifest,
    out: Path,
    base: TrainConfig,
    *,
    processes: Processes,
    workers: int,
    minutes: float | None,
    progress: Progress | None,
) -> dict[str, int]:
    """Train the unfinished arms one after the other until the time is over; return the steps done, by arm."""
    started = time.monotonic()
    done = {arm.name: _steps_done(out / "arms" / arm.name) for arm in ARMS}
    for index, arm in enumerate(arm for arm in ARMS if done[arm.name] < base.steps):
        left = None if minutes is None else minutes - (time.monotonic() - started) / 60
        if index and left is not None and left <= 0:
            break

        def tell(step: int, steps: int, losses: dict[str, float], name: str = arm.name) -> None:
            if progress:
                progress(f"training {name}", step, steps, f"loss {losses['loss']:.4f}")

        done[arm.name] = train_stage(
            arm.training(base),
            manifest.folder,
            out / "arms" / arm.name,
            processes=processes,
            workers=workers,
            minutes=left,
            progress=tell,
        )
        if done[arm.name] < base.steps:
            break
    return done


def _steps_done(folder: Path) -> int:
    """Return the training steps that a run's folder holds, without the data that `train_stage` would load for it."""
    state = folder / STATE_FILE
    if not state.exists() or not (folder / CHECKPOINT_FOLDER / checkpoint.WEIGHTS_FILE).exists():
        return 0
    with safe_open(str(state), "pt") as file:
        return int((file.metadata() or {}).get("step", 0))


def _load_renderer(folder: Path) -> PublishedRenderer:
    model = checkpoint.load_model(folder)
    assert isinstance(model, PublishedModel)  # noqa: S101 - for the type checker: it was trained as one
    return model.renderer


def _digest(value: object) -> str:
    """Return the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _measure(
    manifest: Manifest,
    entries: Sequence[ManifestEntry],
    renderers: Mapping[str, PublishedRenderer],
    settings: Sequence[object],
    folder: Path,
    sampling_steps: Sequence[int],
    seed: int,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the figures of every clip, as `report.summarise` takes them, and the clips without and why.

    settings: what kept figures of a clip must have been made with, besides the clip.
    """
    folder.mkdir(exist_ok=True)
    side = next(iter(renderers.values())).config.side
    measured, skipped = [], []
    with FaceTracker() as tracker:
        for index, entry in enumerate(entries):
            name = entry.record.name
            if progress:
                progress("measuring", index, len(entries), name)
            kept, made_with = folder / f"{name}.json", _digest([*settings, sha256(manifest.tensors(entry))])
            clip = _read_kept(kept, made_with)
            if clip is None:
                subject = load_subject(manifest, entry, side)
                if subject is None:
                    reason = f"fewer than {FEWEST_FRAMES + 1} frames"
                    logger.warning("clip %s is left out: %s", name, reason)
                    skipped.append({"clip": name, "reason": reason})
                    continue
                started = time.perf_counter()
                clip, picture = _measure_clip(subject, renderers, sampling_steps, seed, tracker)
                clip["seconds"] = round(time.perf_counter() - started, 2)
                write_picture(folder / f"{name}.png", picture)
                write_text(kept, json.dumps({"made_with": made_with, "clip": clip}) + "\n")
            measured.append(clip)
        if progress:
            progress("measuring", len(entries), len(entries), "")
    return measured, skipped


def _read_kept(path: Path, made_with: str) -> dict[str, Any] | None:
    if not path.exists() or not path.with_suffix(".png").exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["clip"] if kept["made_with"] == made_with else None
    except (ValueError, KeyError, TypeError):  # not ours, or damaged: measured again
        return None


def _measure_clip(
    subject: Subject,
    renderers: Mapping[str, PublishedRenderer],
    sampling_steps: Sequence[int],
    seed: int,
    tracker: FaceTracker,
) -> tuple[dict[str, Any], NDArray]:
    """Return a clip's figures by row, and its row of the contact sheet."""
    real_seen = track(subject.real, tracker)
    rows = {IDENTITY: subject.still(), WARPED: render_warped(subject, next(iter(renderers.values())))}
    for name, renderer in renderers.items():
        made = render(subject, renderer, sampling_steps, seed)
        rows |= {row_name(name, steps): frames for steps, frames in zip(sampling_steps, made, strict=True)}
    values = {row: figures(subject, frames, track(frames, tracker), real_seen) for row, frames in rows.items()}
    values[REAL] = real_figures(subject, real_seen)
    frame = telling_frame(subject)
    clip = {
        "name": subject.name,
        "person": subject.person,
        "frames": len(subject.real),
        "emotion": subject.emotion,
        "shown_frame": frame,
        "values": values,
    }
    return clip, strip({row: frames[frame] for row, frames in rows.items()}, subject.real[frame], ARMS, sampling_steps)
