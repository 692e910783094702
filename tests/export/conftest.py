from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from atldiff.checkpoint import save_model
from atldiff.runtime.choose import is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from atldiff.methods.models import Model


@pytest.fixture(scope="session", params=["onnx", "openvino"])
def runtime(request: pytest.FixtureRequest) -> str:
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="session")
def exporter() -> None:
    if find_spec("onnx") is None:
        pytest.skip("onnx is not installed")


@pytest.fixture(scope="session")
def checkpoint_folder(random_any_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random model of each method as a checkpoint."""
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    save_model(random_any_model, folder, "# A model\n")
    return folder


@pytest.fixture(scope="session")
def atl_folder(random_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atl") / "checkpoint"
    save_model(random_model, folder, "# A model\n")
    return folder


@pytest.fixture(scope="session")
def exported(checkpoint_folder: Path, exporter: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each method with its graphs."""
    from atldiff.export.publish import export_checkpoint

    folder = tmp_path_factory.mktemp("exported") / "out"
    export_checkpoint(checkpoint_folder, folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "atldiff" / "exports"
