"""`atldiff faces` on pictures made of the demo portrait, so that places and sizes are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from atldiff import cli

SIDE = 160
FACE_PX = 92
"""Width of the face in a square of 160 px cut from the portrait, within a few pixels."""


@pytest.fixture(scope="module")
def head(examples: Path) -> np.ndarray:
    return np.asarray(Image.open(examples / "portrait.jpg").convert("RGB"))[20 : 20 + SIDE, 145 : 145 + SIDE]


@pytest.fixture
def group(tmp_path: Path, head: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rows: three heads, the middle one a little larger, then two and one too small to use."""
    canvas = np.full((480, 600, 3), 128, np.uint8)
    for x, y, side in ((10, 30, 150), (200, 10, 185), (420, 40, 160), (60, 260, 155), (300, 250, 150), (500, 300, 36)):
        canvas[y : y + side, x : x + side] = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
    Image.fromarray(canvas).save(tmp_path / "group.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "group.png"


def test_faces_are_numbered_as_one_reads(group: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["faces", "group.png", "-o", "preview.jpg", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    assert (told["picture"], told["preview"], told["width"], told["height"]) == ("group.png", "preview.jpg", 600, 480)
    assert told["frame"] is None
    numbered = [face for face in told["faces"] if face["number"] is not None]
    assert [face["number"] for face in numbered] == [0, 1, 2, 3, 4]
    for face, (x, y, side) in zip(
        numbered, ((10, 30, 150), (200, 10, 185), (420, 40, 160), (60, 260, 155), (300, 250, 150)), strict=True
    ):
        assert face["width"] == pytest.approx(FACE_PX * side / SIDE, rel=0.12)
        assert np.abs(np.array(face["centre"]) - [x + side / 2, y + side / 2]).max() < 0.15 * side
        assert face["notes"] == []
    assert [face["default"] for face in numbered] == [False, True, False, False, False]
    for face in told["faces"][len(numbered) :]:
        assert face["width"] < 24
        assert face["notes"] == ["too small: expected 24 px"]
    with Image.open("preview.jpg") as preview:
        assert max(preview.size) >= 800


def test_the_list_is_for_humans(group: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["faces", "group.png", "-o", "preview.png"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["face", "0", "1", "2", "3", "4"]
    assert [index for index, line in enumerate(lines) if "taken without --face" in line] == [2]
    assert captured.err.startswith("preview.png: ")
    assert Path("preview.png").read_bytes().startswith(b"\x89PNG")


def test_generate_takes_the_number_that_is_listed(group: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.methods.portrait import open_portrait

    assert cli.run(["faces", "group.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for face in told["faces"][:5]:
        box = open_portrait(group, face=face["number"]).landmarks[:468, :2]
        assert (box.min(axis=0) + box.max(axis=0)) / 2 == pytest.approx(np.array(face["centre"]), abs=2)
    box = open_portrait(group).landmarks[:468, :2]
    (default,) = [face for face in told["faces"] if face["default"]]
    assert (box.min(axis=0) + box.max(axis=0)) / 2 == pytest.approx(np.array(default["centre"]), abs=2)


def test_the_notes_say_what_is_wrong_with_a_face(
    tmp_path: Path, head: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.rot90(head, 2)).save(tmp_path / "turned.png")
    assert cli.run(["faces", str(tmp_path / "turned.png"), "--json"]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    assert abs(face["roll_deg"]) > 170
    assert face["notes"] == [f"turned by {abs(face['roll_deg']):.0f} degrees"]


def test_a_frame_of_a_video(tmp_path: Path, head: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.video.write import VideoWriter

    path = tmp_path / "clip.mp4"
    with VideoWriter(path, size=(240, 400), fps=25) as writer:
        for x in (None, 20, 200):
            frame = np.full((240, 400, 3), 128, np.uint8)
            if x is not None:
                frame[40 : 40 + SIDE, x : x + SIDE] = head
            writer.write(frame)
    for args, frame, x in (([], 1, 20), (["--frame", "2"], 2, 200)):
        assert cli.run(["faces", str(path), "--json", *args]) == 0
        told = json.loads(capsys.readouterr().out)
        (face,) = told["faces"]
        assert told["frame"] == frame
        assert face["centre"][0] == pytest.approx(x + SIDE / 2, abs=25)
    assert cli.run(["faces", str(path), "--frame", "9"]) == 2
    assert "has 3 frames" in capsys.readouterr().err
    assert cli.run(["faces", str(path), "--frame", "0"]) == 2
    assert "no face found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none.png"], "none.png"),
        (["group.png", "-o", "group.png"], "would replace the input"),
        (["group.png", "-o", "preview.txt"], "expected .jpg or .jpeg or .png"),
        (["group.png", "-o", "none/preview.png"], "folder none does not exist"),
        (["group.png", "--frame", "1"], "still picture"),
        (["grey.png"], "no face found in the 300x200 picture"),
    ],
)
def test_bad_input_is_one_line(group: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str) -> None:
    Image.new("RGB", (300, 200), "grey").save("grey.png")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert cli.run(["faces", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("atldiff: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before
    shutil.rmtree(group.parent)
