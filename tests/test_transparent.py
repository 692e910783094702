"""Portraits with alpha, by every method: it moves with the head, leaves colours alone, and goes where the file can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff.config import SampleConfig
from atldiff.landmarks.detect import detect
from atldiff.pipeline import TalkingHead
from atldiff.types import Portrait
from atldiff.video.background import draw_background, lay
from atldiff.video.read import read_frames, read_rgba_frames
from atldiff.video.still import on_grey, read_image

if TYPE_CHECKING:
    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.models import Model

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SHORT = SampleConfig(steps=1, window_frames=8, shared_frames=2)
MAGENTA = (255, 0, 255)


@pytest.fixture(scope="module")
def head(random_any_model: Model) -> TalkingHead:
    return TalkingHead(random_any_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def atl_head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def opaque(atl_head: TalkingHead) -> Portrait:
    return atl_head.open_portrait(np.ascontiguousarray(read_image(EXAMPLES / "portrait.jpg")[:300, 60:411]))


@pytest.fixture(scope="module")
def rgba(opaque: Portrait) -> np.ndarray:
    """The head cut out with a soft edge, grey, and magenta where it is hidden."""
    y, x = np.mgrid[: opaque.image.shape[0], : opaque.image.shape[1]]
    middle = opaque.landmarks[:, :2].mean(axis=0)
    reach = np.hypot((x - middle[0]) / 80, (y - middle[1]) / 105)
    alpha = np.clip(255 * (1 - reach) / 0.05 + 128, 0, 255).astype(np.uint8)
    grey = np.repeat(opaque.image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    return np.dstack([np.where(alpha[..., None] > 0, grey, np.array(MAGENTA, np.uint8)), alpha])


@pytest.fixture(scope="module")
def cutout(atl_head: TalkingHead, rgba: np.ndarray) -> Portrait:
    return atl_head.open_portrait(rgba)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 10 * 640).astype(np.float32)


def frames_of(video) -> np.ndarray:
    return np.stack(list(video))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines about backgrounds; the sound of these tests is too short to be speech, which is said as well."""
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("background")]


def test_the_face_is_looked_for_on_grey(cutout: Portrait, rgba: np.ndarray) -> None:
    assert cutout.alpha is not None
    assert np.array_equal(cutout.alpha, rgba[..., 3])
    seen = rgba[..., 3] >= 8
    assert np.array_equal(cutout.image[seen], rgba[..., :3][seen])
    assert np.array_equal(cutout.landmarks, detect(on_grey(rgba[..., :3], rgba[..., 3])))


def test_frames_on_a_background_are_the_transparent_ones_laid_on_it(
    head: TalkingHead, cutout: Portrait, speech: np.ndarray
) -> None:
    clear = head(cutout, speech, background="transparent", sampling=SHORT)
    assert clear.transparent
    frames = frames_of(clear)
    assert frames.shape == (10, 300, 351, 4)
    for background in ("#30a0ff", "blur", None):
        behind = draw_background((255, 255, 255) if background is None else
                                 (0x30, 0xA0, 0xFF) if background != "blur" else "blur", cutout)  # fmt: skip
        video = head(cutout, speech, background=background, sampling=SHORT)
        assert not video.transparent
        assert np.array_equal(frames_of(video), np.stack([lay(frame, behind) for frame in frames]))
    for background in ("transparent", "#30a0ff"):
        streamed = head.stream(cutout, np.split(speech, [2000]), background=background, sampling=SHORT)
        offline = head(cutout, speech, background=background, sampling=SHORT)
        assert np.array_equal(np.stack(list(streamed)), frames_of(offline))


def test_alpha_leaves_the_colours_alone(head: TalkingHead, opaque: Portrait, speech: np.ndarray) -> None:
    full = replace(opaque, alpha=np.full(opaque.image.shape[:2], 255, np.uint8))
    frames = frames_of(head(full, speech, background="transparent", sampling=SHORT))
    plain = frames_of(head(opaque, speech, sampling=SHORT))
    assert (frames[..., 3] == 255).all()
    assert np.array_equal(frames[..., :3], plain)
    assert np.array_equal(frames_of(head(full, speech, background="red", sampling=SHORT)), plain)


def test_alpha_moves_with_the_head(head: TalkingHead, cutout: Portrait, speech: np.ndarray) -> None:
    assert cutout.alpha is not None
    alpha = cutout.alpha.copy()
    x, y = np.rint(cutout.landmarks[9, :2]).astype(int)  # between the brows
    alpha[y - 3 : y + 4, x - 3 : x + 4] = 0
    holed = replace(cutout, alpha=alpha)
    track = head.landmarks(cutout, speech)
    moved = replace(track, translation=track.translation + np.array([9, 5, 0], np.float32))
    place = []
    for shown in (track, moved):
        frame = next(iter(head.render(holed, shown, background="transparent", sampling=SHORT)))
        rows, columns = np.nonzero(frame[y - 20 : y + 30, x - 25 : x + 30, 3] < 100)
        assert len(rows) > 20
        place.append((columns.mean(), rows.mean()))
    assert np.abs(np.subtract(*place[::-1]) - (9, 5)).max() < 1.5


def test_hidden_colours_leave_no_rim(head: TalkingHead, cutout: Portrait, speech: np.ndarray) -> None:
    track = head.landmarks(cutout, speech)
    moved = replace(track, translation=track.translation + np.array([7.4, 3.6, 0], np.float32))
    for size in (None, 200, 500):
        video = head.render(cutout, moved.slice(0, 8), background="white", size=size, sampling=SHORT)
        frame = next(iter(video)).astype(int)
        assert np.ptp(frame, axis=2).max() <= 12  # the portrait is grey, and what is hidden is magenta


def test_every_file_gets_what_it_can_keep(
    atl_head: TalkingHead, cutout: Portrait, speech: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    video = atl_head(cutout, speech, sampling=SHORT)
    for name in ("out.webm", "out.mov", "frames/"):
        video.save(f"{tmp_path}/{name}")
        assert not said(caplog)
    alpha = [alpha for _, alpha in read_rgba_frames(tmp_path / "out.mov")]
    clear = frames_of(atl_head(cutout, speech, background="transparent", sampling=SHORT))
    assert len(alpha) == 10
    assert all(
        got is not None and np.abs(got.astype(int) - wanted[..., 3]).max() <= 2
        for got, wanted in zip(alpha, clear, strict=True)
    )
    for name in ("out.mp4", "out.mkv", "out.gif"):
        caplog.clear()
        path = video.save(tmp_path / name)
        assert len(said(caplog)) == 1
        assert "background: the portrait has transparent parts, laid on white" in caplog.text
        frame = next(iter(read_frames(path)))
        assert frame[:8, :8].min() >= 253
    caplog.clear()
    green = atl_head(cutout, speech, background=(0, 128, 0), sampling=SHORT)
    for name in ("out.webm", "out.mp4"):
        (colour, hidden), *_ = read_rgba_frames(green.save(tmp_path / name))
        assert hidden is None
        assert np.abs(colour[4, 4].astype(int) - (0, 128, 0)).max() <= 3
    assert not said(caplog)
    for name in ("no.mp4", "no.gif"):
        with pytest.raises(ValueError, match="background: got transparent with .*expected .webm, .mov or a folder"):
            atl_head(cutout, speech, background="transparent", sampling=SHORT).save(tmp_path / name)
    assert not list(tmp_path.glob("no*"))


def test_it_is_said_once_what_is_behind(
    atl_head: TalkingHead, cutout: Portrait, opaque: Portrait, speech: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    next(atl_head.stream(cutout, [speech], sampling=SHORT))
    assert caplog.text.count("laid on white") == 1
    caplog.clear()
    for portrait, background in ((opaque, None), (cutout, "blur"), (cutout, "transparent")):
        next(iter(atl_head(portrait, speech, background=background, sampling=SHORT)))
        assert not said(caplog)
    next(iter(atl_head(opaque, speech, background="blur", sampling=SHORT)))
    assert caplog.text.count("background: it has no effect") == 1
    for call in (atl_head, atl_head.landmarks):
        with pytest.raises((ValueError, TypeError)):
            call(cutout, speech, background="no such colour")


def test_framing_and_size_keep_the_alpha(atl_head: TalkingHead, cutout: Portrait, speech: np.ndarray) -> None:
    assert cutout.alpha is not None
    video = atl_head(cutout, speech, framing="head", background="transparent", sampling=SHORT)
    height, width = video.size
    assert height == width < 300
    frame = next(iter(video))
    assert frame.shape == (height, width, 4)
    assert 0.2 < (frame[..., 3] > 128).mean() < 0.9
    small = next(iter(atl_head(cutout, speech, size=150, background="transparent", sampling=SHORT)))
    assert small.shape == (128, 150, 4)
    assert abs((small[..., 3] > 128).mean() - (cutout.alpha > 128).mean()) < 0.01


def test_a_video_with_alpha_is_a_portrait_with_alpha(
    atl_head: TalkingHead, cutout: Portrait, speech: np.ndarray, tmp_path: Path
) -> None:
    assert cutout.alpha is not None
    path = atl_head(cutout, speech, sampling=SHORT).save(tmp_path / "cutout.mov")
    again = atl_head.open_portrait(path)
    assert again.alpha is not None
    assert np.abs(again.alpha.astype(int) - cutout.alpha).mean() < 2
