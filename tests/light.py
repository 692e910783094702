"""New interpreters that have no more than a light install brings: what the main job must not need cannot be imported.

In the interpreter that a test starts, `block` comes before everything else, so that no import of ours or of a library's
is missed; what a library only tries to import is missing to it as it would be there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).resolve().parent
MISSING = (
    "torch", "torchmetrics", "scipy", "huggingface_hub", "jinja2", "openvino", "onnx", "transformers", "diffusers",
    "accelerate", "tensorboard", "ray",
)  # fmt: skip
"""Packages that a light install lacks."""


class _Finder:
    """What `sys.meta_path` asks first: it says of some packages that they are not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        del path, target
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def block() -> None:
    """Make what is missing impossible to import in this interpreter."""
    loaded = [name for name in MISSING if name in sys.modules]
    assert not loaded, f"already imported: {loaded}"
    sys.meta_path.insert(0, _Finder())  # pyright: ignore[reportArgumentType]


def run(body: Callable[..., None], *arguments: object, timeout_s: float = 120) -> str:
    """Call a test module's function with strings in a light interpreter; return what it printed.

    The module, too, is imported there: no import at its top may be of a missing package.
    """
    folder = Path(body.__code__.co_filename).parent
    code = f"from {body.__module__} import {body.__name__} as body; import sys; body(*sys.argv[1:])"
    done = _started(code, [str(argument) for argument in arguments], timeout_s, folder)
    assert done.returncode == 0, f"{body.__name__} exits with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def command(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line in a light interpreter."""
    code = "import runpy; runpy.run_module('atldiff', run_name='__main__', alter_sys=True)"
    return _started(code, [str(argument) for argument in arguments], timeout_s)


def _started(code: str, arguments: list[str], timeout_s: float, *folders: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(path) for path in (TESTS.parent / "src", TESTS, *folders)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import light; light.block(); {code}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s)
