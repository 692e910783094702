"""`atldiff prepare` that is asked to stop, or killed: no worker stays, and the same command goes on."""

from __future__ import annotations

import shutil
import signal
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from PIL import Image

from atldiff.files import Workplace
from signalled import result, start, tell_group, until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals as on Linux and macOS"),
    pytest.mark.timeout(600),
]
CLIPS = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """Videos of one face that shifts, enough of them to be in the middle of."""
    folder = tmp_path_factory.mktemp("raw")
    picture = np.array(Image.open(examples / "portrait.jpg"))
    with av.open(str(folder / "clip0.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25), bit_rate=4_000_000)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        for index in range(30):
            shifted = np.roll(picture, (index // 2, index), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
        container.mux(stream.encode())
    for number in range(1, CLIPS):
        shutil.copy(folder / "clip0.mp4", folder / f"clip{number}.mp4")
    return folder


def prepare(raw: Path, out: Path) -> subprocess.Popen[str]:
    return start("-m", "atldiff", "prepare", str(raw), "-o", str(out), "--workers", "2", "--quiet")


def in_the_middle(out: Path, process: subprocess.Popen[str]) -> None:
    until(lambda: list((out / "clips").glob("*.json")), "the first clip", process)


def goes_on(raw: Path, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("*.json")}
    assert 0 < len(before) < CLIPS
    assert result(prepare(raw, out)) == (0, "", "")
    assert len(list((out / "clips").glob("*.json"))) == CLIPS
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(out.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["group", "process"])
def test_asked_to_stop(raw: Path, tmp_path: Path, number: int, whom: str) -> None:
    out = tmp_path / "out"
    process = prepare(raw, out)
    in_the_middle(out, process)
    if whom == "group":
        tell_group(process, number)
    else:
        process.send_signal(number)
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "interrupted by SIGTERM"}[number]
    assert result(process) == (128 + number, "", f"atldiff: {said}\n")
    assert not list(out.rglob(".*"))
    goes_on(raw, out)


def test_killed(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = prepare(raw, out)
    in_the_middle(out, process)
    process.kill()
    assert result(process)[0] == -signal.SIGKILL  # and nothing of its group is left
    left = Workplace(out / "clips" / "clip.json")
    left.folder.mkdir()  # as a worker may leave it
    goes_on(raw, out)


def test_a_worker_that_is_killed(raw: Path, tmp_path: Path) -> None:
    """The others hear no signal, by which the pool would end them: it must not wait for them."""
    psutil = pytest.importorskip("psutil")
    out = tmp_path / "out"
    process = prepare(raw, out)
    in_the_middle(out, process)
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    code, _, err = result(process)
    assert code == 2
    assert err.startswith("atldiff: error: workers: one died, out of memory or killed")
    goes_on(raw, out)
