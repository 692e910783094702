"""Every kind of file that a corpus can hold, and the same work done by this process and by a Ray cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from atldiff.audio.load import load_audio
from atldiff.commands.prepare import summarise
from atldiff.data import prepare as prepare_module
from atldiff.data import ray_workers
from atldiff.data.clip import RECORD_FORMAT, ClipRecord, prepare_clip
from atldiff.data.manifest import Manifest, Split
from atldiff.data.prepare import Job, load_record, prepare
from atldiff.data.sources import mead
from atldiff.errors import DataError
from atldiff.interrupt import answers_kept
from atldiff.timebase import SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from collections.abc import Callable


FRAMES = 18
USABLE = {"people/good.mp4", "silent.mp4", "roaring.mp4", "faint.mp4"}


def write_video(path: Path, frames: list[np.ndarray], samples: np.ndarray | None = None) -> None:
    """Write 25 fps of MPEG-4, with 16 kHz mono sound where samples (N,) float32 are given."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=Fraction(25), bit_rate=4_000_000)
        picture.height, picture.width = frames[0].shape[:2]
        picture.pix_fmt = "yuv420p"
        sound = None if samples is None else container.add_stream("aac", rate=16000, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(picture.encode())
        if sound is not None and samples is not None:
            heard = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            heard.sample_rate = 16000
            for part in av.AudioResampler("fltp", "mono", 16000, frame_size=1024).resample(heard):
                container.mux(sound.encode(part))
            container.mux(sound.encode())


@pytest.fixture(scope="module")
def face(examples: Path) -> np.ndarray:
    picture = cv2.cvtColor(cv2.imread(str(examples / "portrait.jpg")), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(picture[20:260, 105:345])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, face: np.ndarray, talking: Path, examples: Path) -> Path:
    """A tree with a file of every kind."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "people").mkdir()
    shutil.copy(talking, folder / "people" / "good.mp4")
    (folder / "text.mp4").write_text("I am no video.\n")
    (folder / "half.mp4").write_bytes(talking.read_bytes()[: talking.stat().st_size // 2])
    alone = [np.roll(face, t // 3, axis=1) for t in range(FRAMES)]
    write_video(folder / "silent.mp4", alone)
    loud = np.random.default_rng(0).normal(0, 0.1, FRAMES * SAMPLES_PER_FRAME).astype(np.float32)
    write_video(folder / "roaring.mp4", alone, loud)
    voice = load_audio(examples / "speech.wav").samples[8_000 : 8_000 + FRAMES * SAMPLES_PER_FRAME]
    write_video(folder / "faint.mp4", alone, voice / np.abs(voice).max() * np.float32(10 ** (-52 / 20)))
    write_video(folder / "short.mp4", alone[:9])
    write_video(folder / "wall.mp4", [np.full((120, 160, 3), 60 + 5 * t, np.uint8) for t in range(FRAMES)])
    write_video(folder / "couple.mp4", [np.hstack([picture, picture[:, ::-1]]) for picture in alone])
    write_video(folder / "tiny.mp4", [cv2.resize(picture, (60, 60)) for picture in alone])
    whole = (folder / "silent.mp4").read_bytes()  # what a player needs stands at its end
    (folder / "beheaded.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def local(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return prepare(raw, tmp_path_factory.mktemp("local"), workers=2)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != prepare_module.SOURCE_FILE
    }


class TestVerdicts:
    def test_each_file_has_one(self, local: Manifest) -> None:
        verdicts = {entry.record.path: entry.record for entry in local.entries}
        starts = {
            "text.mp4": "video text.mp4: cannot be read",
            "beheaded.mp4": "video beheaded.mp4: cannot be read",
            "half.mp4": "truncated: 0.",
            "short.mp4": "too short: 9 frames",
            "wall.mp4": "no face found",
            "couple.mp4": "several faces: 2 found at frame ",
            "tiny.mp4": "face too small",
        }
        assert set(verdicts) == USABLE | set(starts)
        for path, start in starts.items():
            assert verdicts[path].reason.startswith(start), verdicts[path].reason
            assert not verdicts[path].note
        assert {path: verdicts[path].note for path in sorted(USABLE)} == {
            "faint.mp4": "",
            "roaring.mp4": "silent: nobody speaks in its sound; for the renderer only",
            "people/good.mp4": "",
            "silent.mp4": "silent: no sound that can be read; for the renderer only",
        }

    def test_only_what_is_usable_is_kept(self, local: Manifest) -> None:
        for entry in local.entries:
            usable = entry.record.path in USABLE
            assert local.tensors(entry).exists() is usable
            assert (entry.split is Split.NONE) is not usable
            if usable:
                heard = {"mel", "levels", "samples"} & set(load_file(local.tensors(entry)))
                assert len(heard) == (0 if entry.record.note else 3)

    def test_the_sound_is_the_video_s(self, local: Manifest, raw: Path) -> None:
        (entry,) = [entry for entry in local.entries if entry.record.path == "people/good.mp4"]
        tensors = load_file(local.tensors(entry))
        assert tensors["samples"].dtype == np.int16
        assert tensors["samples"].shape == (entry.record.frames * SAMPLES_PER_FRAME,)
        spoken = load_audio(raw / "people" / "good.mp4").samples[entry.record.start * SAMPLES_PER_FRAME :]
        both = min(len(spoken), len(tensors["samples"]))
        assert np.abs(tensors["samples"][:both] / 32767 - spoken[:both]).max() < 1e-4
        assert spoken.std() > 0.01

    def test_the_summary_counts_them(self, local: Manifest) -> None:
        summary = summarise(local)
        assert (summary["videos"], summary["usable"], sum(summary["noted"].values())) == (11, 4, 2)
        assert sum(summary["rejected"].values()) == 7
        assert summary["rejected"]["several faces: N found at frame N, expected one: crop the video to one person"] == 1

    def test_a_second_run_does_nothing(self, local: Manifest, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = {path: path.stat().st_mtime_ns for path in local.folder.rglob("*")}

        def refuse(job: Job) -> ClipRecord:
            raise AssertionError(f"worked on {job}")

        monkeypatch.setattr(prepare_module, "_work", refuse)
        for workers in (0, 2, "ray"):
            assert prepare(raw, local.folder, workers=workers) == local
            assert {path: path.stat().st_mtime_ns for path in local.folder.rglob("*")} == before

    def test_the_manifest_does_not_say_where_the_videos_lie(self, local: Manifest, raw: Path, tmp_path: Path) -> None:
        shutil.copytree(raw, tmp_path / "moved", ignore=shutil.ignore_patterns("people", "silent*", "hush*", "couple*"))
        moved = prepare(tmp_path / "moved", tmp_path / "out", workers=0)
        there = {entry.record.path: entry for entry in local.entries}
        assert [there[entry.record.path] for entry in moved.entries] == list(moved.entries)

    def test_a_passer_by_is_no_second_person(self, face: np.ndarray, tmp_path: Path) -> None:
        from atldiff.landmarks.detect import FaceTracker

        small = np.zeros_like(face)
        small[160:, 160:] = cv2.resize(face, (80, 80), interpolation=cv2.INTER_AREA)
        wide = [np.hstack([face, small]) for _ in range(FRAMES)]
        brief = [np.hstack([face, face if t > 11 else np.zeros_like(face)]) for t in range(FRAMES)]
        with FaceTracker() as tracker:
            for name, frames in (("small", wide), ("brief", brief)):
                write_video(tmp_path / f"{name}.mp4", frames)
                record = prepare_clip(tmp_path / f"{name}.mp4", f"{name}.mp4", name, tmp_path, tracker)
                assert record.reason == ""

    def test_sound_beside_a_silent_video(self, raw: Path, examples: Path, tmp_path: Path) -> None:
        film = tmp_path / "MEAD" / "M003" / "video" / "front" / "fear" / "level_2" / "001.mp4"
        speech = tmp_path / "MEAD" / "M003" / "audio" / "fear" / "level_2" / "001.wav"
        for path, origin in ((film, raw / "roaring.mp4"), (speech, examples / "speech.wav")):
            path.parent.mkdir(parents=True)
            shutil.copy(origin, path)
        (entry,) = prepare(tmp_path / "MEAD", tmp_path / "out", source=mead.SOURCE, workers=0).entries
        assert (entry.record.note, entry.record.emotion, entry.record.intensity) == ("", "fear", "level_2")
        assert (entry.identity, entry.split) == ("mead/M003", Split.TEST)
        heard = load_file(tmp_path / "out" / "clips" / f"{entry.record.name}.safetensors")["samples"]
        assert np.abs(heard / 32767 - load_audio(speech).samples[: len(heard)]).max() < 1e-4
        saved = json.loads((tmp_path / "out" / "clips" / f"{entry.record.name}.json").read_text())
        assert ClipRecord(**saved) == entry.record


@pytest.fixture(scope="module")
def cluster():
    """A local Ray cluster of two workers."""
    ray = pytest.importorskip("ray", reason="ray is not installed (pip install 'atldiff[ray]')")
    with answers_kept():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    yield ray
    with answers_kept():
        ray.shutdown()


class TakingRay(ModuleType):
    """Ray as far as its handlers matter: starting it and ending it take SIGTERM for themselves."""

    class ObjectRef:
        pass

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name in ("init", "shutdown"):
                signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            return {"is_initialized": False, "cluster_resources": {}}.get(name)

        return call

    def remote(self, **named: Any) -> Callable[[Any], Any]:
        return lambda work: SimpleNamespace(remote=lambda job: partial(work, job))

    def wait(self, references: list, num_returns: int) -> tuple[list, list]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        return reference()


def test_ray_s_handlers_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = ModuleType("ray.exceptions")
    exceptions.OutOfMemoryError = exceptions.WorkerCrashedError = OSError  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "ray", TakingRay("ray"))
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    before = signal.getsignal(signal.SIGTERM)
    seen = []
    try:
        for _ in ray_workers.work_on_ray(lambda job: ClipRecord(path=job, name=job, format=RECORD_FORMAT), ["a", "b"]):
            seen.append(signal.getsignal(signal.SIGTERM))
        assert [*seen, signal.getsignal(signal.SIGTERM)] == [before] * 3
    finally:
        signal.signal(signal.SIGTERM, before)


class TestRay:
    def test_the_manifest_of_the_local_run_bit_for_bit(
        self, cluster, raw: Path, local: Manifest, tmp_path: Path
    ) -> None:
        seen: list[tuple[int, int]] = []
        manifest = prepare(
            raw, tmp_path / "out", workers="ray", progress=lambda done, total: seen.append((done, total))
        )
        assert seen == [(done, 11) for done in range(12)]
        assert manifest.entries == local.entries
        assert tree(tmp_path / "out") == tree(local.folder)
        assert cluster.is_initialized()  # the caller's cluster is left to the caller

    def test_an_interrupted_run_goes_on(self, cluster, raw: Path, local: Manifest, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        small = shutil.copytree(
            raw, tmp_path / "raw", ignore=shutil.ignore_patterns("people", "silent*", "hush*", "t*")
        )
        with pytest.raises(KeyboardInterrupt):
            prepare(small, tmp_path / "out", workers="ray", progress=stop)
        records = [load_record(path) for path in (tmp_path / "out" / "clips").glob("*.json")]
        assert len(records) >= 2
        assert not (tmp_path / "out" / "manifest.jsonl").exists()
        seen: list[int] = []
        manifest = prepare(small, tmp_path / "out", workers="ray", progress=lambda done, total: seen.append(done))
        assert seen[0] >= 2
        there = {entry.record.path: entry for entry in local.entries}
        assert [there[entry.record.path] for entry in manifest.entries] == list(manifest.entries)

    def test_a_worker_that_dies(self, cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def work(name: str) -> ClipRecord:
            if name == "never" or (name == "later" and not (tmp_path / name).exists()):
                (tmp_path / name).touch()
                os._exit(1)
            return ClipRecord(path=name, name=name, format=RECORD_FORMAT)

        monkeypatch.setattr(ray_workers, "RETRIES", 1)
        done = dict(ray_workers.work_on_ray(work, ["fine", "later", "never"]))
        assert {name: record and record.name for name, record in done.items()} == {
            "fine": "fine", "later": "later", "never": None,
        }  # fmt: skip

    def test_tasks_in_flight_are_bounded(self, cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_workers, "MIN_TASKS", 1)
        monkeypatch.setattr(ray_workers, "TASKS_PER_CORE", 2)
        taken: list[int] = []

        class Jobs(list):
            def __iter__(self):
                for job in list.__iter__(self):
                    taken.append(job)
                    yield job

        ahead = [len(taken) - at for at, _ in enumerate(ray_workers.work_on_ray(lambda job: job, Jobs(range(40))))]
        assert max(ahead) <= 2 * 2
        assert len(taken) == 40

    def test_a_clip_without_a_living_worker_is_tried_again(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_workers, "work_on_ray", lambda work, jobs: ((job, None) for job in jobs))
        manifest = prepare(raw, tmp_path / "out", workers="ray")
        assert all("every worker that took it died" in entry.record.reason for entry in manifest.entries)
        assert not list((tmp_path / "out" / "clips").iterdir())

    def test_without_ray_one_line_says_what_to_install(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "ray", None)
        with pytest.raises(DataError, match=r"pip install 'atldiff\[ray\]'"):
            prepare(raw, tmp_path / "out", workers="ray")
