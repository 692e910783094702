"""Landmarks that users give: of known faces, so that what is lifted from a few can be compared with all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from atldiff import cli
from atldiff.landmarks.geometry import euler_degrees, rotation_from_euler, to_canonical
from atldiff.landmarks.given import average_face, lift
from atldiff.landmarks.points_file import read_points, write_points
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import IRIS_LEFT, IRIS_RIGHT, LIPS, SIXTY_EIGHT, lip_opening
from atldiff.methods.portrait import open_portrait

if TYPE_CHECKING:
    from collections.abc import Callable

    from atldiff.types import Portrait

SIZE = (400, 400)


@pytest.fixture(scope="module")
def face(examples: Path) -> Portrait:
    return open_portrait(examples / "portrait.jpg")


def sixty_eight(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    turned = mean_shape() @ rotation_from_euler(*map(np.array, (yaw, pitch, roll))).T
    return (100 * turned + 200)[SIXTY_EIGHT, :2]


class TestLift:
    def test_what_is_given_is_met_and_the_rest_follows(self, face: Portrait) -> None:
        given = face.landmarks[SIXTY_EIGHT, :2]
        lifted = lift(given, face.size)
        assert lifted.shape == (478, 3)
        assert lifted.dtype == np.float32
        assert np.array_equal(lifted[SIXTY_EIGHT, :2], given)
        eyes = np.linalg.norm(given[36] - given[45])
        off = np.linalg.norm((lifted - face.landmarks)[:, :2], axis=1) / eyes
        assert off.mean() < 0.03
        assert off[LIPS].mean() < 0.015
        assert off[[*IRIS_RIGHT, *IRIS_LEFT]].max() < 0.05

    @pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (-30, 10, 5), (0, -15, 80), (10, 5, -100)])
    def test_the_head_turns_as_the_points_do(self, angles: tuple[float, float, float]) -> None:
        lifted = lift(sixty_eight(*angles), SIZE)
        rotation = to_canonical(lifted.astype(np.float64), mean_shape())[1]
        assert np.allclose(euler_degrees(rotation), angles, atol=1)

    def test_a_mouth_wide_open_stays_in_order(self) -> None:
        given = sixty_eight()
        lower = np.array([*range(55, 60), *range(65, 68), *range(5, 12)])
        given[lower, 1] += 45
        lifted = lift(given, SIZE)
        assert np.array_equal(lifted[SIXTY_EIGHT, :2], given.astype(np.float32))
        assert lip_opening(lifted[:, :2]) > 35
        upper, under = (
            lifted[[185, 40, 39, 37, 0, 267, 269, 270, 409]],
            lifted[[191, 80, 81, 82, 13, 312, 311, 310, 415]],
        )
        assert (under[:, 1] > upper[:, 1]).all()  # inner below outer of the upper lip
        assert (lifted[[95, 88, 178, 87, 14, 317, 402, 318, 324], 1] > under[:, 1]).all()

    @pytest.mark.parametrize("count", [468, 478])
    def test_dense_points_stay(self, face: Portrait, count: int) -> None:
        points = face.landmarks[:count]
        lifted = lift(points, face.size)
        assert np.array_equal(lifted[:count], points)
        eyes = np.linalg.norm(points[33] - points[263])
        assert np.abs(lifted - face.landmarks).max() < 0.1 * eyes
        flat = lift(points[:, :2], face.size)
        assert np.array_equal(flat[:count, :2], points[:, :2])
        assert np.corrcoef(flat[:, 2], face.landmarks[:, 2])[0, 1] > 0.95

    BAD = (
        ("too few", lambda p: p[:67], r"got \(67, 2\) .*, expected 68 or 478"),
        ("words", lambda p: p.astype(str), "expected 68 or 478"),
        ("one number each", lambda p: p[:, 0], "expected 68 or 478"),
        ("no number", lambda p: np.where(np.arange(68)[:, None] == 7, np.nan, p), "point 7 is not finite"),
        ("outside", lambda p: p + [300, 0], r"outside the 400x400 picture"),
        ("far outside", lambda p: np.where(np.arange(68)[:, None] == 4, -500, p), "point 4 is at -500, -500, outside"),
        ("shares", lambda p: p / 400, "look like shares of the picture"),
        ("tiny", lambda p: p / 20, "px wide, expected at least 24 px"),
        ("mirrored", lambda p: [400, 0] + p * [-1, 1], "mirrored"),
        ("y from below", lambda p: [0, 400] + p * [1, -1], "upside down .y counted from below"),
        ("upside down", lambda p: 400 - p, "upside down: the mouth is above the eyes"),
        ("jaw from the left", lambda p: np.concatenate([p[16::-1], p[17:]]), "do not lie like a face"),
        ("parts in another order", lambda p: np.concatenate([p[17:], p[:17]]), "landmarks: "),
        ("shuffled", lambda p: p[np.random.default_rng(3).permutation(68)], "landmarks: "),
    )

    @pytest.mark.parametrize(("spoil", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
    def test_what_cannot_be_a_face_is_named(self, spoil: Callable[[np.ndarray], np.ndarray], said: str) -> None:
        lift(sixty_eight(), SIZE)
        with pytest.raises(ValueError, match=said):
            lift(spoil(sixty_eight()), SIZE)

    def test_an_outline_may_leave_the_picture(self) -> None:
        assert lift(sixty_eight() - [140, 0], SIZE)[:, 0].min() < 0


class TestFiles:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        points = average_face((200, 180), 150)
        write_points(tmp_path / "face.json", points, SIZE, "face.png")
        assert np.allclose(read_points(tmp_path / "face.json", SIZE), points, atol=1e-3)
        assert np.allclose(read_points(tmp_path / "face.json", (800, 800)), 2 * points, atol=2e-3)
        with pytest.raises(ValueError, match="of a picture of 400x400, got one of 300x400"):
            read_points(tmp_path / "face.json", (400, 300))

    def test_other_programs_forms(self, tmp_path: Path) -> None:
        points = sixty_eight()
        forms = {
            "bare.json": json.dumps(points.tolist()),
            "named.json": json.dumps({"landmarks": points.tolist()}),
            "ibug.pts": "version: 1\nn_points: 68\n{\n" + "\n".join(f"{x} {y}" for x, y in points) + "\n}\n",
        }
        for name, text in forms.items():
            (tmp_path / name).write_text(text)
            assert np.allclose(read_points(tmp_path / name, SIZE), points), name

    @pytest.mark.parametrize("text", ["{", "[]", "3", '{"faces": []}', '{"points": [[1, 2], [3]]}', '{"points": "x"}'])
    def test_others_are_refused(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "face.json").write_text(text)
        with pytest.raises(ValueError, match=r"landmarks .*face.json: .*atldiff faces"):
            read_points(tmp_path / "face.json", SIZE)


class TestOpening:
    def test_a_detected_face_given_back_is_the_same(self, examples: Path, face: Portrait, tmp_path: Path) -> None:
        picture, file = str(examples / "portrait.jpg"), tmp_path / "face.json"
        assert cli.run(["faces", picture, "--landmarks", str(file), "-o", str(tmp_path / "p.png"), "--quiet"]) == 0
        opened = open_portrait(picture, landmarks=file)
        assert np.abs(opened.landmarks - face.landmarks).max() < 1e-3
        assert np.array_equal(open_portrait(picture, landmarks=face.landmarks).landmarks, face.landmarks)

    def test_a_picture_without_a_face_takes_given_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], examples: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Image.new("RGB", (200, 240), "teal").save("wall.png")
        sound = str(examples / "speech.wav")
        assert cli.run(["landmarks", "wall.png", sound, "-o", "t.npz"]) == 2
        assert "--portrait-landmarks" in capsys.readouterr().err
        assert cli.run(["faces", "wall.png", "--landmarks", "f.json", "--at", "100,120,110", "--points", "68"]) == 0
        assert len(json.loads(Path("f.json").read_text())["points"]) == 68
        opened = open_portrait("wall.png", landmarks="f.json")
        low, high = opened.landmarks[:468, :2].min(axis=0), opened.landmarks[:468, :2].max(axis=0)
        assert np.allclose((low + high) / 2, [100, 120], atol=2)
        assert high[0] - low[0] == pytest.approx(110, abs=2)
        capsys.readouterr()
        more = ["--portrait-landmarks", "f.json", "-o", "t.npz"]
        assert cli.run(["landmarks", "wall.png", sound, *more, "--face", "1"]) == 2
        assert "which say which face it is" in capsys.readouterr().err
        assert cli.run(["landmarks", "wall.png", sound, "--portrait-landmarks", "none.json", "-o", "t.npz"]) == 2
        assert "none.json: no such file" in capsys.readouterr().err
        assert not Path("t.npz").exists()

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--at", "1,2"], "at: got '1,2'"),
            (["--at", "500,500,100"], "outside the 200x240 picture"),
            (["--at", "100,100,100", "--face", "1"], "expected one of them"),
        ],
    )
    def test_a_place_that_is_none(
        self, more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("RGB", (200, 240), "teal").save(tmp_path / "wall.png")
        target = tmp_path / "f.json"
        assert cli.run(["faces", str(tmp_path / "wall.png"), "--landmarks", str(target), *more]) == 2
        assert said in capsys.readouterr().err
        assert not target.exists()
