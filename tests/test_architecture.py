"""Imports point one way, and the package is light until something heavy is asked for."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "atldiff"

BASE = {
    "types",
    "arrays",
    "track_json",
    "timebase",
    "loudness",
    "emotions",
    "errors",
    "config",
    "files",
    "stages",
    "workers",
    "interrupt",
    "live",
    "media",
    "devices",
    "machine",
    "networks",
    "torch_networks",
    "hub",
    "runtime",
}
MIDDLE = {"audio", "landmarks", "diffusion", "video"}
MODEL = {"checkpoint", "methods"}
UP_TO_PIPELINE = BASE | MIDDLE | MODEL | {"export", "loading", "rendering", "dubbing", "pipeline"}

MAY_IMPORT = {
    **{room: BASE for room in BASE | MIDDLE},  # so the middle rooms never see one another
    "config": set(),  # standard library only, like its neighbours a leaf
    "methods": BASE | MIDDLE,
    "checkpoint": BASE | {"methods"},
    "backbones": BASE | MIDDLE,  # networks of others, for the ruler and for telling people apart
    "data": BASE | MIDDLE | {"backbones"},  # beside methods: neither sees the other
    "export": BASE | MIDDLE | MODEL,  # the networks in other runtimes
    "loading": BASE | MIDDLE | MODEL | {"export"},
    "rendering": BASE | MIDDLE | MODEL,
    "dubbing": BASE | MIDDLE | MODEL,
    "pipeline": BASE | MIDDLE | MODEL | {"loading", "rendering", "dubbing"},
    "training": UP_TO_PIPELINE | {"data", "backbones"},
    "evaluation": UP_TO_PIPELINE | {"data", "backbones"},
    "ablation": UP_TO_PIPELINE | {"data", "training", "evaluation"},
    "released": UP_TO_PIPELINE | {"backbones"},  # the authors' files
    "serve": UP_TO_PIPELINE,
    "bench": UP_TO_PIPELINE,
    "doctor": UP_TO_PIPELINE | {"packages"},
    "packages": set(),  # standard library only: it has to run where a package is missing
    "commands": UP_TO_PIPELINE
    | {"data", "backbones", "training", "evaluation", "ablation", "released", "serve", "export", "bench", "doctor"}
    | {"packages"},
    "cli": {"errors", "interrupt", "commands", "packages"},
    "__main__": {"cli"},
    "__init__": {"errors", "types", "pipeline"},  # by name, on first use
}
"""The rooms a room may import besides itself and `atldiff` for its version."""

HEAVY = ("torch", "cv2", "av", "onnxruntime", "scipy", "numpy", "PIL")


def room_of(path: Path, source: Path) -> str:
    """Return a file's room: the folder below the package, but that a method's `training` is of the room training."""
    room, *within = path.relative_to(source).with_suffix("").parts
    return "training" if room == "methods" and len(within) > 2 and within[1] == "training" else room


def room_named(name: str) -> str:
    """Return the room of a dotted name, as `room_of` does."""
    parts = name.split(".")[1:]
    if len(parts) > 2 and parts[0] == "methods" and parts[2] == "training":
        return "training"
    return parts[0] if parts else "__init__"


def imported_modules(path: Path, source: Path) -> set[str]:
    """Return the dotted names of the package's own modules that a file imports, wherever in the file it does."""
    names: set[str] = set()
    package = ("atldiff", *path.relative_to(source).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "atldiff"}


def wrong_imports(source: Path) -> list[str]:
    """Return a line for each import that does not point down."""
    rooms = {room_of(path, source) for path in source.rglob("*.py")}
    wrong = []
    for path in sorted(source.rglob("*.py")):
        room = room_of(path, source)
        if room not in MAY_IMPORT:
            wrong.append(f"{path.relative_to(source)}: room {room} has no place in the order of imports")
            continue
        for name in sorted(imported_modules(path, source)):
            target = room_named(name)
            if target in rooms - {"__init__"} - MAY_IMPORT[room] - {room}:
                wrong.append(f"{path.relative_to(source)} imports {name}")
    return wrong


def test_imports_point_one_way() -> None:
    assert wrong_imports(SOURCE) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("video/write.py", "from atldiff.audio.load import load"),
        ("video/write.py", "from ..audio import load"),
        ("video/write.py", "def f():\n    import atldiff.audio.load"),
        ("landmarks/motion.py", "from atldiff import pipeline"),
        ("methods/atl/network.py", "from atldiff.data.dataset import clips"),
        ("data/dataset.py", "from atldiff.methods import build"),
        ("config.py", "from atldiff.types import Portrait"),
        ("pipeline.py", "from atldiff.training.loop import train"),
        ("helpers/misc.py", ""),
    ],
)
def test_the_check_sees_a_wrong_import(tmp_path: Path, file: str, line: str) -> None:
    for room in ("audio", "data", "methods", "training", "video"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    for module in ("types.py", "pipeline.py"):
        (tmp_path / module).touch()
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).write_text(line + "\n", encoding="utf-8")
    assert len(wrong_imports(tmp_path)) == 1


def test_config_is_standard_library_only() -> None:
    roots = set()
    for path in sorted((SOURCE / "config").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add((node.module or "").split(".")[0])
    assert "dataclasses" in roots
    assert roots - {"atldiff"} <= sys.stdlib_module_names  # of our own a config sees configs: the order of rooms


def uses(package: str, source: Path) -> set[str]:
    """Return the rooms that import a package, wherever in a file they do."""
    rooms = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if any(name.split(".")[0] == package for name in names):
                rooms.add(room_of(path, source))
    return rooms


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("scipy", {"training", "data", "evaluation"}),
        ("huggingface_hub", {"hub"}),
        ("jinja2", {"evaluation"}),
        ("torchmetrics", {"evaluation"}),
        ("openvino", {"runtime"}),
    ],
)
def test_packages_that_the_main_job_does_without_stay_in_their_rooms(package: str, rooms: set[str]) -> None:
    used = uses(package, SOURCE)
    assert used
    assert used <= rooms


def heavy_after(statement: str) -> set[str]:
    """Return which heavy packages a new interpreter has loaded after a statement."""
    code = f"""
import sys
try:
    {statement}
except SystemExit as stop:
    assert not stop.code, stop.code
sys.stderr.write("LOADED " + " ".join(name for name in {HEAVY!r} if name in sys.modules))
"""
    source = os.pathsep.join(filter(None, (str(SOURCE.parent), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("LOADED")[2].split())


def test_import_is_light() -> None:
    assert heavy_after("import atldiff") == set()


def test_help_is_light() -> None:
    run = "import runpy; sys.argv = ['atldiff', '--help']; runpy.run_module('atldiff', run_name='__main__')"
    assert heavy_after(run) & {"torch", "cv2", "av", "onnxruntime", "scipy"} == set()


def test_every_public_name_resolves() -> None:
    import atldiff

    for name in atldiff.__all__:
        assert getattr(atldiff, name) is not None
    assert set(atldiff._HOME) | {"__version__"} == set(atldiff.__all__)


def test_unknown_name_says_what_there_is() -> None:
    import atldiff

    with pytest.raises(AttributeError, match=r"no attribute 'TalkingHed'.*TalkingHead"):
        _ = atldiff.TalkingHed
