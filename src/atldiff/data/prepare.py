"""`atldiff prepare FOLDER`: raw videos into prepared clips, an identity for each, and an identity-disjoint split.

Resumable: a clip whose record exists is not touched again. Each video ends as one line of `manifest.jsonl`, usable or
with the reason why not. The manifest depends on the videos alone: not on where they lie, nor on who worked on them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from atldiff.data.clip import RECORD_FORMAT, ClipRecord, prepare_clip
from atldiff.data.hold_out import split_clips, what_is_missing
from atldiff.data.identity import assign_identities, embed_clips, identities_by_face
from atldiff.data.manifest import (
    SOURCE_FILE,
    Manifest,
    ManifestEntry,
    Split,
    split_identities,
    split_speakers,
    write_changed,
)
from atldiff.data.parts import in_parts
from atldiff.data.sources import folder as any_folder
from atldiff.data.sources.raw import RawClip, Source
from atldiff.errors import DataError
from atldiff.files import clear_all
from atldiff.interrupt import follow_parent, hidden_from_children

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator
    from concurrent.futures import Future

    from atldiff.backbones.embedder import Embedder

logger = logging.getLogger(__name__)

HOLD_OUT = ("people", "clips")
IDENTITY_FROM = ("speaker", "appearance", "face", "folder", "file")
NAME_BYTES = 80
"""Readable part of a clip's file name; file systems allow 255 bytes in all."""


class Job(NamedTuple):
    """One clip to prepare; every path is absolute, so that any process on the same files can take it."""

    clip: RawClip
    name: str
    corpus: str
    out: Path


def clip_name(relative: Path) -> str:
    """Return a flat, unique file stem for a video's relative path: readable, then 8 hex digits of the whole path."""
    readable = "-".join(relative.with_suffix("").parts).encode()[:NAME_BYTES].decode(errors="ignore")
    digest = hashlib.sha256(relative.as_posix().encode()).hexdigest()[:8]
    return f"{readable}-{digest}"


def _name(clip: RawClip) -> str:
    """Return the name of a clip's files; parts of one video sort by time."""
    name = clip_name(Path(clip.relative))
    return name if clip.part is None else f"{name}-{clip.part.start:06d}"


def load_record(path: Path) -> ClipRecord | None:
    """Return a clip's record, or None where there is none yet or it is of an older format."""
    try:
        record = ClipRecord(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        logger.warning("%s: not a record (%s); the clip is prepared again", path, error)
        return None
    return record if record.format == RECORD_FORMAT else None


_tracker = None


def _start_process() -> None:
    follow_parent()
    _start_worker()


def _start_worker() -> None:
    global _tracker  # noqa: PLW0603 - a process keeps one tracker: loading its models costs more than a short clip
    import cv2

    from atldiff.landmarks.detect import FaceTracker

    cv2.setNumThreads(1)
    _tracker = FaceTracker()


def _work(job: Job) -> ClipRecord:
    if _tracker is None:
        _start_worker()
    assert _tracker is not None  # noqa: S101 - for the type checker: _start_worker has just set it
    clip = job.clip
    return prepare_clip(
        clip.path,
        clip.relative,
        job.name,
        job.out,
        _tracker,
        audio=clip.audio,
        speaker=clip.speaker,
        emotion=clip.emotion,
        intensity=clip.intensity,
        corpus=job.corpus,
        part=clip.part,
    )


def prepare(
    folder: Path,
    out: Path,
    *,
    source: Source = any_folder.SOURCE,
    workers: int | Literal["ray"] = 2,
    identity_from: str = "speaker",
    embedder: tuple[Embedder, str] | None = None,
    train_only: Collection[str] = (),
    hold_out: str = "people",
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Prepare every clip of `folder` into `out` and return the manifest, which is also written there.

    source: whose layout the folder has (`sources.SOURCES`). workers: processes, 0 works in this one; or `ray`, a task a
    clip on the cluster of `RAY_ADDRESS`, or on one that is started here. identity_from: `speaker` takes the person
    that the source names, and appearance where it names none; `appearance` groups clips of one corpus by how the
    face looks; `face` groups all clips by an embedder; `folder` takes each video's parent folder as the person; `file`
    takes each video as its own person. embedder: of `face`, and a name that tells it from others. train_only:
    first-level folders that are never held out (their people cannot be told apart). hold_out: `people` whole, or of
    each person some `clips`, among them the ends of long recordings, which are then cut into parts (`in_parts`);
    what a corpus says of its speakers counts for the former alone. progress: called with (done, all) clips.

    Raises:
        DataError: nothing to prepare, not the source's layout, an unknown `identity_from` or `hold_out`, one that a
            source with held-out speakers does not allow, or `face` without an embedder; workers that died.
    """
    if hold_out not in HOLD_OUT:
        raise DataError(f"hold_out: got {hold_out!r}, expected {' or '.join(HOLD_OUT)}")
    if identity_from not in IDENTITY_FROM:
        raise DataError(f"identity_from: got {identity_from!r}, expected {', '.join(IDENTITY_FROM)}")
    if (identity_from == "face") != (embedder is not None):
        raise DataError("identity_from: face and an embedder go together; expected both or neither")
    by_clips = hold_out == "clips"
    if source.test_speakers and (identity_from != "speaker" or train_only):
        raise DataError(
            f"source {source.name}: names its speakers and who of them is held out; expected identity_from speaker and "
            "no train_only"
        )
    clips = out.resolve() / "clips"
    corpus = "" if source.name == any_folder.SOURCE.name else source.name
    listed = source.list_clips(folder)
    if by_clips:
        listed = in_parts(listed, corpus)
    clips.mkdir(parents=True, exist_ok=True)
    clear_all(clips)
    jobs, records = [], {}
    for clip in listed:
        job = Job(_anywhere(clip), _name(clip), corpus, clips)
        record = load_record(clips / f"{job.name}.json")
        if record is None or record.part != clip.part:  # the video has another length now
            jobs.append(job)
        else:  # what the source says of a clip may have been read differently then
            records[job.name] = replace(
                record, speaker=clip.speaker, emotion=clip.emotion, intensity=clip.intensity, corpus=corpus
            )
    report = progress or (lambda done, total: None)
    report(len(records), len(listed))
    try:
        with closing(_run(jobs, workers)) as finished:
            for record in finished:
                records[record.name] = record
                report(len(records), len(listed))
    except BaseException:
        clear_all(clips)
        raise

    usable = [record for record in (records[name] for name in sorted(records)) if not record.reason]
    if embedder is not None:
        identities = identities_by_face(usable, embed_clips(usable, folder, out, *embedder, progress))
    else:
        identities = _identities(usable, clips, identity_from)
    if by_clips:
        splits = split_clips(usable, identities, train_only)
    elif source.test_speakers:
        held_out = ({f"{corpus}/{s}" for s in who} for who in (source.test_speakers, source.validation_speakers))
        of_people = split_speakers(identities.values(), *held_out)
        splits = {name: of_people[person] for name, person in identities.items()}
    else:
        of_people = split_identities(usable, identities, train_only)
        splits = {name: of_people[person] for name, person in identities.items()}
    entries = []
    for name in sorted(records):
        record = records[name]
        identity = identities.get(name, "")
        entries.append(
            ManifestEntry(
                record=record,
                identity=identity,
                split=Split.NONE if record.reason else splits[name],
            )
        )
    manifest = Manifest(entries=tuple(entries), folder=out)
    manifest.save()
    write_changed(out / SOURCE_FILE, json.dumps({"folder": str(folder.resolve())}) + "\n")
    missing = what_is_missing(manifest, by_clips=by_clips)
    if missing and not {record.source for record in usable} <= set(train_only):
        logger.warning("%s", missing)
    return manifest


def _anywhere(clip: RawClip) -> RawClip:
    return replace(clip, path=clip.path.absolute(), audio=clip.audio and clip.audio.absolute())


def _identities(usable: list[ClipRecord], clips: Path, identity_from: str) -> dict[str, str]:
    if identity_from != "speaker":
        identities = assign_identities(usable, clips, identity_from)
    else:
        unnamed = [record for record in usable if not record.speaker]
        identities = assign_identities(unnamed, clips, "appearance")
        identities |= {record.name: f"{record.source}/{record.speaker}" for record in usable if record.speaker}
    first: dict[str, str] = {}  # by video: its parts show one person, however the light changes
    return {record.name: first.setdefault(record.path, identities[record.name]) for record in usable}


def _run(jobs: list[Job], workers: int | Literal["ray"]) -> Generator[ClipRecord]:
    if workers == "ray":
        from atldiff.data.ray_workers import work_on_ray

        for job, record in work_on_ray(_work, jobs):
            # Without a record in the folder the next run tries such a clip again.
            yield record or ClipRecord(
                path=job.clip.relative,
                name=job.name,
                reason="not prepared: every worker that took it died; run the same command to try again",
                speaker=job.clip.speaker,
                emotion=job.clip.emotion,
                intensity=job.clip.intensity,
                corpus=job.corpus,
            )
    elif workers == 0 or len(jobs) < 2:
        for job in jobs:
            yield _work(job)
    else:
        try:
            yield from _in_processes(jobs, workers)
        except BrokenProcessPool:
            raise DataError(
                "workers: one died, out of memory or killed; what is finished is kept: run the same command to go on, "
                "with fewer --workers if memory was short"
            ) from None


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Have processes that are started meanwhile compute with one thread each, as Ray's do.

    They are one a core anyway, and matrix products round differently with the number of threads.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _in_processes(jobs: list[Job], workers: int) -> Iterator[ClipRecord]:
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # with the first worker it would let signals through to it
    others = multiprocessing.active_children()
    with _one_thread_each(), ProcessPoolExecutor(workers, mp_context=context, initializer=_start_process) as pool:
        try:
            queue = iter(jobs)
            running: set[Future[ClipRecord]] = set()
            for job in islice(queue, 4 * workers):
                with hidden_from_children():
                    running.add(pool.submit(_work, job))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                    for job in islice(queue, 1):
                        with hidden_from_children():
                            running.add(pool.submit(_work, job))
        except BaseException:  # they hear no signals, and clips that are begun would be waited for
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()
            raise
