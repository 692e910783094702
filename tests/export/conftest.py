from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from atldiff.checkpoint import save_model

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.methods.models import Model

RUNTIME_MODULES = {"onnx": "onnxruntime", "openvino": "openvino"}


def needs(runtime: str) -> None:
    for module in ("onnx", RUNTIME_MODULES[runtime]):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="session", params=["onnx", "openvino"])
def runtime(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return request.param


@pytest.fixture(scope="session")
def one_runtime() -> str:
    """For what is the same whatever the runtime."""
    needs("onnx")
    return "onnx"


@pytest.fixture(scope="session")
def checkpoint_folder(random_exportable_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random model of each method as a checkpoint, in full precision."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    save_model(random_exportable_model, folder, "# A model\n", half=False)
    return folder


@pytest.fixture(scope="session")
def atl_folder(random_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atl") / "checkpoint"
    save_model(random_model, folder, "# A model\n", half=False)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "atldiff" / "exports"
