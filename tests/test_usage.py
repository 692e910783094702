from __future__ import annotations

import importlib
import re

import pytest

from atldiff import cli
from atldiff.commands import aliases, generate, landmarks, prepare, render, usage
from atldiff.commands.substitutes import SUBSTITUTES


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run([name, "--help"]) == 0
    return capsys.readouterr().out


# Aliases


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.jpg", "b.wav", "-o", "c.mp4"], ["a.jpg", "b.wav", "-o", "c.mp4"]),
        (["--source_image", "a.jpg", "--driven_audio", "b.wav"], ["a.jpg", "b.wav"]),
        (["--driven-audio=b.wav", "--source-image=a.jpg"], ["a.jpg", "b.wav"]),
        (["--still", "--audio", "b.wav", "a.jpg"], ["--still", "a.jpg", "b.wav"]),
        (["-s", "a.jpg", "--still", "b.wav"], ["a.jpg", "--still", "b.wav"]),
        (["--source", "a.jpg", "--driving_audio", "b.wav"], ["a.jpg", "b.wav"]),
        (["a.jpg", "--audio_path", "b.wav"], ["a.jpg", "b.wav"]),
        (["--result_dir", "d"], ["--output-dir", "d"]),
        (["--result_path=c.mp4"], ["--output=c.mp4"]),
        (["--out", "c.mp4"], ["--output", "c.mp4"]),
        (["--output_path", "c.mp4"], ["--output", "c.mp4"]),
        (["--inference_steps", "3"], ["--steps", "3"]),
        (["--num-inference-steps", "3"], ["--steps", "3"]),
        (["--blink_rate", "0.1", "--smoothing=2"], ["--blink-rate-hz", "0.1", "--smoothing-frames=2"]),
        (["--face", "a.jpg", "--audio", "b.wav", "--outfile", "c.mp4"], ["a.jpg", "b.wav", "--output", "c.mp4"]),
        (["--face=a.jpg", "b.wav"], ["a.jpg", "b.wav"]),
        (["a.jpg", "b.wav", "--face", "1"], ["a.jpg", "b.wav", "--face", "1"]),
        (["--face", "-1"], ["--face", "-1"]),
        (["--face"], ["--face"]),
        (["a.jpg", "--preprocess", "full", "b.wav"], ["a.jpg", "--framing", "full", "b.wav"]),
        (["--preprocess=extcrop", "--cpu"], ["--framing", "head", "--device", "cpu"]),
        (["--ref_pose", "c.mp4"], ["--driving-video", "c.mp4"]),
        (["--checkpoint_path", "run"], ["--weights", "run"]),
        (["--static", "True", "a.jpg"], ["a.jpg"]),
        (["--static", "a.jpg"], ["a.jpg"]),
        (["--pose_style", "0", "--resize_factor", "1", "--crop", "0", "-1", "0", "-1", "a.jpg"], ["a.jpg"]),
    ],
)
def test_aliases_of_generate(given: list[str], expected: list[str]) -> None:
    assert aliases.rewrite(given, generate.ALIASES) == (expected, [])


def test_aliases_of_render() -> None:
    given = ["--track", "t.npz", "--driven_audio", "b.wav", "a.jpg"]
    assert aliases.rewrite(given, render.ALIASES).args == ["--audio", "b.wav", "a.jpg", "t.npz"]


@pytest.mark.parametrize("given", [["--source_image"], ["--source-image", "--still"], ["-s", "a", "--source", "b"]])
def test_alias_without_value_or_twice(given: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        aliases.rewrite(given, generate.ALIASES)


@pytest.mark.parametrize(
    "given",
    [
        ["--pads", "0", "-10", "0", "0", "a.jpg"],
        ["--face_det_batch_size", "4", "a.jpg"],
        ["--wav2lip_batch_size=128", "a.jpg"],
        ["--batch_size", "8", "a.jpg"],
        ["--fp16", "a.jpg"],
        ["--nosmooth", "a.jpg"],
        ["--face3dvis", "a.jpg"],
    ],
)
def test_what_needs_no_doing_is_said(given: list[str]) -> None:
    args, (note,) = aliases.rewrite(given, generate.ALIASES)
    assert args == ["a.jpg"]
    assert note.startswith(f"{given[0].partition('=')[0]} is ignored: ")


@pytest.mark.parametrize(
    ("given", "replacement"),
    [
        (["--enhancer", "gfpgan"], "over the finished video"),
        (["--background_enhancer=realesrgan"], "over the finished video"),
        (["--pose_style", "12"], "--seed N"),
        (["--input_yaw", "0", "30", "-10"], "--driving-video"),
        (["--ref_eyeblink", "c.mp4"], "--driving-video"),
        (["--resize_factor", "2"], "--size PIXELS"),
        (["--crop", "0", "100", "0", "100"], "--framing head"),
        (["--box", "0", "9", "0", "9"], "--face N"),
        (["--rotate"], "turn it there"),
        (["--preprocess", "half"], "expected one of crop, extcrop, resize, full, extfull"),
        (["--preprocess"], "--framing head"),
    ],
)
def test_what_cannot_be_done_names_its_replacement(given: list[str], replacement: str) -> None:
    with pytest.raises(ValueError, match=re.escape(replacement)) as caught:
        aliases.rewrite([*given, "--quiet"], generate.ALIASES)
    assert str(caught.value).startswith(f"{given[0].partition('=')[0]}: ")


def test_a_video_that_would_go_on_elsewhere_is_told_apart() -> None:
    args, (note,) = aliases.rewrite(["--face", "a.mp4", "b.wav"], generate.ALIASES)
    assert args == ["a.mp4", "b.wav"]
    assert "--driving-video a.mp4" in note


def test_aliases_lead_to_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for room, name in ((generate, "generate"), (landmarks, "landmarks"), (render, "render")):
        text = help_of(name, capsys)
        becomes = [tokens[0] for other in SUBSTITUTES.values() for tokens in other.becomes.values() if tokens]
        for target in {*room.ALIASES.options.values(), *becomes}:
            assert target in text, (name, target)


# Usage errors


USAGE = {
    "unknown option": ("generate a b --smothing 3", "--smothing: no such option; did you mean --smoothing-frames?"),
    "unknown with a value": ("generate a b --stepz=3", "--stepz: no such option; did you mean --steps?"),
    "unknown switch": ("generate a b --no-still", "--no-still: no such option; did you mean --still?"),
    "beginning": ("generate a b --express 3", "--express: no such option; did you mean --expression-scale?"),
    "misspelt alias": ("generate --driven_audo b a", "--driven_audo: no such option; did you mean --driven-audio?"),
    "nothing near": ("generate a b --zzz", "--zzz: no such option (see `atldiff generate --help`)"),
    "unknown before a command": (
        "--verison",
        "command: got '--verison'; did you mean '--version'? (see `atldiff --help`)",
    ),
    "unknown letter": ("generate a b -x", "-x: no such option (see `atldiff generate --help`)"),
    "no value": ("generate a b --steps --quiet", "--steps: got no value, expected a whole number"),
    "no value at the end": ("evaluate --data", "--data: got no value, expected PREPARED"),
    "value of a switch": ("generate a b --still=yes", "--still: got 'yes', expected no value: it is a switch"),
    "choice": ("generate a b --preset quick", "--preset: got 'quick', expected fast, balanced or best"),
    "near choice": (
        "prepare a --identity fac",
        "--identity: got 'fac', expected speaker, appearance, face, folder or file; did you mean 'face'?",
    ),
    "choice by place": ("export out d", "export: got 'd' as well, expected only DIR; a name with spaces needs quotes"),
    "whole number": ("generate a b --frame 1.5", "--frame: got '1.5', expected a whole number"),
    "number or full": ("generate a b --size 1.5", "--size: got '1.5', expected a whole number or full"),
    "number": ("bench --seconds x", "--seconds: got 'x', expected a number"),
    "number or word": ("prepare a --workers many", "--workers: got 'many', expected a whole number or ray"),
    "out of range": ("generate a b --expression-scale -inf", "expression_scale: got -inf, expected 0.0 to 3.0"),
    "nothing by place": ("generate", "generate: got no PORTRAIT, expected atldiff generate PORTRAIT [AUDIO]"),
    "less by place": ("export", "export: got no DIR, expected atldiff export DIR"),
    "more by place": (
        "generate a b c",
        "generate: got 'c' as well, expected only PORTRAIT [AUDIO]; a name with spaces needs quotes",
    ),
    "none by place": ("doctor x", "doctor: got 'x' as well, expected options only"),
    "required": ("train debug --out r", "train: got no --data PREPARED (see `atldiff train --help`)"),
    "twice": ("generate a b --steps 3 --steps 4", "--steps: got '3' and '4', expected it once"),
    "twice by two names": ("generate a b -o c.mp4 --out d.mp4", "--output: got 'c.mp4' and 'd.mp4', expected it once"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_are_one_line(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, said = USAGE[case]
    assert cli.run(command.split()) == 2
    assert capsys.readouterr() == ("", f"atldiff: error: {said}\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_names_what_it_does_not_know(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--quite"]) == 2
    assert capsys.readouterr().err == "atldiff: error: --quite: no such option; did you mean --quiet?\n"


@pytest.mark.parametrize(
    "command",
    [
        "generate a b -oc.mp4",
        "generate a b --blink_rate_hz 0.1 --seed -1",
        "generate a b --still --still --steps 3 --steps 3",
        "generate a b --emotion None",
        "generate a b --output=-",
        "generate --quiet -- a b",
        "prepare mead a --train-only b c --quiet",
        "prepare a --workers ray",
    ],
)
def test_what_fits_passes(command: str) -> None:
    name, *args = command.split()
    kind, room = {"generate": (generate.Generate, generate), "prepare": (prepare.Prepare, prepare)}[name]
    rewritten = aliases.rewrite(args, getattr(room, "ALIASES", aliases.Aliases())).args
    usage.check(kind, name, rewritten)


def test_usage_knows_the_options_that_the_help_shows(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        kind = next(
            value
            for value in vars(importlib.import_module(f"atldiff.commands.{name.replace('-', '_')}")).values()
            if isinstance(value, type) and value.__name__ == name.title().replace("-", "")
        )
        known = {option for entry in usage.options_of(kind) for option in entry.names if not entry.positional}
        shown = set(re.findall(r"(?<![\w`])--?[a-z][\w-]*", help_of(name, capsys)))
        assert known <= shown, name
