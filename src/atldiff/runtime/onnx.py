"""ONNX Runtime behind the call of `networks.Network`: float32 on the CPU, one thread for each call."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from atldiff.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

    from atldiff.runtime.graphs import Graph


class OnnxNetwork:
    """A network in ONNX Runtime, opened for each combination of lengths that it is called with."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sessions: dict[tuple[tuple[str, int], ...], Any] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return its outputs, new float32 arrays, for its inputs in order.

        Raises:
            ValueError: inputs of another shape than the network takes. CheckpointError: it cannot be opened.
        """
        session = self.open(self.graph.sizes(inputs))
        return session.run(None, {each.name: array for each, array in zip(self.graph.inputs, inputs, strict=True)})

    def open(self, sizes: dict[str, int]) -> Any:
        """Return the session for lengths of the inputs, by their words; opened once, whoever comes first.

        Raises:
            CheckpointError: not a network that ONNX Runtime can open.
        """
        key = tuple(sorted(sizes.items()))
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._opened(sizes)
            return self._sessions[key]

    def _opened(self, sizes: dict[str, int]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the caller's: windows run side by side
        options.log_severity_level = 3
        for name, length in sizes.items():
            options.add_free_dimension_override_by_name(name, length)
        try:
            return onnxruntime.InferenceSession(self.graph.file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have many classes and long texts; the user needs one line
            raise CheckpointError(_cannot_open(self.graph, "onnxruntime", error)) from None


def _cannot_open(graph: Graph, runtime: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"network {graph.file}: {runtime} cannot open it ({reason}); run `atldiff export`, or reinstall atldiff"
