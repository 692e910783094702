"""Networks that diffusers wrote, from a folder or the hub: what is in there, and how it is loaded. Never a pickle."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atldiff.config import CodecConfig
from atldiff.errors import AtlDiffError, CheckpointError
from atldiff.hub import HUB_ID, HubError, fetch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS_FILE = "model.safetensors"
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
UNET = "UNet2DConditionModel"
LATENT_CHANNELS = 4
"""Of Stable Diffusion's U-Net, in and out."""
PROMPT_TOKENS = 77
_SCHEDULER = "scheduler/scheduler_config.json"
_BEYOND_TEXT = ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
"""Fields of a U-Net's configuration that are set where it wants more than text, as in Stable Diffusion XL."""


def find_autoencoder(source: str, *, weights: bool = True) -> tuple[Path, dict[str, Any]]:
    """Return an autoencoder's folder and its config.json; source: a hub id or folder of it, or of a pipeline with one.

    weights: fetch them as well, where they are not at hand.

    Raises:
        CheckpointError: no such folder, it cannot be fetched, or there is no autoencoder in it.
    """
    what = f"codec {source}"
    files = [CONFIG_FILE, WEIGHTS_FILE] if weights else [CONFIG_FILE]
    root = _locate(source, what, "an autoencoder of diffusers", [*files, *(f"vae/{name}" for name in files)])
    found = None
    for folder in (root, root / "vae"):
        if (folder / CONFIG_FILE).is_file():
            values = _read_json(folder / CONFIG_FILE, what)
            found = values.get("_class_name")
            if found in AUTOENCODERS:
                return folder, values
    got = f"no {CONFIG_FILE} of an autoencoder in it or in its folder vae" if found is None else f"got a {found}"
    raise CheckpointError(f"{what}: {got}, expected {' or '.join(AUTOENCODERS)}, or a pipeline that has one as vae")


def codec_config(source: str) -> CodecConfig:
    """Return the configuration of an autoencoder of diffusers, without its weights.

    Raises:
        CheckpointError: as `find_autoencoder`. ValueError: a factor or a number of channels that no renderer takes.
    """
    _, values = find_autoencoder(source, weights=False)
    channels, factor = latent_shape(values)
    return CodecConfig(kind="diffusers", source=source, channels=channels, factor=factor)


def latent_shape(values: dict[str, Any]) -> tuple[int, int]:
    """Return an autoencoder's latent channels and its pixels a latent pixel, by its config.json.

    Each level but the first halves the side. Fields left out have the defaults of the class.
    """
    name, default = (
        ("block_out_channels", (64,))
        if values["_class_name"] == "AutoencoderKL"
        else ("encoder_block_out_channels", (64,) * 4)
    )
    return values.get("latent_channels", 4), 2 ** (len(values.get(name, default)) - 1)


def find_stable_diffusion(base: str) -> tuple[Path, int]:
    """Return the folder of a pipeline and the width of its text tokens, with U-Net and text encoder at hand.

    Raises:
        CheckpointError: no such folder, it cannot be fetched, or its U-Net is not that of a Stable Diffusion 1.x.
    """
    what = f"base {base}"
    files = [f"unet/{CONFIG_FILE}", f"unet/{WEIGHTS_FILE}", "tokenizer/*"]
    files += [f"text_encoder/{name}" for name in (CONFIG_FILE, TEXT_WEIGHTS_FILE)]
    root = _locate(base, what, "a Stable Diffusion pipeline", files)
    if not (root / "unet" / CONFIG_FILE).is_file():
        raise CheckpointError(f"{what}: no unet/{CONFIG_FILE} in it, expected a Stable Diffusion 1.x pipeline")
    values = _read_json(root / "unet" / CONFIG_FILE, what)
    wanted = {"_class_name": UNET, "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS}
    for name, value in (wanted | dict.fromkeys(_BEYOND_TEXT)).items():
        got = values.get(name, LATENT_CHANNELS if name.endswith("_channels") else None)
        if got != value:
            raise CheckpointError(
                f"{what}: got a U-Net with {name} {got!r}, expected {value!r}, as Stable Diffusion 1.x has it; "
                "inpainting models and Stable Diffusion XL do not fit"
            )
    return root, values.get("cross_attention_dim", 1280)


def predicts(base: str) -> str:
    """Return what a pipeline's U-Net predicts, such as `epsilon`, by its scheduler's configuration.

    Raises:
        CheckpointError: no such folder, or it cannot be fetched.
    """
    what = f"base {base}"
    path = _locate(base, what, "a Stable Diffusion pipeline", [_SCHEDULER]) / _SCHEDULER
    return str(_read_json(path, what).get("prediction_type", "epsilon")) if path.is_file() else "epsilon"


def load_network(kind: str, folder: Path, what: str) -> Any:  # noqa: ANN401 - diffusers is optional
    """Load a network of diffusers, frozen, on the CPU, in float32 and evaluation mode.

    kind: its class. what: how an error names it.

    Raises:
        AtlDiffError: diffusers is missing. CheckpointError: the weights are missing, incomplete or a pickle.
    """
    _check_weights(folder / WEIGHTS_FILE, what)
    try:
        import diffusers
        from diffusers.utils import logging
    except ImportError:
        raise AtlDiffError(f"{what}: needs diffusers: pip install 'atldiff[diffusers]'") from None
    with _quiet(logging), _one_line(folder, what):
        network, found = getattr(diffusers, kind).from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{what}: missing tensor {missing[0]!r} ({len(missing)} in all) in {folder / WEIGHTS_FILE}; expected all "
            f"that {CONFIG_FILE} describes"
        )
    return network.float().eval().requires_grad_(False)


def empty_prompt(root: Path, width: int, what: str) -> torch.Tensor:
    """Return the tokens (1, 77, width) float32 that a pipeline's text encoder makes of no words.

    Zeros where the pipeline has no text encoder.

    Raises:
        AtlDiffError: transformers is missing. CheckpointError: the text encoder's weights are missing or a pickle, or
        it does not fit the U-Net.
    """
    import torch

    tokenizer, encoder = root / "tokenizer", root / "text_encoder"
    if not (tokenizer.is_dir() and encoder.is_dir()):
        return torch.zeros(1, PROMPT_TOKENS, width)
    _check_weights(encoder / TEXT_WEIGHTS_FILE, what)
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
        from transformers.utils import logging
    except ImportError:
        raise AtlDiffError(f"{what}: its text encoder needs transformers: pip install 'atldiff[diffusers]'") from None
    with _quiet(logging), _one_line(encoder, what):
        words = CLIPTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
        read: Any = CLIPTextModel.from_pretrained(str(encoder), use_safetensors=True, local_files_only=True)
        indices = words("", padding="max_length", max_length=PROMPT_TOKENS, return_tensors="pt").input_ids
        with torch.no_grad():
            tokens = read.float().eval()(indices).last_hidden_state.clone()
    if tokens.shape != (1, PROMPT_TOKENS, width):
        raise CheckpointError(
            f"{what}: its text encoder gives tokens of width {tokens.shape[-1]}, its U-Net expects {width}; expected "
            "folders of one pipeline"
        )
    return tokens


def _locate(source: str, what: str, kind: str, patterns: list[str]) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if not HUB_ID.fullmatch(source):
        raise CheckpointError(f"{what}: no such folder; expected the folder of {kind}, or a hub id such as owner/name")
    try:
        return fetch_folder(source, what, patterns)
    except HubError as error:
        raise CheckpointError(
            f"{what}: no such folder, and it cannot be fetched from the hub ({error}); check the connection, or name "
            f"the folder of {kind}"
        ) from None


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{what}: {path} is not readable ({_first_line(error)})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{what}: {path}: got {type(values).__name__}, expected an object that diffusers wrote")
    return values


def _check_weights(path: Path, what: str) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"{what}: no {path.name} in {path.parent}; pickles are never loaded: where there are only .bin files, save "
            "the network again by its class's save_pretrained(..., safe_serialization=True)"
        )


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:  # noqa: ANN401 - of diffusers or transformers
    """Keep a library from warning of what is as it should be, and from drawing bars."""
    verbosity = logging.get_verbosity()
    # Older diffusers cannot tell, and draw none for a network of one file.
    bars = hasattr(logging, "is_progress_bar_enabled") and logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _one_line(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # both libraries raise many classes; the user needs one line
        raise CheckpointError(
            f"{what}: {folder} cannot be read ({_first_line(error)}); expected safetensors that its {CONFIG_FILE} "
            "describes"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] if str(error).strip() else type(error).__name__
