from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import wave
from contextlib import closing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from atldiff import cli
from atldiff.commands import batch
from atldiff.commands.batch import Batch, Made, parse_workers
from atldiff.commands.batch_results import read_results
from atldiff.commands.crew import Died, in_processes, on_ray
from atldiff.commands.generate import Generate
from atldiff.errors import DataError
from atldiff.interrupt import answers_kept
from signalled import result, start, tell_group, until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atldiff.commands.manifest import Item

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder(tmp_path: Path, examples: Path) -> Path:
    """A small face, a picture without one, two short sounds and a file that is no sound."""
    picture = Image.open(examples / "portrait.jpg").convert("RGB")
    picture.thumbnail((160, 160))
    picture.save(tmp_path / "face.png")
    Image.new("RGB", (96, 96), "grey").save(tmp_path / "wall.png")
    (tmp_path / "none.wav").write_bytes(b"RIFF of nothing")
    with wave.open(str(examples / "speech.wav")) as whole:
        for name in ("a.wav", "b.wav"):
            with wave.open(str(tmp_path / name), "wb") as part:
                part.setparams(whole.getparams())
                part.writeframes(whole.readframes(int(0.4 * whole.getframerate())))
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """The items that reached a worker, which writes a few bytes for each and does nothing else."""
    seen: list[Item] = []

    def make_item(item: Item) -> Made:
        seen.append(item)
        Path(item.output).write_bytes(b"video")
        return Made("", 10, 0.4, 0.1, ())

    monkeypatch.setattr(batch, "make_item", make_item)
    return seen


def write(folder: Path, *lines: dict | str, name: str = "items.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def line(output: str, **values: object) -> dict[str, object]:
    return {"portrait": "face.png", "audio": "a.wav", "output": output, **values}


def told(path: Path) -> dict[int, dict]:
    """Return the results by line."""
    lines = path.with_suffix(".results.jsonl").read_text(encoding="utf-8").splitlines()
    return {each["line"]: each for each in map(json.loads, lines)}


BAD_LINES = {
    "a missing file": (line("x.mp4", portrait="nobody.png"), "nobody.png: no such file"),
    "an unknown option": (line("x.mp4", sise=3), "sise: no such option; did you mean size?"),
    "an option of another kind": (line("x.mp4", steps="many"), "steps: got 'many', expected a whole number"),
    "a number out of range": (line("x.mp4", head_motion=9), "head_motion: got 9.0, expected 0.0 to 3.0"),
    "a switch that is a word": (line("x.mp4", still="perhaps"), "still: got 'perhaps', expected true or false"),
    "an option twice": (line("x.mp4", size=64, **{"--size": 96}), "--size: got it a second time"),
    "no portrait": ({"audio": "a.wav", "output": "x.mp4"}, "portrait: got none, expected a file"),
    "no sound": ({"portrait": "face.png", "output": "x.mp4"}, "audio: got none, expected a file"),
    "a suffix of no video": (line("x.doc"), "x.doc"),
    "a folder that is not there": (line("no/x.mp4"), "does not exist"),
    "an output that is an input": (line("face.png"), "face.png"),
    "an output that is another's": (line("good.mp4"), "output good.mp4: got it on line 1 too"),
    "standard output": (line("-"), "output: got - in a batch"),
    "sound from standard input": (line("x.mp4", stdin=True), "stdin: no such option"),
    "no JSON": ("{", "not JSON"),
    "no object": ("[1]", "got a list, expected an object"),
    "a list of one value": (line("x.mp4", size=[1]), "size: got [1], expected a whole number or full"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_told_and_the_others_are_made(
    case: str, folder: Path, made: list, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, said = BAD_LINES[case]
    path = write(folder, line("good.mp4"), bad, "", line("last.mp4", size=64))
    assert cli.run(["batch", str(path), "--workers", "0", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("line 2:")
    assert err.count("\n") == 1
    assert said in err
    assert [item.line for item in made] == [1, 4]
    assert {number: each["status"] for number, each in told(path).items()} == {1: "done", 2: "failed", 4: "done"}
    assert said in told(path)[2]["reason"]


BAD_MANIFESTS = {
    "empty": ("items.csv", "portrait,audio\n", "got no lines"),
    "no header": ("items.csv", "face.png,a.wav,x.mp4\n", "line 1: column face.png: no such option"),
    "no sound": (
        "items.csv",
        "portrait,output\nface.png,x.mp4\n",
        "expected a header with portrait (or video) and audio",
    ),
    "a misspelt column": ("items.csv", "portrait,audio,sizes\nface.png,a.wav,1\n", "column sizes: no such option; did"),
    "one column twice": ("items.csv", "portrait,audio,head-motion,head_motion\na,b,1,1\n", "got it a second time"),
    "another suffix": ("items.txt", "x", "got suffix '.txt', expected .csv or .jsonl"),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_that_is_none_is_one_line(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, text, said = BAD_MANIFESTS[case]
    assert cli.run(["batch", str(write(folder, text, name=name))]) == 2
    assert said in capsys.readouterr().err
    assert not list(folder.glob("*.results.jsonl"))


def test_options_of_lines_and_of_all(folder: Path, made: list) -> None:
    head = "\ufeffsource_image;driven_audio;output;still;no-silence-gate;head-motion;reference;size"
    rows = ['face.png;a.wav;one.mp4;yes;true;0.5;"face.png;wall.png";full', "", "face.png;b.wav;two.mp4;;;;;64"]
    path = write(folder, head, *rows, name="items.csv")
    arguments = ["--workers", "0", "--quiet", "--size", "96", "--output-dir", str(folder / "out"), "--seed", "7"]
    assert cli.run(["batch", str(path), *arguments]) == 0
    first, second = (item.options for item in made)
    assert [item.line for item in made] == [2, 4]
    assert (first.controls.still, first.controls.silence_gate, first.controls.head_motion) == (True, False, 0.5)
    assert first.references.reference == (folder / "face.png", folder / "wall.png")
    assert (first.render.size, second.render.size) == ("full", 64)
    assert (second.controls.still, second.controls.silence_gate, second.controls.seed) == (False, True, 7)
    assert second.audio == folder / "b.wav"
    assert sorted(each.name for each in (folder / "out").iterdir()) == ["one.mp4", "two.mp4"]


def test_only_what_is_missing_or_has_changed_is_made_again(folder: Path, made: list) -> None:
    lines = [line("1.mp4"), line("2.mp4", audio="b.wav"), line("3.mp4"), line("4.mp4", size=64), line("5.mp4")]
    path = write(folder, *lines)
    run = ["batch", str(path), "--workers", "0", "--quiet"]

    def again(*more: str) -> list[str]:
        made.clear()
        assert cli.run([*run, *more]) == 0
        return [item.name for item in made]

    assert again() == ["1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4"]
    assert again() == []
    assert {each["status"] for each in told(path).values()} == {"skipped"}
    (folder / "1.mp4").unlink()
    os.utime(folder / "b.wav", (1, 1))
    (folder / "3.mp4").write_bytes(b"something else")
    write(folder, *lines[:3], line("4.mp4", size=80), line("5.mp4"))
    assert again() == ["1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert again("--seed", "3") == ["1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4"]
    write(folder, lines[4], lines[0])  # other places in the list change nothing
    assert again("--seed", "3") == []
    results = path.with_suffix(".results.jsonl")  # as a run that was killed leaves it
    results.write_text(results.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    assert again("--seed", "3") == ["1.mp4"]


def test_check_makes_nothing(folder: Path, made: list, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(folder, line("1.mp4"), line("2.mp4", steps=0))
    assert cli.run(["batch", str(path), "--check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "manifest": str(path), "lines": 2, "missing": 1, "skipped": 0, "failed": 1,
    }  # fmt: skip
    assert not made
    assert not path.with_suffix(".results.jsonl").exists()


def test_videos_of_a_checkpoint(folder: Path, random_model, capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.checkpoint import save_model

    save_model(random_model, folder / "weights")
    path = write(
        folder,
        line("1.mp4", landmarks="1.npz"), line("2.mp4", portrait="wall.png"), line("3.mp4", audio="none.wav"),
        line("frames/"), line("5.npz"),
    )  # fmt: skip
    run = ["batch", str(path), "--workers", "0", "--size", "96", "--weights", str(folder / "weights"), "--results"]
    assert cli.run([*run, str(folder / "r.jsonl"), "--json"]) == 1
    out, err = capsys.readouterr()
    counts = json.loads(out)
    assert (counts["done"], counts["failed"], counts["skipped"]) == (3, 2, 0)
    assert "line 2: 2.mp4: failed: portrait: no face found" in err
    assert "line 3: 3.mp4: failed: " in err
    assert "line 1: 1.mp4: done: 0.4 s, 10 frames" in err
    assert len(list((folder / "frames").glob("*.png"))) == 10
    assert {each.name for each in folder.glob("*.npz")} == {"1.npz", "5.npz"}
    assert not (folder / "2.mp4").exists()
    assert len(read_results(folder / "r.jsonl")) == 3
    before = (folder / "1.mp4").stat().st_mtime_ns
    assert cli.run([*run, str(folder / "r.jsonl"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["skipped"] == 3
    assert (folder / "1.mp4").stat().st_mtime_ns == before


BAD_DUBS = {
    "both": ({"portrait": "face.png", "video": "talking.mp4"}, "portrait: got it with a video, expected one of them"),
    "an option of a portrait": ({"video": "talking.mp4", "size": 64}, "size: no option of a dub: leave it empty"),
    "an option of a dub": ({"portrait": "face.png", "fit": "cut"}, "fit: an option of a dub, got it without a video"),
    "no option": ({"video": "talking.mp4", "fits": "cut"}, "fits: no such option; did you mean fit?"),
    "a missing video": ({"video": "none.mp4"}, "none.mp4: no such file"),
}


def test_videos_are_dubbed(folder: Path, random_model, talking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from atldiff.checkpoint import save_model
    from atldiff.video.read import probe

    save_model(random_model, folder / "weights")
    shutil.copy(talking, folder / "talking.mp4")
    good = {"video": "talking.mp4", "audio": "a.wav", "output": "dubbed.mp4", "fit": "cut", "expression_scale": 1.2}
    bad = [{"audio": "a.wav", "output": f"{i}.mp4", **line} for i, (line, _) in enumerate(BAD_DUBS.values())]
    path = write(folder, good, *bad)
    run = ["batch", str(path), "--workers", "0", "--size", "96", "--weights", str(folder / "weights"), "--quiet"]
    assert cli.run(run) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == len(BAD_DUBS)
    for said, (_, expected) in zip(err, BAD_DUBS.values(), strict=True):
        assert expected in said
    made, source = probe(folder / "dubbed.mp4"), probe(talking)
    assert (made.width, made.height, made.fps) == (source.width, source.height, source.fps)
    assert (told(path)[1]["status"], told(path)[1]["frames"]) == ("done", 10)
    assert cli.run(run) == 1
    assert told(path)[1]["status"] == "skipped"


def test_every_option_of_a_video_is_one_of_a_batch() -> None:
    groups = {entry.name for entry in fields(Generate)} - {"portrait", "audio", "output", "landmarks", "live"}
    assert groups <= {entry.name for entry in fields(Batch)}
    values = {entry.name: entry.default_factory() for entry in fields(Batch) if callable(entry.default_factory)}
    assert all(is_dataclass(value) for value in values.values())


WORKERS = [(None, False, None), ("0", False, 0), ("3", False, 3), ("ray", True, None), ("ray:2", True, 2)]


@pytest.mark.parametrize(("text", "ray", "count"), WORKERS)
def test_workers(text: str | None, ray: bool, count: int | None) -> None:
    assert parse_workers(text) == (ray, count)


@pytest.mark.parametrize("text", ["", "two", "-1", "ray:", "ray:0", "rays", "2:2", "ray:x"])
def test_other_workers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"workers: got .*, expected a number of at least 0, ray, or ray:N"):
        parse_workers(text)


def live_or_die(job: int) -> tuple[int, int, str]:
    """Die of one job in three, in different ways."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 4:
        os._exit(7)
    return job, os.getpid(), os.environ["OMP_NUM_THREADS"]


def check_crew(finished: Sequence[tuple[int, tuple | Died]], reasons: dict[int, str]) -> None:
    results = dict(finished)
    assert sorted(results) == list(range(7))
    assert len(finished) == 7
    died = {job: found.reason for job, found in results.items() if isinstance(found, Died)}
    assert sorted(died) == [1, 4]
    assert all(reason in died[job] for job, reason in reasons.items())
    alive = [found for found in results.values() if not isinstance(found, Died)]
    assert sorted(job for job, _, _ in alive) == [0, 2, 3, 5, 6]
    assert 1 < len({pid for _, pid, _ in alive}) <= 4


@pytest.mark.skipif(os.name == "nt", reason="signals as on Linux and macOS")
def test_a_worker_that_dies_loses_its_job_alone() -> None:
    finished = list(in_processes(live_or_die, range(7), count=2, threads=3))
    check_crew(finished, {1: "ended by SIGKILL, perhaps for lack of memory", 4: "ended with code 7"})
    assert {found[2] for _, found in finished if not isinstance(found, Died)} == {"3"}


def test_workers_end_where_nobody_waits(tmp_path: Path) -> None:
    with closing(in_processes(live_or_die, [0, 2, 3, 5], count=2, threads=1)) as crew:
        first = next(crew)[1]
    assert not isinstance(first, Died)
    with pytest.raises(ProcessLookupError):
        os.kill(first[1], 0)


@pytest.mark.slow
def test_ray(folder: Path) -> None:
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join(str(each) for each in (Path(__file__).parent, Path(__file__).parents[1] / "src"))
    with answers_kept():
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}
        )  # fmt: skip
    try:
        check_crew(list(on_ray(live_or_die, range(7), count=2)), {})
        path = write(folder, *[line(f"{i}.mp4", size=64) for i in range(3)], line("bad.mp4", portrait="wall.png"))
        assert cli.run(["batch", str(path), "--workers", "ray:2", "--quiet"]) == 1
        assert sorted(each.name for each in folder.glob("*.mp4")) == ["0.mp4", "1.mp4", "2.mp4"]
    finally:
        with answers_kept():
            ray.shutdown()


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(DataError, match=r"ray is not installed; run pip install 'atldiff\[ray\]'"):
        list(on_ray(live_or_die, [0], count=1))


@pytest.mark.skipif(os.name == "nt", reason="signals as on Linux and macOS")
@pytest.mark.parametrize("tell", [tell_group, pytest.param(subprocess.Popen.send_signal, marks=pytest.mark.slow)])
def test_an_interruption_keeps_what_is_finished(tell: Callable, folder: Path) -> None:
    path = write(folder, line("0.mp4", size=64), *[line(f"{i}.mp4", size=160, audio="long.wav") for i in range(1, 4)])
    shutil.copy(Path(__file__).parents[1] / "examples" / "speech.wav", folder / "long.wav")
    process = start("-m", "atldiff", "batch", str(path), "--workers", "1")
    until(lambda: list(folder.glob(".1.mp4.*.partial")), "the second video", process)
    tell(process, signal.SIGTERM if tell is tell_group else signal.SIGINT)
    code, _, err = result(process)
    assert code == (143 if tell is tell_group else 130), err
    assert "Traceback" not in err
    assert sorted(each.name for each in folder.glob("*.mp4")) == ["0.mp4"]
    assert not list(folder.glob(".*.partial"))
    assert {number: each["status"] for number, each in told(path).items()} == {1: "done"}
