"""The figures of a checkpoint's two networks on prepared clips, each apart from the other and from the video around."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from atldiff.config import PRESETS, RendererConfig, sampling_presets
from atldiff.data.completion import DRIVES, completion_scores, completions, load_seen
from atldiff.data.mouths import ClipMouths, cut, load_mouths
from atldiff.data.speech import carried, generator_scores, load_samples, load_speech, sound_of
from atldiff.data.windows import MIN_APART_FRAMES, crop, load_clip, same_pose
from atldiff.evaluation.statistics import paired
from atldiff.landmarks.control import CHIN
from atldiff.landmarks.scores import lip_scores
from atldiff.landmarks.speaker import CompletionSpeaker, GeneratorSpeaker
from atldiff.landmarks.topology import LIPS_INNER, POINTS
from atldiff.methods.atl.inputs import NEEDED, build_inputs
from atldiff.methods.atl.network import Renderer
from atldiff.methods.difftalker.network import LatentRenderer
from atldiff.methods.generators import speak
from atldiff.methods.lmdiff.network import TalkRenderer
from atldiff.methods.models import painter_of, speaker_of
from atldiff.methods.mouth_layers import window_layers
from atldiff.video.window import WindowGeometry

if TYPE_CHECKING:
    from atldiff.data.manifest import Manifest, ManifestEntry
    from atldiff.data.speech import ClipSpeech
    from atldiff.methods.generators import Speaker
    from atldiff.methods.models import FaceRenderer, Model
    from atldiff.methods.pair import Pair

WINDOW_FRAMES = 16
WINDOWS_A_CLIP = 3
SEED = 7
STILL = 1e-3
"""A clip whose mouth does not move says nothing: squared error of the prior a window."""
CHECKED_SYNC = 0.3
CHECKED_LAG_FRAMES = 2


def renderer_errors(
    renderer: Renderer | LatentRenderer | TalkRenderer, manifest: Manifest, entry: ManifestEntry
) -> dict[str, float] | None:
    """Return summed squared errors in the mouth of one clip driven by its true landmarks; None if too short or still.

    Keys: `prior` (the warped identity), and each preset. The identity frame is drawn, by a seed, from the clip's
    frames at the target's head pose; the mouth is the target's inner-lip polygon grown by 5 px. Windows have the
    resolution at which they are prepared.
    """
    config = renderer.config
    clip = (load_mouths if renderer.layered else load_clip)(manifest, entry, np.arange(POINTS))
    if len(clip) < WINDOW_FRAMES + MIN_APART_FRAMES:
        return None
    geometry = renderer.geometry if renderer.layered else WindowGeometry(config.side, config.origin)
    ruler = RendererConfig(
        side=geometry.side, origin=geometry.origin, scale=geometry.scale, height=geometry.height or 0
    )  # fmt: skip
    random = np.random.default_rng((SEED, *entry.record.name.encode()))
    painter = painter_of(renderer)
    noise = painter.window_noise(SEED, 0, WINDOW_FRAMES)
    count = min(WINDOWS_A_CLIP, len(clip) // WINDOW_FRAMES)
    sums: dict[str, float] = dict.fromkeys(("prior", *PRESETS), 0.0)
    for start in np.linspace(0, len(clip) - WINDOW_FRAMES, count).astype(int):
        frames = np.arange(start, start + WINDOW_FRAMES)
        reference = random.choice(same_pose(clip, int(start) + WINDOW_FRAMES // 2))
        chosen, jitter = np.concatenate([[reference], frames]), np.zeros(2, int)
        if isinstance(clip, ClipMouths):
            images, points = cut(clip, chosen, geometry, jitter, flip=False)
            source, target = points[0], points[1:]
        else:
            images, source, target = crop(clip, chosen, geometry, jitter, flip=False)
        video = (images.astype(np.float32) / 127.5 - 1).transpose(3, 0, 1, 2)[None]  # (1, 3, 1 + T, S, S)
        identity, real = np.ascontiguousarray(video[:, :, 0]), video[:, :, 1:]
        inputs = build_inputs(identity, source[None, NEEDED], target[None, :, NEEDED], ruler)

        def error(frames: np.ndarray, real: np.ndarray = real, mouth: np.ndarray = inputs.mouth) -> float:
            return float((mouth * np.square(frames - real)).sum())

        sums["prior"] += error(inputs.prior)
        layers, start_from = [], inputs.prior
        if renderer.layered:
            layers = [window_layers(images[:1], source[None, LIPS_INNER], source[None, CHIN], geometry)]
            shown = replace(ruler, layered=True)
            start_from = build_inputs(identity, source[None, NEEDED], target[None, :, NEEDED], shown, layers).prior
        for name, sampling in sampling_presets(config).items():
            painted, base = painter.render_window(identity, source[None], target[None], noise, sampling.steps, layers)
            sums[name] += error(painted + (start_from - base))  # the change, laid over the prior as the composite does
    return sums if sums["prior"] > STILL * count else None


def _measured(renderer: FaceRenderer) -> TypeGuard[Renderer | LatentRenderer | TalkRenderer]:
    """Return whether a renderer changes a warped portrait, in windows as they are prepared."""
    if isinstance(renderer, LatentRenderer | TalkRenderer):
        return renderer.layered or renderer.config.resolution == renderer.config.side
    return isinstance(renderer, Renderer)


def speech_scores(speaker: Speaker, manifest: Manifest, clip: ClipSpeech) -> dict[str, float] | None:
    """Return the lip scores (`lip_scores`) of a generator that hears one clip; None where its mouth stays still."""
    samples = peaks = None
    if speaker.config.features == "wav2vec2":
        samples = load_samples(manifest, clip).astype(np.float32) / 32767
    elif speaker.config.features == "whisper":
        samples, peaks = sound_of(clip)
    basis, scale = speaker.basis.directions, speaker.basis.scale
    spoken = speak(speaker, samples, clip.mel, clip.neutral, peaks)
    return lip_scores(spoken, carried(clip, basis, scale), clip.displacements)


def network_figures(model: Model | Pair, manifest: Manifest, entry: ManifestEntry) -> dict:
    """Return one clip's source, whether its sync was checked, and the figures of `renderer` and `generator`.

    The published renderer has no warped prior to be compared with: `atldiff ablate` judges it. A completion generator
    has further figures, `completion`, by what drives it.
    """
    record, clip = entry.record, load_speech(manifest, entry)
    speaker = speaker_of(model.generator)
    figures = {
        "source": record.source,
        "identity": entry.identity,
        "sync_checked": record.sync >= CHECKED_SYNC and abs(record.lag_frames) <= CHECKED_LAG_FRAMES,
        "renderer": renderer_errors(model.renderer, manifest, entry) if _measured(model.renderer) else None,
        "generator": None,
    }
    if clip is None:
        return figures
    if isinstance(speaker, CompletionSpeaker):
        said = completions(speaker, clip, load_seen(manifest, clip))
        figures["completion"] = completion_scores(speaker, clip, said)
    if isinstance(speaker, GeneratorSpeaker):
        figures["generator"] = generator_scores(speaker, clip)
    else:
        figures["generator"] = speech_scores(speaker, manifest, clip)
    return figures


def network_table(clips: dict[str, dict]) -> list[dict]:
    """Return rows of (measure, group, value, clips) from the figures of clips."""
    rows = []
    painted = [clip["renderer"] for clip in clips.values() if clip["renderer"]]
    for preset in PRESETS:
        if painted:
            pooled = sum(sums[preset] for sums in painted) / sum(sums["prior"] for sums in painted)
            median = float(np.median([sums[preset] / sums["prior"] for sums in painted]))
            rows.append(_row(f"mouth error / warped prior, {preset}", "all, pooled", pooled, len(painted)))
            rows.append(_row(f"mouth error / warped prior, {preset}", "all, median clip", median, len(painted)))
    groups = {
        "grid": lambda clip: clip["source"] == "grid",
        "others, sync checked": lambda clip: clip["source"] != "grid" and clip["sync_checked"],
        "all": lambda clip: True,
    }
    for measure in ("opening_correlation", "lip_error", "amplitude"):
        for group, chosen in groups.items():
            values = [clip["generator"][measure] for clip in clips.values() if clip["generator"] and chosen(clip)]
            if values:
                rows.append(_row(f"{measure}, median clip", group, float(np.median(values)), len(values)))
    return rows + _completion_rows([clip["completion"] for clip in clips.values() if clip.get("completion")])


def _completion_rows(clips: list[dict]) -> list[dict]:
    """Return what landmark completion misses of the mouth by what drives it, and what each drive adds to the other."""
    if not clips:
        return []
    errors = {drive: [clip[drive]["lip_error"] for clip in clips] for drive in DRIVES}
    measure, both = "mouth landmark error / copied reference", DRIVES[0]
    rows = []
    for drive in DRIVES:
        rows.append(_row(f"{measure}, {drive}", "all, mean", float(np.mean(errors[drive])), len(clips)))
        rows.append(_row(f"{measure}, {drive}", "all, median clip", float(np.median(errors[drive])), len(clips)))
    for drive in DRIVES[1:]:
        change = paired(errors[both], errors[drive], SEED)
        if change.mean is not None and change.p is not None:
            rows.append(_row(f"{measure}, {drive} alone: more by", "all, mean", change.mean, change.clips))
            rows.append(_row(f"{measure}, {drive} alone: p", "all", change.p, change.clips))
    return rows


def _row(measure: str, group: str, value: float, clips: int) -> dict:
    return {"measure": measure, "group": group, "value": round(value, 4), "clips": clips}
