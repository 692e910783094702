"""The denoiser in 8 bits: convolutions between quantised values, scales from the pipeline's own calls.

What makes pixels of features stays as it is, and the way past the finest block: in 8 bits these few made nearly all of
the error. Of the residual's norm, on `atl-diff` over 14 portraits: 12 % with every convolution in 8 bits, 3.4 % without
them, half a grey level in the frames; and they are a third of what is left of the time.

Weights stay in the checkpoint's file here, too: the graph rounds them as it is opened, by scales that it holds.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from atldiff.diffusion.unet3d import UNet3D
from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    from atldiff.runtime.graphs import Graph

_ROUNDED = "_quantized"
"""What the package calls a weight in 8 bits, after the weight's own name."""


def quantise(graph: Graph, module: nn.Module, seen: Sequence[tuple[np.ndarray, ...]]) -> Graph:
    """Write a denoiser's graph once more in 8 bits (QDQ, weights by channel), beside it, and return that.

    module: what it was made of, with our U-Net in it. seen: inputs of the kind it will be called with; the ranges of
    its values are theirs.

    Raises:
        AtlDiffError: onnx is missing. CheckpointError: there is nothing to quantise.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Seen(CalibrationDataReader):
        """The inputs, one after the other."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = (
                {each.name: value for each, value in zip(graph.inputs, values, strict=True)} for values in seen
            )

        def get_next(self) -> dict[str, np.ndarray] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self._left, None)

    found = {name: part for name, part in module.named_modules() if isinstance(part, UNet3D)}
    if not found:
        raise CheckpointError("int8: got a denoiser without a U-Net of ours; leave --int8 out")
    (name, unet), *_ = found.items()
    prefix = f"/{name.replace('.', '/')}" if name else ""
    source = graph.file
    target = source.with_name(f"{source.stem}-int8.onnx")
    prepared, rounded = (source.with_name(f".{source.stem}.{word}.onnx") for word in ("prepared", "rounded"))
    root = logging.getLogger()
    root.addFilter(_silent)  # its remarks go straight to the root logger
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        names = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        quantize_static(
            str(prepared),
            str(rounded),
            Seen(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=[f"{prefix}{name}" for name in bearing_convolutions(inside, unet)],
        )
        _refer(rounded, source, target)
    finally:
        root.removeFilter(_silent)
        for made in (prepared, rounded):
            made.unlink(missing_ok=True)
    return replace(graph, file=target)


def bearing_convolutions(names: Sequence[str], unet: UNet3D) -> list[str]:
    """Return the convolutions that bear 8 bits, by the exporter's names (/down.1.0/first/Conv).

    Raises:
        CheckpointError: there is none, or none that is left out.
    """
    exact = re.compile(rf"/(out|enlarge\.\d+|up\.{len(unet.up) - 1}\.0/skip)/")
    kept = [name for name in names if not exact.match(name)]
    if not kept or len(kept) == len(names):
        raise CheckpointError(
            f"int8: of {len(names)} convolutions {len(kept)} would be in 8 bits, expected some but not all; "
            "leave --int8 out"
        )
    return kept


def _refer(rounded: Path, source: Path, target: Path) -> None:
    """Write a quantised graph whose weights are those of the graph it was made of, rounded as it is opened."""
    import onnx
    from onnx import helper

    whole, model = onnx.load(source, load_external_data=False), onnx.load(rounded)
    makes = {name: node for node in whole.graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in whole.graph.initializer}
    taken: dict[str, object] = {}  # nodes and tensors of the source by what they give, in an order they can be computed

    def take(name: str) -> bool:
        """Take what gives a value of the source that is always the same; return whether it is."""
        if name in taken:
            return True
        if name in held:
            taken[name] = held[name]
            return True
        node = makes.get(name)
        if node is None or not all(map(take, filter(None, node.input))):
            return False
        taken[name] = node
        return True

    kept, rounds = [], []
    scales = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for tensor in model.graph.initializer:
        weight = tensor.name.removesuffix(_ROUNDED)
        if not take(weight):
            kept.append(tensor)
        elif weight != tensor.name:
            if len(tensor.dims) < 2:  # a bias, in the scale of its inputs and weights
                kept.append(tensor)
                continue
            _, scale, zero = scales[tensor.name].input
            rounds.append(helper.make_node("QuantizeLinear", [weight, scale, zero], [tensor.name], axis=0))
    nodes = [each for each in taken.values() if isinstance(each, onnx.NodeProto)]
    tensors = [each for each in taken.values() if isinstance(each, onnx.TensorProto)]
    made = {name for node in nodes for name in node.output}
    nodes += rounds + [node for node in model.graph.node if not made.intersection(node.output)]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*tensors, *kept])
    model.graph.node.extend(nodes)
    target.write_bytes(model.SerializeToString())


def _silent(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
