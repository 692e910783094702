"""References: what other pictures and videos of a person give, and what a portrait's frames make of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from atldiff.config import ATLConfig, GeneratorConfig, RendererConfig, SampleConfig
from atldiff.errors import FaceNotFound, MediaError
from atldiff.landmarks.control import CHIN, FACE_CONTROL
from atldiff.landmarks.detect import detect
from atldiff.landmarks.plausible import roll_deg
from atldiff.landmarks.search import FoundFace
from atldiff.landmarks.shape import mean_shape
from atldiff.landmarks.topology import LIPS_INNER, LIPS_MIDDLE, LIPS_OUTER, OVAL, lip_opening
from atldiff.methods import references
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl_published.network import PublishedRenderer
from atldiff.methods.framing import framed
from atldiff.methods.portrait import open_portrait, resized
from atldiff.methods.references import _chosen, _Seen, open_with_references
from atldiff.methods.window_frames import portrait_layers
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, LandmarkTrack, Portrait
from atldiff.video.read import read_frames
from atldiff.video.warp import PortraitWarp
from atldiff.video.window import WindowGeometry, fit_window
from atldiff.video.write import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atldiff.methods.models import Model

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ONE_STEP = SampleConfig(steps=1, window_frames=8, shared_frames=2)
OUTER_CORNERS = [33, 263]
LOWER = np.concatenate([LIPS_INNER[11:], LIPS_OUTER[11:], CHIN])
"""The lower lip and the chin."""
_ABOVE = np.concatenate([LIPS_INNER[:11], LIPS_OUTER[:11], LIPS_MIDDLE[:11], LIPS_MIDDLE[20:31]])
_SHAPE = mean_shape()
JAW_SHARE = np.where(_SHAPE[:, 1] > _SHAPE[LIPS_INNER[0], 1] - 0.03, np.exp(-((_SHAPE[:, 0] / 0.35) ** 2)), 0)
JAW_SHARE[_ABOVE] = 0
"""(478,) how far a point goes down with the jaw."""
FRAMES, CLOSED, WIDE = 20, 3, 14
"""The frames of the fixture `speaking`, and where its mouth is the most closed and the widest."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = 25) -> Path:
    frames = list(frames)
    with VideoWriter(path, size=(frames[0].shape[0], frames[0].shape[1]), fps=Fraction(fps)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points[OUTER_CORNERS, :2], axis=0)))


def opening(portrait: Portrait) -> float:
    return float(lip_opening(portrait.landmarks[:, :2])) / eye_distance(portrait.landmarks)


def opened(portrait: Portrait, by: float, colour: tuple[int, int, int] = (230, 225, 215)) -> Portrait:
    """The person with the jaw lowered by so many eye distances, a cavity of one colour between the lips."""
    points, image = portrait.landmarks.copy(), portrait.image.copy()
    points[LOWER, 1] += by * eye_distance(points)
    cv2.fillPoly(image, [np.rint(points[LIPS_INNER, :2]).astype(np.int32)], colour)
    return Portrait(image, points)


@pytest.fixture(scope="module")
def layered_head() -> TalkingHead:
    torch.manual_seed(0)
    window = RendererConfig(
        side=48, height=48, origin=(40, 41), layered=True, head="resize", mask_reach_px=6.0, widths=(16, 32),
        blocks=(1, 1),
    )  # fmt: skip
    model = ATLModel(
        ATLConfig(generator=GeneratorConfig(width=16, blocks=1, components=4, identity_components=2), renderer=window)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return TalkingHead(model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def atl_head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def any_head(random_any_model: Model) -> TalkingHead:
    return TalkingHead(random_any_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return open_portrait(EXAMPLES / "portrait.jpg")


@pytest.fixture(scope="module")
def track(atl_head: TalkingHead, portrait: Portrait) -> LandmarkTrack:
    """Two frames, lips as photographed and apart."""
    track = atl_head.landmarks(portrait, np.zeros(2 * 640, np.float32), controls=Controls(still=True, blink_rate_hz=0))
    displacements = np.zeros_like(track.displacements)
    displacements[1, LOWER, 1] = 0.2
    return replace(track, displacements=displacements)


@pytest.fixture(scope="module")
def mouths(portrait: Portrait) -> list[np.ndarray]:
    """The head of the portrait, whose lips part once: warped, dark between them."""
    head = framed(portrait, "head")
    head = resized(Portrait(head.image, head.landmarks), 320)
    points, unit = head.landmarks, eye_distance(head.landmarks)
    parted, around = portrait_layers(head), np.concatenate([points.min(0)[:2], points.max(0)[:2]])
    parted = replace(parted, skull=np.zeros_like(parted.skull), jaw=np.zeros_like(parted.jaw))
    source = FACE_CONTROL.of(points[:, :2])
    warp = PortraitWarp.prepare(parted.lips, points[OVAL, :2], source, unit / 72)
    x0, y0, x1, y1 = warp.box
    down = np.where(np.arange(478) < 468, JAW_SHARE, 0)[:, None] * np.array([0, unit], np.float32)
    frames = []
    for by in np.interp(np.arange(FRAMES), [0, CLOSED, WIDE, FRAMES - 1], [0.08, -0.04, 0.25, 0.08]):
        moved, frame = points[:, :2] + np.float32(by) * down, head.image.copy()
        part = warp.warp(FACE_CONTROL.of(moved), around)
        matrix = fit_window(points[None], WindowGeometry(128, (0, 0)))[0]
        parted.paint(part, (x0, y0), moved[LIPS_INNER].astype(np.float64), moved[CHIN].mean(0), matrix)
        frame[y0:y1, x0:x1] = part
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory, mouths: list[np.ndarray]) -> Path:
    """A video of one face whose mouth is the most closed once and wide open once."""
    return write_video(tmp_path_factory.mktemp("speaking") / "speaking.mp4", mouths)


def frames_of(video: Iterable[np.ndarray]) -> np.ndarray:
    return np.stack(list(video))


# What they change


def test_a_reference_changes_the_mouth_only(any_head, portrait, track) -> None:
    assert_only_the_mouth_changes(any_head, portrait, track)


def test_a_reference_changes_the_mouth_of_a_layered_renderer_only(layered_head, portrait, track) -> None:
    assert_only_the_mouth_changes(layered_head, portrait, track)


def assert_only_the_mouth_changes(head: TalkingHead, portrait: Portrait, track: LandmarkTrack) -> None:
    plain = frames_of(head.render(portrait, track, sampling=ONE_STEP))
    told = frames_of(head.render(portrait, track, sampling=ONE_STEP, references=[opened(portrait, 0.2)]))
    none = frames_of(head.render(portrait, track, sampling=ONE_STEP, references=[]))
    assert (none == plain).all()
    if isinstance(head.model.renderer, PublishedRenderer):
        assert (told == plain).all()
        return
    changed = np.abs(told.astype(int) - plain).max(axis=3) > 0
    assert changed[1].any()
    lips, unit = track.points()[1, LIPS_OUTER, :2], eye_distance(portrait.landmarks)
    (left, top), (right, bottom) = lips.min(0) - 0.5 * unit, lips.max(0) + 0.5 * unit
    changed[:, int(top) : int(bottom), int(left) : int(right)] = False
    assert not changed.any()


def test_their_order_does_not_matter(any_head, portrait, track) -> None:
    assert_no_order(any_head, portrait, track)


def test_their_order_does_not_matter_to_a_layered_renderer(layered_head, portrait, track) -> None:
    assert_no_order(layered_head, portrait, track)


def assert_no_order(head: TalkingHead, portrait: Portrait, track: LandmarkTrack) -> None:
    first, second = opened(portrait, 0.15), opened(portrait, 0.25, (90, 40, 40))
    several = [
        frames_of(head.render(portrait, track, sampling=ONE_STEP, references=given))
        for given in ([first, second], [second, first], [first], [second])
    ]
    assert (several[0] == several[1]).all()
    assert isinstance(head.model.renderer, PublishedRenderer) or (several[2] != several[3]).any()


def test_streaming_equals_offline(any_head, portrait) -> None:
    assert_streamed_alike(any_head, portrait)


def test_streaming_equals_offline_with_a_layered_renderer(layered_head, portrait) -> None:
    assert_streamed_alike(layered_head, portrait)


def assert_streamed_alike(head: TalkingHead, portrait: Portrait) -> None:
    sound = np.random.default_rng(3).normal(0, 0.2, 9000).astype(np.float32)
    settings = {
        "references": [opened(portrait, 0.15), opened(portrait, 0.25, (90, 40, 40))], "size": 256, "framing": "head",
        "controls": Controls(expression_scale=3, silence_gate=False), "sampling": ONE_STEP,
    }  # fmt: skip
    offline = frames_of(head(portrait, sound, **settings))
    assert (np.stack(list(head.stream(portrait, np.split(sound, [100, 5000]), **settings))) == offline).all()
    if not isinstance(head.model.renderer, PublishedRenderer):
        assert (frames_of(head(portrait, sound, **{**settings, "references": []})) != offline).any()


@pytest.mark.parametrize("settings", [{"framing": "head"}, {"size": 256}, {"framing": "head", "size": 128}])
def test_they_go_along_with_a_cut_and_another_size(atl_head, portrait, track, settings) -> None:
    rendered = [
        frames_of(atl_head.render(portrait, track, sampling=ONE_STEP, references=given, **settings))
        for given in ([], [opened(portrait, 0.2)])
    ]
    assert (rendered[0][1] != rendered[1][1]).any()


def test_a_renderer_without_a_use_for_them_says_so(any_head, portrait, caplog) -> None:
    told = any_head.open_portrait(portrait, references=[portrait])
    paper = isinstance(any_head.model.renderer, PublishedRenderer)
    assert len(told.references) == (0 if paper else 1)
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if paper else [])
    assert any_head.open_portrait(told) is told


# What is taken of pictures and videos


def test_of_a_picture_the_largest_face_is_taken_upright(portrait, tmp_path) -> None:
    small = cv2.resize(portrait.image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    both = np.full((portrait.image.shape[0], portrait.image.shape[1] + small.shape[1], 3), 128, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, small.shape[1] :] = portrait.image
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(both)).save(tmp_path / "two.jpg", quality=95, exif=exif)
    (found,) = open_with_references(portrait, references=[tmp_path / "two.jpg"]).references
    assert abs(roll_deg(found.landmarks)) < 10
    assert eye_distance(found.landmarks) == pytest.approx(eye_distance(portrait.landmarks), rel=0.03)
    assert found.image.shape[1] < portrait.image.shape[1]  # only what is around the face
    assert np.abs(detect(found.image) - found.landmarks)[LIPS_OUTER, :2].max() < 3


def test_of_a_video_the_widest_and_the_most_closed_mouth_are_taken(portrait, speaking) -> None:
    wide, closed = open_with_references(portrait, references=[speaking]).references
    frames = list(read_frames(speaking))
    assert opening(wide) > opening(Portrait(frames[WIDE], detect(frames[WIDE]))) - 0.05
    assert opening(closed) < opening(Portrait(frames[CLOSED], detect(frames[CLOSED]))) + 0.05
    assert opening(wide) > opening(closed) + 0.2


def test_a_video_portrait_gives_two_by_itself(atl_head, speaking, caplog) -> None:
    caplog.set_level(logging.INFO)
    itself = atl_head.open_portrait(speaking)
    wide, closed = itself.references
    assert opening(wide) > opening(closed) + 0.1
    assert (itself.image == next(read_frames(speaking))).all()  # the frame that it always was
    assert len([record for record in caplog.records if "widest" in record.message]) == 1
    late = atl_head.open_portrait(speaking, frame=WIDE)
    assert opening(late) > opening(itself) + 0.05
    assert len(late.references) == 2
    assert atl_head.open_portrait(speaking, references=[]).references == ()
    assert len(atl_head.open_portrait(speaking, references=[opened(itself, 0.1)]).references) == 1


def test_a_video_whose_face_is_gone_after_a_frame_gives_none(atl_head, mouths, tmp_path) -> None:
    path = write_video(tmp_path / "gone.mkv", [mouths[WIDE], *[np.full_like(mouths[0], 128)] * 8])
    assert atl_head.open_portrait(path).references == ()


def test_a_neighbour_in_the_video_gives_none(atl_head, portrait, speaking, tmp_path) -> None:
    frames = list(read_frames(speaking))
    still = cv2.resize(portrait.image, (320, 320), interpolation=cv2.INTER_AREA)
    path = write_video(tmp_path / "two.mp4", (np.hstack([still, frame]) for frame in frames))
    openings = []
    for face in (0, 1):
        wide, closed = atl_head.open_portrait(path, face=face).references
        openings.append(opening(wide) - opening(closed))
    assert openings[0] < 0.03
    assert openings[1] > 0.1


def test_heads_that_are_turned_and_frames_that_are_blurred_come_last() -> None:
    points = np.zeros((478, 3), np.float32)
    plain = [_Seen(i, 0.1 + 0.01 * i, 2.0, 0.2, points) for i in range(10)]
    turned, blurred = _Seen(10, 0.5, 30.0, 0.2, points), _Seen(11, 0.0, 2.0, 0.05, points)
    assert [each.index for each in _chosen([turned, *plain, blurred])] == [9, 0]
    assert [each.index for each in _chosen([turned])] == [10]  # better than nothing
    far = [each._replace(away_deg=20.0 + each.index) for each in plain]
    assert max(each.away_deg for each in _chosen(far)) <= 23


def test_a_long_video_is_sampled_evenly_and_no_further_than_a_minute(portrait, tmp_path, monkeypatch) -> None:
    looked_at: list[int] = []

    class Tracker:
        def __enter__(self) -> Tracker:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def track(self, frame: np.ndarray) -> np.ndarray:
            looked_at.append(round(float(frame.mean())))
            return portrait.landmarks * 0.125

    monkeypatch.setattr(references, "FaceTracker", Tracker)
    monkeypatch.setattr(references, "MIN_FACE_PX", 4)
    monkeypatch.setattr(references, "find_faces", lambda image: [])
    levels = [np.full((64, 64, 3), 20 + 2 * second, np.uint8) for second in range(90) for _ in range(4)]
    path = write_video(tmp_path / "long.mkv", levels, fps=4)
    first, second = open_with_references(portrait, references=[path]).references
    assert first.image.shape == second.image.shape
    assert len(looked_at) == references.SAMPLED_FRAMES
    shown = (np.array(looked_at) - 20) / 2  # seconds, within half of one
    assert np.abs(shown - np.linspace(0, 60, len(shown), endpoint=False)).max() < 2


# Errors


def test_errors_are_one_line(atl_head, portrait, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    write_video(tmp_path / "noise.mp4", [noise] * 3)
    (tmp_path / "text.jpg").write_text("not a picture\n" * 20)
    (tmp_path / "empty.png").touch()
    for given, kind, said in (
        ([tmp_path / "none.jpg"], MediaError, f"reference {tmp_path / 'none.jpg'}: no such file"),
        ([tmp_path / "empty.png"], MediaError, "empty.png: got an empty file"),
        ([tmp_path], MediaError, "got a folder"),
        ([tmp_path / "text.jpg"], MediaError, f"reference {tmp_path / 'text.jpg'}: not an image"),
        ([tmp_path / "noise.png"], FaceNotFound, "noise.png: no face found"),
        ([tmp_path / "noise.mp4"], FaceNotFound, "noise.mp4: no face found"),
        ([portrait, noise], FaceNotFound, "reference number 2: no face found"),
        ([np.zeros((64, 64, 3), np.int32)], ValueError, "reference number 1: image array: got int32"),
        ([portrait] * 17, ValueError, "got 17, expected at most 16"),
        (tmp_path / "noise.png", ValueError, "expected a list"),
        ("portrait.jpg", ValueError, "expected a list"),
        (portrait.image, ValueError, "expected a list"),
        (portrait, ValueError, "expected a list"),
    ):
        with pytest.raises(kind) as caught:
            atl_head.open_portrait(portrait, references=given)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_video_that_breaks_off_is_a_portrait_without_references(portrait, monkeypatch, speaking) -> None:
    def broken(*args: object, **options: object) -> None:
        raise MediaError("video: cannot be read")

    monkeypatch.setattr(references, "read_frames_at", broken)
    assert open_with_references(speaking).references == ()


def test_a_face_that_is_measured_elsewhere_is_another(portrait, monkeypatch, speaking) -> None:
    elsewhere = FoundFace(portrait.landmarks + 500, 1.0)
    monkeypatch.setattr(references, "find_faces", lambda image: [elsewhere])
    wide, closed = open_with_references(speaking).references
    assert opening(wide) > opening(closed)
    assert wide.landmarks.max() < 320
