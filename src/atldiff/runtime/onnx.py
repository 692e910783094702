"""ONNX Runtime behind the call of `networks.Network`: float32 or 8 bits on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atldiff.machine import integer_dot_products
from atldiff.runtime.graphs import OpenedOnce

if TYPE_CHECKING:
    import numpy as np

    from atldiff.runtime.graphs import Graph


_MOST_THREADS = 4


class OnnxNetwork:
    """A network in ONNX Runtime, opened for each combination of lengths that it is called with.

    streams: calls that may run at once. threads: cores that they share; a call that is alone takes them all.
    """

    def __init__(self, graph: Graph, streams: int = 1, threads: int = 1) -> None:
        self.graph, self._streams, self._threads = graph, streams, threads
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
        options.inter_op_num_threads = 1
        # Threads that sleep where there is nothing to share. Not for windows side by side: a call waits for what it has
        # shared by spinning, which took as much of the cores again as half of the work.
        options.intra_op_num_threads = min(_MOST_THREADS, self._threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # a block for all of a call, beside what the arena keeps
        options.enable_cpu_mem_arena = self._streams > 1
        options.log_severity_level = 3
        if (
            not integer_dot_products()
        ):  # sums of 8 bits would overflow; elsewhere this takes 1.6 times as long for nothing
            options.add_session_config_entry("session.x64quantprecision", "1")
        for name, length in sizes.items():
            options.add_free_dimension_override_by_name(name, length)
        return onnxruntime.InferenceSession(self.graph.file, options, providers=["CPUExecutionProvider"])
