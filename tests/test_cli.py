from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atldiff import cli
from atldiff.commands import train
from atldiff.commands.options import parse_fps
from atldiff.commands.prepare import summarise
from atldiff.commands.progress import Progress
from atldiff.config import (
    DIFFTALKER_PRESETS,
    LMDIFF_PRESETS,
    PAPER_PRESETS,
    TRAIN_PRESETS,
    ATLConfig,
    sampling_presets,
)
from atldiff.errors import CheckpointError, FaceNotFound
from atldiff.types import POINTS, Controls, LandmarkTrack, Portrait
from atldiff.video.write import Written

SOURCE = Path(__file__).resolve().parents[1] / "src"
FRAMES, FPS = 5, Fraction(25)


def run_alone(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "atldiff", *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
    )


def make_track(neutral: np.ndarray | None = None, size: tuple[int, int] = (64, 48)) -> LandmarkTrack:
    return LandmarkTrack(
        neutral=np.zeros((POINTS, 3), np.float32) if neutral is None else neutral,
        displacements=np.ones((FRAMES, POINTS, 3), np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1)),
        translation=np.zeros((FRAMES, 3), np.float32),
        scale=np.ones(FRAMES, np.float32),
        fps=FPS,
        size=size,
    )


class FakeVideo:
    def __init__(self, track: LandmarkTrack) -> None:
        self.track = track
        self.seconds: dict[str, float] = {}
        self.written = Written((66, 50), track.fps, len(track))  # of odd sides, say

    def save(self, path, *, progress=None) -> Path:
        for done in range(FRAMES):
            if progress:
                progress(done + 1, FRAMES)
        Path(path).write_bytes(b"video")
        self.seconds = {"render": 0.5, "write": 0.25}
        return Path(path)


def make_portrait(references: tuple[Portrait, ...] = ()) -> Portrait:
    return Portrait(np.zeros((48, 64, 3), np.uint8), np.zeros((POINTS, 3), np.float32), references=references)


class FakeHead:
    """Stands where `TalkingHead` stands and notes its calls."""

    calls: list[tuple[str, dict]]
    error: Exception | None
    model = SimpleNamespace(renderer=SimpleNamespace(config=ATLConfig().renderer))

    @classmethod
    def from_pretrained(cls, name, **options) -> FakeHead:
        cls.calls.append(("load", {"name": name, **options}))
        if cls.error is not None:
            raise cls.error
        return cls()

    def sampling(self, chosen):
        return sampling_presets(self.model.renderer.config)[chosen]

    def open_portrait(self, source, *, face=None, frame=None, references=None, landmarks=None):
        self.calls.append(("open", {"source": source, "face": face, "frame": frame, "references": references}))
        return source if isinstance(source, Portrait) else make_portrait(references=(make_portrait(),))

    def __call__(self, portrait, audio, **options) -> FakeVideo:
        self.calls.append(("call", options))
        return FakeVideo(make_track())

    def landmarks(self, portrait, audio, **options) -> LandmarkTrack:
        self.calls.append(("landmarks", options))
        return make_track()

    def render(self, portrait, track, **options) -> FakeVideo:
        self.calls.append(("render", {"track": track, **options}))
        return FakeVideo(track)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("atldiff.pipeline.TalkingHead", FakeHead)
    monkeypatch.setattr("atldiff.methods.portrait.detect", lambda image, face=None: np.zeros((POINTS, 3), np.float32))
    FakeHead.calls, FakeHead.error = [], None
    return FakeHead


@pytest.fixture
def folder(tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder beside good inputs."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "face.jpg").write_bytes((examples / "portrait.jpg").read_bytes())
    (inputs / "speech.wav").write_bytes((examples / "speech.wav").read_bytes())
    make_track().save(inputs / "track.npz")
    with np.load(inputs / "track.npz") as good:
        np.savez(inputs / "broken.npz", **{**good, "fps": np.array([0, 1])})
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


FACE, SPEECH, TRACK = "../inputs/face.jpg", "../inputs/speech.wav", "../inputs/track.npz"


def called(head: type[FakeHead], name: str) -> dict:
    return next(options for called, options in head.calls if called == name)


# Other programs' commands


def test_a_wav2lip_command(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["generate", "--face", FACE, "--audio", SPEECH, "--outfile", "out.mp4", "--pads", "0", "20", "0", "0"]
    assert cli.run(args) == 0
    assert (folder / "out.mp4").read_bytes() == b"video"
    assert "atldiff: warning: --pads is ignored: " in capsys.readouterr().err
    assert cli.run([*args, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_sadtalker_command(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["generate", "--driven_audio", SPEECH, "--source_image", FACE, "--result_dir", "results", "--still"]
    assert cli.run([*args, "--preprocess", "crop", "--cpu", "--enhancer", "gfpgan"]) == 2
    assert capsys.readouterr().err.startswith("atldiff: error: --enhancer: ")
    assert cli.run([*args, "--preprocess", "crop", "--cpu", "--batch_size", "2"]) == 0
    assert called(head, "call")["framing"] == "head"
    assert called(head, "load")["device"] == "cpu"
    assert [path.name for path in (folder / "results").iterdir()] == ["face_speech.mp4"]


# Sound


def write_two_tracks(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        for language in ("ger", "eng"):
            stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
            stream.metadata["language"] = language
        for stream in container.streams.audio:
            frame = av.AudioFrame.from_ndarray(np.ones((1, 16_000), np.int16), format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize(("given", "taken"), [("1", "1 (eng"), ("de", "0 (ger"), ("eng", "1 (eng")])
@pytest.mark.parametrize("command", ["generate", "landmarks", "render"])
def test_an_audio_track_is_chosen(
    head: type[FakeHead], folder: Path, capsys: pytest.CaptureFixture[str], command: str, given: str, taken: str
) -> None:
    two = str(write_two_tracks(folder / "two.mkv"))
    inputs = [FACE, TRACK, "--audio", two] if command == "render" else [FACE, two]
    assert cli.run([command, *inputs, "--audio-track", given]) == 0
    said = capsys.readouterr().err
    assert f"atldiff: warning: audio {two}: 2 audio tracks, taking {taken}" in said
    assert cli.run([command, *inputs, "--audio-track", "2"]) == 2
    said = capsys.readouterr().err
    assert "got audio track 2, expected a number or a language of 0 (ger, pcm_s16le" in said
    assert said.count("\n") == 1


def test_an_audio_track_of_nothing(head: type[FakeHead], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["render", FACE, TRACK, "--audio-track", "1"]) == 2
    assert "audio_track: got 1 without --audio" in capsys.readouterr().err
    assert cli.run(["generate", FACE, "--stdin", "--audio-track", "eng"]) == 2
    assert "audio_track: got eng with --stdin" in capsys.readouterr().err


# Help


@pytest.mark.parametrize("args", [["--help"], ["--version"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_is_light(args: list[str]) -> None:
    heavy = {"torch", "cv2", "av", "onnxruntime", "scipy", "PIL"} | (
        {"numpy", "tyro", "rich"} if len(args) == 1 else set()
    )
    code = (
        "import sys; from atldiff import cli; code = cli.run(sys.argv[1:]); "
        f"sys.exit('LOADED ' + ' '.join(sorted({heavy!r} & set(sys.modules))) if code == 0 else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        timeout=60,
    )
    assert done.stderr.split() == ["LOADED"]
    assert done.stdout.strip()


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    modules = {path.stem for path in (SOURCE / "atldiff" / "commands").glob("*.py")}
    assert {name.replace("-", "_") for name in cli.COMMANDS} <= modules


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "usage" in capsys.readouterr().err


# The door


BAD = {
    "unknown command": (["genrate", FACE, SPEECH], "did you mean 'generate'?"),
    "no portrait": (["generate", "none.jpg", SPEECH], "none.jpg"),
    "no audio": (["generate", FACE, "none.wav"], "none.wav"),
    "audio is a folder": (["generate", FACE, "../inputs"], "folder"),
    "empty audio": (["generate", FACE, "../inputs/empty.wav"], "empty"),
    "text as audio": (["generate", FACE, "../inputs/text.wav"], "text.wav"),
    "text as portrait": (["generate", "../inputs/text.jpg", SPEECH], "text.jpg"),
    "one pixel": (["generate", "../inputs/pixel.png", SPEECH], "1x1"),
    "no reference": (["generate", FACE, SPEECH, "--reference", FACE, "none.jpg"], "reference none.jpg: no such file"),
    "text as reference": (["render", FACE, TRACK, "--reference", "../inputs/text.jpg"], "reference ../inputs/text.jpg"),
    "many references": (["generate", FACE, SPEECH, "--reference", *[FACE] * 17], "got 17, expected at most 16"),
    "references apart": (["generate", FACE, SPEECH, "--reference", "a", "--reference", "b"], "all of them after it"),
    "onto a reference": (
        ["generate", FACE, SPEECH, "--reference", "../clips/a.mp4", "-o", "../clips/a.mp4"],
        "would replace",
    ),
    "no output folder": (["generate", FACE, SPEECH, "-o", "none/out.mp4"], "folder none does not exist"),
    "file as result folder": (["generate", FACE, SPEECH, "--result_dir", FACE], "got a file in its place"),
    "file above result folder": (["landmarks", FACE, SPEECH, "--output-dir", f"{FACE}/a/b"], "got a file in its place"),
    "broken track": (["render", FACE, "../inputs/broken.npz"], "track fps: got 0, expected 1 to 1000"),
    "broken driver": (["generate", FACE, "none.wav", "--driving-video", "../inputs/broken.npz"], "none.wav"),
    "broken driver alone": (["generate", FACE, SPEECH, "--driving-video", "../inputs/broken.npz"], "track fps: got 0"),
    "unknown suffix": (["generate", FACE, SPEECH, "-o", "out.txt"], ".txt"),
    "no track folder": (["generate", FACE, SPEECH, "--landmarks", "none/t.npz"], "folder none does not exist"),
    "track suffix": (["generate", FACE, SPEECH, "--landmarks", "t.txt"], ".npz"),
    "output twice": (["generate", FACE, SPEECH, "-o", "a.mp4", "--output-dir", "."], "one of them"),
    "fps": (["generate", FACE, SPEECH, "--fps", "fast"], "30000/1001"),
    "steps": (["generate", FACE, SPEECH, "--steps", "0"], "steps"),
    "alias without value": (["generate", FACE, "--driven_audio"], "--driven_audio: got no value"),
    "landmarks without audio": (["landmarks", FACE], "no audio"),
    "landmarks to a video": (["landmarks", FACE, SPEECH, "-o", "out.mp4"], ".npz"),
    "render of no track": (["render", FACE, SPEECH], "speech.wav"),
    "render to a track": (["render", FACE, TRACK, "-o", "out.npz"], "out.mp4"),
    "render gain": (["render", FACE, TRACK, "--expression-scale", "-1"], "expression_scale: got -1.0"),
    "render gaze": (["render", FACE, TRACK, "--gaze", "up"], "gaze: got 'up', expected camera"),
    "render head": (["render", FACE, TRACK, "--head", "none.npz"], "head: landmark track none.npz: no such file"),
    "generate mix": (["generate", FACE, SPEECH, "--mix", "none.mp4"], "none.mp4: no such file"),
    "edits of a stream": (
        ["generate", FACE, "--stdin", "--jaw-strength", "2"],
        "stdin: got --jaw-strength with --stdin",
    ),
    "preview of a stream": (["generate", FACE, "--stdin", "--preview"], "stdin: got --preview with --stdin"),
    "landmarks of two": (["landmarks", FACE, SPEECH, "--from-video", SPEECH], "from_video: got it with AUDIO"),
    "landmarks from sound": (["landmarks", "--from-video", SPEECH], "got a file without moving pictures"),
    "landmarks of nothing": (["landmarks"], "landmarks: got no portrait"),
    "landmarks preview": (["landmarks", FACE, SPEECH, "--preview", "none/p.png"], "folder none does not exist"),
    "prepare nothing": (["prepare", "none"], "none"),
    "prepare unknown source": (["prepare", "maed", "../inputs"], "did you mean 'mead'?"),
    "prepare source alone": (["prepare", "mead"], "expected mead FOLDER"),
    "prepare another layout": (["prepare", "mead", "../clips"], "such as M003/video/front/angry/level_1/001.mp4"),
    "prepare without a folder": (["prepare"], "expected [SOURCE] FOLDER"),
    "prepare a named corpus by face": (["prepare", "mead", "..", "--identity", "folder"], "names its speakers"),
    "prepare train-only of one": (["prepare", "hdtf", "..", "--train-only", "inputs"], "leave it out"),
    "prepare workers": (["prepare", "../inputs", "--workers", "-1"], "0 or more, or ray"),
    "prepare no videos": (["prepare", "../inputs"], "no videos"),
    "prepare unknown corpus": (["prepare", "..", "--train-only", "input"], "did you mean 'inputs'?"),
    "train unknown preset": (["train", "rendrer", "--data", "synthetic", "--out", "run"], "did you mean 'renderer'?"),
    "train no data": (["train", "debug", "--data", "none", "--out", "run"], "manifest.jsonl"),
    "train no weights": (["train", "debug", "--data", "synthetic", "--out", "r", "--weights", "none"], "none"),
    "train steps": (["train", "debug", "--data", "synthetic", "--out", "r", "--steps", "0"], "steps"),
    "prepare face without embedder": (["prepare", "../inputs", "--identity", "face"], "go together"),
    "prepare embedder without face": (["prepare", "../inputs", "--embedder", "a.onnx"], "go together"),
    "evaluate no data": (["evaluate", "--data", "none"], "manifest.jsonl"),
    "evaluate json folder": (["evaluate", "--data", "none", "--json", "none/e.json"], "folder none does not exist"),
    "report of nothing": (["report", "none.json"], "no such file"),
    "report of a picture": (["report", FACE], "not JSON"),
    "report page folder": (["report", "none.json", "--html", "none/p.html"], "folder none does not exist"),
    "report page suffix": (["report", "none.json", "--html", "p.txt"], "expected .html"),
    "report onto its input": (["report", "../inputs/e.json", "--json", "../inputs/e.json"], "replace the input"),
    "report of another format": (["report", "../inputs/e.json"], "expected 1"),
    "report seed": (["report", "none.json", "--seed", "-1"], "seed"),
    "align no data": (["align", "--data", "none"], "manifest.jsonl"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(
    case: str, folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    inputs = folder.parent / "inputs"
    (folder.parent / "clips").mkdir()
    (folder.parent / "clips" / "a.mp4").touch()
    (inputs / "empty.wav").touch()
    (inputs / "e.json").write_text('{"format": 9, "protocol": "p"}')
    (inputs / "text.wav").write_text("hello\n" * 50)
    (inputs / "text.jpg").write_text("hello\n" * 50)
    Image.new("RGB", (1, 1)).save(inputs / "pixel.png")
    args, said = BAD[case]
    assert cli.run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("atldiff: error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert list(folder.iterdir()) == []
    assert head.calls == []  # no weights were touched


@pytest.mark.parametrize(
    "error",
    [CheckpointError("checkpoint x: bad\nkey"), ValueError("device"), PermissionError(13, "Permission denied", "w")],
)
def test_errors_of_loading_are_one_line(
    error: Exception, folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]
) -> None:
    head.error = error
    assert cli.run(["generate", FACE, SPEECH]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_no_face_stops_before_the_weights(
    folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(image, face=None):
        raise FaceNotFound("portrait: no face found")

    monkeypatch.setattr("atldiff.methods.portrait.detect", nobody)
    assert cli.run(["generate", FACE, SPEECH]) == 2
    assert capsys.readouterr().err == "atldiff: error: portrait: no face found\n"
    assert head.calls == []


def test_no_face_alone(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (320, 240), "grey").save(folder.parent / "inputs" / "blank.png")
    done = run_alone("generate", "../inputs/blank.png", SPEECH, cwd=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no face" in done.stderr
    assert list(folder.iterdir()) == []


def test_verbose_shows_the_traceback(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    head.error = CheckpointError("checkpoint x: bad key")
    assert cli.run(["generate", FACE, SPEECH, "--verbose"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("atldiff: error: checkpoint x: bad key\n")


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("ACCURATE_RND"),
        TypeError("reformat() got an unexpected keyword argument 'threads'"),
        ImportError("cannot import name 'ColorTrc'", name="av.video.reformatter"),
    ],
)
def test_a_too_old_package_is_one_line(
    error: Exception,
    folder: Path,
    head: type[FakeHead],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = metadata.version
    head.error = error
    if not isinstance(error, ImportError):
        with pytest.raises(type(error)):  # all packages are as they should be: a fault of ours
            cli.run(["generate", FACE, SPEECH])
    monkeypatch.setattr(metadata, "version", lambda name: "16.1.0" if name == "av" else known(name))
    assert cli.run(["generate", FACE, SPEECH]) == 2
    err = capsys.readouterr().err
    assert err.startswith("atldiff: error: av: got 16.1.0, expected 17.1 or newer: run ")
    assert err.count("\n") == 1


def test_a_missing_package_is_one_line(
    folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    head.error = ModuleNotFoundError("No module named 'safetensors'", name="safetensors.numpy")
    assert cli.run(["generate", FACE, SPEECH]) == 2
    assert "error: safetensors: not installed: run " in capsys.readouterr().err
    head.error = ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    assert cli.run(["generate", FACE, SPEECH]) == 2
    told = capsys.readouterr().err
    assert "error: torch: not installed, and this needs it: run " in told
    assert told.endswith("-m pip install 'atldiff[torch]'\n")
    head.error = ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")
    assert cli.run(["generate", FACE, SPEECH]) == 2
    assert "No module named 'elsewhere': run `atldiff doctor`" in capsys.readouterr().err


def test_a_broken_package_is_one_line(
    folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def import_module(name: str, package: str | None = None):
        if name == "tyro":
            raise ModuleNotFoundError("No module named 'docstring_parser'")
        return load(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    head.error = ModuleNotFoundError("No module named 'docstring_parser'", name="docstring_parser")
    assert cli.run(["generate", FACE, SPEECH]) == 2
    err = capsys.readouterr().err
    assert "error: tyro: cannot be imported (No module named 'docstring_parser'): run " in err
    assert err.count("\n") == 1


def test_output_never_replaces_the_portrait(
    folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]
) -> None:
    video = folder.parent / "inputs" / "face.mp4"
    video.write_bytes(b"x")
    assert cli.run(["generate", str(video), SPEECH, "-o", "../inputs/face.mp4"]) == 2
    assert "replace the input" in capsys.readouterr().err
    assert video.read_bytes() == b"x"


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(json: bool = False) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("atldiff.doctor.run", stop)
    assert cli.run(["doctor"]) == 130
    assert capsys.readouterr().err == "atldiff: interrupted\n"


def test_doctor_returns_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("atldiff.doctor.run", lambda json=False: seen.append(json) or 1)
    assert cli.run(["doctor", "--json"]) == 1
    assert seen == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes of this kind")
def test_a_reader_that_goes_away_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    path = {**os.environ, "PYTHONPATH": str(SOURCE)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "atldiff", "--help"], stdout=write_end, stderr=subprocess.PIPE, env=path, timeout=60
        )
    finally:
        os.close(write_end)
    assert done.returncode == cli.BROKEN_PIPE
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_standard_output_that_is_full() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "atldiff", "--help"], stdout=full, stderr=subprocess.PIPE, text=True,
            env={**environment, "PYTHONPATH": str(SOURCE)}, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "atldiff: error: standard output: No space left on device\n")


# What the commands do


def test_generate_passes_the_options_on(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["generate", "--source_image", FACE, "--driven_audio", SPEECH, "--still", "--seed", "7", "--steps", "3"]
    args += ["--expression_scale", "1.5", "--blink-rate", "0.5", "--smoothing", "1", "--head-motion", "0.5"]
    args += ["--fps", "30000/1001", "--size", "256", "--preset", "best", "--face", "1", "--weights", "w"]
    args += ["--generator", "g", "--renderer", "r", "--framing", "head"]
    assert cli.run([*args, "--device", "cpu", "--dtype", "float32", "--quiet", "-o", "out.mp4"]) == 0
    assert [name for name, _ in head.calls] == ["load", "open", "call"]
    assert called(head, "load") == {
        "name": "w", "generator": "g", "renderer": "r", "device": "cpu", "dtype": "float32", "backend": "auto"
    }  # fmt: skip
    assert called(head, "open")["face"] == 1
    assert isinstance(called(head, "open")["source"], Portrait)
    options = called(head, "call")
    assert options["controls"] == Controls(
        expression_scale=1.5, still=True, blink_rate_hz=0.5, head_motion=0.5, smoothing_frames=1, seed=7
    )
    assert options["sampling"].steps == 3
    assert options["fps"] == Fraction(30000, 1001)
    assert options["size"] == 256
    assert options["framing"] == "head"
    assert (folder / "out.mp4").read_bytes() == b"video"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_generate_defaults(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["generate", FACE, SPEECH]) == 0
    assert called(head, "load")["name"] == "atl-diff"
    options = called(head, "call")
    assert (options["controls"], options["sampling"].steps, options["fps"], options["size"]) == (
        Controls(),
        2,
        None,
        None,
    )
    assert [path.name for path in folder.iterdir()] == ["face_speech.mp4"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "face_speech.mp4: 0.2 s, 5 frames of 50x66 at 25 fps, made in" in captured.err


def test_result_dir_holds_the_default_name(folder: Path, head: type[FakeHead]) -> None:
    for results in ("new/results", "new/results", "."):  # made with what is around it, as by mkdir -p; or there
        assert cli.run(["generate", FACE, SPEECH, "--result_dir", results, "--quiet"]) == 0
        assert (folder / results / "face_speech.mp4").exists()


def test_generate_json(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["generate", FACE, SPEECH, "-o", "out.mp4", "--landmarks", "t.npz", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    fixed = {name: result[name] for name in ("output", "frames", "fps", "width", "height", "duration_s", "landmarks")}
    assert fixed == {
        "output": "out.mp4",
        "frames": FRAMES,
        "fps": 25.0,
        "width": 50,
        "height": 66,
        "duration_s": 0.2,
        "landmarks": "t.npz",
    }
    assert list(result["seconds"]) == ["portrait", "audio", "load", "landmarks", "render", "write", "total"]
    assert result["seconds"]["render"] == 0.5
    assert result["real_time_factor"] == pytest.approx(result["seconds"]["total"] / 0.2, abs=0.01)
    assert len(LandmarkTrack.load("t.npz")) == FRAMES


def test_generate_to_npz_makes_landmarks_only(folder: Path, head: type[FakeHead]) -> None:
    assert cli.run(["generate", FACE, SPEECH, "-o", "out.npz", "--quiet"]) == 0
    assert [name for name, _ in head.calls] == ["load", "open", "landmarks"]
    assert len(LandmarkTrack.load("out.npz")) == FRAMES


def test_a_frame_is_chosen_by_the_pipeline(folder: Path, head: type[FakeHead]) -> None:
    assert cli.run(["generate", FACE, SPEECH, "--frame", "3", "--quiet"]) == 0
    assert called(head, "open") == {"source": Path(FACE), "face": None, "frame": 3, "references": None}


@pytest.mark.parametrize("args", [["generate", FACE, SPEECH], ["render", FACE, TRACK]])
def test_references_are_opened_before_the_weights(args: list[str], folder: Path, head: type[FakeHead]) -> None:
    assert cli.run([*args, "--reference", FACE, FACE, "--quiet"]) == 0
    assert len(called(head, "open")["source"].references) == 2
    assert called(head, "open")["references"] is None
    assert called(head, args[0].replace("generate", "call"))  # with what was opened


def test_a_video_portrait_says_what_it_gives(
    folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["generate", FACE, SPEECH, "--frame", "3"]
    assert cli.run(args) == 0
    said = capsys.readouterr().err
    assert said.count(f"portrait {FACE}: the frames of its widest and its most closed mouth are references\n") == 1
    assert cli.run([*args, "-o", "out.npz", "--quiet"]) == 0
    assert head.calls[-2] == ("open", {"source": Path(FACE), "face": None, "frame": 3, "references": ()})
    assert capsys.readouterr().err == ""


def test_landmarks(folder: Path, head: type[FakeHead], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["landmarks", FACE, SPEECH, "--fps", "50", "--framing", "head", "--json"]) == 0
    assert called(head, "landmarks")["fps"] == 50
    assert called(head, "landmarks")["framing"] == "head"
    assert json.loads(capsys.readouterr().out)["output"] == "face_speech.npz"
    assert [path.name for path in folder.iterdir()] == ["face_speech.npz"]


def test_render_changes_the_track(folder: Path, head: type[FakeHead]) -> None:
    args = ["render", FACE, TRACK, "--expression-scale", "0.5", "--fps", "50", "--seed", "9", "--audio", SPEECH]
    assert cli.run([*args, "--framing", "head", "--quiet"]) == 0
    options = called(head, "render")
    assert options["framing"] == "head"
    assert options["seed"] == 9
    assert len(options["audio"].samples) > 16_000
    assert options["track"].fps == 50
    assert len(options["track"]) == 2 * FRAMES
    assert options["edits"].expression_scale == 0.5
    assert options["preview"] is False
    assert (folder / "face_track.mp4").exists()


def test_render_leaves_the_track_alone(folder: Path, head: type[FakeHead]) -> None:
    assert cli.run(["render", FACE, TRACK, "--quiet"]) == 0
    options = called(head, "render")
    assert options["audio"] is None
    np.testing.assert_array_equal(options["track"].displacements, make_track().displacements)


# Training and evaluation


def write_config(values: object) -> str:
    Path("config.json").write_text(json.dumps(values), encoding="utf-8")
    return "config.json"


def test_train_takes_preset_file_and_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def train_stage(config, data, out, **options) -> int:
        options["progress"](1, 4, {"loss": 0.5})
        seen.update(config=config, data=data, out=out, **options)
        return config.steps

    monkeypatch.setattr("atldiff.training.run.train_stage", train_stage)
    name = write_config({"preset": "debug", "steps": 100, "ema": 0, "model": {"renderer": {"widths": [16, 16]}}})
    args = ["train", name, "--data", "synthetic", "--out", "run", "--steps", "8", "--minutes", "2", "--workers", "0"]
    assert cli.run([*args, "--learning-rate", "0.01", "--clips-per-batch", "3", "--seed", "5", "--json"]) == 0
    config = seen["config"]
    assert (config.stage, config.steps, config.ema, config.seed) == ("renderer", 8, 0.0, 5)
    assert (config.learning_rate, config.clips_per_batch) == (0.01, 3)
    assert config.model.renderer.widths == (16, 16)
    assert config.frames == TRAIN_PRESETS["debug"].frames
    assert (str(seen["data"]), str(seen["out"]), seen["minutes"], seen["workers"]) == ("synthetic", "run", 2.0, 0)
    assert seen["start"] is None
    assert json.loads(capsys.readouterr().out)["steps"] == 8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"preset": "debug", "step": 100}, r"unknown field 'step'; did you mean 'steps'\?"),
        ({"preset": "debug", "steps": "100"}, "steps: got '100', expected a int"),
        ({"preset": "debug", "bfloat16": 1}, "bfloat16: got 1, expected a bool"),
        ({"preset": "debug", "steps": 0}, "steps: got 0"),
        ({"preset": "debug", "model": {"renderer": {"width": [16]}}}, "unknown field 'width'"),
        ({"preset": "debug", "model": {"painter": {}}}, "painter"),
        ({"preset": "lmdiff", "model": {"preset": "papr"}}, r"model: preset: got 'papr'; did you mean 'paper'\?"),
        ({"preset": "lmdiff", "model": {"preset": 1}}, "model: preset: got 1; expected one of compact, window, paper"),
        ({"preset": "landmark"}, r"did you mean 'landmarks'\?"),
        ({"steps": 100}, "preset"),
        ([1], "expected an object"),
    ],
)
def test_train_names_what_is_wrong_in_a_file(folder: Path, values: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train.load_config(write_config(values))


@pytest.mark.parametrize(
    ("preset", "presets"),
    [("paper-renderer", PAPER_PRESETS), ("difftalker-window", DIFFTALKER_PRESETS), ("lmdiff-window", LMDIFF_PRESETS)],
)
def test_a_file_may_start_from_another_architecture_of_the_method(folder: Path, preset: str, presets: dict) -> None:
    for name, model in presets.items():
        assert train.load_config(write_config({"preset": preset, "model": {"preset": name}})).model == model
    changes = {"preset": next(iter(presets)), "renderer": {"schedule": {"train_steps": 300}}}
    config = train.load_config(write_config({"preset": preset, "model": changes}))
    assert config.model.renderer.schedule.train_steps == 300  # pyright: ignore[reportAttributeAccessIssue]
    assert config.stage == TRAIN_PRESETS[preset].stage


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "debug", "--data", "synthetic", "--out", "run", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["steps"] == TRAIN_PRESETS["debug"].steps
    assert shown["parameters"]["renderer"] > 0
    assert list(folder.iterdir()) == []


def make_manifest(folder: Path):
    from atldiff.data.clip import ClipRecord
    from atldiff.data.manifest import Manifest, ManifestEntry, Split

    entries = [
        ManifestEntry(ClipRecord(path=f"g/{i}.mp4", name=f"g-{i}", note="" if i else "silent"), identity, split)
        for i, (identity, split) in enumerate(
            [("a", Split.TRAIN), ("a", Split.TRAIN), ("b", Split.TRAIN), ("c", Split.TEST)]
        )
    ]
    for i, reason in enumerate(["too short: 3 frames", "too short: 11 frames", "video /x/g/12.mp4: damaged"], 10):
        entries.append(ManifestEntry(ClipRecord(path=f"g/{i}.mp4", name=f"g-{i}", reason=reason), "", Split.NONE))
    return Manifest(entries=tuple(entries), folder=folder)


def test_prepare_reports_people_and_reasons(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def prepare(folder, out, **options):
        seen.update(folder=folder, out=out, **options)
        options["progress"](7, 7)
        return make_manifest(out)

    monkeypatch.setattr("atldiff.data.prepare.prepare", prepare)
    assert cli.run(["prepare", "../inputs", "--workers", "1", "--identity", "folder"]) == 0
    assert (seen["workers"], seen["identity_from"], seen["out"]) == (1, "folder", Path("inputs-prepared"))
    out = capsys.readouterr().out
    assert "rejected: too short: N frames" in out
    assert "of these silent" in out
    assert cli.run(["prepare", "crema_d", "../inputs", "--workers", "ray", "-o", "c"]) == 0
    assert (seen["source"].name, seen["workers"], seen["identity_from"]) == ("crema-d", "ray", "speaker")
    assert seen["folder"] == Path("../inputs")
    capsys.readouterr()
    assert cli.run(["prepare", "../inputs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "output": "inputs-prepared",
        "videos": 7,
        "usable": 4,
        "noted": {"silent": 1},
        "rejected": {"too short: N frames": 2, "video VIDEO: damaged": 1},
        "splits": {"train": {"clips": 3, "people": 2}, "test": {"clips": 1, "people": 1}},
    }


def test_prepare_without_a_usable_clip_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    manifest = make_manifest(folder)
    rejected = replace(manifest, entries=manifest.entries[4:])
    monkeypatch.setattr("atldiff.data.prepare.prepare", lambda *args, **options: rejected)
    assert summarise(rejected)["usable"] == 0
    assert cli.run(["prepare", "../inputs", "--quiet"]) == 1


def write_evaluation(path: Path, values: list[float]) -> None:
    from atldiff.evaluation.report import save, summarise

    metrics = {"ssim": {"label": "SSIM", "unit": "", "better": "higher", "group": "image"}}
    rows = ["ground truth", "atl-diff"]
    clips = [
        {"name": str(i), "frames": 75, "values": {"atl-diff": {"ssim": value}, "ground truth": {"ssim": 1.0}}}
        for i, value in enumerate(values)
    ]
    result = {"format": 1, "protocol": "atldiff-1", "metrics": metrics, "rows": rows, "main_row": "atl-diff"}
    result |= {"config": {"preset": path.stem}, "clips": clips, "summary": summarise(clips, rows, metrics, 0)}
    save(result, path)


def test_report_of_one_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(folder / "a.json", [0.8, 0.9, 0.7])
    assert cli.run(["report", "a.json", "--json", "s.json", "--html", "p.html"]) == 0
    out = capsys.readouterr().out
    assert "SSIM" in out
    assert "0.800 [" in out
    assert "ground truth" in out
    assert json.loads(Path("s.json").read_text())["summary"]["atl-diff"]["ssim"]["mean"] == pytest.approx(0.8)
    assert "<title>atl-diff: evaluation</title>" in Path("p.html").read_text(encoding="utf-8")
    assert cli.run(["report", "a.json", "--row", "atl-diff"]) == 0
    assert "ground truth" not in capsys.readouterr().out
    assert cli.run(["report", "a.json", "--row", "atl"]) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "p.html", "s.json"]


def test_report_of_two_evaluations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = [0.7 + 0.01 * i for i in range(10)]
    write_evaluation(folder / "a.json", values)
    write_evaluation(folder / "b.json", [value + 0.02 + 0.001 * i for i, value in enumerate(values)])
    assert cli.run(["report", "a.json", "b.json", "--json", "c.json", "--html", "p.html"]) == 0
    out = capsys.readouterr().out
    assert "B is better in SSIM by 0.0245 [0.02" in out
    assert "10 clips, p = 0.002." in out
    assert "preset: A a, B b" in out
    assert json.loads(Path("c.json").read_text())["metrics"][0]["verdict"] == "better"
    assert "<svg" in Path("p.html").read_text(encoding="utf-8")
    assert cli.run(["report", "b.json", "b.json"]) == 0
    assert "No difference is shown in SSIM." in capsys.readouterr().out


def test_align(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make_manifest(folder).save()
    monkeypatch.setattr("atldiff.training.run.align_data", lambda *args, **options: {"a": (0.5, 0), "b": (0.7, 2)})
    assert cli.run(["align", "--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"data": str(folder), "clips": 2, "shifted": 1}


# Progress


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_without_a_terminal(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("atldiff.commands.progress.time.monotonic", lambda: now[0])
    with Progress("rendering", quiet=quiet) as progress:
        for done in range(1, 26):
            now[0] += 1
            progress(done, 40)
    expected = "atldiff: rendering: 10 of 40, 30 s left\natldiff: rendering: 20 of 40, 20 s left\n"
    assert capsys.readouterr().err == ("" if quiet else expected)


def test_progress_on_a_terminal_waits_before_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    now = [0.0]
    monkeypatch.setattr("atldiff.commands.progress.time.monotonic", lambda: now[0])
    with Progress("rendering") as progress:
        now[0] = 1.0
        progress(1, 40)
        assert progress._bar is None
        now[0] = 3.0
        progress(2, 40)
        assert progress._bar is not None
        assert progress._bar.tasks[0].completed == 2


@pytest.mark.parametrize(("text", "fps"), [(None, None), ("25", Fraction(25)), ("29.97", Fraction(2997, 100))])
def test_fps(text: str | None, fps: Fraction | None) -> None:
    assert parse_fps(text) == fps


@pytest.mark.parametrize("text", ["0", "-25", "121", "1/0", "nan", "inf", "x"])
def test_fps_out_of_range(text: str) -> None:
    with pytest.raises(ValueError, match="fps"):
        parse_fps(text)
