"""Cut Whisper base's encoder: `python -m atldiff.audio.convert_whisper MODEL.safetensors OUT LAYERS`.

MODEL.safetensors: openai/whisper-base of the hub (MIT), or its encoder alone, under the names of Hugging Face.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from atldiff.errors import MediaError

if TYPE_CHECKING:
    import numpy as np

PREFIX = "model.encoder."


def convert(source: Path, layers: int) -> dict[str, np.ndarray]:
    """Return the tensors of the convolutions and the first `layers` layers, in half precision.

    Raises:
        MediaError: not that network, or not so many layers.
    """
    from safetensors.numpy import load_file

    from atldiff.audio.whisper_encoder import SpeechEncoder

    found = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(source).items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in SpeechEncoder(layers).state_dict().items()}
    for name, shape in wanted.items():
        if name not in found or found[name].shape != shape:
            raise MediaError(f"{source}: no {name} of shape {shape}, expected the encoder of Whisper base")
    return {name: found[name].astype("float16") for name in wanted}


def main() -> None:
    """Convert from the command line."""
    from safetensors.numpy import save_file

    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    save_file(convert(Path(sys.argv[1]), int(sys.argv[3])), sys.argv[2])


if __name__ == "__main__":
    main()
