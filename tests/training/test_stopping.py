"""Training that a signal asks to stop: whatever it was doing, its steps are saved and the same command goes on."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from atldiff import interrupt
from atldiff.commands import train as train_command
from atldiff.config import ATLConfig, GeneratorConfig, RendererConfig, TrainConfig
from atldiff.data.synthetic import make_synthetic
from atldiff.training import loop, processes
from atldiff.training import run as runs
from atldiff.training.run import train_stage
from signalled import result, start, tell_group, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from atldiff.data.manifest import Manifest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals as on Linux and macOS"),
    pytest.mark.timeout(600),
]

TINY = ATLConfig(
    generator=GeneratorConfig(components=6, identity_components=2, width=16, blocks=1, dropout=0.0),
    renderer=RendererConfig(widths=(16, 32), blocks=(1, 1)),
)
CONFIG = TrainConfig(
    stage="renderer", model=TINY, steps=4, clips_per_batch=4, frames=2, optimiser="adamw", learning_rate=1e-3,
    warmup_steps=1, save_every=2, probe_every=2, bfloat16=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    torch.set_num_threads(1)
    return make_synthetic(tmp_path_factory.mktemp("prepared"), people=4, clips=1, frames=24)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("atldiff.training.loop._scalar_writer", lambda folder: None)
        patch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_BATCHES", 1)
        patch.setattr("atldiff.methods.atl.training.renderer_task.PROBE_CLIPS", 1)
        yield


@pytest.fixture(scope="module")
def undisturbed(prepared: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("undisturbed")
    train_stage(CONFIG, prepared.folder, out, workers=0)
    return load_file(out / "state.safetensors")


def steps_in(out: Path) -> int:
    with safe_open(str(out / "state.safetensors"), "pt") as file:
        return int(file.metadata()["step"])


def once(call: Callable[..., Any], then: Callable[[], None]) -> Callable[..., Any]:
    """Return a function that does `then` when it is first called, before what it is there for."""
    waiting = [then]

    def both(*arguments: Any, **named: Any) -> Any:
        if waiting:
            waiting.pop()()
        return call(*arguments, **named)

    return both


class TestMoments:
    @pytest.fixture(params=[(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)], ids=["term", "int"])
    def signals(self, request: pytest.FixtureRequest) -> Callable[[], None]:
        """A signal and, as from a launcher or from GNU timeout, another one."""

        def send() -> None:
            for number in request.param:
                signal.raise_signal(number)

        return send

    def interrupted(self, manifest: Manifest, out: Path, whole: dict[str, torch.Tensor]) -> int:
        """Train until it is interrupted; return the steps that were saved, once the rest gives the same weights."""
        with pytest.raises(KeyboardInterrupt):
            train_stage(CONFIG, manifest.folder, out, workers=0)
        steps = steps_in(out)
        train_stage(CONFIG, manifest.folder, out, workers=0)
        for name, tensor in load_file(out / "state.safetensors").items():
            assert torch.equal(tensor, whole[name]), name
        assert not list(out.rglob("*.partial"))
        return steps

    def test_the_first_step(
        self, prepared: Manifest, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: Callable
    ) -> None:
        monkeypatch.setattr(loop, "_add_gradients", once(loop._add_gradients, signals))
        assert self.interrupted(prepared, tmp_path, undisturbed) == 1

    def test_a_later_step_is_left_half_done(
        self, prepared: Manifest, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: Callable
    ) -> None:
        """With large models on a processor it may take longer than there is time."""
        add, calls = loop._add_gradients, []

        def third_is_disturbed(*arguments: Any) -> Any:
            calls.append(1)
            part = add(*arguments)
            if len(calls) == 4:
                signals()
            return part

        monkeypatch.setattr(loop, "_add_gradients", third_is_disturbed)
        monkeypatch.setattr(sys.modules[__name__], "CONFIG", replace(CONFIG, save_every=4))
        assert self.interrupted(prepared, tmp_path, undisturbed) == 3

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_saving(
        self, prepared: Manifest, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """A second Ctrl-C, pressed by somebody who cannot wait, waits for the file, too."""
        import safetensors.torch

        monkeypatch.setattr("atldiff.interrupt.SAME_S", 0.0)

        def send() -> None:
            signal.raise_signal(number)
            signal.raise_signal(number)

        monkeypatch.setattr(safetensors.torch, "save_file", once(safetensors.torch.save_file, send))
        assert self.interrupted(prepared, tmp_path, undisturbed) == 2

    def test_validation(
        self, prepared: Manifest, undisturbed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: Callable
    ) -> None:
        """It is broken off: a container has ten seconds."""
        reached = []
        make = runs.renderer_task

        def with_signal(*arguments: Any) -> Any:
            task = make(*arguments)
            return replace(task, probe=once(lambda module: reached.append(1) or task.probe(module), signals))

        monkeypatch.setattr(runs, "renderer_task", with_signal)
        with pytest.raises(KeyboardInterrupt):
            train_stage(CONFIG, prepared.folder, tmp_path, workers=0)
        assert not reached
        assert steps_in(tmp_path) == 2
        monkeypatch.setattr(runs, "renderer_task", make)
        train_stage(CONFIG, prepared.folder, tmp_path, workers=0)
        for name, tensor in load_file(tmp_path / "state.safetensors").items():
            assert torch.equal(tensor, undisturbed[name]), name


class TestTheStart:
    """Of the command: what stops it waits for the first step, wherever it comes, and is not asked for again later."""

    @pytest.fixture(autouse=True)
    def answered(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Signals as the command line has them, and little patience."""
        monkeypatch.setattr(interrupt, "_answer", interrupt._Answer())
        monkeypatch.setattr(interrupt, "PATIENCE_S", 1.0)
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
        interrupt.answer_signals()
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def words(self, tmp_path: Path, prepared: Manifest) -> list[str]:
        return [*command(tmp_path, prepared, workers=0)[3:], "--quiet"]

    def stopped_at(self, tmp_path: Path, prepared: Manifest) -> int:
        with pytest.raises(interrupt.Interrupted) as caught:
            train_command.run(self.words(tmp_path, prepared))
        assert caught.value.number == signal.SIGTERM
        return steps_in(tmp_path / "out")

    def test_before_there_is_a_run(self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def send() -> None:
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(processes, "join_processes", once(processes.join_processes, send))
        assert self.stopped_at(tmp_path, prepared) == 1

    def test_the_first_step_may_take_longer(
        self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send() -> None:
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(interrupt, "PATIENCE_S", 0.05)
        monkeypatch.setattr(interrupt, "SAME_S", 0.01)
        monkeypatch.setattr(loop, "_scalar_writer", once(loop._scalar_writer, send))
        monkeypatch.setattr(loop, "_add_gradients", once(loop._add_gradients, lambda: time.sleep(0.2)))
        assert self.stopped_at(tmp_path, prepared) == 1

    def test_a_run_that_was_finished(self, prepared: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody takes it there: the command is interrupted at its end."""
        words = self.words(tmp_path, prepared)
        train_command.run([*words, "--minutes", "0.00001"])
        settings = json.loads((tmp_path / "run.json").read_text())
        (tmp_path / "run.json").write_text(json.dumps({**settings, "steps": steps_in(tmp_path / "out")}))

        def send() -> None:
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(runs, "open_data", once(runs.open_data, send))
        with pytest.raises(interrupt.Interrupted):
            train_command.run(words)


def command(tmp_path: Path, prepared: Manifest, workers: int = 2) -> list[str]:
    """Return the words of a training that goes on for ever and saves at its end alone."""
    settings = {key: value for key, value in asdict(CONFIG).items() if key != "model"}
    settings |= {"steps": 10**6, "save_every": 10**6, "probe_every": 2, "preset": "debug"}
    settings["model"] = {"renderer": {"widths": [16, 32], "blocks": [1, 1]}, "generator": asdict(TINY.generator)}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    words = ["-m", "atldiff", "train", str(tmp_path / "run.json"), "--data", str(prepared.folder)]
    return [*words, "--out", str(tmp_path / "out"), "--device", "cpu", "--workers", str(workers)]


def under_way(tmp_path: Path, process: subprocess.Popen[str], probes: int = 1) -> None:
    """Wait until a training has measured itself, which it does every other step."""
    path = tmp_path / "out" / "probe.jsonl"
    until(lambda: path.exists() and path.read_text().count("\n") >= probes, "training to be under way", process)


class TestProcesses:
    @pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
    def test_the_group_is_told(self, prepared: Manifest, tmp_path: Path, number: int) -> None:
        process = start(*command(tmp_path, prepared), "--quiet")
        under_way(tmp_path, process)
        tell_group(process, number)
        code, _, err = result(process)
        said = {signal.SIGINT: "interrupted", signal.SIGTERM: "interrupted by SIGTERM"}[number]
        assert (code, err) == (128 + number, f"atldiff: {said}\n")
        steps = steps_in(tmp_path / "out")
        assert steps >= 2
        assert not list((tmp_path / "out").rglob("*.partial"))
        config = replace(CONFIG, steps=steps + 1)
        assert train_stage(config, prepared.folder, tmp_path / "out", workers=0) == steps + 1

    @pytest.mark.slow
    def test_workers_end_with_a_parent_that_is_killed(self, prepared: Manifest, tmp_path: Path) -> None:
        process = start(*command(tmp_path, prepared), "--quiet")
        under_way(tmp_path, process)
        process.kill()
        assert result(process)[0] == -signal.SIGKILL  # and nothing of its group is left

    @pytest.mark.slow
    def test_again_and_again_it_gets_further(self, prepared: Manifest, tmp_path: Path) -> None:
        seen = [0]
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            process = start(*command(tmp_path, prepared), "--quiet")
            under_way(tmp_path, process, probes=seen[-1] // 2 + 1)
            tell_group(process, number)
            assert result(process)[0] == 128 + number
            seen.append(steps_in(tmp_path / "out"))
        assert seen == sorted(set(seen))

    @pytest.mark.slow
    @pytest.mark.parametrize("which", ["group", "launcher"])
    def test_two_processes_of_a_launcher(self, prepared: Manifest, tmp_path: Path, which: str) -> None:
        pytest.importorskip("accelerate")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = start(
            "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
            "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}",
            *command(tmp_path, prepared, workers=1), "--quiet",
        )  # fmt: skip
        under_way(tmp_path, process)
        if which == "group":
            tell_group(process, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        code, _, err = result(process)
        assert code
        assert err.count("atldiff: interrupted") == 2
        assert "DataLoader" not in err
        steps = steps_in(tmp_path / "out")
        assert steps >= 2
        config = replace(CONFIG, steps=steps + 1)
        assert train_stage(config, prepared.folder, tmp_path / "out", workers=0) == steps + 1
