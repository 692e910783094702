from __future__ import annotations

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atldiff.data.clip import MIN_FRAMES, ClipRecord, longest_run, prepare_clip, thumbnail_matrix
from atldiff.data.identity import EMBEDDINGS_FILE, assign_identities, describe, embed_clips, group, identities_by_face
from atldiff.data.manifest import Manifest, ManifestEntry, Split, split_identities
from atldiff.data.prepare import Job, clip_name, prepare
from atldiff.data.sources.raw import find_videos
from atldiff.data.speech import (
    ClipSpeech,
    coefficients,
    fit_basis,
    fit_identity,
    in_step,
    load_speech,
    point_weights,
)
from atldiff.data.synthetic import make_synthetic
from atldiff.data.windows import (
    MIN_APART_FRAMES,
    SAME_POSE_PX,
    ClipWindows,
    clip_weights,
    crop,
    load_clip,
    pick_reference,
    same_pose,
)
from atldiff.errors import DataError, MediaError
from atldiff.landmarks.detect import FaceTracker
from atldiff.landmarks.rest import lower_face, neutral_shape
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER, OUTER_EYE_CORNERS, POINTS, lip_opening
from atldiff.methods.atl.inputs import NEEDED
from atldiff.video.window import STORED_FACE_SIDE, STORED_WINDOW, WindowGeometry, apply


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=24)


class TestSynthetic:
    def test_layout(self, synthetic: Manifest) -> None:
        assert (synthetic.folder / "manifest.jsonl").is_file()
        assert [len(synthetic.usable(split)) for split in (Split.TRAIN, Split.VAL, Split.TEST)] == [2, 1, 1]
        for entry in synthetic.entries:
            tensors = load_file(synthetic.tensors(entry))
            shapes = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
            for name in ("faces", "mouths"):
                assert shapes.pop(name)[1] == "uint8"  # as many bytes as the pictures need
            assert shapes == {
                "windows": ((24, 96, 96, 3), "uint8"),
                "matrix": ((24, 2, 3), "float32"),
                "points": ((24, 478, 3), "float32"),
                "thumbnail": ((64, 64, 3), "uint8"),
                "mel": ((96, 80), "float16"),
                "levels": ((96, 2), "float16"),
                "samples": ((24 * 640,), "int16"),
                "face_sizes": ((24,), "int32"),
                "mouth_sizes": ((24,), "int32"),
                "face_matrix": ((2, 3), "float32"),
            }
            record = json.loads((synthetic.folder / "clips" / f"{entry.record.name}.json").read_text())
            assert ClipRecord(**record) == entry.record
            assert entry.record.frames == 24

    def test_lips_follow_the_sound(self, synthetic: Manifest) -> None:
        tensors = load_file(synthetic.tensors(synthetic.entries[0]))
        level = tensors["mel"].astype(float)[:, 10:50].mean(axis=1).reshape(24, 4).mean(axis=1)
        assert np.corrcoef(level, lip_opening(tensors["points"]))[0, 1] > 0.8

    def test_is_a_function_of_its_seed(self, synthetic: Manifest, tmp_path: Path) -> None:
        again = make_synthetic(tmp_path / "again", people=1, clips=1, frames=24)
        other = make_synthetic(tmp_path / "other", people=1, clips=1, frames=24, seed=1)
        first, second, third = (load_file(m.tensors(m.entries[0]))["points"] for m in (synthetic, again, other))
        assert np.array_equal(first, second)
        assert not np.array_equal(first, third)


def record(path: str, **fields) -> ClipRecord:
    return ClipRecord(path=path, name=clip_name(Path(path)), **fields)


class TestManifest:
    def test_round_trip(self, tmp_path: Path) -> None:
        entries = (
            ManifestEntry(record("grid/a b.mp4", frames=20, yaw_deg=-3.5, sync=0.4, lag_frames=-2), "p", Split.TEST),
            ManifestEntry(record("名前.mp4", reason='no "face"\nfound'), "", Split.NONE),
        )
        manifest = Manifest(entries, tmp_path)
        manifest.save()
        assert Manifest.load(tmp_path) == manifest
        assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.jsonl"]

    def test_usable_leaves_rejected_ones_out(self, tmp_path: Path) -> None:
        good = ManifestEntry(record("a/1.mp4"), "p", Split.TRAIN)
        bad = ManifestEntry(record("a/2.mp4", reason="no face"), "p", Split.TRAIN)
        assert Manifest((good, bad), tmp_path).usable(Split.TRAIN) == [good]

    def test_source_is_the_first_folder(self) -> None:
        assert record("grid/s1/x.mp4").source == "grid"
        assert record("x.mp4").source == ""

    def lines(self, tmp_path: Path) -> list[str]:
        Manifest((ManifestEntry(record("a/1.mp4"), "p", Split.TRAIN),) * 3, tmp_path).save()
        return (tmp_path / "manifest.jsonl").read_text().splitlines()

    @pytest.mark.parametrize(
        "change",
        [
            lambda fields: fields.update(wings=2),
            lambda fields: fields.pop("identity"),
            lambda fields: fields.pop("split"),
            lambda fields: fields.pop("path"),
            lambda fields: fields.update(split="exam"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, change) -> None:
        lines = self.lines(tmp_path)
        fields = json.loads(lines[1])
        change(fields)
        lines[1] = json.dumps(fields)
        (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
        with pytest.raises(DataError, match=r"manifest\.jsonl line 2: .*run `atldiff prepare` again"):
            Manifest.load(tmp_path)

    @pytest.mark.parametrize("text", ["{", "", "[]", '["a"]'])
    def test_a_line_that_is_no_object_is_named(self, tmp_path: Path, text: str) -> None:
        lines = self.lines(tmp_path)
        (tmp_path / "manifest.jsonl").write_text("\n".join([lines[0], text, lines[2]]))
        with pytest.raises(DataError, match="line 2:"):
            Manifest.load(tmp_path)

    @pytest.mark.parametrize("content", [b"5\n", b"null\n", b'"text"\n', b"\xff\xfe\n"])
    def test_content_of_another_kind(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "manifest.jsonl").write_bytes(content)
        with pytest.raises(DataError, match=r"manifest\.jsonl"):
            Manifest.load(tmp_path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no manifest\.jsonl; expected a folder made by `atldiff prepare`"):
            Manifest.load(tmp_path)


class TestSplit:
    def corpus(self, people: int, clips: int, source: str = "grid") -> tuple[list[ClipRecord], dict[str, str]]:
        records = [record(f"{source}/{p}/{c}.mp4") for p in range(people) for c in range(clips)]
        return records, {r.name: r.path.rpartition("/")[0] for r in records}

    def test_people_are_whole_and_shares_are_kept(self) -> None:
        records, identities = self.corpus(50, 3)
        splits = split_identities(records, identities)
        assert set(splits) == set(identities.values())
        counts = {split: list(splits.values()).count(split) for split in Split}
        assert counts == {Split.TRAIN: 36, Split.VAL: 4, Split.TEST: 10, Split.NONE: 0}

    def test_depends_on_names_alone(self) -> None:
        records, identities = self.corpus(30, 2)
        shuffled = [records[i] for i in np.random.default_rng(0).permutation(len(records))]
        assert split_identities(shuffled, identities) == split_identities(records, identities)

    def test_sources_are_balanced_apart(self) -> None:
        first, first_identities = self.corpus(10, 2, "a")
        second, second_identities = self.corpus(20, 1, "b")
        both = split_identities(first + second, first_identities | second_identities)
        assert both == split_identities(first, first_identities) | split_identities(second, second_identities)

    def test_train_only_sources_are_not_held_out(self) -> None:
        records, identities = self.corpus(20, 2, "news")
        assert set(split_identities(records, identities, {"news"}).values()) == {Split.TRAIN}
        assert Split.TEST in split_identities(records, identities, {"other"}).values()

    def test_five_people_give_one_of_each(self) -> None:
        records, identities = self.corpus(5, 1)
        assert sorted(split_identities(records, identities).values()) == sorted(
            [Split.TRAIN] * 3 + [Split.VAL, Split.TEST]
        )
        records, identities = self.corpus(2, 1)
        assert set(split_identities(records, identities).values()) == {Split.TRAIN}

    def test_a_person_who_is_most_of_a_source_trains(self) -> None:
        records, identities = self.corpus(30, 1)
        many = [record(f"grid/star/{c}.mp4") for c in range(40)]
        splits = split_identities(records + many, identities | {r.name: "grid/star" for r in many})
        assert splits["grid/star"] is Split.TRAIN

    def test_nothing(self) -> None:
        assert split_identities([], {}) == {}


def face_picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_NEAREST)


class TestIdentity:
    @pytest.fixture
    def clips(self, tmp_path: Path) -> tuple[list[ClipRecord], Path]:
        """Three people of one source with two clips each, and one of them in another source too."""
        random = np.random.default_rng(0)
        records = []
        for source, person, clip in [("a", p, c) for p in range(3) for c in range(2)] + [("b", 0, 0)]:
            item = record(f"{source}/{person}-{clip}.mp4")
            noisy = np.clip(face_picture(person).astype(int) + random.integers(-6, 7, (64, 64, 3)), 0, 255)
            save_file({"thumbnail": noisy.astype(np.uint8)}, tmp_path / f"{item.name}.safetensors")
            records.append(item)
        return records, tmp_path

    def test_alike_thumbnails_are_one_person(self, clips: tuple[list[ClipRecord], Path]) -> None:
        records, folder = clips
        identities = assign_identities(records, folder, "appearance")
        assert set(identities) == {r.name for r in records}
        by_path = {r.path: identities[r.name] for r in records}
        for person in range(3):
            assert by_path[f"a/{person}-0.mp4"] == by_path[f"a/{person}-1.mp4"]
        assert len(set(by_path.values())) == 4  # and the other source's is apart
        assert by_path["a/0-0.mp4"].startswith("a/")
        assert by_path["b/0-0.mp4"].startswith("b/")

    def test_more_people_rename_nobody(self, clips: tuple[list[ClipRecord], Path]) -> None:
        records, folder = clips
        some = assign_identities(records[2:4], folder, "appearance")
        everyone = assign_identities(records, folder, "appearance")
        assert {name: everyone[name] for name in some} == some

    def test_by_folder_and_by_file(self, tmp_path: Path) -> None:
        records = [record("a/x/1.mp4"), record("a/x/2.mp4"), record("a/y/1.mp4")]
        assert list(assign_identities(records, tmp_path, "folder").values()) == ["a/x", "a/x", "a/y"]
        assert list(assign_identities(records, tmp_path, "file").values()) == [r.path for r in records]

    def test_no_clips(self, tmp_path: Path) -> None:
        assert assign_identities([], tmp_path, "appearance") == {}

    def test_group_is_single_linkage(self) -> None:
        features = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [30.0]])
        groups = group(features, 1.5)
        assert groups[0] == groups[1] == groups[2]  # a chain joins
        assert groups[3] == groups[4]
        assert len(set(groups)) == 3
        assert list(group(features[:1], 1.5)) == [0]
        assert len(group(features[:0], 1.5)) == 0

    def test_description_sees_colour_and_place(self) -> None:
        face = face_picture(0)
        assert describe(face).shape == (768,)
        assert np.array_equal(describe(face), describe(face.copy()))
        assert np.linalg.norm(describe(face) - describe(face[:, ::-1])) > 1.5
        assert np.linalg.norm(describe(face) - describe(face[..., ::-1])) > 1.5


def face_at(x: float) -> np.ndarray:
    points = mean_shape() * 50
    points[:, 0] += x
    return points


class TestLongestRun:
    def test_whole_and_none(self) -> None:
        assert longest_run([face_at(0)] * 7) == (0, 7)
        assert longest_run([None] * 4) == (0, 0)
        assert longest_run([]) == (0, 0)

    def test_between_lost_faces(self) -> None:
        face = face_at(0)
        assert longest_run([face, face, None, face, face, face, None, face]) == (3, 6)
        assert longest_run([None, face, face]) == (1, 3)
        assert longest_run([face, face, None]) == (0, 2)
        assert longest_run([face, None, face]) == (0, 1)  # the first of equals

    def test_a_jump_is_a_cut_and_a_drift_is_not(self) -> None:
        jump = [face_at(0)] * 3 + [face_at(30)] * 5  # eyes are 50 px apart
        assert longest_run(jump) == (3, 8)
        assert longest_run([*jump, face_at(0)]) == (3, 8)
        assert longest_run([face_at(20.0 * t) for t in range(9)]) == (0, 9)

    def test_a_face_that_comes_back_elsewhere_is_no_cut(self) -> None:
        points = [face_at(0)] * 2 + [None] + [face_at(400)] * 4
        assert longest_run(points) == (3, 7)

    def test_against_a_plain_search(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(60):
            places = np.where(random.random(25) < 0.25, 100.0, 0.0).cumsum()
            points = [None if random.random() < 0.12 else face_at(x) for x in places]
            best = (0, 0)
            for start in range(25):
                for stop in range(start + 1, 26):
                    part = points[start:stop]
                    whole = all(p is not None for p in part) and len(set(places[start:stop])) == 1
                    if whole and stop - start > best[1] - best[0]:
                        best = (start, stop)
            assert longest_run(points) == best


class TestNames:
    def test_are_readable_flat_and_unique(self) -> None:
        paths = ["a/b.mp4", "a-b.mp4", "a/b.mov", "b.mp4", "A/b.mp4", "x" * 200 + "1.mp4", "x" * 200 + "2.mp4"]
        names = [clip_name(Path(path)) for path in paths]
        assert len(set(names)) == len(paths)
        assert names[0].startswith("a-b-")
        for name in names:
            assert "/" not in name
            assert len(f".{name}.safetensors.partial") < 255
        assert clip_name(Path("a/b.mp4")) == names[0]

    def test_fit_a_file_system_in_any_script(self) -> None:
        name = clip_name(Path("说" * 60) / ("话" * 60 + ".mp4"))
        assert len(f".{name}.safetensors.partial".encode()) <= 255


@pytest.fixture(scope="module")
def clip(synthetic: Manifest) -> ClipWindows:
    return load_clip(synthetic, synthetic.entries[0], NEEDED)


class TestWindows:
    def test_points_are_in_stored_window_pixels(self, synthetic: Manifest, clip: ClipWindows) -> None:
        assert len(clip) == 24
        assert clip.points.shape == (24, len(NEEDED), 2)
        assert clip.rigid.shape == (24, 13, 2)
        lips = clip.points[:, np.searchsorted(NEEDED, LIPS_INNER)].mean(axis=1)
        assert np.abs(lips - (np.array([64, 58]) - STORED_WINDOW.origin)).max() < 12
        tensors = load_file(synthetic.tensors(synthetic.entries[0]))
        placed = apply(tensors["matrix"][5], tensors["points"][5, NEEDED, :2])
        assert np.allclose(clip.points[5], placed, atol=1e-3)

    def test_windows_are_read_in_any_order(self, synthetic: Manifest, clip: ClipWindows) -> None:
        windows = load_file(synthetic.tensors(synthetic.entries[0]))["windows"]
        for frames in ([3], [3, 4, 5, 6], [9, 2, 2, 17], [23]):
            assert np.array_equal(clip.windows(np.array(frames)), windows[frames])

    @pytest.mark.parametrize("frames", [[5, 4, 3], [3, 3, 5]])
    def test_windows_that_only_look_like_neighbours(
        self, synthetic: Manifest, clip: ClipWindows, frames: list[int]
    ) -> None:
        windows = load_file(synthetic.tensors(synthetic.entries[0]))["windows"]
        assert np.array_equal(clip.windows(np.array(frames)), windows[frames])

    def dotted(self, tmp_path: Path) -> tuple[ClipWindows, np.ndarray]:
        """A clip of black windows with one white pixel a frame, on the one landmark there is."""
        dots = np.random.default_rng(0).integers(25, 70, (6, 2))
        windows = np.zeros((6, 96, 96, 3), np.uint8)
        windows[np.arange(6), dots[:, 1], dots[:, 0]] = 255
        save_file({"windows": windows}, tmp_path / "dots.safetensors")
        points = dots[:, None].astype(np.float32)
        rigid = np.zeros((6, 13, 2), np.float32)
        return ClipWindows("dots", "", "p", tmp_path / "dots.safetensors", points, rigid, np.ones(6, np.float32)), dots

    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("jitter", [(0, 0), (3, -2), (-3, 1), (100, -100)])
    def test_a_landmark_stays_on_its_dot(self, tmp_path: Path, jitter: tuple[int, int], flip: bool) -> None:
        clip, _ = self.dotted(tmp_path)
        frames = np.array([4, 1, 2, 3])
        geometry = WindowGeometry(80, (24, 26))
        images, source, target = crop(clip, frames, geometry, np.array(jitter), flip=flip)
        assert images.shape == (4, 80, 80, 3)
        assert source.shape == (1, 2)
        assert target.shape == (3, 1, 2)
        for image, (point,) in zip(images, [source, *target], strict=True):
            rows, columns = np.nonzero(image[..., 0])
            assert (columns[0], rows[0]) == tuple(point)

    def test_a_crop_without_jitter_is_the_renderer_s_window(self, tmp_path: Path) -> None:
        clip, dots = self.dotted(tmp_path)
        _, source, _ = crop(clip, np.array([2, 3]), WindowGeometry(80, (24, 26)), np.zeros(2, int), flip=False)
        assert np.array_equal(source[0], dots[2] + STORED_WINDOW.origin - np.array([24, 26]))

    def test_flip_mirrors(self, tmp_path: Path) -> None:
        clip, _ = self.dotted(tmp_path)
        plain, flipped = (
            crop(clip, np.array([2, 3]), WindowGeometry(80, (24, 26)), np.zeros(2, int), flip=f)[0]
            for f in (False, True)
        )
        assert np.array_equal(flipped, plain[:, :, ::-1])

    def turning(self, tmp_path: Path) -> ClipWindows:
        """A head that turns away half way through; the mouth is most closed in every fifth frame."""
        rigid = np.zeros((40, 13, 2), np.float32)
        rigid[20:] += 10
        opening = np.where(np.arange(40) % 5 == 0, 1.0, 8.0).astype(np.float32)
        return ClipWindows("t", "", "p", tmp_path / "t", np.zeros((40, 1, 2), np.float32), rigid, opening)

    def test_references_share_the_pose_and_lie_apart(self, tmp_path: Path) -> None:
        clip = self.turning(tmp_path)
        random = np.random.default_rng(0)
        for frame in (0, 10, 19, 20, 39):
            drawn = np.array([pick_reference(clip, frame, random) for _ in range(60)])
            assert (np.abs(drawn - frame) >= MIN_APART_FRAMES).all()
            assert ((drawn < 20) == (frame < 20)).all()
            assert len(set(drawn)) > 5
            closed = np.mean(clip.opening[drawn] < 2)
            assert 0.25 < closed < 0.85  # a fifth by chance alone, and CLOSED_SHARE on purpose

    def test_wide_open_references_are_drawn_on_purpose(self, tmp_path: Path) -> None:
        clip = self.turning(tmp_path)
        clip = replace(clip, opening=np.where(np.arange(40) == 10, 30.0, clip.opening).astype(np.float32))
        random = np.random.default_rng(0)
        drawn = np.array([pick_reference(clip, 0, random) for _ in range(400)])
        # A sixteenth of the frames by chance; a third of the widest fifth, one draw in five.
        assert np.mean(drawn == 10) > 0.08

    def test_the_nearest_pose_where_none_is_near(self, tmp_path: Path) -> None:
        clip = self.turning(tmp_path)
        lonely = replace(
            clip, rigid=np.arange(40, dtype=np.float32)[:, None, None] * SAME_POSE_PX + np.zeros((1, 13, 2))
        )
        assert list(same_pose(lonely, 10)) == [10 - MIN_APART_FRAMES]

    def test_people_count_by_the_square_root_of_their_clips(self, tmp_path: Path) -> None:
        base = self.turning(tmp_path)
        people = ["1", "1", "1", "1", "2", "3", "3"]
        weights = clip_weights([replace(base, identity=person) for person in people])
        assert weights.sum() == pytest.approx(1)
        assert weights[0] == weights[3] == pytest.approx(weights[4] / 2)
        share = {p: sum(w for w, q in zip(weights, people, strict=True) if p == q) for p in "123"}
        assert share["1"] / share["2"] == pytest.approx(2)
        assert share["3"] / share["2"] == pytest.approx(2**0.5)


def make_speech(displacements: np.ndarray, **fields) -> ClipSpeech:
    frames = len(displacements)
    settings = {"name": "n", "source": "s", "identity": "p", "sync": 1.0, "lag_frames": 0, **fields}
    mel = np.repeat(np.arange(frames, dtype=np.float32), 4)[:, None] + np.zeros((1, 80), np.float32)
    return ClipSpeech(mel=mel, neutral=mean_shape().astype(np.float32), displacements=displacements, **settings)


class TestSpeech:
    def test_basis_reconstructs_a_low_rank_set(self) -> None:
        random = np.random.default_rng(0)
        directions = random.normal(0, 0.02, (5, POINTS, 3)) * lower_face()[:, None]
        amounts = [random.normal(size=(60, 5)) * [3, 2, 1.5, 1, 0.7] for _ in range(2)]
        clips = [make_speech(np.einsum("tm,mkd->tkd", a, directions).astype(np.float32)) for a in amounts]
        basis, scale, share = fit_basis(clips, 5, np.array([1.0, 2.0]))
        assert basis.shape == (5, POINTS, 3)
        assert basis.dtype == scale.dtype == np.float32
        assert share == pytest.approx(1, abs=1e-6)
        assert (np.diff(scale) <= 0).all()
        weighted = (basis * point_weights()).reshape(5, -1)
        assert np.allclose(weighted @ weighted.T, np.eye(5), atol=1e-4)
        assert not basis[:, lower_face() == 0].any()
        for clip in clips:
            units = coefficients(clip, basis, scale)
            assert units.shape == (60, 5)
            rebuilt = np.einsum("tm,mkd->tkd", units * scale, basis)
            assert np.abs(rebuilt - clip.displacements).max() < 1e-3
        # The coefficients are in standard deviations, clips counting by their weights.
        squares = [np.square(coefficients(c, basis, scale)[::4]).mean(axis=0) for c in clips]
        assert np.allclose((squares[0] + 2 * squares[1]) / 3, 1, atol=1e-3)

    def test_identity_numbers_have_unit_variance(self) -> None:
        random = np.random.default_rng(1)
        shapes = mean_shape() + np.einsum(
            "pm,mkd->pkd", random.normal(size=(12, 3)), random.normal(0, 0.05, (3, 478, 3))
        )
        mean, basis = fit_identity(shapes, 5)
        numbers = np.einsum("pkd,ikd->pi", shapes - mean, basis)
        assert np.allclose(numbers[:, :3].std(axis=0, ddof=1), 1, atol=1e-3)
        assert np.allclose(numbers.mean(axis=0), 0, atol=1e-4)
        assert not basis[3:].any()  # there are three ways to differ
        assert not fit_identity(shapes[:1], 4)[1].any()

    def test_in_step(self) -> None:
        displacements = np.zeros((10, POINTS, 3), np.float32)
        displacements[:, 0, 0] = np.arange(10)
        clip = make_speech(displacements, lag_frames=3)
        assert in_step(clip, 0) is clip
        for shift in (3, -2):
            moved = in_step(clip, shift)
            assert len(moved) == 10 - abs(shift)
            assert len(moved.mel) == 4 * len(moved)
            heard, seen = moved.mel[::4, 0], moved.displacements[:, 0, 0]
            assert (seen - heard == shift).all()  # a mouth `shift` frames late now meets its sound
            assert moved.lag_frames == 3 - shift

    def test_neutral_is_the_closed_mouth(self) -> None:
        shapes = np.repeat(mean_shape()[None], 40, 0)
        lower = LIPS_INNER[11:]
        shapes[:, lower, 1] += np.where(np.arange(40) < 30, 0.2, 0.0)[:, None]
        assert np.allclose(neutral_shape(shapes), mean_shape())

    def test_lower_face(self) -> None:
        weight = lower_face()
        assert weight.shape == (POINTS,)
        assert weight.min() == 0
        assert weight.max() == 1
        assert (weight[LIPS_INNER] == 1).all()
        assert not weight[OUTER_EYE_CORNERS].any()
        assert not weight[468:].any()

    def test_load_speech(self, synthetic: Manifest, tmp_path: Path) -> None:
        clip = load_speech(synthetic, synthetic.entries[0])
        assert clip is not None
        assert clip.mel.shape == (96, 80)
        assert clip.mel.dtype == clip.displacements.dtype == np.float32
        assert clip.displacements.shape == (24, POINTS, 3)
        assert np.linalg.norm(np.diff(clip.neutral[OUTER_EYE_CORNERS], axis=0)) == pytest.approx(1, abs=0.1)
        opening = lip_opening(clip.neutral + clip.displacements)
        assert opening.max() > opening.min() + 0.1  # the synthetic mouth opens by 0.16
        entry = synthetic.entries[0]
        tensors = load_file(synthetic.tensors(entry))
        del tensors["mel"]
        mute = Manifest((entry,), tmp_path)
        (tmp_path / "clips").mkdir()
        save_file(tensors, mute.tensors(entry))
        assert load_speech(mute, entry) is None


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25), bit_rate=4_000_000)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


FRAMES = 20

Folders = tuple[Path, Path, Manifest]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Folders:
    """Five raw files, one of them usable, the prepared folder and its manifest."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("out")
    (raw / "people").mkdir()
    (raw / "text.mp4").write_text("I am no video.\n")
    (raw / "empty.mp4").touch()
    (raw / "notes.txt").write_text("not looked at")
    write_video(raw / "wall.mp4", [np.full((120, 160, 3), 60 + 5 * t, np.uint8) for t in range(18)])
    picture = cv2.cvtColor(cv2.imread(str(examples / "portrait.jpg")), cv2.COLOR_BGR2RGB)
    moving = [np.roll(picture, (t // 2, t), axis=(0, 1)) for t in range(FRAMES)]
    write_video(raw / "people" / "anna.mp4", moving)
    write_video(raw / "people" / "short.mp4", moving[: MIN_FRAMES - 4])
    return raw, out, prepare(raw, out, workers=0)


class TestPrepare:
    def test_every_file_has_a_verdict(self, folders: Folders) -> None:
        raw, out, manifest = folders
        by_path = {entry.record.path: entry for entry in manifest.entries}
        assert set(by_path) == {"text.mp4", "empty.mp4", "wall.mp4", "people/anna.mp4", "people/short.mp4"}
        for path in ("text.mp4", "empty.mp4"):
            assert by_path[path].record.reason.startswith("video ")
            assert path in by_path[path].record.reason
        assert by_path["wall.mp4"].record.reason == "no face found in any frame"
        assert by_path["people/short.mp4"].record.reason.startswith(f"too short: {MIN_FRAMES - 4} frames")
        for path, entry in by_path.items():
            usable = path == "people/anna.mp4"
            assert (entry.record.reason == "") is usable
            assert (entry.split is Split.NONE) is not usable
            assert (entry.identity == "") is not usable
            assert manifest.tensors(entry).exists() is usable
            assert "\n" not in entry.record.reason
            assert (out / "clips" / f"{entry.record.name}.json").exists()
        assert Manifest.load(out) == manifest
        assert not list(out.rglob("*.partial"))

    def test_the_usable_clip(self, folders: Folders) -> None:
        manifest = folders[2]
        (entry,) = manifest.usable(Split.TRAIN)
        tensors = load_file(manifest.tensors(entry))
        pictures = {"windows", "matrix", "points", "thumbnail", "faces", "face_sizes", "face_matrix"}
        pictures |= {"mouths", "mouth_sizes"}
        assert set(tensors) == pictures  # there is no sound
        assert entry.record.note.startswith("silent: no sound")
        assert entry.record.frames == len(tensors["windows"]) == FRAMES
        assert entry.record.sync == 0
        assert abs(entry.record.yaw_deg) < 20
        centre = tensors["points"][:, :468, :2].mean(axis=1)
        assert np.allclose(centre[-1] - centre[0], [FRAMES - 1, (FRAMES - 1) // 2], atol=2)
        # The window is stabilised: the face stands still in it, and so do its pixels.
        steady = np.abs(tensors["windows"][8].astype(int) - tensors["windows"][4]).mean()
        assert steady < 6
        placed = apply(tensors["matrix"].astype(float), tensors["points"][..., :2].astype(float))
        assert np.abs(placed[5:15] - placed[5:15].mean(axis=0)).max() < 2
        assert tensors["thumbnail"].std() > 20
        stops = tensors["face_sizes"].cumsum()
        assert len(stops) == FRAMES
        assert stops[-1] == len(tensors["faces"])
        last = cv2.imdecode(tensors["faces"][stops[-2] :], cv2.IMREAD_COLOR)[..., ::-1]
        assert last.shape == (STORED_FACE_SIDE, STORED_FACE_SIDE, 3)
        # The whole-face window stands still over the clip, with the face in its middle on the average.
        middle = apply(tensors["face_matrix"], np.median(tensors["points"][:, :468, :2], axis=(0, 1)))
        assert np.abs(middle - STORED_FACE_SIDE / 2).max() < 20

    def test_a_second_run_does_nothing(self, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
        raw, out, manifest = folders
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

        def refuse(job: Job) -> ClipRecord:
            raise AssertionError(f"worked on {job}")

        monkeypatch.setattr("atldiff.data.prepare._work", refuse)
        seen: list[tuple[int, int]] = []
        again = prepare(raw, out, workers=0, progress=lambda done, total: seen.append((done, total)))
        assert again == manifest
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
        assert seen == [(5, 5)]

    def test_rejected_videos_belong_to_no_split_whatever_the_identity(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw, out, _ = folders
        for identity_from in ("folder", "file"):
            manifest = prepare(raw, out, workers=0, identity_from=identity_from)
            for entry in manifest.entries:
                assert (entry.split is Split.NONE) is bool(entry.record.reason)

    def test_only_a_new_video_is_worked_on(self, folders: Folders, tmp_path: Path) -> None:
        raw, out, _ = folders
        (raw / "late.mp4").touch()
        try:
            seen: list[tuple[int, int]] = []
            manifest = prepare(raw, out, workers=0, progress=lambda done, total: seen.append((done, total)))
            assert seen == [(5, 6), (6, 6)]
            assert len(manifest.entries) == 6
        finally:
            (raw / "late.mp4").unlink()
            for path in (out / "clips").glob("late-*"):
                path.unlink()

    def test_what_cannot_be_prepared(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="not a folder"):
            find_videos(tmp_path / "missing")
        with pytest.raises(DataError, match=r"no videos found; expected files such as .*\.mp4"):
            find_videos(tmp_path)
        (tmp_path / "a.mp4").touch()
        with pytest.raises(
            DataError, match="identity_from: got 'voice', expected speaker, appearance, face, folder, file"
        ):
            prepare(tmp_path, tmp_path / "out", identity_from="voice")

    def test_videos_are_found_in_order_and_by_suffix(self, tmp_path: Path) -> None:
        for name in ("b.MP4", "a/z.webm", "a/b/c.mov", "a/x.wav", "d.mp4.part"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "folder.mp4").mkdir()
        found = [os.path.relpath(path, tmp_path) for path in find_videos(tmp_path)]
        assert found == ["a/b/c.mov", "a/z.webm", "b.MP4"]

    def test_a_top_level_usable_clip_does_not_adopt_the_rejected(self, folders: Folders, tmp_path: Path) -> None:
        """By folder, videos of the top level are one person; the rejected ones beside them still are nobody's."""
        raw, out, manifest = folders
        (entry,) = manifest.usable(Split.TRAIN)
        top = tmp_path / "raw"
        (tmp_path / "out" / "clips").mkdir(parents=True)
        top.mkdir()
        for name, reason in (("good.mp4", ""), ("bad.mp4", "no face")):
            (top / name).touch()
            replace(entry.record, path=name, name=clip_name(Path(name)), reason=reason).save(
                tmp_path / "out" / "clips" / f"{clip_name(Path(name))}.json"
            )
        made = prepare(top, tmp_path / "out", workers=0, identity_from="folder")
        splits = {e.record.path: e.split for e in made.entries}
        assert splits == {"good.mp4": Split.TRAIN, "bad.mp4": Split.NONE}


def test_thumbnail_shows_the_whole_face() -> None:
    for scale, shift in ((40.0, 100.0), (300.0, 900.0)):
        points = mean_shape() * scale + shift
        placed = apply(thumbnail_matrix(points), points[:468, :2])
        assert placed.min() > 0
        assert placed.max() < 64
        assert np.ptp(placed[:, 1]) > 30


def unit(*angles_deg: float) -> list[np.ndarray]:
    return [np.array([np.cos(a), np.sin(a)], np.float32) for a in np.radians(angles_deg)]


class TestIdentitiesByFace:
    records = tuple(ClipRecord(path=f"{name[0]}/{name}.mp4", name=name) for name in ("a1", "a2", "b1", "b2", "c1"))

    def test_people_are_found_over_sources(self) -> None:
        """a1 and b1 are one person; a2 and c1 are joined by b2 between them."""
        directions = unit(0, 180, 10, 150, 120)
        embeddings = {record.name: d for record, d in zip(self.records, directions, strict=True)}
        named = identities_by_face(self.records, embeddings)
        assert named == {"a1": "a/a1", "b1": "a/a1", "a2": "a/a2", "b2": "a/a2", "c1": "a/a2"}

    def test_who_is_seen_in_two_sources_is_not_held_out(self) -> None:
        records = [ClipRecord(path=f"{s}/{i}.mp4", name=f"{s}{i}") for s in "ab" for i in range(10)]
        shared = {"a3", "b7"}
        identities = {r.name: "both" if r.name in shared else r.name for r in records}
        splits = split_identities(records, identities)
        assert splits["both"] is Split.TRAIN
        assert sum(split is Split.TEST for split in splits.values()) == 4
        assert not {splits[r.name] for r in records if r.source == "b" and r.name not in shared} <= {Split.TRAIN}
        alone = split_identities(records, identities, train_only=["b"])
        assert {alone[identities[r.name]] for r in records if r.source == "b"} == {Split.TRAIN}


class Glimpse:
    """An embedder that remembers what it was shown; the direction is the frame's mean colour."""

    def __init__(self) -> None:
        self.seen = 0

    def embed(self, frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        assert points.shape == (478, 3)
        self.seen += 1
        colour = frame.mean(axis=(0, 1))
        return colour / np.linalg.norm(colour)


class TestEmbedClips:
    def test_three_frames_a_clip_and_never_twice(self, talking: Path, tmp_path: Path) -> None:
        (tmp_path / "clips").mkdir()
        with FaceTracker() as tracker:
            record = prepare_clip(talking, talking.name, "t", tmp_path / "clips", tracker)
        embedder = Glimpse()
        first = embed_clips([record], talking.parent, tmp_path, embedder, "glimpse")  # type: ignore[arg-type]
        assert embedder.seen == 3
        assert np.linalg.norm(first["t"]) == pytest.approx(1)
        assert (tmp_path / EMBEDDINGS_FILE).is_file()
        again = embed_clips([record], talking.parent, tmp_path, embedder, "glimpse")  # type: ignore[arg-type]
        assert embedder.seen == 3
        assert np.array_equal(first["t"], again["t"])
        embed_clips([record], talking.parent, tmp_path, embedder, "other")  # type: ignore[arg-type]
        assert embedder.seen == 6

    def test_a_raw_video_that_is_gone(self, talking: Path, tmp_path: Path) -> None:
        (tmp_path / "clips").mkdir()
        with FaceTracker() as tracker:
            record = prepare_clip(talking, talking.name, "t", tmp_path / "clips", tracker)
        with pytest.raises(MediaError, match="gone since it was prepared"):
            embed_clips([record], tmp_path, tmp_path, Glimpse(), "glimpse")  # type: ignore[arg-type]
