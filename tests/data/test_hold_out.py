"""One person's footage: recordings in parts, and clips held out so that no moment is on two sides."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors.numpy import load_file

from atldiff import cli
from atldiff.commands.evaluate import _held_out
from atldiff.data import clip
from atldiff.data import prepare as prepare_module
from atldiff.data.clip import ClipRecord
from atldiff.data.hold_out import split_clips, why_empty
from atldiff.data.manifest import Manifest, ManifestEntry, Split
from atldiff.data.parts import (
    GAP_FRAMES,
    LONG_FRAMES,
    PART_FRAMES,
    SHORTEST_CUT_FRAMES,
    SHORTEST_PART_FRAMES,
    Part,
    cut,
    in_parts,
)
from atldiff.data.prepare import prepare
from atldiff.data.sources.raw import RawClip
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import DataError
from atldiff.evaluation.footage import cut_out
from atldiff.evaluation.run import split_entries
from atldiff.landmarks.shape import mean_shape
from atldiff.timebase import FPS, SAMPLE_RATE
from atldiff.video.read import probe, read_frames_at

SIDE = 128
Sides = dict[str, list[ClipRecord]]


class Drawn:
    """A tracker that sees a face in every frame that is not covered or black."""

    def reset(self) -> None:
        pass

    def track(self, frame: np.ndarray) -> np.ndarray | None:
        seen = frame[SIDE // 2, SIDE // 2, 0]
        return None if seen < 5 or seen == 128 else (mean_shape() * 40 + [SIDE / 2, SIDE / 2, 0]).astype(np.float32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "_tracker", Drawn())


def grey(index: int) -> int:
    """Return what frame `index` of a recording is filled with."""
    return 20 + index % 100


def record_video(path: Path, seconds: float, black: range = range(0), rate: int = FPS) -> np.ndarray:
    """Write frames that tell their number, with lossless sound that is nowhere the same; return the sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = round(seconds * rate)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.rint(9000 * np.sin(2 * np.pi * (200 + 5 * time) * time)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "4", "g": "100"}
        stream: Any = container.add_stream("libx264", rate=rate, width=SIDE, height=SIDE, options=options)
        heard: Any = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for index in range(frames):
            level = 0 if index in black else grey(index * FPS // rate)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), level, np.uint8))))
            piece = sound[index * SAMPLE_RATE // rate : (index + 1) * SAMPLE_RATE // rate]
            block = av.AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
            block.sample_rate, block.pts = SAMPLE_RATE, index * SAMPLE_RATE // rate
            container.mux(heard.encode(block))
        for each in (stream, heard):
            container.mux(each.encode(None))
    return sound


def sides(manifest: Manifest) -> Sides:
    return {split.value: [entry.record for entry in manifest.usable(split)] for split in Split if split != Split.NONE}


class TestCut:
    @pytest.mark.parametrize("frames", [*range(SHORTEST_CUT_FRAMES, 800, 7), 1499, 1500, 2000, 15_000, 90_000])
    def test_parts_are_alike_apart_and_all_there_is(self, frames: int) -> None:
        parts = cut(frames)
        assert (parts[0].start, parts[-1].stop) == (0, frames)
        assert all(after.start - before.stop == GAP_FRAMES for before, after in pairwise(parts))
        lengths = [stop - start for start, stop in parts]
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= SHORTEST_PART_FRAMES
        assert len(parts) >= min(6, (frames + 25) // 100)
        if frames >= LONG_FRAMES:
            assert abs(lengths[0] - PART_FRAMES) <= 20

    def test_what_is_too_short_stays_whole(self) -> None:
        assert cut(SHORTEST_CUT_FRAMES - 1) == cut(0) == []
        assert cut(SHORTEST_CUT_FRAMES) == [(0, 75), (100, 175), (200, 275)]

    def test_which_recordings_are_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lengths = {
            "a/1": 500,
            "a/2": 100,
            "b/1": 500,
            "b/2": 500,
            "b/3": 500,
            "c/1": 1500,
            "c/2": 500,
            "d/1": 500,
            "d/2": 0,
        }
        monkeypatch.setattr("atldiff.data.parts.length", lambda path: lengths[str(path)])
        clips = [RawClip(path=Path(name), relative=name) for name in [*lengths]]
        found = {
            name: sum(part.relative == name and part.part is not None for part in in_parts(clips)) for name in lengths
        }
        # Of few short ones, of a long one, and not of several, of what a long one stands beside, or of a broken one.
        assert found == {"a/1": 5, "a/2": 0, "b/1": 0, "b/2": 0, "b/3": 0, "c/1": 6, "c/2": 0, "d/1": 5, "d/2": 0}
        assert sum(part.part is not None for part in in_parts(clips, "mead")) == 6  # one corpus: eight recordings


def whole(path: str) -> ClipRecord:
    return ClipRecord(path=path, name=path)


def parted(path: str, parts: int, seconds: int = 10) -> list[ClipRecord]:
    starts = [index * (seconds + 1) * FPS for index in range(parts)]
    return [ClipRecord(path=path, name=f"{path}{s:06d}", part_start=s, part_stop=s + seconds * FPS) for s in starts]


def split(records: list[ClipRecord], person: str = "p", **settings: Any) -> dict[str, list[str]]:
    found = split_clips(records, {record.name: person for record in records}, **settings)
    assert set(found) == {record.name for record in records}
    return {side.value: sorted(n for n, s in found.items() if s is side) for side in Split if side is not Split.NONE}


class TestSplit:
    @pytest.mark.parametrize(("clips", "val", "test"), [(3, 1, 1), (4, 1, 1), (10, 1, 2), (25, 2, 5), (100, 8, 20)])
    def test_some_of_one_persons_clips(self, clips: int, val: int, test: int) -> None:
        records = [whole(f"a/{index}.mp4") for index in range(clips)]
        found = split(records)
        assert (len(found["val"]), len(found["test"])) == (val, test)
        random = np.random.default_rng(0)
        assert split([records[i] for i in random.permutation(clips)]) == found
        assert found["test"] != sorted(record.name for record in records)[-test:] or clips < 5  # by hash, not by name

    def test_one_and_two_clips(self) -> None:
        assert split([whole("a/1.mp4")]) == {"train": ["a/1.mp4"], "val": [], "test": []}
        found = split([whole("a/1.mp4"), whole("a/2.mp4")])
        assert (len(found["train"]), len(found["val"]), len(found["test"])) == (1, 0, 1)
        assert split([]) == {"train": [], "val": [], "test": []}

    @pytest.mark.parametrize(("parts", "val", "test"), [(3, 1, 1), (6, 1, 1), (10, 1, 2), (60, 5, 12)])
    def test_the_end_of_a_recording(self, parts: int, val: int, test: int) -> None:
        records = parted("a/talk.mp4", parts)
        found = split(records)
        names = [record.name for record in records]
        assert found["test"] == names[-test:]
        assert found["val"] == names[-test - val : -test]
        assert found["train"] == names[: -test - val]

    def test_two_recordings_give_their_ends(self) -> None:
        found = split([*parted("a/1.mp4", 4, 5), *parted("a/2.mp4", 3, 5)])
        assert [name[:7] for name in found["test"]] == ["a/1.mp4", "a/2.mp4"]
        assert len(found["val"]) == 2
        assert len(found["train"]) == 3
        found = split([*parted("a/1.mp4", 2)])  # of the others no face was seen
        assert found["test"] == ["a/1.mp4000275"]
        assert found["val"] == []

    def test_a_long_one_beside_short_ones(self) -> None:
        found = split([*parted("a/long.mp4", 10), whole("a/1.mp4"), whole("a/2.mp4")])
        assert {name[:10] for name in found["test"] + found["val"]} == {"a/long.mp4"}
        found = split([*parted("a/long.mp4", 10), *(whole(f"a/{index}.mp4") for index in range(5))])
        assert len(found["test"]) == 3
        assert len(found["val"]) == 2

    def test_parts_of_a_short_recording_stay_together(self) -> None:
        records = [part for index in range(6) for part in parted(f"a/{index}.mp4", 3, 5)]
        found = split(records)
        assert len(found["test"]) == len(found["val"]) == 3
        for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
            assert not {name[:7] for name in found[one]} & {name[:7] for name in found[other]}

    def test_each_person_gives_some(self) -> None:
        records = [whole(f"a/{person}{index}.mp4") for person in "xyz" for index in range(5)]
        found = split_clips(records, {record.name: record.name[2] for record in records})
        for person in "xyz":
            theirs = [side for name, side in found.items() if name[2] == person]
            assert sorted(theirs) == sorted([Split.TRAIN] * 3 + [Split.VAL, Split.TEST])
        # Looks that change from clip to clip make many people of one: then the corpus's clips are drawn from together.
        found = split_clips(records, {record.name: record.name for record in records})
        assert list(found.values()).count(Split.TEST) == 3

    def test_train_only(self) -> None:
        records = [whole(f"{source}/{index}.mp4") for source in "ab" for index in range(5)]
        found = split_clips(records, {record.name: "p" for record in records}, train_only=["b"])
        assert {side for name, side in found.items() if name.startswith("b")} == {Split.TRAIN}
        assert set(found.values()) == {Split.TRAIN, Split.VAL, Split.TEST}


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every sound for a voice: these recordings hold a sweep, which is nowhere the same."""
    monkeypatch.setattr(clip, "is_heard", lambda voice, levels: True)


@pytest.mark.usefixtures("spoken")
class TestOneRecording:
    SECONDS = 24

    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        self.sound = record_video(tmp_path / "raw" / "talk.mkv", self.SECONDS)
        return tmp_path / "raw"

    def test_its_end_is_held_out(
        self,
        raw: Path,
        tmp_path: Path,
        drawn: None,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        read = []
        original = clip.load_soundtrack
        monkeypatch.setattr(clip, "load_soundtrack", lambda *a, **more: read.append(1) or original(*a, **more))
        manifest = prepare(raw, tmp_path / "out", workers=0, hold_out="clips")
        assert len(read) == 1  # for all parts
        found = sides(manifest)
        assert [len(found[side]) for side in ("train", "val", "test")] == [4, 1, 1]
        ordered = found["train"] + found["val"] + found["test"]
        assert ordered[-1].part_stop == self.SECONDS * FPS
        for before, after in pairwise(ordered):
            assert after.start - (before.start + before.frames) >= GAP_FRAMES
        for entry in manifest.entries:
            record, tensors = entry.record, load_file(manifest.tensors(entry))
            assert record.part == (record.start, record.start + record.frames)
            shown = tensors["windows"].mean(axis=(1, 2, 3))
            wanted = [grey(index) for index in range(record.start, record.start + record.frames)]
            assert np.abs(shown - wanted).max() < 1.5
            heard = self.sound[record.start * 640 : (record.start + record.frames) * 640]
            assert np.abs(tensors["samples"].astype(int) - heard).max() <= 1
        assert len({entry.identity for entry in manifest.entries}) == 1  # though its brightness changes
        assert not caplog.records
        assert Manifest.load(tmp_path / "out") == manifest

    def test_prepare_resumes(self, raw: Path, tmp_path: Path, drawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "out"
        manifest = prepare(raw, out, workers=0, hold_out="clips")
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        kept = prepare_module._work
        monkeypatch.setattr(prepare_module, "_work", lambda job: pytest.fail(f"worked on {job}"))
        assert prepare(raw, out, workers=0, hold_out="clips") == manifest
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
        monkeypatch.setattr(prepare_module, "_work", kept)
        record_video(raw / "talk.mkv", self.SECONDS + 1)  # another recording under its name
        longer = prepare(raw, out, workers=0, hold_out="clips")
        assert longer.entries[-1].record.part_stop == (self.SECONDS + 1) * FPS
        assert all(entry.record.frames == entry.record.part_stop - entry.record.part_start for entry in longer.entries)

    def test_by_default_it_stays_whole(
        self, raw: Path, tmp_path: Path, drawn: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        manifest = prepare(raw, tmp_path / "out", workers=0)
        (entry,) = manifest.entries
        assert (entry.record.part, entry.record.frames) == (None, self.SECONDS * FPS)
        assert [record.getMessage() for record in caplog.records] == [
            "nothing is held out: one person; use --hold-out clips"
        ]

    def test_where_no_face_is_seen(self, tmp_path: Path, drawn: None) -> None:
        record_video(tmp_path / "raw" / "talk.mkv", self.SECONDS, black=range(18 * FPS, 26 * FPS))
        manifest = prepare(tmp_path / "raw", tmp_path / "out", workers=0, hold_out="clips")
        reasons = [entry.record.reason for entry in manifest.entries]
        assert reasons.count("no face found in any frame") >= 1
        found = sides(manifest)
        assert len(found["test"]) == len(found["val"]) == 1
        assert found["test"][0].start > found["val"][0].start > max(record.start for record in found["train"])

    def test_another_frame_rate_and_a_recording_beside_it(self, tmp_path: Path, drawn: None) -> None:
        sound = record_video(tmp_path / "raw" / "talk.mkv", 12, rate=30)
        manifest = prepare(tmp_path / "raw", tmp_path / "out", workers=0, hold_out="clips")
        assert [entry.record.part for entry in manifest.entries] == [Part(0, 84), Part(109, 192), Part(217, 300)]
        for entry in manifest.entries:
            tensors = load_file(manifest.tensors(entry))
            start = entry.record.start
            shown = tensors["windows"].mean(axis=(1, 2, 3))
            assert np.abs(shown - [grey(start + index) for index in range(len(shown))]).max() < 2.5  # of the nearest
            assert np.abs(tensors["samples"].astype(int) - sound[start * 640 :][: 640 * len(shown)]).max() <= 1

    def test_a_part_as_a_video(self, raw: Path, tmp_path: Path) -> None:
        path = cut_out(raw / "talk.mkv", Part(100, 180), tmp_path / "part.mp4")
        frames = list(read_frames_at(path))
        assert len(frames) == 80
        assert np.abs([frame.mean() for frame in frames] - np.array([grey(100 + i) for i in range(80)])).max() < 2
        info = probe(path)
        assert (info.duration_s, info.has_audio) == (Fraction(80, 25), True)

    def test_what_is_held_out_is_said(self, raw: Path, tmp_path: Path, drawn: None) -> None:
        from types import SimpleNamespace

        out = tmp_path / "out"
        prepare(raw, out, workers=0, hold_out="clips")
        said = {side: _held_out(SimpleNamespace(split=side, data=out)) for side in ("train", "val", "test")}  # type: ignore[arg-type]
        assert said == {"train": "nothing", "val": "clips", "test": "clips"}
        made = make_synthetic(tmp_path / "made", people=3, clips=1, frames=16)
        assert _held_out(SimpleNamespace(split="test", data=made.folder)) == "people"  # type: ignore[arg-type]


def test_clips_of_one_person(tmp_path: Path, drawn: None, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(5):
        record_video(tmp_path / "raw" / f"{index}.mkv", 1)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", workers=0)
    assert [len(records) for records in sides(manifest).values()] == [5, 0, 0]
    assert caplog.messages == ["nothing is held out: one person; use --hold-out clips"]
    caplog.clear()
    manifest = prepare(tmp_path / "raw", tmp_path / "out", workers=0, hold_out="clips")
    assert [len(records) for records in sides(manifest).values()] == [3, 1, 1]
    assert not caplog.messages
    again = prepare(tmp_path / "raw", tmp_path / "other", workers=0, hold_out="clips")
    assert again.entries == manifest.entries


@pytest.mark.parametrize(
    ("clips", "line"),
    [
        (1, "nothing is held out: got one clip, expected three or more, or one of 11 s or more"),
        (2, "nothing is held out for val: got 2 clips, expected three or more, or one of 11 s or more"),
    ],
)
def test_too_little_to_hold_out(
    tmp_path: Path, drawn: None, caplog: pytest.LogCaptureFixture, clips: int, line: str
) -> None:
    for index in range(clips):
        record_video(tmp_path / "raw" / f"{index}.mkv", 1)
    prepare(tmp_path / "raw", tmp_path / "out", workers=0, hold_out="clips")
    assert caplog.messages == [line]


def test_a_few_people(tmp_path: Path, drawn: None, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(2):
        record_video(tmp_path / "raw" / "c" / f"{index}.mkv", 1)
    prepare(tmp_path / "raw", tmp_path / "out", workers=0, identity_from="file")
    assert caplog.messages == ["nothing is held out: 2 people, fewer than 5; use --hold-out clips"]
    caplog.clear()
    prepare(tmp_path / "raw", tmp_path / "out", workers=0, train_only=["c"])
    assert not caplog.messages  # that was the wish


def test_speakers_that_a_corpus_holds_out(tmp_path: Path, drawn: None) -> None:
    """One speaker of GRID is on one side by default, whichever that is."""
    for speaker in ("s1", "s3"):
        for index in range(4):
            record_video(tmp_path / "raw" / speaker / f"bbaf{index + 1}n.mkv", 1)
    from atldiff.data.sources import grid

    people = prepare(tmp_path / "raw", tmp_path / "out", source=grid.SOURCE, workers=0)
    assert [len(records) for records in sides(people).values()] == [4, 0, 4]
    clips = prepare(tmp_path / "raw", tmp_path / "out", source=grid.SOURCE, workers=0, hold_out="clips")
    assert [len(records) for records in sides(clips).values()] == [4, 2, 2]
    assert {entry.identity for entry in clips.usable(Split.TEST)} == {"grid/s1", "grid/s3"}


def test_the_command(tmp_path: Path, drawn: None, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    record_video(tmp_path / "my talk" / "talk.mkv", 12)
    assert cli.run(["prepare", "my talk", "-o", "out", "--workers", "0"]) == 0
    said = capsys.readouterr().err
    assert said.count("nothing is held out: one person; use --hold-out clips") == 1
    assert cli.run(["evaluate", "--data", "out"]) == 2
    wanted = f"run `atldiff prepare '{tmp_path}/my talk' -o out --hold-out clips`"
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the split 'test' has no usable clip: one person; {wanted}" in said
    assert cli.run(["prepare", "my talk", "-o", "out", "--workers", "0", "--hold-out", "clips", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {name: split["clips"] for name, split in summary["splits"].items()} == {"train": 1, "val": 1, "test": 1}
    assert cli.run(["prepare", "my talk", "--hold-out", "frames"]) == 2
    with pytest.raises(DataError, match="hold_out: got 'frames', expected people or clips"):
        prepare(tmp_path / "my talk", tmp_path / "out", hold_out="frames")


def test_why_a_split_is_empty(tmp_path: Path) -> None:
    entry = ManifestEntry(ClipRecord(path="s1/a.mpg", name="a", corpus="grid"), "grid/s1", Split.TRAIN)
    manifest = Manifest((entry,), tmp_path)
    assert why_empty(manifest) == f"one person; run `atldiff prepare grid FOLDER -o {tmp_path} --hold-out clips`"
    with pytest.raises(DataError, match="the split 'val' has no usable clip: one person; run"):
        split_entries(manifest, "val")


def test_training_says_that_nothing_validates(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from dataclasses import replace

    from atldiff.config import TRAIN_PRESETS, ATLConfig, GeneratorConfig, RendererConfig
    from atldiff.training.run import train_stage

    manifest = make_synthetic(tmp_path / "data", people=3, clips=1, frames=24)
    tiny = ATLConfig(
        generator=GeneratorConfig(components=4, identity_components=2, width=16, blocks=1),
        renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
    )
    config = replace(TRAIN_PRESETS["debug"], model=tiny, steps=1)
    with caplog.at_level(logging.WARNING):
        train_stage(config, manifest.folder, tmp_path / "run", workers=0)
        assert not [message for message in caplog.messages if "validate" in message]
        alone = Manifest(tuple(manifest.usable(Split.TRAIN)), manifest.folder)
        alone.save()
        train_stage(config, manifest.folder, tmp_path / "alone", workers=0)
    (said,) = [message for message in caplog.messages if "validate" in message]
    assert said.startswith("no clip to validate on, so only training losses are told: one person; run `atldiff prepare")


@pytest.mark.slow
def test_the_whole_way(
    random_model, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One recording of one person: prepared by several processes as by one, trained on, and measured."""
    import copy

    from atldiff.evaluation import report
    from atldiff.pipeline import TalkingHead

    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    head = TalkingHead(copy.deepcopy(random_model), device="cpu", dtype="float32")
    head(examples / "portrait.jpg", examples / "speech.wav", size=256).save(tmp_path / "raw" / "talk.mp4")
    for workers, out in ((2, "prepared"), (0, "alone")):
        assert cli.run(["prepare", "raw", "-o", out, "--hold-out", "clips", "--workers", str(workers)]) == 0
    assert Path("prepared/manifest.jsonl").read_bytes() == Path("alone/manifest.jsonl").read_bytes()
    model = {"generator": {"width": 16, "blocks": 1}, "renderer": {"widths": [16, 32], "blocks": [1, 1]}}
    Path("tiny.json").write_text(json.dumps({"preset": "debug", "steps": 2, "model": model}))
    capsys.readouterr()
    assert cli.run(["train", "tiny.json", "--data", "prepared", "--out", "run", "--workers", "0"]) == 0
    assert "no clip to validate on" not in capsys.readouterr().err
    command = ["evaluate", "--checkpoint", "run/checkpoint", "--data", "prepared", "--preset", "fast"]
    assert cli.run([*command, "--json", "e.json", "--html", "e.html", "--videos", "videos"]) == 0
    result = report.load("e.json")
    (clip,) = result["clips"]
    (entry,) = Manifest.load(Path("prepared")).usable(Split.TEST)
    assert (clip["name"], clip["frames"]) == (entry.record.name, entry.record.frames)
    assert clip["values"]["ground truth"]["psnr"] == "inf"
    assert clip["values"]["real landmarks"]["missing_frames"] == clip["values"]["checkpoint"]["missing_frames"] == 0
    assert result["config"]["held_out"] == "clips"
    names = {path.name.removeprefix(entry.record.name) for path in Path("videos").iterdir()}
    assert names == {".mp4", ".real-landmarks.mp4", ".real.mp4"}
