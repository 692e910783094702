"""A network's module to the ONNX file that every runtime reads."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch

from atldiff.errors import AtlDiffError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atldiff.export.networks import Network

OPSET = 18


def write_onnx(network: Network, path: Path) -> None:
    """Write a network at the shapes of its inputs, float32, constants folded.

    Through PyTorch's TorchScript exporter: its other one needs onnxscript and gives the same speed.

    Raises:
        AtlDiffError: the package onnx is missing. CheckpointError: the network cannot be expressed in ONNX.
    """
    require_onnx()
    example = network.draw(np.random.default_rng(0))
    try:
        with _quiet(), torch.inference_mode():
            torch.onnx.export(
                network.module,
                example,
                path,
                input_names=list(network.inputs),
                output_names=["out"],
                opset_version=OPSET,
                dynamo=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"export: {network.name} cannot be written as ONNX ({reason}); use backend torch"
        ) from None


def require_onnx() -> None:
    """Raise AtlDiffError where the package onnx is missing, which exporting needs whatever the runtime."""
    if find_spec("onnx") is None:
        raise AtlDiffError("export: onnx is not installed; run pip install 'atldiff[export]' or use backend torch")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks from the user, and PyTorch's fused attention from the graph: ONNX knows no such."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fused)
