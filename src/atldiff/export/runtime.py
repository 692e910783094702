"""Exported networks at work: ONNX Runtime and OpenVINO behind the call of the module they replace."""

from __future__ import annotations

import threading
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from atldiff.errors import AtlDiffError, CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

Runtime = Literal["onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("onnx", "openvino")
SUFFIX: dict[Runtime, str] = {"onnx": ".onnx", "openvino": ".xml"}
"""The file that a runtime opens; OpenVINO's has its weights beside it."""

_MODULES = {"onnx": "onnxruntime", "openvino": "openvino"}


class Session(Protocol):
    """A network that is ready to run, from several threads at once."""

    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return a new array for the network's inputs, in order."""
        ...


class OnnxSession:
    """A network in ONNX Runtime, float32, one thread for each call."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the caller's: windows run side by side
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [node.name for node in self._session.get_inputs()]
        self.shapes = tuple(tuple(node.shape) for node in self._session.get_inputs())

    def __call__(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return a new array for the network's inputs, in order."""
        return self._session.run(None, dict(zip(self._names, inputs, strict=True)))[0]  # pyright: ignore[reportReturnType]


class OpenVinoSession:
    """A network in OpenVINO, one thread for each call and `streams` calls at once."""

    def __init__(self, path: Path, dtype: torch.dtype, streams: int) -> None:
        core = _core()
        half = dtype == torch.bfloat16 and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._compiled = core.compile_model(
            core.read_model(path),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
                "NUM_STREAMS": streams,
                "INFERENCE_NUM_THREADS": streams,
                "ENABLE_CPU_PINNING": False,  # two networks pinned to the same cores would wait for one another
            },
        )
        self.shapes = tuple(tuple(port.shape) for port in self._compiled.inputs)
        self._own = threading.local()  # a request computes one thing at a time

    def __call__(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Return a new array for the network's inputs, in order."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        request.infer(inputs, share_inputs=True)
        return request.get_output_tensor().data.copy()


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def require(runtime: Runtime) -> None:
    """Raise where a runtime's package is missing.

    Raises:
        AtlDiffError: it is.
    """
    if not is_installed(runtime):
        raise AtlDiffError(
            f"backend {runtime}: {_MODULES[runtime]} is not installed; run pip install 'atldiff[export]' or use torch"
        )


def is_installed(runtime: Runtime) -> bool:
    """Return whether a runtime's package is there."""
    return find_spec(_MODULES[runtime]) is not None


def has_bfloat16(runtime: Runtime) -> bool:
    """Return whether a runtime computes in bfloat16 on this machine."""
    return runtime == "openvino" and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class ExportedNetwork(nn.Module):
    """A network without parameters of its own, called as the module it was exported from, at one shape.

    Takes float tensors of any format, and int64 labels, on the CPU; returns float32.
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, session: Session, inputs: tuple[str, ...], embedding_width: int = 0) -> None:
        super().__init__()
        self._session, self._inputs = session, inputs
        self.embedding_width = embedding_width

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        """Return the network's output for its inputs, in order.

        Raises:
            ValueError: inputs of another shape than the exported one.
        """
        for name, value, shape in zip(self._inputs, values, self._session.shapes, strict=True):
            if tuple(value.shape) != shape:
                raise ValueError(_other_shape(name, tuple(value.shape), shape))
        return torch.from_numpy(self._session([_array(value) for value in values]))


def open_network(
    path: Path, runtime: Runtime, inputs: tuple[str, ...], *, dtype: torch.dtype, streams: int, embedding_width: int = 0
) -> ExportedNetwork:
    """Open an exported network.

    dtype: what OpenVINO computes in, where the hardware has it; ONNX Runtime computes in float32. streams: calls that
    may run at once, a core each.

    Raises:
        AtlDiffError: the runtime is missing. CheckpointError: not a network that the runtime can open.
    """
    require(runtime)
    try:
        session = OnnxSession(path) if runtime == "onnx" else OpenVinoSession(path, dtype, streams)
    except Exception as error:  # the runtimes' errors have many classes and long texts; the user needs one line
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"exported network {path}: {runtime} cannot open it ({reason}); export it again"
        ) from None
    if len(session.shapes) != len(inputs):
        raise CheckpointError(
            f"exported network {path}: takes {len(session.shapes)} inputs, expected {len(inputs)}; export it again"
        )
    return ExportedNetwork(session, inputs, embedding_width)


def write_openvino(source: Path, target: Path) -> None:
    """Write an ONNX file as OpenVINO's own, .xml and .bin, in full precision."""
    import openvino

    # Not openvino.convert_model on the module: what it makes of this U-Net crashed the CPU plugin in float32.
    openvino.save_model(_core().read_model(source), target, compress_to_fp16=False)


def _array(value: torch.Tensor) -> np.ndarray:
    value = value.detach()
    return np.ascontiguousarray((value.float() if value.is_floating_point() else value).numpy())


def _other_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if name == "x" and len(got) == len(expected) == 5 and got[2] != expected[2]:
        return other_window(got[2], expected[2])
    return f"exported network: {name} has shape {got}, expected {expected}; use backend torch for other shapes"


def other_window(got: int, expected: int) -> str:
    """Return the message about windows of another length than the exported one."""
    return (
        f"window_frames: got {got}, but the exported networks take windows of {expected} frames; sample with "
        f"window_frames={expected}, export again with --window-frames {got}, or use backend torch"
    )
