"""How many threads compute: as many as OMP_NUM_THREADS says, or as there are cores for this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from atldiff import machine


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("2,4", 2), (" 5 ", 5), ("0", 4), ("many", 4), ("", 4)])
def test_the_variable_counts_where_it_is_a_number(monkeypatch: pytest.MonkeyPatch, said: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine, "_siblings", str)
    assert machine.computing_threads() == threads


def test_two_threads_of_a_core_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3, 5}, raising=False)
    monkeypatch.setattr(machine, "_siblings", lambda processor: f"{processor % 4},{processor % 4 + 4}")
    assert machine.computing_threads() == 4  # 1 and 5 are of one core


def test_without_word_of_cores_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 6}, raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: (_ for _ in ()).throw(FileNotFoundError()))
    assert machine.computing_threads() == 2
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert machine.computing_threads() == 1
