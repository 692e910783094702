"""Stages of two checkpoints: the generator of one, the renderer of the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff import checkpoint, cli
from atldiff.audio.load import load_audio
from atldiff.checkpoint import save_model
from atldiff.config import SampleConfig
from atldiff.errors import CheckpointError
from atldiff.landmarks.emotion import with_emotion
from atldiff.methods.pair import Pair
from atldiff.pipeline import TalkingHead
from atldiff.types import Controls, LandmarkTrack, Portrait

if TYPE_CHECKING:
    from atldiff.methods.atl.network import ATLModel
    from atldiff.methods.atl_published.network import PublishedModel

torch.set_num_threads(1)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
METHODS = ("atl-diff", "atl-diff-paper")
BOTH_WAYS = pytest.mark.parametrize(("generator", "renderer"), [METHODS, METHODS[::-1]])


@pytest.fixture(scope="module")
def folders(
    random_model: ATLModel, random_paper_model: PublishedModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("swap")
    for name, model in zip(METHODS, (random_model, random_paper_model), strict=True):
        save_model(model, base / name, half=False)
    return {name: base / name for name in METHODS}


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    from atldiff.methods.portrait import open_portrait, resized

    return resized(open_portrait(EXAMPLES / "portrait.jpg"), 256)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(EXAMPLES / "speech.wav").samples[: 36 * 640]


def opened(name: Path | str, **options) -> TalkingHead:
    return TalkingHead.from_pretrained(name, device="cpu", dtype="float32", **options)


@BOTH_WAYS
def test_both_stages_are_the_chosen_ones(
    folders: dict[str, Path], portrait: Portrait, speech: np.ndarray, generator: str, renderer: str
) -> None:
    ways = [
        opened(folders[generator], renderer=folders[renderer]),
        opened(folders[renderer], generator=folders[generator]),
        opened("no such folder", generator=folders[generator], renderer=folders[renderer]),
    ]
    speaks, renders = opened(folders[generator]), opened(folders[renderer])
    controls, sampling = Controls(seed=4), renders.sampling("fast")
    by_hand = speaks.landmarks(portrait, speech, controls=controls)
    wanted = np.stack(list(renders.render(portrait, by_hand, sampling=sampling, seed=4)))
    assert by_hand.points().tobytes() != renders.landmarks(portrait, speech, controls=controls).points().tobytes()
    assert not np.array_equal(np.stack(list(speaks.render(portrait, by_hand, sampling=sampling, seed=4))), wanted)
    for head in ways:
        assert isinstance(head.model, Pair)
        assert head.sampling("fast") == sampling
        video = head(portrait, speech, controls=controls, sampling="fast")
        assert video.track.points().tobytes() == by_hand.points().tobytes()
        assert np.array_equal(np.stack(list(video)), wanted)
    streamed = ways[0].stream(portrait, np.split(speech, [900, 12_345]), controls=controls, sampling="fast")
    assert np.array_equal(np.stack(list(streamed)), wanted)
    assert np.array_equal(
        np.stack(list(ways[0].render(portrait, by_hand, sampling="fast", seed=4))), wanted
    )  # a track is rendered by the renderer alone


@BOTH_WAYS
def test_the_command_line(
    folders: dict[str, Path], tmp_path: Path, portrait: Portrait, generator: str, renderer: str
) -> None:
    inputs = [str(EXAMPLES / "portrait.jpg"), str(EXAMPLES / "speech.wav")]
    models = ["--generator", str(folders[generator]), "--renderer", str(folders[renderer])]
    models += ["--device", "cpu", "--dtype", "float32", "--quiet"]
    assert cli.run(["landmarks", *inputs, "-o", str(tmp_path / "track.npz"), *models]) == 0
    track = LandmarkTrack.load(tmp_path / "track.npz")
    wanted = opened(folders[generator]).landmarks(*inputs)
    assert track.points().tobytes() == wanted.points().tobytes()
    track.slice(0, 12).save(tmp_path / "short.npz")
    out = f"{tmp_path / 'frames'}/"
    args = ["--size", "128", "--steps", "1", "-o", out]
    assert cli.run(["render", inputs[0], str(tmp_path / "short.npz"), *args, *models]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 12
    assert cli.run(["generate", *inputs, "-o", str(tmp_path / "again.npz"), *models]) == 0
    assert LandmarkTrack.load(tmp_path / "again.npz").points().tobytes() == wanted.points().tobytes()


def test_only_what_is_needed_is_loaded(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    real = checkpoint.load_model
    monkeypatch.setattr(checkpoint, "load_model", lambda folder: loaded.append(folder) or real(folder))
    atl, paper = (folders[name] for name in METHODS)
    for options, expected in (
        ({"name": atl}, [atl]),
        ({"name": atl, "renderer": paper}, [atl, paper]),
        ({"name": atl, "generator": paper}, [paper, atl]),
        ({"name": "none", "generator": paper, "renderer": atl}, [paper, atl]),
        ({"name": "none", "generator": paper, "renderer": paper}, [paper]),  # one model, not a pair
    ):
        loaded.clear()
        head = opened(options.pop("name"), **options)
        assert loaded == expected
        assert isinstance(head.model, Pair) == (len(expected) == 2)


def test_what_a_pair_is_and_what_it_cannot(folders: dict[str, Path], tmp_path: Path) -> None:
    atl, paper = (folders[name] for name in METHODS)
    head = opened(atl, renderer=paper)
    assert {name for name, _ in head.model.named_children()} == {"generator", "renderer"}
    assert not head.model.training
    assert not any(weight.requires_grad for weight in head.model.parameters())
    assert not hasattr(head.model, "config")
    with pytest.raises(ValueError, match="^save_pretrained: got stages of two checkpoints, expected one model;"):
        head.save_pretrained(tmp_path / "pair")
    assert not (tmp_path / "pair").exists()
    opened(atl, renderer=paper, backend="torch")
    with pytest.raises(ValueError, match="^backend: got 'tensorrt', expected auto, torch, openvino, onnx"):
        opened(atl, renderer=paper, backend="tensorrt")
    with pytest.raises(CheckpointError, match="checkpoint none: no such folder"):
        opened(atl, generator="none")


@BOTH_WAYS
def test_a_stage_is_told_an_emotion_that_it_knows(
    folders: dict[str, Path], portrait: Portrait, speech: np.ndarray, generator: str, renderer: str
) -> None:
    head = opened(folders[generator], renderer=folders[renderer])
    short = SampleConfig(steps=1, window_frames=8, shared_frames=2)
    plain, happy = (Controls(still=True, emotion=emotion) for emotion in (None, "happy"))
    track, felt = (head.landmarks(portrait, speech[:6400], controls=controls) for controls in (plain, happy))
    offsets = with_emotion(track, "happy").displacements
    assert np.allclose(felt.displacements, offsets, atol=1e-6) == (generator == "atl-diff")
    assert np.abs(felt.displacements - track.displacements).max() > 1e-5
    whole = np.stack(list(head(portrait, speech[:6400], controls=happy, sampling=short)))
    streamed = np.stack(list(head.stream(portrait, [speech[:6400]], controls=happy, sampling=short)))
    assert (whole == streamed).all()


def test_errors_of_the_command_line(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    inputs = [str(EXAMPLES / "portrait.jpg"), str(EXAMPLES / "speech.wav"), "-o", "unwritten.npz", "--quiet"]
    for options, message in (
        (["--generator", "none"], "checkpoint none: no such folder"),
        (["--renderer", "none"], "checkpoint none: no such folder"),
    ):  # fmt: skip
        assert cli.run(["generate", *inputs, *options]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not Path("unwritten.npz").exists()
