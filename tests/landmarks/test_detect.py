"""The detector on the demo portrait: one picture, moved, shrunk and doubled, so that the truth is known."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from atldiff.errors import FaceNotFound
from atldiff.landmarks.boxes import Detection, find_boxes
from atldiff.landmarks.detect import MIN_FACE_PX, FaceTracker, detect, detect_faces
from atldiff.landmarks.search import find_faces
from atldiff.landmarks.topology import EYE_LEFT, EYE_RIGHT, LIPS_INNER

MESH = slice(0, 468)


@pytest.fixture(scope="module")
def portrait(examples: Path) -> np.ndarray:
    image = cv2.imread(str(examples / "portrait.jpg"))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def landmarks(portrait: np.ndarray) -> np.ndarray:
    faces = detect_faces(portrait)
    assert len(faces) == 1
    return faces[0]


def resized(image: np.ndarray, ratio: float) -> np.ndarray:
    return cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)


def face_width(points: np.ndarray) -> float:
    return float(np.ptp(points[MESH, 0]))


def test_one_face_inside_the_picture(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    assert landmarks.shape == (478, 3)
    assert landmarks.dtype == np.float32
    height, width = portrait.shape[:2]
    assert landmarks[:, :2].min() > 0
    assert landmarks[:, 0].max() < width
    assert landmarks[:, 1].max() < height
    assert face_width(landmarks) > 60


def test_the_face_is_the_right_way_up(landmarks: np.ndarray) -> None:
    eyes = landmarks[np.concatenate([EYE_RIGHT, EYE_LEFT]), 1]
    lips = landmarks[LIPS_INNER, 1]
    assert eyes.max() < landmarks[1, 1] < lips.min()
    assert lips.max() < landmarks[152, 1] == landmarks[MESH, 1].max()
    assert landmarks[EYE_RIGHT, 0].max() < landmarks[EYE_LEFT, 0].min()
    assert landmarks[EYE_RIGHT, 0].min() < landmarks[LIPS_INNER, 0].mean() < landmarks[EYE_LEFT, 0].max()


def test_detect_is_the_first_face_and_deterministic(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    assert np.array_equal(detect(portrait), landmarks)


def test_a_small_face_in_a_large_picture(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    ratio = 60 / face_width(landmarks)
    small = resized(portrait, ratio)
    canvas = np.full((1500, 2000, 3), 128, np.uint8)
    canvas[900 : 900 + small.shape[0], 1300 : 1300 + small.shape[1]] = small
    faces = detect_faces(canvas)
    assert len(faces) == 1
    wanted = landmarks[:, :2] * ratio + np.array([1300, 900])
    miss = np.linalg.norm(faces[0][:, :2] - wanted, axis=1)
    assert miss.max() < 0.03 * 60


def test_a_face_larger_than_the_detector_s_crop(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    low = np.floor(landmarks[MESH, :2].min(0) - 60).astype(int)
    high = np.ceil(landmarks[MESH, :2].max(0) + 60).astype(int)
    large = cv2.resize(portrait[low[1] : high[1], low[0] : high[0]], None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
    points = detect(large)
    assert np.linalg.norm(points[:, :2] / 10 + low - landmarks[:, :2], axis=1).max() < 0.03 * face_width(landmarks)


def test_two_faces_from_left_to_right_and_the_largest_taken(
    portrait: np.ndarray, landmarks: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    small = resized(portrait, 0.8)
    both = np.full((portrait.shape[0], small.shape[1] + portrait.shape[1], 3), 128, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small  # the smaller stands first in the picture
    both[:, small.shape[1] :] = portrait
    faces = detect_faces(both)
    assert len(faces) == 2
    first, second = faces
    assert face_width(first) == pytest.approx(0.8 * face_width(second), rel=0.05)
    assert second[:, 0].min() > small.shape[1] > first[:, 0].max()
    assert np.array_equal(detect(both, face=0), first)
    assert caplog.records == []
    assert np.array_equal(detect(both), second)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "2 faces found, taking number 1, the largest" in caplog.text
    with pytest.raises(FaceNotFound, match=r"got --face 2, expected 0 to 1 \(2 faces found"):
        detect(both, face=2)


@pytest.mark.parametrize("turn_deg", [90, 120, 160, 180, 200, 240, 270])
def test_a_turned_face_is_measured_the_right_way_up(
    portrait: np.ndarray, landmarks: np.ndarray, caplog: pytest.LogCaptureFixture, turn_deg: int
) -> None:
    middle = landmarks[MESH, :2].mean(axis=0)
    matrix = cv2.getRotationMatrix2D(middle.tolist(), -turn_deg, 1.0)  # OpenCV turns anticlockwise
    matrix[:, 2] += 200 - middle
    picture = cv2.warpAffine(portrait, matrix, (400, 400), borderMode=cv2.BORDER_REPLICATE)
    wanted = landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    points = detect(picture)
    assert np.linalg.norm(points[:, :2] - wanted, axis=1).mean() < 0.05 * np.ptp(landmarks[MESH, 0])
    (record,) = caplog.records
    told = re.match(r"the face is turned by (\d+) degrees, .* turn the picture by (.*) for an", record.getMessage())
    assert told is not None
    assert int(told[1]) == pytest.approx(min(turn_deg, 360 - turn_deg), abs=5)
    quarter = round(turn_deg / 90)
    assert told[2] == {1: "90 degrees anticlockwise", 2: "180 degrees", 3: "90 degrees clockwise"}[quarter]


def test_a_face_that_is_seen_only_in_the_turned_picture(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    class Upright:
        """A detector that sees nothing but one upright face, known by its place in the turned picture."""

        def boxes(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
            return [(*centre, 0.2, 0.2)] if np.array_equal(picture, portrait) else []

        def mesh(self, picture: np.ndarray) -> np.ndarray:
            low, high = landmarks[MESH, :2].min(0), landmarks[MESH, :2].max(0)
            side = max(high - low)
            reach = 2.0 * 0.2 * portrait.shape[0] if not self.measured else 1.6 * side
            self.measured = True
            step = reach / picture.shape[0]
            local = landmarks.copy()
            local[:, :2] = (landmarks[:, :2] - (low + high) / 2) / step + picture.shape[0] / 2
            return local

        def look(self, picture: np.ndarray) -> list[tuple[float, np.ndarray]]:
            first, second = np.array([[33, 362, 1, 13, 234, 454], [133, 263, 1, 14, 234, 454]])
            points = (landmarks[first, :2] + landmarks[second, :2]) / 2
            side = 2.0 * max(landmarks[MESH, :2].max(0) - landmarks[MESH, :2].min(0))
            middle = (landmarks[MESH, :2].min(0) + landmarks[MESH, :2].max(0)) / 2
            return [(0.95, (points - middle) / side * picture.shape[0] + picture.shape[0] / 2)]

        measured = False

    low, high = landmarks[MESH, :2].min(0), landmarks[MESH, :2].max(0)
    centre = tuple(float(value) for value in (low + high) / 2 / portrait.shape[0])
    for quarters in (0, 1, 2, 3):
        (face,) = find_faces(np.rot90(portrait, -quarters), Upright())
        turned = face.points[:, :2]
        for _ in range(quarters):  # back: a quarter anticlockwise
            turned = np.stack([turned[:, 1], portrait.shape[0] - 1 - turned[:, 0]], axis=1)
        assert np.abs(turned - landmarks[:, :2]).max() < 2


@pytest.mark.parametrize("face", [1, -1])
def test_no_face_of_that_number(portrait: np.ndarray, face: int) -> None:
    with pytest.raises(FaceNotFound, match=rf"got --face {face}, expected 0 to 0 \(1 face found") as caught:
        detect(portrait, face=face)
    assert "\n" not in str(caught.value)


def test_noise_has_no_face() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    # Ten of its pixels are a face or none by where they are fetched, to a millionth of a pixel.
    with pytest.raises(FaceNotFound, match=r"no face found in the 320x240 picture|got a face 1\d px wide") as caught:
        detect(noise)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 40)])
def test_tiny_pictures_have_no_face(size: tuple[int, int]) -> None:
    assert detect_faces(np.full((*size, 3), 90, np.uint8)) == []


def test_a_face_too_small_to_use(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    ratio = 0.5 * MIN_FACE_PX / face_width(landmarks)
    small = resized(portrait, ratio)
    assert detect_faces(small) == []
    with pytest.raises(FaceNotFound, match=rf"no face found|got a face \d+ px wide .* at least {MIN_FACE_PX} px"):
        detect(small)


def test_tracker_follows_a_moving_face(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    with FaceTracker() as tracker:
        for shift in (0, 4, 8, 12, 16):
            points = tracker.track(np.roll(portrait, shift, axis=1))
            assert points is not None
            assert points.shape == (478, 3)
            moved = landmarks[:, :2] + np.array([shift, 0])
            assert np.linalg.norm(points[:, :2] - moved, axis=1).mean() < 0.02 * face_width(landmarks)
        assert tracker.track(np.zeros_like(portrait)) is None
        tracker.reset()
        again = tracker.track(portrait[:, ::-1])  # another place, right after a reset
        assert again is not None
        centre = portrait.shape[1] - landmarks[MESH, 0].mean()
        assert again[MESH, 0].mean() == pytest.approx(centre, abs=0.05 * face_width(landmarks))


def test_a_tracker_does_not_see_a_face_that_stands_on_its_head(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    low = np.maximum(landmarks[MESH, :2].min(0) - 60, 0).astype(int)
    high = (landmarks[MESH, :2].max(0) + 60).astype(int)
    upright = resized(portrait[low[1] : high[1], low[0] : high[0]], 2)
    with FaceTracker() as tracker:
        assert all(tracker.track(np.ascontiguousarray(upright[::-1, ::-1])) is None for _ in range(3))
        # It turns round under the tracker, which has no cut to tell it.
        seen = [tracker.track(upright) is not None for _ in range(30)]
        assert seen[-1]
        assert seen == sorted(seen)
        tracker.reset()
        assert tracker.track(upright) is not None


def elsewhere(portrait: np.ndarray, landmarks: np.ndarray, *, on_its_head: bool = False) -> np.ndarray:
    """Return a frame of the portrait's size with its face in the corner that is furthest from where it was, on grey."""
    low = np.maximum(landmarks[MESH, :2].min(0) - 50, 0).astype(int)
    high = (landmarks[MESH, :2].max(0) + 50).astype(int)
    face = portrait[low[1] : high[1], low[0] : high[0]]
    right, lower = landmarks[MESH, :2].mean(0) < np.array(portrait.shape[1::-1]) / 2
    frame = np.full_like(portrait, 128)
    part = frame[-len(face) :] if lower else frame[: len(face)]
    part = part[:, -face.shape[1] :] if right else part[:, : face.shape[1]]
    part[:] = face[::-1, ::-1] if on_its_head else face
    return frame


def test_a_face_elsewhere_after_a_cut_is_found_in_the_same_frame(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    other = elsewhere(portrait, landmarks)
    wanted = detect(other)
    with FaceTracker() as tracker:
        for frame, points in ((portrait, landmarks), (other, wanted), (portrait, landmarks)):
            for _ in range(2):
                found = tracker.track(frame)
                assert found is not None
                assert np.linalg.norm(found[:, :2] - points[:, :2], axis=1).mean() < 0.03 * face_width(points)


def test_a_face_that_comes_back_is_found_in_its_first_frame(portrait: np.ndarray) -> None:
    with FaceTracker() as tracker:
        seen = [tracker.track(frame) is not None for frame in (portrait, np.zeros_like(portrait), portrait)]
    assert seen == [True, False, True]


def test_a_face_after_a_cut_that_stands_on_its_head_is_not_seen(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    with FaceTracker() as tracker:
        assert tracker.track(portrait) is not None
        assert tracker.track(elsewhere(portrait, landmarks, on_its_head=True)) is None


def test_a_tracked_frame_needs_no_detector(portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(picture: np.ndarray, *args: object) -> list[Detection]:
        calls.append(picture.shape)
        return find_boxes(picture, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("atldiff.landmarks.detect.find_boxes", counted)
    with FaceTracker() as tracker:
        tracker.track(portrait)
        first = len(calls)
        assert first >= 2  # the face, and whether it is the right way up
        for _ in range(20):
            tracker.track(portrait)
        assert len(calls) == first
        tracker.reset()
        tracker.track(portrait)
        assert len(calls) == 2 * first


def test_threads_do_not_disturb_one_another(portrait: np.ndarray) -> None:
    frames = [np.roll(portrait, 3 * index, axis=1) for index in range(6)]
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]

    def follow(video: list[np.ndarray]) -> np.ndarray:
        with FaceTracker() as tracker:
            return np.stack([points for frame in video if (points := tracker.track(frame)) is not None])

    alone = [follow(frames), follow(mirrored)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(follow, [frames, mirrored] * 4))
    assert all(np.array_equal(found, alone[index % 2]) for index, found in enumerate(together))
    assert len(alone[0]) == len(frames)


def test_a_picture_of_4000_pixels(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    large = cv2.resize(portrait, None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
    points = detect(large)
    assert np.linalg.norm(points[:, :2] / 8 - landmarks[:, :2], axis=1).max() < 0.03 * face_width(landmarks)


def test_a_grey_picture_has_its_face_in_the_same_place(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    grey = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert np.linalg.norm((detect(grey) - landmarks)[:, :2], axis=1).mean() < 0.02 * face_width(landmarks)


def test_nothing_is_written_to_stderr(portrait: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        detect_faces(portrait)
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err == ""


def test_a_tracker_writes_nothing_to_stderr(portrait: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    with FaceTracker() as tracker:
        tracker.track(portrait)
        assert capfd.readouterr().err == ""
        for _ in range(3):
            tracker.reset()
            tracker.track(portrait)
    assert capfd.readouterr().err == ""
