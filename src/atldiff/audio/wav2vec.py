"""wav2vec 2.0 (arXiv 2006.11477), frozen: a second of sound to 49 tokens. Needs the extra `wav2vec` (transformers)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.hub import HUB_ID, HubError, fetch_folder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import Wav2Vec2Model

MODEL_TYPE = "wav2vec2"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_NEVER_USED = ("masked_spec_embed",)
"""Tensors that only pre-training needs; published files may lack them."""


def load_speech_model(name: str) -> Wav2Vec2Model:
    """Load a wav2vec 2.0 model, frozen, on the CPU, in float32 and evaluation mode.

    name: a hub id such as facebook/wav2vec2-base, or a folder with config.json and model.safetensors.

    Raises:
        AtlDiffError: transformers is missing.
        CheckpointError: the model cannot be fetched, is another one, or is there as a pickle only.
    """
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None and not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"speech model {name}: no such folder; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or a hub "
            "id such as facebook/wav2vec2-base"
        )
    _transformers()
    folder = folder or _fetch(name)
    kind = _model_type(name, folder)
    if kind != MODEL_TYPE:
        raise CheckpointError(f"speech model {name}: got a model of type {kind!r}, expected {MODEL_TYPE!r}")
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"speech model {name}: no {WEIGHTS_FILE}; pickles are never loaded: where there is only pytorch_model.bin, "
            f"read it once by torch.load(..., weights_only=True), write {WEIGHTS_FILE} by safetensors.torch.save_file"
            '(..., metadata={"format": "pt"}) into a folder beside its config.json, and name that folder'
        )
    return _load(name, folder)


def new_speech_model() -> Wav2Vec2Model:
    """Return a frozen wav2vec 2.0 base of random weights, to be filled from a checkpoint.

    Raises:
        AtlDiffError: transformers is missing.
    """
    _transformers()
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return _frozen(Wav2Vec2Model(Wav2Vec2Config()))


def speech_features(model: Wav2Vec2Model, samples: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states (B, 49, 768) of a second of samples (B, 16000) at 16 kHz.

    Samples go in as they are: the model of the paper is torchaudio's WAV2VEC2_BASE, which was trained on waveforms
    that are not normalised, whatever the preprocessor file beside a hub copy says.
    """
    import torch

    with torch.no_grad():
        return model(samples).last_hidden_state


class NamedSpeechModel:
    """A model by its name, loaded when there is first something to hear, behind the call of `networks.Network`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loaded: Wav2Vec2Model | None = None

    def __call__(self, *sound: np.ndarray) -> list[np.ndarray]:
        """Return the features (1, 49, D) of a second of samples (1, 16000), on the CPU.

        Raises:
            AtlDiffError, CheckpointError: as `load_speech_model`.
        """
        if self._loaded is None:
            self._loaded = load_speech_model(self._name)
        import torch

        return [speech_features(self._loaded, torch.from_numpy(sound[0])).numpy()]


def _transformers() -> None:
    try:
        import torch  # noqa: F401 - asked for once, so that what follows may rely on it
        import transformers  # noqa: F401
    except ImportError:
        raise AtlDiffError("wav2vec 2.0 needs PyTorch and transformers: pip install 'atldiff[wav2vec]'") from None


def _fetch(hub_id: str) -> Path:
    what = f"speech model {hub_id}"
    try:
        return fetch_folder(hub_id, what, [CONFIG_FILE, WEIGHTS_FILE])
    except HubError as error:
        raise CheckpointError(
            f"{what}: cannot be fetched from the hub ({error}); check the connection, or name a folder with "
            f"{CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from None


def _model_type(name: str, folder: Path) -> str:
    try:
        return str(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type", ""))
    except FileNotFoundError:
        raise CheckpointError(
            f"speech model {name}: no {CONFIG_FILE}; expected a {MODEL_TYPE} model as transformers saves it"
        ) from None
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"speech model {name}: {CONFIG_FILE} is not readable ({_first_line(error)})") from None


def _load(name: str, folder: Path) -> Wav2Vec2Model:
    import torch
    from transformers import Wav2Vec2Model
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # heads that are left out are as they should be
    logging.disable_progress_bar()
    try:
        loaded: Any = Wav2Vec2Model.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers' errors have many classes; the user needs one line
        raise CheckpointError(
            f"speech model {name}: cannot be read ({_first_line(error)}); expected {WEIGHTS_FILE} of a {MODEL_TYPE} "
            f"model that {CONFIG_FILE} describes"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    model, found = loaded
    missing = sorted(set(found["missing_keys"]) - set(_NEVER_USED))
    if missing:
        raise CheckpointError(
            f"speech model {name}: missing tensor {missing[0]!r} ({len(missing)} in all); expected all that "
            f"{CONFIG_FILE} describes"
        )
    return _frozen(model)


def _frozen(model: Wav2Vec2Model) -> Wav2Vec2Model:
    return model.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] if str(error).strip() else type(error).__name__
