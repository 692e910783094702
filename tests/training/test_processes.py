"""Training on several processes, in parts and on a device: that the result is that of one process on the whole batch.

Tolerances: float32 sums in another order move the first step's losses and gradients by about 1e-7. Later steps differ
by what AdamW makes of that: it divides by the gradient's size, so that weights whose gradient is almost zero move by up
to a learning rate (1e-3 here) either way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import nn

from atldiff.config import ATLConfig, GeneratorConfig, RendererConfig, TrainConfig
from atldiff.data.manifest import Manifest, Split
from atldiff.data.synthetic import make_synthetic
from atldiff.errors import TrainingError
from atldiff.methods.atl.network import ATLModel
from atldiff.methods.atl.training.renderer_task import renderer_task
from atldiff.training.draws import Draw, dropout_seed, item_random
from atldiff.training.landmarks_task import landmarks_task
from atldiff.training.optimiser import MasterOptimiser
from atldiff.training.processes import Processes, join_processes
from atldiff.training.run import train_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

torch.set_num_threads(1)

TINY = ATLConfig(
    generator=GeneratorConfig(components=6, identity_components=2, width=16, blocks=1, dropout=0.0),
    renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
)
RENDERER = TrainConfig(
    stage="renderer", model=TINY, steps=4, clips_per_batch=4, frames=2, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=4, bfloat16=False,
)  # fmt: skip
LANDMARKS = replace(RENDERER, stage="landmarks", frames=16)
SAME_GRADIENT = 2e-6
"""What another order of summation may change in a gradient, absolute, beside 1e-5 of its size."""
SAME_WEIGHTS_ATOL = 1e-4
"""What it may change in weights after four steps, in which they move by 3e-3."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=24)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Neither curves nor wide probes: they take time, and are not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
        patch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_BATCHES", 1)
        patch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_CLIPS", 1)
        yield


def run(config: TrainConfig, manifest: Manifest, out: Path, **settings: Any) -> list[float]:
    losses = []
    train_stage(
        config, manifest.folder, out, workers=0, progress=lambda done, total, told: losses.append(told["loss"]),
        **settings,
    )  # fmt: skip
    return losses


def state(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "state.safetensors")


def assert_same_weights(first: Path, second: Path, atol: float = SAME_WEIGHTS_ATOL) -> None:
    one, two = state(first), state(second)
    assert one.keys() == two.keys()
    for name in one:
        if name.startswith(("master/", "average/")):
            assert torch.allclose(one[name], two[name], rtol=0, atol=atol), name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-9000:]
    return done


@pytest.fixture(scope="module")
def launched(prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Run every job of launched.py on two processes; return its folder and what each process told."""
    pytest.importorskip("accelerate")
    work = tmp_path_factory.mktemp("launched")
    shutil.copytree(prepared.folder, work / "data")
    shutil.copytree(prepared.folder, work / "poisoned")
    poisoned = Manifest.load(work / "poisoned")
    path = poisoned.tensors(poisoned.usable(Split.TRAIN)[1])
    tensors = load_arrays(path)
    tensors["points"] = np.full_like(tensors["points"], np.nan)
    save_arrays(tensors, path)
    script = Path(__file__).with_name("launched.py")
    launch("torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", str(script), str(work))
    return work, [json.loads((work / f"told-{index}.json").read_text()) for index in range(2)]


@pytest.fixture(scope="module")
def alone(prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """Train both stages in this process on whole batches; return the folder of runs and their losses."""
    work = tmp_path_factory.mktemp("alone")
    return work, {config.stage: run(config, prepared, work / config.stage) for config in (RENDERER, LANDMARKS)}


@pytest.mark.skipif(sys.platform == "win32", reason="signals and gloo as on Linux and macOS")
@pytest.mark.timeout(300)
class TestTwoProcesses:
    @pytest.mark.parametrize("stage", ["renderer", "landmarks"])
    def test_losses_and_weights_are_those_of_one(self, launched: tuple, alone: tuple, stage: str) -> None:
        (work, told), (folder, losses) = launched, alone
        assert [one[stage]["done"] for one in told] == [4, 4]
        assert told[0][stage]["losses"][0] == pytest.approx(losses[stage][0], rel=1e-5)
        assert told[0][stage]["losses"] == pytest.approx(losses[stage], rel=1e-3)
        assert_same_weights(work / f"{stage}-0", folder / stage)

    def test_two_processes_are_two_parts(self, launched: tuple, prepared: Manifest, tmp_path: Path) -> None:
        """The same parts summed in the same order, here or there: nothing is left to differ."""
        run(replace(RENDERER, accumulate=2), prepared, tmp_path)
        assert_same_weights(launched[0] / "renderer-0", tmp_path, atol=1e-6)

    def test_both_at_once(self, launched: tuple, alone: tuple) -> None:
        assert_same_weights(launched[0] / "accumulated-0", alone[0] / "renderer")

    def test_the_main_process_alone_writes_and_reports(self, launched: tuple) -> None:
        work, told = launched
        names = {path.name for path in (work / "renderer-0").iterdir()} - {"tensorboard"}
        assert names == {"state.safetensors", "probe.jsonl", "checkpoint"}
        for name in told[1]:
            assert told[1][name]["losses"] == []
            assert list((work / f"{name}-1").glob("*")) == []

    def test_one_process_goes_on_where_two_stopped(self, launched: tuple, alone: tuple, prepared: Manifest) -> None:
        out = launched[0] / "half-0"
        assert launched[1][0]["half"]["done"] == 2
        assert len(run(RENDERER, prepared, out)) == 2
        assert_same_weights(out, alone[0] / "renderer")

    def test_a_loss_that_is_no_number_stops_both(self, launched: tuple) -> None:
        work, told = launched
        poisoned = Manifest.load(work / "poisoned")
        name = poisoned.usable(Split.TRAIN)[1].record.name
        errors = [one["poisoned"]["error"] for one in told]
        assert errors[0] == errors[1]
        assert errors[0].startswith("step 0: the loss is nan; clips of the batch: ")
        assert name in errors[0]
        assert not (work / "poisoned-0" / "state.safetensors").exists()

    @pytest.mark.parametrize(("name", "steps"), [("out_of_time", 1), ("interrupted", 3)])
    def test_both_stop_at_the_same_step(
        self, launched: tuple, alone: tuple, prepared: Manifest, name: str, steps: int
    ) -> None:
        """Time ran out on the second process, and Ctrl-C came to the first."""
        work, told = launched
        if name == "interrupted":
            assert [one[name]["error"] for one in told] == ["interrupted", "interrupted"]
        else:
            assert [one[name]["done"] for one in told] == [steps, steps]
        assert len(told[0][name]["losses"]) == steps
        assert len(run(RENDERER, prepared, work / f"{name}-0")) == 4 - steps
        assert_same_weights(work / f"{name}-0", alone[0] / "renderer")

    @pytest.mark.parametrize(
        ("name", "said"),
        [("other_seeds", "the processes start from different weights"),
         ("odd", "clips_per_batch: got 3, expected a multiple of 2 (2 processes, accumulate 1)")],
    )  # fmt: skip
    def test_what_cannot_be_is_said(self, launched: tuple, name: str, said: str) -> None:
        for one in launched[1]:
            assert one[name]["error"].startswith(said)
            assert "\n" not in one[name]["error"]

    def test_the_command_under_accelerate_launch(self, prepared: Manifest, alone: tuple, tmp_path: Path) -> None:
        pytest.importorskip("accelerate")
        config = {key: value for key, value in asdict(RENDERER).items() if key != "model"}
        config["model"] = {"renderer": {"widths": [16, 32], "blocks": [1, 1]}, "generator": asdict(TINY.generator)}
        (tmp_path / "run.json").write_text(json.dumps({"preset": "debug", **config}))
        out = tmp_path / "out"
        done = launch(
            "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
            "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={free_port()}",
            "-m", "atldiff", "train", str(tmp_path / "run.json"), "--data", str(prepared.folder), "--out", str(out),
            "--device", "cpu", "--workers", "0", "--json",
        )  # fmt: skip
        (line,) = done.stdout.splitlines()
        assert json.loads(line) == {"out": str(out), "checkpoint": str(out / "checkpoint"), "steps": 4, "of": 4}
        assert_same_weights(out, alone[0] / "renderer")


class TestParts:
    @pytest.mark.parametrize("config", [RENDERER, LANDMARKS], ids=["renderer", "landmarks"])
    def test_a_batch_in_parts_is_the_whole(self, prepared: Manifest, config: TrainConfig) -> None:
        torch.manual_seed(0)
        model = ATLModel(TINY)
        make = renderer_task if config.stage == "renderer" else landmarks_task
        task = make(model, prepared, config, lambda module: None)
        for parameter in task.module.parameters():
            if not parameter.any():  # zero-initialised ends would hide everything behind them
                nn.init.normal_(parameter, 0, 0.05)
        whole = task.source.batch(3, range(4))
        parts = [task.source.batch(3, items) for items in (range(1), range(1, 2), range(2, 4))]
        for name, tensor in whole.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), tensor), name

        def losses_and_gradients(batches: list[dict[str, torch.Tensor]]) -> tuple[dict, list[torch.Tensor]]:
            task.module.zero_grad()
            found = []
            for batch in batches:
                share = len(batch["clips"]) / 4
                losses = task.loss(task.module, batch)
                (share * losses["loss"]).backward()
                found.append({name: share * float(loss.detach()) for name, loss in losses.items()})
            sums = {name: sum(losses[name] for losses in found) for name in found[0]}
            return sums, [p.grad.clone() for p in task.module.parameters() if p.grad is not None]

        one, gradients = losses_and_gradients([whole])
        several, summed = losses_and_gradients(parts)
        for name in one.keys() - {"mouth_ratio"}:
            assert several[name] == pytest.approx(one[name], rel=1e-5), name
        assert any(gradient.abs().max() > 1e-3 for gradient in gradients)
        for first, second in zip(gradients, summed, strict=True):
            assert torch.allclose(first, second, rtol=1e-5, atol=SAME_GRADIENT)

    def test_accumulation_changes_nothing_nor_does_taking_it_up(
        self, prepared: Manifest, alone: tuple, tmp_path: Path
    ) -> None:
        folder, losses = alone
        found = run(replace(RENDERER, accumulate=4), prepared, tmp_path, stop_after=2)
        found += run(replace(RENDERER, accumulate=2), prepared, tmp_path)
        assert found[0] == pytest.approx(losses["renderer"][0], rel=1e-5)
        assert found == pytest.approx(losses["renderer"], rel=1e-3)
        assert_same_weights(tmp_path, folder / "renderer")

    def test_muon_s_first_step(self, prepared: Manifest, tmp_path: Path) -> None:
        """Later ones are not compared: Muon makes directions of rounding errors as long as any other."""
        config = replace(RENDERER, optimiser="muon", learning_rate=2.5e-3)
        for accumulate in (1, 2):
            run(replace(config, accumulate=accumulate), prepared, tmp_path / str(accumulate), stop_after=1)
        assert_same_weights(tmp_path / "1", tmp_path / "2", atol=1e-6)

    def test_shares(self) -> None:
        shares = [Processes(index, 3).shares(24, 2) for index in range(3)]
        assert shares[1] == [range(8, 12), range(12, 16)]
        assert [item for mine in shares for part in mine for item in part] == list(range(24))
        assert Processes().shares(5, 1) == [range(5)]
        with pytest.raises(ValueError, match=r"clips_per_batch: got 24, expected a multiple of 5 \(1 process, acc"):
            Processes().shares(24, 5)

    def test_bfloat16_gradients_are_added_up_in_float32(self) -> None:
        module = nn.Linear(4, 1, bias=False).to(torch.bfloat16)
        optimiser = MasterOptimiser(module, RENDERER, average=False)
        for size in (256.0, *([1.0] * 16)):  # 256 + 1 is 256 in bfloat16
            module(torch.full((1, 4), size, dtype=torch.bfloat16)).sum().backward()
            optimiser.accumulate()
        (gradient,) = optimiser.gradients()
        assert torch.equal(gradient, torch.full((1, 4), 272.0))
        assert optimiser.averages == []
        optimiser.step(0)
        assert optimiser.gradients() == []


class TestDraws:
    def test_clips_by_their_weights(self) -> None:
        draw = Draw(np.array([0.5, 0.0, 0.3, 0.2]))
        drawn = np.bincount([draw(item_random(0, step, 0)) for step in range(4000)], minlength=4) / 4000
        assert drawn == pytest.approx([0.5, 0, 0.3, 0.2], abs=0.03)

    def test_every_item_and_every_seed_for_itself(self) -> None:
        places = [(seed, step, index) for seed in (0, 1) for step in (0, 1) for index in (0, 1, 2)]
        assert len({float(item_random(*place).random()) for place in places}) == len(places)
        seeds = {dropout_seed(*place) for place in places}
        assert len(seeds) == len(places)
        assert all(0 <= seed < 2**63 for seed in seeds)


class TestOneProcess:
    def test_needs_no_accelerate(self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        monkeypatch.setitem(sys.modules, "accelerate", None)
        assert len(run(RENDERER, prepared, tmp_path, processes=join_processes("cpu"), stop_after=1)) == 1

    def test_several_without_accelerate_say_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setitem(sys.modules, "accelerate", None)
        with pytest.raises(TrainingError, match=r"accelerate is not installed; pip install 'atldiff\[train\]'"):
            join_processes("cpu")

    def test_a_device_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert join_processes("auto") == Processes()
        with pytest.raises(ValueError, match="PyTorch sees no GPU"):
            join_processes("cuda")
        with pytest.raises(ValueError, match="device: got 'tpu'"):
            join_processes("tpu")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_leaves_a_state(
        self, prepared: Manifest, alone: tuple, tmp_path: Path, number: signal.Signals
    ) -> None:
        before = signal.getsignal(number)

        def interrupt(done: int, total: int, told: dict[str, float]) -> None:
            if done == 1:
                signal.raise_signal(number)

        with pytest.raises(KeyboardInterrupt):
            train_stage(RENDERER, prepared.folder, tmp_path, workers=0, progress=interrupt)
        assert signal.getsignal(number) is before
        assert len(run(RENDERER, prepared, tmp_path)) == 3  # the second step was not begun
        assert_same_weights(tmp_path, alone[0] / "renderer", atol=0)

    def test_the_second_ctrl_c_is_at_once(
        self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("atldiff.interrupt.SAME_S", 0.0)

        def interrupt(done: int, total: int, told: dict[str, float]) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            train_stage(RENDERER, prepared.folder, tmp_path, workers=0, progress=interrupt)
        assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.gpu
@pytest.mark.parametrize("config", [RENDERER, LANDMARKS], ids=["renderer", "landmarks"])
def test_a_gpu_gives_the_same(prepared: Manifest, alone: tuple, tmp_path: Path, config: TrainConfig) -> None:
    cuda = join_processes("cuda")
    losses = run(config, prepared, tmp_path, processes=cuda, stop_after=2)
    assert losses[0] == pytest.approx(alone[1][config.stage][0], rel=1e-2)
    assert run(config, prepared, tmp_path) != []  # and goes on without one
    run(replace(config, bfloat16=True), prepared, tmp_path / "bfloat16", processes=cuda)
