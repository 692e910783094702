from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from atldiff.data.clip import RECORD_FORMAT, ClipRecord
from atldiff.data.manifest import Manifest, Split
from atldiff.data.prepare import clip_name, prepare
from atldiff.data.sources import SOURCES, crema_d, folder, grid, hdtf, mead
from atldiff.emotions import EMOTIONS
from atldiff.errors import DataError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


class TestMead:
    def test_the_published_layout(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "M003/video/front/angry/level_1/001.mp4",
            "M003/video/front/neutral/level_1/040.mp4",
            "M003/video/left_30/angry/level_1/001.mp4",
            "M003/audio/angry/level_1/001.m4a",
            "part2/W011/video/front/surprised/level_3/012.mp4",
        )
        clips = mead.list_clips(tmp_path)
        assert [(c.speaker, c.emotion, c.intensity) for c in clips] == [
            ("M003", "angry", "level_1"),
            ("M003", "neutral", "level_1"),
            ("W011", "surprised", "level_3"),
        ]
        assert clips[0].relative == "M003/video/front/angry/level_1/001.mp4"
        assert clips[0].path == tmp_path / clips[0].relative
        assert clips[0].audio == tmp_path / "M003/audio/angry/level_1/001.m4a"
        assert clips[1].audio is None
        (side,) = mead.list_clips(tmp_path, "left_30")
        assert side.audio == clips[0].audio

    @pytest.mark.parametrize(
        "path",
        ["M003/front/disgust/level_2/007.mp4", "M003/video/front/disgusted_level_2/007.mp4"],
    )
    def test_other_distributions(self, tmp_path: Path, path: str) -> None:
        (clip,) = mead.list_clips(touch(tmp_path, path))
        assert (clip.speaker, clip.emotion, clip.intensity) == ("M003", "disgusted", "level_2")

    def test_the_folder_of_one_speaker(self, tmp_path: Path) -> None:
        touch(tmp_path, "W009/video/front/sad/level_2/001.mp4", "W009/audio/sad/level_2/001.wav")
        (clip,) = mead.list_clips(tmp_path / "W009")
        assert clip.speaker == "W009"
        assert clip.audio == tmp_path / "W009/audio/sad/level_2/001.wav"

    def test_every_emotion_is_one_of_ours(self, tmp_path: Path) -> None:
        for emotion in EMOTIONS:
            touch(tmp_path, f"M005/video/front/{emotion}/level_1/001.mp4")
        assert {clip.emotion for clip in mead.list_clips(tmp_path)} == set(EMOTIONS)

    def test_what_is_not_mead(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/b.mp4", "M003/video/front/joyful/level_1/001.mp4")
        with pytest.raises(
            DataError, match=r"not laid out as mead: got .*expected .*M003/video/front/angry/level_1/001"
        ):
            mead.list_clips(tmp_path)
        touch(tmp_path, "M003/video/left_30/angry/level_1/001.mp4")
        with pytest.raises(DataError, match="no video of view 'front' of mead; got left_30"):
            mead.list_clips(tmp_path)


class TestCremaD:
    def test_names(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            "VideoFlash/1001_DFA_ANG_XX.flv",
            "VideoFlash/1002_IEO_HAP_LO.flv",
            "VideoFlash/1040_ITH_SAD_X.flv",
            "anywhere/1091_IEO_FEA_HI.mp4",
            "AudioWAV/1001_DFA_ANG_XX.wav",
            "AudioWAV/1040_ITH_SAD_XX.wav",
        )
        clips = crema_d.list_clips(tmp_path)
        assert [(c.speaker, c.emotion, c.intensity, c.audio and c.audio.name) for c in clips] == [
            ("1001", "angry", "", "1001_DFA_ANG_XX.wav"),
            ("1002", "happy", "low", None),
            ("1040", "sad", "", "1040_ITH_SAD_XX.wav"),
            ("1091", "fear", "high", None),
        ]

    def test_emotions(self, tmp_path: Path) -> None:
        for code in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            touch(tmp_path, f"1001_IEO_{code}_MD.mp4")
        clips = crema_d.list_clips(tmp_path)
        assert [c.emotion for c in clips] == ["angry", "disgusted", "fear", "happy", "neutral", "sad"]
        assert {c.intensity for c in clips} == {"medium"}

    def test_strays_are_left_out_aloud(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        touch(tmp_path, "1001_DFA_ANG_XX.mp4", "1001_DFA_JOY_XX.mp4", "holiday.mp4")
        assert [c.relative for c in crema_d.list_clips(tmp_path)] == ["1001_DFA_ANG_XX.mp4"]
        assert "2 videos left out" in caplog.text


class TestGrid:
    @pytest.mark.parametrize(
        "path",
        [
            "s1/bbaf2n.mpg",
            "s1/video/mpg_6000/bbaf2n.mpg",
            "video/s1/bbaf2n.mp4",
            "s1.mpg_vcd/s1/bbaf2n.mpg",
            "s1_processed/bbaf2n.mpg",
            "s1/id1_vcd_bbaf2n.mpg",
        ],
    )
    def test_layouts(self, tmp_path: Path, path: str) -> None:
        (clip,) = grid.list_clips(touch(tmp_path, path))
        assert (clip.speaker, clip.emotion, clip.relative) == ("s1", "", path)

    def test_speakers_in_order(self, tmp_path: Path) -> None:
        touch(tmp_path, "s34/lrbz9s.mpg", "s2/swwp2s.mpg", "s10/pgbi5a.mpg", "s35/bbaf2n.mpg", "s1/introduction.mpg")
        assert [clip.speaker for clip in grid.list_clips(tmp_path)] == ["s10", "s2", "s34"]

    def test_the_better_of_two_sizes(self, tmp_path: Path) -> None:
        touch(tmp_path, "s1/video/mpg_6000/bbaf2n.mpg", "s1/video/mpg_vcd/bbaf2n.mpg", "s1/video/mpg_vcd/bbaf3s.mpg")
        names = [clip.relative for clip in grid.list_clips(tmp_path)]
        assert names == ["s1/video/mpg_6000/bbaf2n.mpg", "s1/video/mpg_vcd/bbaf3s.mpg"]


def test_hdtf_speakers(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "RD_Radio1_000.mp4",
        "RD_Radio10_000.mp4",
        "clips/WDA_BarackObama_000.mp4",
        "clips/WDA_BarackObama_001.mp4",
        "clips/WRA_AdamKinzinger0_000.mp4",
        "clips/WRA_AdamKinzinger1.mp4",
    )
    assert [clip.speaker for clip in hdtf.list_clips(tmp_path)] == [
        "RD_Radio10", "RD_Radio1", "WDA_BarackObama", "WDA_BarackObama", "WRA_AdamKinzinger", "WRA_AdamKinzinger",
    ]  # fmt: skip


def test_any_folder_names_nobody(tmp_path: Path) -> None:
    touch(tmp_path, "b/1.mp4", "a.webm", "a/notes.txt")
    clips = folder.list_clips(tmp_path)
    assert [(c.relative, c.speaker, c.emotion, c.audio) for c in clips] == [
        ("a.webm", "", "", None),
        ("b/1.mp4", "", "", None),
    ]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_folder_of_something_else(source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        source.list_clips(tmp_path / "missing")
    with pytest.raises(DataError, match="no videos found"):
        source.list_clips(tmp_path)
    touch(tmp_path, "holiday/beach.mp4")
    if source.name != "folder":
        with pytest.raises(DataError, match=rf"not laid out as {source.name}: got holiday/beach.mp4 \(1 videos"):
            source.list_clips(tmp_path)


def prepared_without_work(source, raw: Path, out: Path) -> Manifest:
    """Prepare a tree whose every clip has its record already."""
    (out / "clips").mkdir(parents=True)
    for clip in source.list_clips(raw):
        name = clip_name(Path(clip.relative))
        ClipRecord(path=clip.relative, name=name, format=RECORD_FORMAT).save(out / "clips" / f"{name}.json")
    return prepare(raw, out, source=source, workers=0)


class TestSplits:
    trees = {
        "mead": [
            f"{s}/video/front/{e}/level_1/00{i}.mp4"
            for s, e, i in product(["M003", "M005", "W009", "W011", "W029"], ["angry", "happy"], (1, 2))
        ],
        "crema-d": [
            f"VideoFlash/{s}_{t}_SAD_XX.flv" for s, t in product([1001, 1004, 1015, 1050, 1089], ["DFA", "IEO"])
        ],
        "grid": [f"s{s}/bbaf{d}n.mpg" for s, d in product([1, 3, 9, 22, 34], [2, 3])],
        "hdtf": [f"RD_Radio{s}_00{i}.mp4" for s, i in product(range(10), (0, 1))],
    }

    @pytest.mark.parametrize("source", [s for s in SOURCES if s.name != "folder"], ids=lambda s: s.name)
    def test_no_speaker_on_two_sides(self, source, tmp_path: Path) -> None:
        touch(tmp_path / "raw", *self.trees[source.name])
        manifest = prepared_without_work(source, tmp_path / "raw", tmp_path / "out")
        sides: dict[str, set[Split]] = {}
        for entry in manifest.entries:
            assert entry.identity == f"{source.name}/{entry.record.speaker}"
            assert entry.record.source == entry.record.corpus == source.name
            sides.setdefault(entry.record.speaker, set()).add(entry.split)
        assert all(len(side) == 1 for side in sides.values())
        assert {next(iter(side)) for side in sides.values()} == {Split.TRAIN, Split.VAL, Split.TEST}
        if source.test_speakers:
            for speaker, (split,) in sides.items():
                assert (split is Split.TEST) is (speaker in source.test_speakers)
                assert (split is Split.VAL) is (speaker in source.validation_speakers)
        else:
            assert sum(split == {Split.TEST} for split in sides.values()) == 2

    def test_the_manifest_says_what_the_corpus_says(self, tmp_path: Path) -> None:
        touch(tmp_path / "raw", *self.trees["mead"])
        prepared_without_work(mead.SOURCE, tmp_path / "raw", tmp_path / "out")
        records = [entry.record for entry in Manifest.load(tmp_path / "out").entries]
        assert {(r.speaker, r.emotion, r.intensity) for r in records} == set(
            product(["M003", "M005", "W009", "W011", "W029"], ["angry", "happy"], ["level_1"])
        )

    def test_held_out_speakers_are_of_the_corpus_and_apart(self) -> None:
        for source in SOURCES:
            assert not set(source.test_speakers) & set(source.validation_speakers)
        assert len(mead.TEST_SPEAKERS) == 4
        assert all(1001 <= int(s) <= 1091 for s in crema_d.TEST_SPEAKERS + crema_d.VALIDATION_SPEAKERS)
        assert all(1 <= int(s[1:]) <= 34 for s in grid.TEST_SPEAKERS + grid.VALIDATION_SPEAKERS)

    def test_named_people_are_not_guessed(self, tmp_path: Path) -> None:
        touch(tmp_path / "raw", *self.trees["grid"])
        with pytest.raises(DataError, match="grid: names its speakers"):
            prepare(tmp_path / "raw", tmp_path / "out", source=grid.SOURCE, identity_from="folder")
        assert not (tmp_path / "out").exists()
