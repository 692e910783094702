from __future__ import annotations

import importlib
import json
import re
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from atldiff import doctor, packages
from atldiff.config import BUNDLED
from atldiff.landmarks import networks
from atldiff.runtime import choose


def weights_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"format_version": 1, "method": "atl-diff"}', encoding="utf-8")
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float32)}, folder / "model.safetensors")
    return folder


def checks(part) -> dict[str, doctor.Check]:
    return {check.name: check for check in part}


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.collect(probe_s=0.05)


def test_this_environment_is_complete(report: doctor.Report) -> None:
    here = [check for check in report.checks if check.section in ("machine", "packages", "media", "disk")]
    assert [check.problem for check in here if check.problem] == []


def test_the_demo_portrait_has_a_face(report: doctor.Report) -> None:
    check = next(c for c in report.checks if (c.section, c.name) == ("face detection", "demo portrait"))
    assert check.problem is None
    assert check.value.startswith("478 landmarks")


def test_speed_is_measured_with_every_backend(report: doctor.Report) -> None:
    speeds = {c.name: float(c.value.split()[0]) for c in report.checks if "mouths a second on a core" in c.value}
    assert set(speeds) == {f"speed, {name}" for name in choose.PACKAGES if choose.is_installed(name)}
    assert all(speed > 0 for speed in speeds.values())


def test_what_auto_takes_is_said(report: doctor.Report) -> None:
    told = next(check for check in report.checks if check.name == "auto")
    assert told.value == "{0.backend}, {0.dtype}, on {0.device}".format(
        choose.choose("auto", "auto", "auto", graphs=True)
    )


def test_verdict_names_the_fastest() -> None:
    assert doctor.speed_verdict({"onnx": 20, "torch": 30}, 2) == (
        "torch is the fastest: 2.4 times real time for the mouth on 2 cores"
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_run_reports_problems_and_returns_one(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = doctor.Check("packages", "av", "missing", "av: not installed: run pip install av")
    monkeypatch.setattr(doctor, "collect", lambda: doctor.Report((doctor.Check("machine", "cores", "2"), bad)))
    assert doctor.run(json=as_json) == 1
    out = capsys.readouterr().out
    if as_json:
        read = json.loads(out)
        assert read["ok"] is False
        assert read["problems"] == [bad.problem]
        assert [check["name"] for check in read["checks"]] == ["cores", "av"]
    else:
        assert bad.problem in out


def test_run_returns_zero_when_all_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "collect", lambda: doctor.Report((doctor.Check("machine", "cores", "2"),)))
    assert doctor.run() == 0
    assert "All is well" in capsys.readouterr().out


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    problem = checks(doctor._packages())["safetensors"].problem
    assert problem is not None
    assert "pip install 'safetensors'" in problem


def pretend_old(monkeypatch: pytest.MonkeyPatch, distribution: str, release: str) -> None:
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: release if name == distribution else known(name))


@pytest.mark.parametrize(
    ("release", "too_old"), [("16.1.0", True), ("17.0.1", True), ("17.1.0", False), ("101.0", False)]
)
def test_too_old_package_names_the_command(release: str, too_old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_old(monkeypatch, "av", release)
    problem = checks(doctor._packages())["av"].problem or ""
    assert problem.startswith(f"av: got {release}, expected 17.1 or newer: run ") == too_old
    assert problem.endswith("-m pip install 'av>=17.1'") == too_old


def test_oldest_releases_are_those_of_pyproject() -> None:
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    bounds = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)', pyproject.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name: bounds.get(name) for name in packages.REQUIRED} == {
        name: package.oldest for name, package in packages.REQUIRED.items()
    }


def test_the_main_job_is_tried(report: doctor.Report) -> None:
    (check,) = (c for c in report.checks if c.section == "main job")
    assert check.problem is None
    assert check.value.startswith("a short video")


def test_a_main_job_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AttributeError("module 'av' has no\nattribute 'new'")

    monkeypatch.setattr("atldiff.video.write.av.open", fail)
    (check,) = doctor._main_job()
    assert check.value == "failed"
    assert "AttributeError: module 'av' has no attribute 'new'" in (check.problem or "")
    assert "reinstall atldiff" in (check.problem or "")
    pretend_old(monkeypatch, "av", "16.1.0")
    (check,) = doctor._main_job()
    assert (check.problem or "").endswith("mend what is named above")


def test_missing_libgl_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def import_module(name: str):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    found = checks(doctor._packages())
    assert "apt-get install libgl1" in (found["opencv-python-headless"].problem or "")
    assert found["numpy"].problem is None


def pretend_only(monkeypatch: pytest.MonkeyPatch, *distributions: str) -> None:
    def version(name: str) -> str:
        if name in distributions:
            return "4.11"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)


def test_second_opencv_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_only(monkeypatch, "opencv-python-headless", "opencv-contrib-python")
    (check,) = doctor._opencv_twins()
    assert "uninstall -y opencv-contrib-python and" in (check.problem or "")
    assert (check.problem or "").endswith("opencv-python-headless")


def test_any_one_opencv_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_only(monkeypatch, "opencv-python")
    assert list(doctor._opencv_twins()) == []
    assert packages.lacking("opencv-python-headless") is None
    pretend_only(monkeypatch)
    assert "pip install 'opencv-python-headless'" in (packages.lacking("opencv-python-headless") or "")


def test_a_network_that_is_cut_off_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in networks.NAMES:
        (tmp_path / f"{name}.onnx").write_bytes((networks.FOLDER / f"{name}.onnx").read_bytes()[:-5000])
    monkeypatch.setattr(networks, "FOLDER", tmp_path)
    networks.network.cache_clear()
    (check,) = doctor._detection()
    networks.network.cache_clear()
    assert check.value == "failed"
    assert (check.problem or "").startswith("face detector: near.onnx cannot be opened (")
    assert "\n" not in (check.problem or "")


def test_whole_weights_pass(tmp_path: Path) -> None:
    weights_folder(tmp_path / "atl-diff")
    (check,) = doctor._weights(tmp_path)
    assert check.problem is None
    assert check.value.startswith("method atl-diff, 2 tensors")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95 not tensors at all")


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (_cut, "cut off"),
        (_pickle, "not safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cut off or not safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "does not hold an object"),
    ],
)
def test_broken_weights_are_a_problem(tmp_path: Path, harm, expected: str) -> None:
    harm(weights_folder(tmp_path / "atl-diff"))
    (check,) = doctor._weights(tmp_path)
    assert expected in (check.problem or "")
    assert "\n" not in (check.problem or "")


def test_what_all_methods_share_is_looked_at(tmp_path: Path) -> None:
    whole = list(doctor._parts())
    assert [check.name for check in whole] == ["motion", "voice", "whisper", "lent teeth"]
    assert not any(check.problem for check in whole)
    assert [check.name for check in doctor._weights()] == list(BUNDLED)
    missing = list(doctor._parts(tmp_path))
    assert [check.value for check in missing] == ["broken"] * 4
    assert missing[0].problem == "weights motion: motion.safetensors is missing: reinstall atldiff or clone it again"


def test_weights_are_told_with_their_terms(tmp_path: Path) -> None:
    folder = weights_folder(tmp_path / "mine")
    (check,) = doctor._weights(tmp_path)
    assert check.value.endswith("; terms unstated")
    assert check.problem is None
    (folder / "README.md").write_text("# Mine\n\nA **bold** word.\n\n**May be sold, with attribution:** open.\n")
    (check,) = doctor._weights(tmp_path)
    assert check.value.endswith("; may be sold, with attribution")
    (folder / "README.md").write_bytes(b"\xff\xfe no text")
    assert next(doctor._weights(tmp_path)).value.endswith("; terms unstated")


def test_all_that_the_package_brings_has_terms() -> None:
    told = {check.name: check.value.rpartition("; ")[2] for check in [*doctor._weights(), *doctor._parts()]}
    for name, terms in told.items():
        if name in ("voice", "whisper"):
            assert terms == "MIT licence"
        elif name == "lent teeth":
            assert terms == "public domain"
        elif name == "atl-diff-open":
            assert terms == "may be redistributed and used commercially, with attribution"
        else:
            assert terms == "for research and demonstration only, not for commercial use", name


def test_no_weights_is_a_problem(tmp_path: Path) -> None:
    (check,) = doctor._weights(tmp_path)
    assert "clone it again" in (check.problem or "")


def test_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * 2**20))
    (check,) = doctor._disk()
    assert "10 MB free" in (check.problem or "")


def test_unwritable_folder_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    (check,) = doctor._disk()
    assert "Permission denied" in (check.problem or "")
    assert "-o" in (check.problem or "")
