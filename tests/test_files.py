from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from atldiff import files
from atldiff.cli import one_line
from atldiff.files import Workplace, clear, clear_all, replacing, write_text
from signalled import result, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(300)

KILLED = """
import os, signal, sys
from pathlib import Path
from atldiff.files import Workplace

place = Workplace(Path(sys.argv[1]))
place.make()
place.path.write_text("half")
print(place.folder, flush=True)
sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def another(target: Path, **settings: object) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Have another process in the middle of making a target; give its workplace."""
    process = start("-c", KILLED, str(target), stdin=subprocess.PIPE, **settings)
    assert process.stdout is not None
    try:
        yield Path(process.stdout.readline().strip()), process
    finally:
        process.kill()
        result(process)


class TestReplacing:
    def test_whole_or_not_at_all(self, tmp_path: Path) -> None:
        target = tmp_path / "a.txt"
        with replacing(target) as partial:
            assert partial.name == "a.txt"
            partial.write_text("one")
            assert not target.exists()
        write_text(target, "two")

        def fail(error: type[BaseException]) -> None:
            with replacing(target) as partial:
                partial.write_text("thr")
                raise error

        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error):
                fail(error)
        assert target.read_text() == "two"
        assert names(tmp_path) == ["a.txt"]

    def test_a_folder_takes_another_s_place(self, tmp_path: Path) -> None:
        for content in ("one", "two"):
            with replacing(tmp_path / "a") as partial:
                partial.mkdir()
                (partial / content).touch()
            assert names(tmp_path) == ["a"]
            assert names(tmp_path / "a") == [content]

    def test_a_folder_that_cannot_be_moved_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "old").touch()
        move = Path.replace

        def refuse(path: Path, target: Path) -> Path:
            if path.parent.suffix == ".partial" and path.name == "a":
                raise OSError(errno.EIO, "Input/output error")
            return move(path, target)

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="a'"), replacing(tmp_path / "a") as partial:
            partial.mkdir()
        assert names(tmp_path) == ["a"]
        assert names(tmp_path / "a") == ["old"]

    def test_many_at_once(self, tmp_path: Path) -> None:
        """Folders, which no system replaces in one go."""
        problems = []

        def work(number: int) -> None:
            try:
                for _ in range(20):
                    with replacing(tmp_path / "a") as partial:
                        partial.mkdir()
                        (partial / "first").write_text(str(number))
                        (partial / "second").write_text(str(number))
            except OSError as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert names(tmp_path) == ["a"]
        assert (tmp_path / "a" / "first").read_text() == (tmp_path / "a" / "second").read_text()

    @pytest.mark.skipif(sys.platform == "win32", reason="no such rights")
    def test_readable_as_any_file(self, tmp_path: Path) -> None:
        """Whatever the library that writes thinks of it: safetensors makes files for their owner alone."""
        from safetensors.torch import save_file

        before = os.umask(0o027)
        try:
            with replacing(tmp_path / "a.safetensors") as partial:
                save_file({"a": torch.zeros(3)}, partial)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640

    def test_a_missing_folder_names_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file") as caught:
            write_text(tmp_path / "none" / "a.txt", "")
        assert one_line(caught.value) == f"{tmp_path / 'none' / 'a.txt'}: No such file or directory"


def save_track(path: Path) -> None:
    from test_types import make_track

    make_track(40).save(path)


def save_picture(path: Path) -> None:
    from atldiff.ablation.sheet import write_picture

    write_picture(path, np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8))


def save_tensors(path: Path) -> None:
    from safetensors.torch import save_file

    with replacing(path) as partial:
        save_file({"a": torch.zeros(100_000)}, partial)


def save_video(path: Path) -> None:
    from atldiff.video.write import VideoWriter

    random = np.random.default_rng(0)
    with VideoWriter(path, size=(256, 256), fps=25) as writer:
        for _ in range(20):
            writer.write(random.integers(0, 255, (256, 256, 3), np.uint8))


WRITERS = {
    "a.npz": save_track,
    "a.png": save_picture,
    "a.safetensors": save_tensors,
    "a.json": lambda path: write_text(path, "x" * 400_000),
    "a.mp4": save_video,
    "frames/": save_video,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 128 kB."""
    folder = tmp_path_factory.mktemp("small")
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # libav may hold a file whose end it could not write


class TestFullDisk:
    @pytest.mark.parametrize("name", WRITERS)
    def test_the_file_is_named_and_nothing_stays(self, small: Path, name: str) -> None:
        with pytest.raises(Exception, match="No space left on device") as caught:
            WRITERS[name](f"{small}/{name}" if name.endswith("/") else small / name)
        said = one_line(caught.value)
        assert str(small / name) in said
        assert ".partial" not in said
        assert names(small) == []

    @pytest.mark.parametrize(
        "error",
        [OSError(errno.ENOSPC, "No space left on device"),
         type("SafetensorError", (Exception,), {})("Error while serializing: I/O error: (os error 28)")],
        ids=["numpy", "safetensors"],
    )  # fmt: skip
    def test_where_none_can_be_mounted(self, tmp_path: Path, error: Exception) -> None:
        with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "a.npz"):
            raise error
        assert one_line(caught.value) == f"{tmp_path / 'a.npz'}: No space left on device"

    def test_a_copy_does_not_name_its_source(self, small: Path, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(bytes(10**6))
        with pytest.raises(OSError, match="No space left") as caught, replacing(small / "copy") as partial:
            shutil.copyfile(tmp_path / "source", partial)
        assert one_line(caught.value) == f"{small / 'copy'}: No space left on device"

    def test_other_files_and_other_errors_keep_their_names(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="b.txt"), replacing(tmp_path / "a.txt"):
            (tmp_path / "b.txt").read_text()
        with pytest.raises(RuntimeError, match="os error 28"), replacing(tmp_path / "a.txt"):
            raise RuntimeError("(os error 28)")


@pytest.mark.skipif(files.fcntl is None, reason="no locks of this kind")
class TestOthers:
    def test_what_a_killed_process_left_goes_with_the_next(self, tmp_path: Path) -> None:
        target = tmp_path / "a.txt"
        with another(target) as (folder, process):
            write_text(target, "mine")
            assert names(tmp_path) == sorted([folder.name, "a.txt"])  # while it lives
            process.kill()
            process.wait()
            write_text(tmp_path / "b.txt", "")
            write_text(target, "mine", tidy=False)
            assert folder.is_dir()
            write_text(target, "mine")
            assert names(tmp_path) == ["a.txt", "b.txt"]

    def test_all_of_a_folder(self, tmp_path: Path) -> None:
        mine = Workplace(tmp_path / "mine.txt")
        mine.make()
        for name in (".hidden", ".a.partial", "b.1-12345678.partial"):  # not ours
            (tmp_path / name).mkdir()
        with another(tmp_path / "x.txt") as (theirs, _), another(tmp_path / "y.txt") as (left, process):
            process.kill()
            process.wait()
            clear_all(tmp_path)
            assert theirs.is_dir()
            assert not left.exists()
        assert mine.folder.is_dir()
        mine.discard()
        clear(tmp_path / "x.txt")
        assert names(tmp_path) == [".a.partial", ".hidden", "b.1-12345678.partial"]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        clear_all(tmp_path / "none")

    def test_one_that_is_tidied_away_as_it_appears(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between being made and being locked."""
        lock = files._locked
        tidied: list[Path] = []

        def late(folder: Path, *, wait: bool = True) -> int | None:
            if not tidied:
                tidied.append(folder)
                clear_all(tmp_path)
                assert not folder.exists()
                folder.mkdir()  # for the descriptor
                descriptor = lock(folder, wait=wait)
                folder.rmdir()
                return descriptor
            return lock(folder, wait=wait)

        monkeypatch.setattr(files, "_locked", late)
        place = Workplace(tmp_path / "a.txt", tidy=False)
        place.make()
        assert place.folder.is_dir()
        place.path.write_text("whole")
        place.publish()
        assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_leaves_nothing(tmp_path: Path, stop: int) -> None:
    def write(then: Callable[[], object]) -> None:
        with replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            then()

    before = signal.signal(stop, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(lambda: signal.raise_signal(stop))
    finally:
        signal.signal(stop, before)
    assert names(tmp_path) == []
