"""How large a video is where nobody asks: as the portrait, up to what players show, and what is said of it."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import torch
from PIL import Image

from atldiff import cli
from atldiff.checkpoint import save_model
from atldiff.methods.framing import framed
from atldiff.methods.portrait import LARGEST_SIDE, resized
from atldiff.pipeline import TalkingHead
from atldiff.types import POINTS, Portrait

if TYPE_CHECKING:
    from atldiff.methods.atl.network import ATLModel

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SOUND = (0.1 * np.sin(np.arange(1280))).astype(np.float32)  # two frames
REMARK = "size: made at {} instead of the portrait's {}, which few players show; size full keeps it"


@pytest.fixture(scope="module")
def head(random_model: ATLModel) -> TalkingHead:
    return TalkingHead(random_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def portrait(head: TalkingHead) -> Portrait:
    whole = head.open_portrait(EXAMPLES / "portrait.jpg")
    return Portrait(np.ascontiguousarray(whole.image[:400]), whole.landmarks)


@pytest.fixture
def cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for 1920: portraits that large would make the tests slow."""
    monkeypatch.setattr("atldiff.methods.portrait.LARGEST_SIDE", 256)


def blank(height: int, width: int) -> Portrait:
    return Portrait(np.zeros((height, width, 3), np.uint8), np.zeros((POINTS, 3), np.float32))


@pytest.mark.parametrize(
    ("size", "own", "made"),
    [
        (None, (1080, 1920), (1080, 1920)),
        (None, (1081, 1919), (1081, 1919)),  # as it is, odd sides too
        (None, (3000, 4000), (1440, 1920)),
        (None, (1921, 700), (1920, 700)),
        ("full", (1921, 700), (1921, 700)),
        (2400, (3000, 4000), (1800, 2400)),
        (64, (400, 300), (64, 48)),
    ],
)
def test_only_what_nobody_asked_for_is_made_smaller(size, own, made) -> None:
    portrait = blank(*own)
    assert resized(portrait, size).size == made
    assert (resized(portrait, size) is portrait) == (made == own)
    assert LARGEST_SIDE == 1920


@pytest.mark.parametrize("size", [63, 8193, "large"])
def test_other_sizes_are_refused(size) -> None:
    with pytest.raises(ValueError, match=f"^size: got {size!r}, expected 64 to 8192 pixels, or full$"):
        resized(blank(80, 80), size)


@pytest.mark.usefixtures("cap")
def test_a_large_portrait_is_made_smaller_and_it_is_said_once(head, portrait, tmp_path, caplog) -> None:
    small = head(portrait, SOUND, size=256)
    assert small.size == (200, 256)
    expected = list(small)
    video = head(portrait, SOUND)
    assert not caplog.text
    video.save(tmp_path / "out.mp4")
    assert [record.getMessage() for record in caplog.records] == [REMARK.format("256x200", "512x400")]
    assert video.size == video.written.size == video.track.size == (200, 256)
    assert all((one == other).all() for one, other in zip(video, expected, strict=True))
    caplog.clear()
    streamed = list(head.stream(portrait, [SOUND]))
    assert [record.getMessage() for record in caplog.records] == [REMARK.format("256x200", "512x400")]
    assert all((one == other).all() for one, other in zip(streamed, expected, strict=True))


@pytest.mark.usefixtures("cap")
def test_nothing_is_said_where_a_size_was_asked_for_or_the_portrait_stays(head, portrait, tmp_path, caplog) -> None:
    for size, made in (("full", (400, 512)), (300, (234, 300))):
        video = head(portrait, SOUND, size=size)
        assert video.save(tmp_path / "out.mp4").exists()
        assert video.size == made
        assert next(head.stream(portrait, [SOUND], size=size)).shape == (*made, 3)
    list(head(resized(portrait, 256), SOUND))
    assert not caplog.text


@pytest.mark.usefixtures("cap")
def test_a_track_of_the_portrait_s_own_size_is_carried_over(head, portrait) -> None:
    track = head.landmarks(portrait, SOUND)
    assert track.size == (400, 512)
    video = head.render(portrait, track)
    assert video.size == video.track.size == (200, 256)
    assert np.abs(video.track.points() - track.points() / 2).max() < 0.05
    assert head.render(portrait, track, size="full").size == (400, 512)


def test_a_square_of_the_head_counts_by_its_own_side(head, portrait, caplog, monkeypatch) -> None:
    side = framed(portrait, "head").size[0]
    monkeypatch.setattr("atldiff.methods.portrait.LARGEST_SIDE", side)
    video = head(portrait, SOUND, framing="head")
    assert side < 400  # the photograph itself would be too large
    assert video.size == (side, side)
    list(video)
    assert not caplog.text
    monkeypatch.setattr("atldiff.methods.portrait.LARGEST_SIDE", 200)
    list(head(portrait, SOUND, framing="head"))
    assert REMARK.format("200x200", f"{side}x{side}") in caplog.text


@pytest.mark.usefixtures("cap")
def test_a_gif_has_its_own_remark_alone(head, portrait, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("atldiff.video.gif.LONGEST_SIDE", 128)
    video = head(portrait, SOUND)
    video.save(tmp_path / "out.gif")
    assert video.written.size == (100, 128)
    (record,) = caplog.records
    assert "made smaller than the portrait's 512x400" in record.getMessage()


@pytest.mark.usefixtures("cap")
@pytest.mark.parametrize("size", [None, "full", "300"])
def test_the_commands_know_full(head, random_model, portrait, tmp_path, monkeypatch, capsys, size) -> None:
    save_model(random_model, tmp_path / "weights")
    Image.fromarray(portrait.image).save(tmp_path / "face.png")
    made = {None: (256, 200), "full": (512, 400), "300": (300, 234)}[size]
    pcm = (SOUND * 32767).astype("<i2").tobytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(pcm), closed=False, isatty=lambda: False))
    args = ["generate", str(tmp_path / "face.png"), "--stdin", "--weights", str(tmp_path / "weights")]
    args += ["-o", str(tmp_path / "out.mp4"), "--device", "cpu", *([] if size is None else ["--size", size])]
    assert cli.run(args) == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == made
    assert capsys.readouterr().err.count("instead of the portrait's 512x400") == (size is None)
    logging.getLogger("atldiff").handlers = []


def test_another_word_for_a_size_is_refused_in_one_line(capsys) -> None:
    assert cli.run(["generate", "face.png", "speech.wav", "--size", "ful"]) == 2
    assert "--size: got 'ful', expected a whole number or full; did you mean 'full'?" in capsys.readouterr().err
