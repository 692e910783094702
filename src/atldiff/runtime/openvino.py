"""OpenVINO behind the call of `networks.Network`: on the CPU, bfloat16 where it is asked for, a thread a call."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from atldiff.runtime.graphs import OpenedOnce

if TYPE_CHECKING:
    import numpy as np

    from atldiff.runtime.graphs import Graph


class OpenVinoNetwork:
    """A network in OpenVINO, compiled for each combination of lengths that it is called with.

    half: compute in bfloat16, where the hardware has it. streams: calls that may run at once. threads: cores that they
    share.
    """

    def __init__(self, graph: Graph, *, half: bool, streams: int, threads: int = 1) -> None:
        self.graph, self._half, self._streams, self._threads = graph, half and has_bfloat16(), streams, threads
        self._compiled = OpenedOnce(graph, self._opened, "openvino", "use --backend onnx")
        self._own = threading.local()  # a request computes one thing at a time

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return its outputs, new float32 arrays, for its inputs in order.

        Raises:
            ValueError: inputs of another shape than the network takes. CheckpointError: it cannot be opened.
        """
        sizes = self.graph.sizes(inputs)
        key = tuple(sorted(sizes.items()))
        requests = self._own.__dict__.setdefault("requests", {})
        if key not in requests:
            requests[key] = self.open(sizes).create_infer_request()
        request = requests[key]
        request.infer(list(inputs), share_inputs=True)
        return [tensor.data.copy() for tensor in request.output_tensors]

    def open(self, sizes: dict[str, int]) -> Any:
        """Return the compiled network for lengths of the inputs, by their words; compiled once, whoever comes first.

        Raises:
            CheckpointError: not a network that OpenVINO can open.
        """
        return self._compiled.at(sizes)

    def _opened(self, sizes: dict[str, int]) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._half else "f32",
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": max(self._streams, self._threads),
            "ENABLE_CPU_PINNING": False,  # two networks pinned to the same cores would wait for one another
        }
        model = _core().read_model(self.graph.file)
        if sizes:
            model.reshape(
                {
                    each.name: [sizes[length] if isinstance(length, str) else length for length in each.shape]
                    for each in self.graph.inputs
                }
            )
        return _core().compile_model(model, "CPU", settings)


def has_bfloat16() -> bool:
    """Return whether OpenVINO computes in bfloat16 on this machine."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()
