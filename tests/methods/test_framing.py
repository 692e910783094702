"""Head and shoulders cut from a photograph: where, how much, and that tracks go along with the cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch

from atldiff.config import SampleConfig
from atldiff.methods.framing import framed, head_square, reframe
from atldiff.pipeline import TalkingHead
from atldiff.types import LandmarkTrack, Portrait

if TYPE_CHECKING:
    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.models import Model

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHORT = SampleConfig(steps=1, window_frames=8, shared_frames=2)


@pytest.fixture(scope="module")
def head(random_any_model: Model) -> TalkingHead:
    return TalkingHead(random_any_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def atl_head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def portrait(atl_head: TalkingHead) -> Portrait:
    return atl_head.open_portrait(EXAMPLES / "portrait.jpg")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with av.open(str(EXAMPLES / "speech.wav")) as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return (np.concatenate(frames)[4000:14_240] / 32768).astype(np.float32)


def frames_of(video) -> np.ndarray:
    return np.stack(list(video))


def face_of(length: float, middle: tuple[float, float], turn_deg: float = 0.0) -> np.ndarray:
    """Return landmarks whose forehead, chin and cheeks are those of an upright face turned in the picture."""
    turn = np.radians(turn_deg)
    down, right = np.array([-np.sin(turn), np.cos(turn)]), np.array([np.cos(turn), np.sin(turn)])
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = middle
    for index, x, y in ((10, 0, -0.5), (152, 0, 0.5), (234, -0.4, 0), (454, 0.4, 0)):
        points[index, :2] += (x * right + y * down) * length
    return points


class TestSquare:
    def test_head_and_shoulders_with_room_around(self) -> None:
        x, y, side = head_square(face_of(100, (400, 300)), (1000, 800))
        assert side == 230
        assert side % 2 == 0
        assert x == 400 - side // 2
        forehead, chin = 250 - y, y + side - 350
        assert 0.5 * 100 < forehead < 0.65 * 100  # the hair's
        assert chin > 0.65 * 100  # the shoulders'

    def test_it_is_shifted_at_the_border_and_keeps_its_side(self) -> None:
        for middle, corner in (((60, 300), (0, None)), ((760, 300), (570, None)), ((400, 40), (None, 0))):
            x, y, side = head_square(face_of(100, middle), (1000, 800))
            assert side == 230
            assert corner[0] in (None, x)
            assert corner[1] in (None, y)

    @pytest.mark.parametrize("share", [2.1, 1.8, 1.6])
    def test_where_it_does_not_fit_it_lacks_clothes_rather_than_hair(self, share: float) -> None:
        narrow = round(100 * share)
        x, y, side = head_square(face_of(100, (narrow / 2, 500)), (1000, narrow))
        assert (x, side) == (0, narrow // 2 * 2)
        lost_above, lost_below = y - (500 - 106), (500 + 124) - (y + side)
        assert 0 <= lost_above < lost_below

    def test_the_chin_is_kept_before_the_hair(self) -> None:
        _, y, side = head_square(face_of(100, (60, 500)), (1000, 120))
        assert side == 120
        assert 550 < y + side < 570

    def test_a_turned_head_keeps_its_hair(self) -> None:
        upright = np.array(head_square(face_of(100, (500, 500)), (1000, 1000)), float)
        middle = upright[:2] + upright[2] / 2
        for turn in (90, 180, 270):
            x, y, side = head_square(face_of(100, (500, 500), turn), (1000, 1000))
            turned = np.radians(turn)
            offset = middle - 500
            expected = 500 + np.array(
                [np.cos(turned) * offset[0] - np.sin(turned) * offset[1],
                 np.sin(turned) * offset[0] + np.cos(turned) * offset[1]]
            )  # fmt: skip
            assert side == upright[2]
            assert np.abs(np.array([x, y]) + side / 2 - expected).max() <= 1

    def test_a_nodding_face_counts_by_its_width(self) -> None:
        points = face_of(100, (400, 300))
        points[[10, 152], 1] = 275, 325
        assert head_square(points, (1000, 800)).side > 200


class TestFramed:
    def test_pixels_are_the_photograph_s(self, portrait: Portrait) -> None:
        cut = head_square(portrait.landmarks, (512, 512))
        shown = framed(portrait, "head")
        assert shown.image.shape == (cut.side, cut.side, 3)
        assert np.array_equal(shown.image, portrait.image[cut.y : cut.y + cut.side, cut.x : cut.x + cut.side])
        assert np.allclose(shown.landmarks[:, :2] + (cut.x, cut.y), portrait.landmarks[:, :2], atol=1e-3)
        assert np.array_equal(shown.landmarks[:, 2], portrait.landmarks[:, 2])
        assert framed(portrait, "full") is portrait

    def test_a_cut_is_its_own_cut(self, portrait: Portrait) -> None:
        once = framed(portrait, "head")
        assert np.array_equal(framed(once, "head").image, once.image)

    @pytest.mark.parametrize("size", [(101, 101), (101, 240), (90, 64), (40, 40)])
    def test_small_photographs(self, size: tuple[int, int]) -> None:
        image = np.zeros((*size, 3), np.uint8)
        shown = framed(Portrait(image, face_of(60, (size[1] / 2, size[0] / 2))), "head")
        height, width = shown.image.shape[:2]
        assert height == width <= min(size)

    def test_it_says_where_the_head_is_cut_off(self, caplog: pytest.LogCaptureFixture) -> None:
        image = np.zeros((400, 400, 3), np.uint8)
        for middle, size, said in (
            ((200, 200), (400, 400), False),
            ((200, 70), (400, 400), False),  # 20 px above the forehead
            ((200, 50), (400, 400), True),
            ((30, 200), (400, 400), True),
            ((200, 380), (400, 400), True),
            ((40, 200), (400, 80), True),  # a strip narrower than the head is long
        ):
            caplog.clear()
            framed(Portrait(image[: size[0], : size[1]], face_of(100, middle)), "head")
            assert ("the head reaches beyond" in caplog.text) == said
            assert caplog.text.count("\n") == int(said)

    def test_door(self, portrait: Portrait, atl_head: TalkingHead, speech: np.ndarray) -> None:
        wrong: dict = {"framing": "crop"}
        for call in (
            lambda: framed(portrait, "crop"),  # type: ignore[arg-type]
            lambda: atl_head(portrait, speech, **wrong),
            lambda: atl_head.landmarks(portrait, speech, **wrong),
            lambda: next(atl_head.stream(portrait, [speech], **wrong)),
        ):
            with pytest.raises(ValueError, match="framing: got 'crop', expected full or head"):
                call()


class TestVideo:
    def test_landmarks_then_render_are_the_frames_of_the_direct_call(
        self, head: TalkingHead, portrait: Portrait, speech: np.ndarray, tmp_path: Path
    ) -> None:
        direct = head(portrait, speech, framing="head", sampling=SHORT)
        side = head_square(portrait.landmarks, (512, 512)).side
        assert direct.size == direct.track.size == (side, side)
        track = head.landmarks(portrait, speech, framing="head")
        track.save(tmp_path / "track.npz")
        loaded = LandmarkTrack.load(tmp_path / "track.npz")
        frames = frames_of(direct)
        assert frames.shape[1:] == (side, side, 3)
        assert np.array_equal(frames_of(head.render(portrait, loaded, framing="head", sampling=SHORT)), frames)
        streamed = head.stream(portrait, np.split(speech, [3000]), framing="head", sampling=SHORT)
        assert np.array_equal(np.stack(list(streamed)), frames)

    def test_size_is_that_of_the_cut(self, atl_head: TalkingHead, portrait: Portrait, speech: np.ndarray) -> None:
        video = atl_head(portrait, speech, framing="head", size=96, sampling=SHORT)
        assert video.size == (96, 96)
        assert next(iter(video)).shape == (96, 96, 3)

    def test_a_track_of_the_whole_photograph_moves_along(
        self, atl_head: TalkingHead, portrait: Portrait, speech: np.ndarray
    ) -> None:
        whole, cut = (atl_head.landmarks(portrait, speech, framing=framing) for framing in ("full", "head"))
        later = whole.slice(8, 16)  # a retargeted one would begin at the photograph's own pose again
        assert np.abs(later.points()[0, 1] - whole.points()[0, 1]).max() > 0.05
        moved = atl_head.render(portrait, later, framing="head", sampling=SHORT).track
        assert np.abs(moved.points() - cut.slice(8, 16).points()).max() < 0.01
        back = atl_head.render(portrait, cut.slice(8, 16), sampling=SHORT).track
        assert np.abs(back.points() - later.points()).max() < 0.01
        assert (moved.size, back.size) == (cut.size, whole.size)

    def test_a_track_of_another_face_is_left_to_the_retargeting(self, portrait: Portrait, atl_head, speech) -> None:
        track = atl_head.landmarks(portrait, speech)
        other = replace(track, neutral=track.neutral * np.array([1.1, 1, 1], np.float32))
        assert reframe(other, portrait, "head") is other
        assert reframe(track, portrait, "full") is track
        assert reframe(track, portrait, "head").size != track.size
