"""`atldiff prepare FOLDER`: raw videos into prepared clips, an identity for each, and an identity-disjoint split.

Resumable: a clip whose record exists is not touched again. Each video ends as one line of `manifest.jsonl`, usable or
with the reason why not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.data.clip import ClipRecord, prepare_clip
from atldiff.data.identity import assign_identities, embed_clips, identities_by_face
from atldiff.data.manifest import Manifest, ManifestEntry, Split, split_identities
from atldiff.errors import DataError
from atldiff.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from atldiff.backbones.embedder import Embedder

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".flv"})


SOURCE_FILE = "source.json"
"""Beside the manifest: where the raw videos were, for whoever needs more of them than was kept."""
NAME_BYTES = 80
"""Readable part of a clip's file name; file systems allow 255 bytes in all."""


def find_videos(folder: Path) -> list[Path]:
    """Return the video files under a folder, sorted.

    Raises:
        DataError: the folder is missing or holds no video.
    """
    if not folder.is_dir():
        raise DataError(f"folder {folder}: not a folder; expected a folder of videos")
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    if not videos:
        raise DataError(f"folder {folder}: no videos found; expected files such as {', '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


def clip_name(relative: Path) -> str:
    """Return a flat, unique file stem for a video's relative path: readable, then 8 hex digits of the whole path."""
    readable = "-".join(relative.with_suffix("").parts).encode()[:NAME_BYTES].decode(errors="ignore")
    digest = hashlib.sha256(relative.as_posix().encode()).hexdigest()[:8]
    return f"{readable}-{digest}"


_tracker = None


def _start_worker() -> None:
    global _tracker  # noqa: PLW0603 - a process keeps one tracker: loading its models costs more than a short clip
    import cv2

    from atldiff.landmarks.detect import FaceTracker

    cv2.setNumThreads(1)
    _tracker = FaceTracker()


def _work(path: str, relative: str, name: str, out: str) -> ClipRecord:
    if _tracker is None:
        _start_worker()
    assert _tracker is not None  # noqa: S101 - for the type checker: _start_worker has just set it
    return prepare_clip(Path(path), relative, name, Path(out), _tracker)


def prepare(
    folder: Path,
    out: Path,
    *,
    workers: int = 2,
    identity_from: str = "appearance",
    embedder: tuple[Embedder, str] | None = None,
    train_only: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Prepare every video of `folder` into `out` and return the manifest, which is also written there.

    workers: processes; 0 works in this one. identity_from: `appearance` groups clips of one source folder by how the
    face looks; `face` groups all clips by an embedder; `folder` takes each video's parent folder as the person; `file`
    takes each video as its own person. embedder: of `face`, and a name that tells it from others. train_only:
    first-level folders that are never held out (their people cannot be told apart). progress: called with (done, all)
    clips.

    Raises:
        DataError: nothing to prepare, an unknown `identity_from`, or `face` without an embedder.
    """
    if identity_from not in ("appearance", "face", "folder", "file"):
        raise DataError(f"identity_from: got {identity_from!r}, expected appearance, face, folder or file")
    if (identity_from == "face") != (embedder is not None):
        raise DataError("identity_from: face and an embedder go together; expected both or neither")
    videos = find_videos(folder)
    clips = out / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    jobs, records = [], {}
    for video in videos:
        relative = video.relative_to(folder)
        name = clip_name(relative)
        record_file = clips / f"{name}.json"
        if record_file.exists():
            records[name] = ClipRecord(**json.loads(record_file.read_text()))
        else:
            jobs.append((str(video), relative.as_posix(), name, str(clips)))
    report = progress or (lambda done, total: None)
    report(len(records), len(videos))
    for record in _run(jobs, workers):
        records[record.name] = record
        report(len(records), len(videos))

    usable = [record for record in (records[name] for name in sorted(records)) if not record.reason]
    if embedder is None:
        identities = assign_identities(usable, clips, identity_from)
    else:
        identities = identities_by_face(usable, embed_clips(usable, folder, out, *embedder, progress))
    splits = split_identities(usable, identities, train_only)
    entries = []
    for name in sorted(records):
        record = records[name]
        identity = identities.get(name, "")
        entries.append(
            ManifestEntry(
                record=record,
                identity=identity,
                split=Split.NONE if record.reason else splits[identity],
            )
        )
    manifest = Manifest(entries=tuple(entries), folder=out)
    manifest.save()
    write_text(out / SOURCE_FILE, json.dumps({"folder": str(folder.resolve())}) + "\n")
    return manifest


def source_of(prepared: Path) -> Path:
    """Return the folder of raw videos that a prepared folder was made from.

    Raises:
        DataError: it does not say.
    """
    path = prepared / SOURCE_FILE
    try:
        return Path(json.loads(path.read_text(encoding="utf-8"))["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"data {prepared}: no readable {SOURCE_FILE}, so the raw videos are not known; name their folder with "
            "--source, or run `atldiff prepare` again"
        ) from None


def _run(jobs: list[tuple[str, str, str, str]], workers: int) -> Iterator[ClipRecord]:
    if workers == 0 or len(jobs) < 2:
        for job in jobs:
            yield _work(*job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        queue = iter(jobs)
        running = {pool.submit(_work, *job) for job, _ in zip(queue, range(4 * workers), strict=False)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                job = next(queue, None)
                if job is not None:
                    running.add(pool.submit(_work, *job))
