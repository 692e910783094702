"""A network's module to an ONNX file that every runtime reads, whose weights stay in the checkpoint's own file."""

from __future__ import annotations

import inspect
import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.runtime.graphs import Graph, Input, tensors_of
from atldiff.torch_networks import Call

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import nn

    Inputs = tuple[np.ndarray, ...]

OPSET = 18
_TYPES = {"F16": "FLOAT16", "F32": "FLOAT"}


def write_graph(
    name: str, module: nn.Module, calls: Sequence[Inputs], path: Path, weights: Path, keys: Mapping[int, str]
) -> Graph:
    """Write a network's graph; its tensors are those of a safetensors file.

    calls: inputs that it was called with; lengths that differ among them may differ later. path: the file to write, in
    the folder of `weights`. keys: by the `id` of the module's tensors, their names in that file.

    Through PyTorch's TorchScript exporter: its other one needs onnxscript and gives the same speed.

    Raises:
        AtlDiffError: the package onnx is missing. CheckpointError: the network cannot be expressed in ONNX.
    """
    require_onnx()
    inputs = _inputs(module, calls)
    axes = {
        each.name: {axis: length for axis, length in enumerate(each.shape) if isinstance(length, str)}
        for each in inputs
    }
    example = tuple(torch.from_numpy(array) for array in calls[0])
    module.eval()  # its own mode, for the exporter puts back what it finds, dropout included
    try:
        with _quiet(), torch.inference_mode():
            said = module(*example)
            outputs = [f"out{index}" for index in range(len(said) if isinstance(said, list | tuple) else 1)]
            torch.onnx.export(
                module,
                example,
                path,
                input_names=[each.name for each in inputs],
                output_names=outputs,
                opset_version=OPSET,
                dynamo=False,
                do_constant_folding=False,  # so that tensors keep their names; runtimes fold as they open it
                dynamic_axes={name: found for name, found in axes.items() if found},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"export: {name} cannot be written as ONNX ({reason}); use backend torch") from None
    _refer(path, module, weights, keys)
    return Graph(path, inputs)


def _inputs(module: nn.Module, calls: Sequence[Inputs]) -> tuple[Input, ...]:
    """Return a network's inputs as they were called; lengths that differ are called by what they were at first."""
    named: dict[tuple[int, ...], str] = {}

    def length_of(lengths: tuple[int, ...]) -> int | str:
        return lengths[0] if len(set(lengths)) == 1 else named.setdefault(lengths, f"n{len(named)}")

    same = [zip(*(array.shape for array in arrays), strict=True) for arrays in zip(*calls, strict=True)]
    shapes = [[length_of(lengths) for lengths in axes] for axes in same]
    names = _argument_names(module, len(shapes))
    return tuple(
        Input(name, str(array.dtype), tuple(shape)) for name, array, shape in zip(names, calls[0], shapes, strict=True)
    )


def _argument_names(module: nn.Module, count: int) -> list[str]:
    """Return the names of the first arguments of a module's call; those of *rest are numbered."""
    names = []
    called = getattr(module.part, module.method) if isinstance(module, Call) else module.forward
    for parameter in inspect.signature(called).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}{index}" for index in range(count - len(names))]
        else:
            names.append(parameter.name)
    return names[:count]


def _refer(path: Path, module: nn.Module, weights: Path, keys: Mapping[int, str]) -> None:
    """Have a graph find its tensors in a safetensors file, instead of holding them; half precision is widened there."""
    import onnx
    from onnx import TensorProto, helper

    stored = tensors_of(weights)
    held = {name: keys.get(id(tensor)) for name, tensor in _tensors(module)}
    model = onnx.load(path)
    graph = model.graph
    initializers, widened = [], []
    for tensor in graph.initializer:
        key = held.get(tensor.name)
        if key is None or key not in stored:
            initializers.append(tensor)
            continue
        kind, shape, first, count = stored[key]
        if list(tensor.dims) != list(shape) or kind not in _TYPES:
            raise CheckpointError(f"export: tensor {key!r} is {kind} {shape}, expected F16 or F32 {list(tensor.dims)}")
        outside = onnx.TensorProto(
            name=tensor.name if kind == "F32" else f"{tensor.name}/half",
            dims=shape,
            data_type=getattr(TensorProto, _TYPES[kind]),
            data_location=TensorProto.EXTERNAL,
        )
        for word, value in (("location", weights.name), ("offset", first), ("length", count)):
            outside.external_data.add(key=word, value=str(value))
        initializers.append(outside)
        if kind == "F16":
            widened.append(helper.make_node("Cast", [outside.name], [tensor.name], f"{tensor.name}/widen", to=1))
    nodes = widened + list(graph.node)
    for node in nodes:
        node.doc_string = ""
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def require_onnx() -> None:
    """Raise AtlDiffError where the package onnx is missing, which exporting needs whatever the runtime."""
    if find_spec("onnx") is None:
        raise AtlDiffError("export: onnx is not installed; run pip install 'atldiff[torch]' or use backend torch")


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
