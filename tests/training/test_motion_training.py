"""The motion stage: what is learned is what was put in, NumPy computes what torch learned, and a run resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.config import TRAIN_PRESETS
from atldiff.data.manifest import Manifest, Split
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import CheckpointError, DataError
from atldiff.landmarks.motion_codes import BANDS, BROWS, CODES, heard_steps
from atldiff.landmarks.motion_model import DRIVE, ORDER, SPREAD, MotionStream, Style, load_motion, own_motion
from atldiff.landmarks.topology import BROW_LEFT, BROW_RIGHT, EYE_LEFT, LIPS, OVAL
from atldiff.methods.motion_style import open_motion
from atldiff.training.motion_data import MotionSet, load_motion_clips
from atldiff.training.motion_measure import compared, measured
from atldiff.training.motion_network import MotionNetwork
from atldiff.training.run import train_stage

QUICK = replace(
    TRAIN_PRESETS["motion"], steps=4, clips_per_batch=4, frames=32, warmup_steps=1, save_every=2, probe_every=4
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=6, clips=1, frames=110)


def test_a_run_resumes_and_its_weights_move_a_face(prepared: Manifest, tmp_path: Path) -> None:
    for folder, stops in (("whole", [None]), ("parts", [2, None])):
        for stop in stops:
            train_stage(QUICK, prepared.folder, tmp_path / folder, stop_after=stop)
    whole, parts = (load_motion(tmp_path / folder / "checkpoint") for folder in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    weights, style = open_motion(str(tmp_path / "whole" / "checkpoint"))
    assert weights is whole
    stream = MotionStream(weights, style, 0)
    stream.end()
    codes = stream.frames(np.arange(200)).codes
    assert np.isfinite(codes).all()
    assert codes[:, 0].std() > 0.1
    line = json.loads((tmp_path / "whole" / "probe.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 4
    assert {"surprise_heard", "yaw_range_deg/real_50", "yaw_range_deg/made", "speed_sound/made"} <= line.keys()
    assert (tmp_path / "whole" / "checkpoint" / "motion.safetensors").stat().st_size < 1_000_000


def test_it_starts_afresh_and_needs_clips(prepared: Manifest, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stage motion"):
        train_stage(QUICK, prepared.folder, tmp_path / "run", start="atl-diff")
    short = make_synthetic(tmp_path / "short", people=3, clips=1, frames=20)
    with pytest.raises(DataError, match="no training clip of 32 frames or more"):
        train_stage(QUICK, short.folder, tmp_path / "run")


def test_numpy_computes_what_torch_learned() -> None:
    weights = own_motion("natural")[0]
    network = MotionNetwork()
    own = network.state_dict()
    network.load_state_dict({name: torch.from_numpy(weights[name]) for name in own})
    mel = np.random.default_rng(0).uniform(-3, 0.5, (480, 80)).astype(np.float32)
    stream = MotionStream({**weights, "gain": np.ones(CODES, np.float32)}, Style(1.0, 1.0, 0.0), 4)
    stream.hear(mel)
    drives = []
    remember = stream._remember
    stream._remember = lambda told: (remember(told), drives.append(stream._memory.copy()))[0]  # pyright: ignore
    codes = stream.frames(np.arange(0, 100, 2)).codes.astype(np.float32)
    heard = heard_steps(mel, 50)
    with torch.no_grad():
        said = network.eval().listen(torch.from_numpy(heard)[None])
        before = torch.from_numpy(np.concatenate([np.zeros((2, CODES), np.float32), codes[:-1]]))[None]
        said = torch.cat([said[:, :1], said], dim=1)
        drive, spread = network.respond(said, before)
    bounded = np.tanh(np.stack(drives[:50]) @ weights["out.weight"].T + weights["out.bias"])
    assert np.allclose(drive[0], DRIVE * bounded[:, :CODES], atol=2e-4)
    assert np.allclose(spread[0], np.exp(SPREAD * bounded[:, CODES:]), atol=2e-4)


def test_the_likelihood_is_that_of_the_noise() -> None:
    network = MotionNetwork().eval()
    with torch.no_grad():
        network.mix.copy_(torch.diag(torch.full((CODES,), 0.5)))
    still = torch.zeros(1, ORDER + 3, CODES)
    quiet = torch.full((1, ORDER + 3, BANDS), -1.0)
    with torch.no_grad():
        rest = network(still, quiet)
        far = still.clone()
        far[:, -1] = 2.0
        moved = network(far, quiet)
    assert rest.shape == (1, 3)
    assert torch.allclose(rest[:, :2], moved[:, :2])
    assert moved[0, 2] > rest[0, 2] + 3
    # A density: over a fine grid of one code, with the others integrated out, it sums to one by Student's law.
    grid = torch.linspace(-60, 60, 24001)
    one = torch.distributions.StudentT(4.0).log_prob(grid / 0.5).exp() / 0.5
    assert torch.trapezoid(one, grid) == pytest.approx(1, abs=1e-3)


def test_batches_are_functions_of_seed_and_step(prepared: Manifest) -> None:
    clips = load_motion_clips(prepared, Split.TRAIN)
    assert [len(clip) for clip in clips] == [110] * 4
    made = [MotionSet(clips, np.ones(CODES), np.full(4, 0.25), steps=20, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (each.batch(3, range(4)) for each in made)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["codes"], other["codes"])
    assert first["codes"].shape == (4, 20, CODES)
    assert first["heard"].shape == (4, 20, BANDS)
    parts = [made[0].batch(3, range(2)), made[0].batch(3, range(2, 4))]
    assert torch.equal(torch.cat([part["codes"] for part in parts]), first["codes"])
    assert set(made[0].clip_names(first)) <= {clip.name for clip in clips}


def test_sound_is_heard_late_and_in_step() -> None:
    mel = np.full((400, 80), -3, np.float32)
    mel[200:] = 0  # from frame 50 on
    heard = heard_steps(mel, 50)
    assert (heard[:27] == -1).all()  # frame 52 hears frames 47 and 48
    assert (heard[28:] == 1).all()  # frame 56 hears 51 and 52


def test_measures_are_those_of_known_motion(prepared: Manifest) -> None:
    frames = np.arange(250)
    codes = np.zeros((250, CODES))
    codes[:, 0] = 5 * np.sin(frames * 2 * np.pi / 25)  # a turn a second
    found = measured(codes, np.full(250, 0.3), None)
    assert found["yaw_range_deg"] == pytest.approx(10, rel=0.05)
    assert found["pitch_range_deg"] == 0
    assert found["speed_deg_s"] == pytest.approx(20, rel=0.02)
    assert found["power_1_2_hz"] > 0.6
    assert found["blinks_a_minute"] == 0
    assert np.isnan(found["speed_sound"])
    mel = np.repeat(np.abs(np.cos(frames * 2 * np.pi / 250)), 4)[:, None] * np.ones(80, np.float32)
    swayed = codes * np.abs(np.cos(frames * 2 * np.pi / 250))[:, None]
    assert measured(swayed, np.full(250, 0.3), mel)["speed_sound"] > 0.8
    clips = load_motion_clips(prepared, Split.TEST)
    table = compared(own_motion("natural")[0], clips)
    assert table["yaw_range_deg/real_25"] == table["yaw_range_deg/real_75"]  # one clip


def test_brows_move_what_is_above_the_eyes() -> None:
    brows = own_motion("natural")[0]["brows"]
    assert brows.shape == (478, 3)
    assert (brows[np.concatenate([BROW_RIGHT, BROW_LEFT]), 1] < -0.5).all()  # up
    assert not brows[np.concatenate([LIPS, OVAL, EYE_LEFT])].any()
    mirrored = np.array([70, 63, 105, 66, 107]), np.array([300, 293, 334, 296, 336])
    assert np.allclose(brows[mirrored[0]], brows[mirrored[1]] * [-1, 1, 1], atol=1e-4)
    assert BROWS == CODES - 1
