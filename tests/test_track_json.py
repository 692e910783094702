"""Landmark tracks as JSON: exact, as the schema says, and strict about what comes from elsewhere."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atldiff import track_json
from atldiff.types import POINTS, LandmarkTrack

FIELDS = ("neutral", "displacements", "rotation", "translation", "scale")


def make_track(frames: int = 3) -> LandmarkTrack:
    random = np.random.default_rng(0)
    return LandmarkTrack(
        neutral=random.normal(0, 1, (POINTS, 3)).astype(np.float32),
        displacements=random.normal(0, 0.02, (frames, POINTS, 3)).astype(np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        translation=random.normal(200, 30, (frames, 3)).astype(np.float32),
        scale=np.full(frames, 90.3, np.float32),
        fps=Fraction(30000, 1001),
        size=(480, 640),
    )


def same(left: LandmarkTrack, right: LandmarkTrack) -> bool:
    arrays = all(getattr(left, name).tobytes() == getattr(right, name).tobytes() for name in FIELDS)
    return arrays and (left.fps, left.size) == (right.fps, right.size)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("track") / "track.json"
    make_track().save(path)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_every_bit_comes_back(tmp_path: Path, frames: int) -> None:
    track = make_track(frames)
    path = tmp_path / "take 1.JSON"
    track.save(path)
    assert same(LandmarkTrack.load(path), track)
    assert [file.name for file in tmp_path.iterdir()] == ["take 1.JSON"]


def test_any_float32_comes_back() -> None:
    """Halves of powers of two, subnormal numbers, both zeros, and half a million others."""
    bits = np.random.default_rng(1).integers(0, 2**32, 500_000, np.uint32)
    edges = np.arange(0, 256, dtype=np.uint32)[:, None] * 2**23 + np.array([0, 1, 2**22, 2**23 - 1], np.uint32)
    values = np.concatenate([bits, edges.ravel(), edges.ravel() | 2**31]).astype(np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    back = np.array(json.loads(track_json._text(values)), np.float64).astype(np.float32)
    assert back.tobytes() == values.tobytes()


def test_numbers_are_as_short_as_can_be() -> None:
    assert track_json._text(np.array([0.1, -0.0, 200, 1e-7], np.float32)) == "[0.1, -0.0, 200.0, 1e-07]"


def test_a_file_is_as_the_schema_says(held: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("atldiff").joinpath("track.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(held)
    for changes in ({"version": 2}, {"fps": [0, 1]}, {"frames": [{}]}, {"more": 1}, {"neutral": held["neutral"][1:]}):
        assert not validator.is_valid({**held, **changes}), changes


def test_it_is_written_a_frame_a_line(tmp_path: Path) -> None:
    make_track(4).save(tmp_path / "track.json")
    lines = (tmp_path / "track.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    assert lines[0].startswith('{"format": "atldiff-track", "version": 1, "topology": "face-mesh-478", "fps": [30000')
    assert sum(line.startswith('{"rotation"') for line in lines) == 4


@pytest.mark.parametrize("written", ["indented", "marked", "whole numbers", "commented"])
def test_what_other_programs_write(tmp_path: Path, held: dict[str, Any], written: str) -> None:
    path, track = tmp_path / "track.json", make_track()
    text = json.dumps(held, indent=1 if written == "indented" else None)
    if written == "whole numbers":
        held = {**held, "frames": [{**frame, "scale": 90, "translation": [200, 201, 0]} for frame in held["frames"]]}
        text = json.dumps(held)
        moved = np.tile(np.array([200, 201, 0], np.float32), (3, 1))
        track = replace(track, scale=np.full(3, 90, np.float32), translation=moved)
    if written == "commented":
        text = json.dumps({"$schema": "track.schema.json", "comment": "true", **held})
    path.write_text(text, encoding="utf-8-sig" if written == "marked" else "utf-8")
    assert same(LandmarkTrack.load(path), track)


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"^landmark track .*track\.json: ") as caught:
        LandmarkTrack.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert message.endswith("expected a .json written by `atldiff landmarks`")
    return message


FRAME = {"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "translation": [1, 2, 3], "scale": 9.5}
WRONG = (
    ({"format": "other"}, "format: got 'other', expected 'atldiff-track'"),
    ({"format": None}, "format: got none"),
    ({"version": 2}, "version: got 2, expected 1"),
    ({"version": "1"}, "version: got '1', expected 1"),
    ({"topology": "ibug-68"}, "topology: got 'ibug-68', expected 'face-mesh-478'"),
    ({"fps": 25}, "fps: got 25, expected 2, as of shape"),
    ({"fps": [25, 0]}, "track fps: got 25/0"),
    ({"fps": [29.97, 1]}, "fps: got [29.97, 1.0], expected whole numbers"),
    ({"fps": [5000, 1]}, "track fps: got 5000, expected 1 to 1000"),
    ({"size": [480, 640]}, "size: got a list of 2, expected an object of width and height"),
    ({"size": {"width": 640}}, "size.height: got none, expected one"),
    ({"size": {"width": 640, "height": 0}}, "track size: got (0, 640)"),
    ({"more": 1}, "more: no such key, expected format, version"),
    ({"neutral": None}, "neutral: got none, expected 478"),
    ({"neutral": [[0, 0, 0]]}, "neutral: got 1 values, expected 478, as of shape (478, 3)"),
    ({"neutral": [[0, 0]] * POINTS}, "neutral: got 2 values in a row of it, expected 3"),
    ({"neutral": [[0, 0, "1"]] * POINTS}, "neutral: got '1', expected numbers"),
    ({"neutral": [[0, 0, True]] * POINTS}, "neutral: got True, expected numbers"),
    ({"neutral": [[0, 0, None]] * POINTS}, "neutral: got none, expected numbers"),
    ({"neutral": [[0, 0, 1e300]] * POINTS}, "track neutral: got 1e+300"),
    ({"frames": {}}, "frames: got an object of 0, expected a list"),
    ({"frames": [7]}, "frames[0]: got 7, expected an object"),
    ({"frames": [FRAME]}, "frames[0].displacements: got none, expected one"),
    ({"frames": [{**FRAME, "displacements": [], "points": []}]}, "frames[0].points: no such key"),
    ({"frames": [{**FRAME, "displacements": []}]}, "frames[0].displacements: got 0 values, expected 478"),
    ({"frames": [{**FRAME, "displacements": [[0] * 3] * POINTS, "scale": [1]}]}, "frames[0].scale: got a list of 1"),
    ({"frames": [{**FRAME, "displacements": [[0] * 3] * POINTS, "scale": -1}]}, "track scale: got -1"),
)


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, held: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    (tmp_path / "track.json").write_text(json.dumps({**held, **changes}), encoding="utf-8")
    assert said in refused(tmp_path / "track.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON: Expecting value at line 1, column 1"),
        ("[1, 2]", "got a list of 2, expected an object"),
        ('{"format": "atldiff-track", "format": "atldiff-track"}', "format: got it twice"),
        ('{"format": NaN}', "got NaN, expected finite numbers"),
        ('{"format": -Infinity}', "got -Infinity, expected finite numbers"),
        ('{"format": 1' + "0" * 100_000 + "}", "format: got inf"),
        ('{"' + "x" * 100_000 + '": 1, "format": "atldiff-track", "version": 1}', "topology: got none"),
        ("[" * 200_000, "lists in lists without end"),
    ],
    ids=["empty", "list", "twice", "nan", "infinity", "digits", "key", "deep"],
)
def test_what_is_no_such_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "track.json").write_text(text, encoding="utf-8")
    assert said in refused(tmp_path / "track.json")


def test_numbers_that_become_infinite(tmp_path: Path, held: dict[str, Any]) -> None:
    text = json.dumps(held).replace('"scale": 90.3', '"scale": 1e999', 1)
    (tmp_path / "track.json").write_text(text, encoding="utf-8")
    assert "frames[0].scale: got a number beyond any" in refused(tmp_path / "track.json")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "track.json").write_bytes(b'{"format": "\xff"}')
    assert "no UTF-8 at 12" in refused(tmp_path / "track.json")
    (tmp_path / "track.json").unlink()
    assert "no such file" in str(pytest.raises(ValueError, LandmarkTrack.load, tmp_path / "track.json").value)


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "track.json"
    with path.open("wb") as file:
        file.truncate(50 * 2**30)  # a hole
    tracemalloc.start()
    try:
        assert "got 53.7 GB, expected at most 1.1 GB of JSON: use .npz" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    make_track().save(path)
    monkeypatch.setattr("atldiff.types._memory", lambda: 10**5)
    assert "expected less than this machine's 0.0 GB" in refused(path)


def test_what_is_said_of_memory_is_true(tmp_path: Path) -> None:
    path = tmp_path / "track.json"
    make_track(60).save(path)
    tracemalloc.start()
    try:
        LandmarkTrack.load(path)
        assert tracemalloc.get_traced_memory()[1] < track_json.PARSED_BYTES * path.stat().st_size
    finally:
        tracemalloc.stop()
