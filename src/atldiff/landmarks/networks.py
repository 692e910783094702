"""The networks that find and measure faces and persons, run by ONNX Runtime: `mediapipe_models/README.md` says which.

A call computes in its own thread alone, since our workers share the cores, and may come from several at once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from atldiff.errors import AtlDiffError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

FOLDER = Path(__file__).with_name("mediapipe_models")

Name = Literal["near", "far", "mesh", "person"]
NAMES: tuple[Name, ...] = ("near", "far", "mesh", "person")


@cache
def network(name: Name) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Open a network, once: a function of a picture (n, n, 3) uint8 RGB, contiguous, that returns its outputs.

    near, far: detectors of faces, `boxes.py`; n = 128, 192. mesh: points of a face, `mesh.py`; n = 192. person: where
    one is, `person.py`; n = 256.

    Raises:
        AtlDiffError: ONNX Runtime is missing, or the file is.
    """
    path = FOLDER / f"{name}.onnx"
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = name == "mesh"  # of the others, memory is kept for a call that seldom comes
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ImportError as error:
        raise AtlDiffError(f"face detector: ONNX Runtime is needed ({error}); run pip install onnxruntime") from None
    except Exception as error:  # the runtime's errors have many classes and long texts; the user needs one line
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AtlDiffError(f"face detector: {path.name} cannot be opened ({reason}); reinstall atldiff") from None
    return lambda picture: session.run(None, {"picture": picture})  # pyright: ignore[reportReturnType]
