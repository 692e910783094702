"""The denoiser's coarse levels in 8 bits: convolutions between quantised values, scales from the pipeline's own calls.

The finest level stays as it is, and the way up to it. They carry the picture, and in 8 bits they made nearly all of the
error: 20 % of the residual's norm with every convolution in 8 bits, 0.3 % without them, measured on `atl-diff`.
"""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from atldiff.errors import AtlDiffError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import torch

    from atldiff.diffusion.unet3d import UNet3D
    from atldiff.export.networks import Network


def quantise(network: Network, source: Path, target: Path, seen: Sequence[tuple[torch.Tensor, ...]]) -> None:
    """Write `source`, a denoiser of ours in ONNX, in 8 bits to `target` (QDQ, weights by channel).

    seen: inputs of the kind it will be called with; the ranges of its values are theirs.

    Raises:
        AtlDiffError: onnxruntime is missing. CheckpointError: there is nothing to quantise.
    """
    require_quantiser()
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Seen(CalibrationDataReader):
        """The inputs, one after the other."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = (
                {name: value.float().numpy() if value.is_floating_point() else value.numpy()
                 for name, value in zip(network.inputs, values, strict=True)}
                for values in seen
            )  # fmt: skip

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._left, None)

    prepared = target.with_name(f".{target.name}.prepared")
    root = logging.getLogger()
    root.addFilter(_silent)  # its remarks go straight to the root logger
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        names = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        coarse = coarse_convolutions(names, network.module)  # pyright: ignore[reportArgumentType]
        quantize_static(
            str(prepared),
            str(target),
            Seen(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=coarse,
        )
    finally:
        root.removeFilter(_silent)
        prepared.unlink(missing_ok=True)


def coarse_convolutions(names: Sequence[str], unet: UNet3D) -> list[str]:
    """Return the convolutions that bear 8 bits, by the exporter's names (/down.1.0/first/Conv).

    Not those of the finest level, of the level that leads up to it, and those that only carry values past a block.

    Raises:
        CheckpointError: there is none, or none that is left out.
    """
    last = len(unet.up) - 1
    exact = re.compile(rf"/(stem|out|down\.0\.\d+|shrink\.0|up\.({last}|{last - 1})\.\d+|grow\.{last - 1}|[^/]+/skip)/")
    coarse = [name for name in names if not exact.match(name)]
    if not coarse or len(coarse) == len(names):
        raise CheckpointError(
            f"int8: of {len(names)} convolutions {len(coarse)} would be in 8 bits, expected some but not all; "
            "leave --int8 out"
        )
    return coarse


def require_quantiser() -> None:
    """Raise AtlDiffError where onnxruntime is missing, which quantises for every runtime."""
    if find_spec("onnxruntime") is None:
        raise AtlDiffError("int8: onnxruntime is not installed; run pip install 'atldiff[export]' or leave --int8 out")


def _silent(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
