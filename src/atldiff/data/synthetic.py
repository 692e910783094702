"""A small prepared folder of drawn faces that speak: for tests and for trying the commands, no download, no detector.

Each person has its own shape and colours; the mouth follows the loudness of a sound made of formants and noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from atldiff.audio.features import log_mel
from atldiff.data.clip import FACE_JPEG_QUALITY, RECORD_FORMAT, SMOOTH_FRAMES, ClipRecord
from atldiff.data.manifest import Manifest, ManifestEntry, Split
from atldiff.files import replacing
from atldiff.landmarks.geometry import from_canonical, rotation_from_euler
from atldiff.landmarks.raster import polygons
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER, LIPS_OUTER, OVAL, lip_opening
from atldiff.timebase import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from atldiff.video.window import (
    STORED_FACE_SIDE,
    STORED_MOUTH,
    STORED_WINDOW,
    extract,
    face_window,
    fit_still_window,
    fit_window,
)

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = 160
EYE_DISTANCE_PX = 48.0
MOUTH_PX = 30.0
OPEN_GAP = 0.16


def speech_like(frames: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return samples (640 T,) and the loudness (T,) in [0, 1] that shaped them: syllables with pauses."""
    count = frames * SAMPLES_PER_FRAME
    time = np.arange(count) / SAMPLE_RATE
    rate = random.uniform(3.0, 5.0)
    syllables = np.clip(np.sin(2 * np.pi * rate * time + random.uniform(0, 6)), 0, 1) ** 0.7
    phrase = (np.sin(2 * np.pi * 0.4 * time + random.uniform(0, 6)) > -0.6).astype(np.float64)
    loudness = syllables * phrase
    pitch = random.uniform(90, 220)
    voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    samples = 0.12 * loudness * voice + 0.001 * random.normal(size=count)
    return samples.astype(np.float32), loudness.reshape(frames, -1).mean(axis=1)


def speaking_shapes(neutral: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Return shapes (T, 478, 3) whose jaw and lower lip drop by `opening` (T,) in outer-eye distances."""
    mouth = neutral[LIPS_INNER, 1].mean()
    below = np.clip((neutral[:, 1] - mouth) / 0.12, 0, 1)
    below *= np.clip(1.4 - np.abs(neutral[:, 0]) / 0.5, 0, 1)
    lower = np.isin(np.arange(len(neutral)), LIPS_INNER[11:])
    below = np.maximum(below, lower)
    drop = np.zeros((len(opening), *neutral.shape))
    drop[:, :, 1] = opening[:, None] * below
    return neutral + drop


def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Draw a face (S, S, 3) uint8 from its points (478, 2) pixels; colours: (4, 3) ground, skin, lips and cavity."""
    picture = np.broadcast_to(colours[0], (PICTURE, PICTURE, 3)).astype(np.float32)
    for indices, colour in ((OVAL, colours[1]), (LIPS_OUTER, colours[2]), (LIPS_INNER, colours[3])):
        cover = polygons(points[None, indices], PICTURE)[0][..., None] / np.float32(255)
        picture = picture * (1 - cover) + cover * colour
    shade = np.linspace(0.85, 1.1, PICTURE, dtype=np.float32)[None, :, None]
    return np.clip(picture * shade, 0, 255).astype(np.uint8)


def make_synthetic(folder: Path, *, people: int = 6, clips: int = 2, frames: int = 40, seed: int = 0) -> Manifest:
    """Write a prepared folder of drawn people and return its manifest: the last two people are `val` and `test`."""
    from safetensors.numpy import save_file

    (folder / "clips").mkdir(parents=True, exist_ok=True)
    entries = []
    for person in range(people):
        random = np.random.default_rng((seed, person))
        stretch = 1 + random.uniform(-0.06, 0.06, 3)
        closed = mean_shape() * stretch
        gap = float(lip_opening(closed))
        neutral = speaking_shapes(closed, np.array([0.02 - gap]))[0]
        colours = np.array([
            random.uniform(30, 120, 3), random.uniform(120, 220, 3), (180, 80, 90), (50, 20, 25),
        ])  # fmt: skip
        split = {people - 1: Split.TEST, people - 2: Split.VAL}.get(person, Split.TRAIN)
        for clip in range(clips):
            record, tensors = _clip(f"person{person}-{clip}", neutral, colours, frames, random)
            with replacing(folder / "clips" / f"{record.name}.safetensors") as partial:
                save_file(tensors, partial)
            record.save(folder / "clips" / f"{record.name}.json")
            entries.append(ManifestEntry(record, f"person{person}", split))
    manifest = Manifest(tuple(entries), folder)
    manifest.save()
    return manifest


def _clip(
    name: str, neutral: np.ndarray, colours: np.ndarray, frames: int, random: np.random.Generator
) -> tuple[ClipRecord, dict[str, np.ndarray]]:
    samples, loudness = speech_like(frames, random)
    moments = np.arange(frames) / FPS
    rotation = rotation_from_euler(4 * np.sin(moments), 2 * np.cos(0.7 * moments), np.sin(0.5 * moments))
    shapes = speaking_shapes(neutral, OPEN_GAP * loudness)
    centre = np.array([PICTURE / 2, PICTURE * 0.36, 0.0]) + np.zeros((frames, 3))
    points = from_canonical(shapes, rotation, np.full(frames, EYE_DISTANCE_PX), centre)  # (T, 478, 3)
    matrix = fit_window(points, STORED_WINDOW)
    pictures = [draw(frame[:, :2], colours) for frame in points]
    windows = np.stack([extract(p, m, STORED_WINDOW.side) for p, m in zip(pictures, matrix, strict=True)])
    still = fit_still_window(points, face_window(STORED_FACE_SIDE))
    faces = [_jpeg(extract(picture, still, STORED_FACE_SIDE)) for picture in pictures]
    around = fit_window(points, STORED_MOUTH, SMOOTH_FRAMES)
    mouths = [
        _jpeg(extract(picture, its, STORED_MOUTH.size, sharp=True))
        for picture, its in zip(pictures, around, strict=True)
    ]
    mel, levels = log_mel(samples)
    tensors = {
        "windows": windows,
        "matrix": matrix.astype(np.float32),
        "points": points.astype(np.float32),
        "thumbnail": np.ascontiguousarray(pictures[0][:64, :64]),
        "faces": np.concatenate(faces),
        "face_sizes": np.array([len(face) for face in faces], np.int32),
        "face_matrix": still.astype(np.float32),
        "mouths": np.concatenate(mouths),
        "mouth_sizes": np.array([len(mouth) for mouth in mouths], np.int32),
        "samples": np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16),
        "mel": mel.astype(np.float16),
        "levels": levels.astype(np.float16),
    }
    record = ClipRecord(
        path=f"synthetic/{name}.mp4",
        name=name,
        frames=frames,
        eye_distance_px=EYE_DISTANCE_PX,
        mouth_px=MOUTH_PX,
        sharpness=0.1,
        sync=1.0,
        format=RECORD_FORMAT,
    )
    return record, tensors


def _jpeg(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, FACE_JPEG_QUALITY])[1].ravel()
