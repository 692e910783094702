"""What computes a checkpoint's networks on this machine, and opening them there."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from atldiff.errors import AtlDiffError
from atldiff.machine import integer_dot_products, native_bfloat16

if TYPE_CHECKING:
    from atldiff.networks import Network
    from atldiff.runtime.graphs import Graph

Runtime = Literal["onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
Backend = Literal["auto", "torch", "openvino", "onnx"]
BACKENDS: tuple[str, ...] = get_args(Backend)
DTYPES = ("auto", "float32", "bfloat16", "int8")

PACKAGES = {"onnx": ("onnxruntime", "atldiff"), "openvino": ("openvino", "atldiff[openvino]"),
             "torch": ("torch", "atldiff[torch]")}  # fmt: skip
"""The package of each backend, and what to install for it."""
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class Compute:
    """What computes the networks: `torch`, `openvino` or `onnx`, on `cpu`, `cuda` or `cuda:N`, in which format."""

    backend: str
    device: str = "cpu"
    dtype: str = "float32"


def choose(backend: str, device: str, dtype: str, *, graphs: bool, int8: bool = False) -> Compute:
    """Return what computes the networks of a checkpoint here.

    backend: `auto` takes PyTorch on a GPU where it has one; on the CPU the fastest that is installed: OpenVINO, ONNX
    Runtime where it has 8 bits, PyTorch where the processor has bfloat16, ONNX Runtime. device: `auto`, `cpu`, `cuda`
    or `cuda:N`. dtype: `auto`, `float32`, `bfloat16` or `int8`. graphs: whether the checkpoint has networks that need
    no PyTorch; int8: whether it has some in 8 bits.

    Raises:
        ValueError: an unknown word, or a backend that cannot do what was asked for. AtlDiffError: its package is
        missing.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}, expected {', '.join(BACKENDS)}")
    if not _DEVICE.fullmatch(device):
        raise ValueError(f"device: got {device!r}, expected auto, cpu or cuda")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: got {dtype!r}, expected {', '.join(DTYPES)}")
    if device.startswith("cuda") and backend not in ("auto", "torch"):
        raise ValueError(
            f"device: got {device} with backend {backend}, which runs on the CPU; use --device cpu or backend torch"
        )
    if backend == "onnx" and dtype == "bfloat16":
        raise ValueError(
            "dtype: got bfloat16 with backend onnx, which has float32 and int8; leave it out or use backend openvino"
        )
    if dtype == "int8":
        if backend == "torch" or device.startswith("cuda"):
            raise ValueError("dtype: got int8 with PyTorch, which has no 8 bits; use backend onnx or openvino")
        if not int8:
            raise ValueError(
                "dtype: got int8, but the checkpoint has no networks in 8 bits that were made of its weights; run "
                "`atldiff export --int8`, or leave it out"
            )
    if backend == "auto":
        backend = _fastest(device, dtype, graphs=graphs, int8=int8)
    require(backend)
    if backend == "torch":
        from atldiff.devices import choose_device, choose_dtype, dtype_name

        where = choose_device("cpu" if device == "auto" and not gpu_at_hand() else device)
        return Compute(backend, str(where), dtype_name(choose_dtype(dtype, where)))
    if dtype in ("float32", "int8"):
        return Compute(backend, dtype=dtype)
    if backend == "openvino":
        from atldiff.runtime.openvino import has_bfloat16

        if has_bfloat16():  # 8 bits save a quarter of its time there, and cost a second to compile
            return Compute(backend, dtype="bfloat16")
    return Compute(backend, dtype="int8" if dtype == "auto" and int8 and integer_dot_products() else "float32")


def _fastest(device: str, dtype: str, *, graphs: bool, int8: bool) -> str:
    torch = is_installed("torch")
    if not graphs or device.startswith("cuda") or (torch and device == "auto" and gpu_at_hand()):
        return "torch"
    if is_installed("openvino"):
        return "openvino"
    if int8 and (dtype == "int8" or (dtype == "auto" and integer_dot_products())):
        return "onnx"
    if dtype == "bfloat16" or (torch and dtype == "auto" and native_bfloat16()):
        return "torch"
    return "onnx"


def gpu_at_hand() -> bool:
    """Return whether there may be a GPU that PyTorch computes on, without asking PyTorch, which takes a second."""
    return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None


def is_installed(backend: str) -> bool:
    """Return whether a backend's package is there."""
    try:
        return find_spec(PACKAGES[backend][0]) is not None
    except ImportError:  # said by an import hook
        return False


def require(backend: str) -> None:
    """Raise where a backend's package is missing.

    Raises:
        AtlDiffError: it is.
    """
    package, distribution = PACKAGES[backend]
    if not is_installed(backend):
        others = [name for name in ("onnx", "openvino", "torch") if name != backend and is_installed(name)]
        instead = f", or use backend {others[0]}" if others else ""
        raise AtlDiffError(f"backend {backend}: {package} is not installed; run pip install '{distribution}'{instead}")


def open_network(graph: Graph, runtime: str, *, half: bool, streams: int, threads: int = 1) -> Network:
    """Return a network in a runtime; it is opened when it is first called.

    half: computed in bfloat16 where the runtime and the hardware can. streams: calls that may run at once. threads:
    cores that they share.
    """
    if runtime == "openvino":
        from atldiff.runtime.openvino import OpenVinoNetwork

        return OpenVinoNetwork(graph, half=half, streams=streams, threads=threads)
    from atldiff.runtime.onnx import OnnxNetwork

    return OnnxNetwork(graph, streams, threads)
