"""ONNX Runtime behind the call of `networks.Network`: float32 on the CPU, one thread for each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atldiff.runtime.graphs import OpenedOnce

if TYPE_CHECKING:
    import numpy as np

    from atldiff.runtime.graphs import Graph


class OnnxNetwork:
    """A network in ONNX Runtime, opened for each combination of lengths that it is called with."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._sessions = OpenedOnce(graph, self._opened, "onnxruntime", "reinstall atldiff")

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
        return self._sessions.at(sizes)

    def _opened(self, sizes: dict[str, int]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the caller's: windows run side by side
        options.log_severity_level = 3
        for name, length in sizes.items():
            options.add_free_dimension_override_by_name(name, length)
        return onnxruntime.InferenceSession(self.graph.file, options, providers=["CPUExecutionProvider"])
