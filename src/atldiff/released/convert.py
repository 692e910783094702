"""The authors' published files to a checkpoint of ours: `atldiff import-weights`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atldiff import __version__
from atldiff.backbones.weights import find, read_tensors
from atldiff.checkpoint import WEIGHTS_FILE, locate, save_model
from atldiff.config import PAPER_PRESETS
from atldiff.errors import CheckpointError
from atldiff.files import replacing, sha256
from atldiff.methods.atl_published.network import PublishedModel
from atldiff.released import kflm, speech
from atldiff.released.names import check_tensors, rename, rename_all, reversed_table
from atldiff.released.read import read_lightning
from atldiff.released.renderer import find_files, read_schedule, read_unet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atldiff.config import ConditionUNetConfig, PublishedConfig, ScheduleConfig

RESNET50 = "timm/resnet50.tv_in1k/model.safetensors"
"""torchvision's first ImageNet weights, which the released code asks for by `pretrained=True`."""

KFLM, SPEECH = "generator.kflm.", "generator.speech_model."
RESNET, UNET = "renderer.identity.network.", "renderer.unet.model."
BASIS = ("generator.basis", "generator.scale")
"""What carries 68 points to the dense topology: the authors have no such thing, it is the bundled checkpoint's."""

_COUNTER = "num_batches_tracked"


def import_weights(
    au2lm: Path, lm2face: Path, output: Path, *, resnet50: str = RESNET50, noise_kernel: int = 25
) -> dict[str, Any]:
    """Write the authors' weights as a checkpoint folder of the `released` preset, in full precision.

    Args:
        au2lm: the landmark module, a Lightning checkpoint (read without running anything) or .safetensors.
        lm2face: the renderer's folder, as diffusers writes it.
        output: the folder to make; it appears whole or not at all.
        resnet50: ImageNet's ResNet-50 in torchvision's names, a file or a hub reference.
        noise_kernel: side of the Gaussian of the guide noise, 11 for MEAD, 25 for CREMA-D.

    Returns:
        What was made, as JSON values: `checkpoint`, `parameters`, and `files` with the digest of each file read.

    Raises:
        CheckpointError: a file is missing or not the authors', or the output exists; tensors are named.
        AtlDiffError: transformers or diffusers is missing.
    """
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise CheckpointError(f"output {output}: exists; expected a folder to be made: choose another -o")
    if not output.parent.is_dir():
        raise CheckpointError(f"output {output}: folder {output.parent} does not exist; create it first")
    files = find_files(lm2face)
    schedule = read_schedule(files)
    landmark_tensors = read_lightning(au2lm)
    unet, unet_tensors = read_unet(files)
    resnet = find(resnet50, "ResNet-50")
    with_basis = locate("atl-diff") / WEIGHTS_FILE
    basis = {name: tensor for name, tensor in read_tensors(with_basis).items() if name in BASIS}

    config = released_config(unet, schedule, noise_kernel, components=len(basis[BASIS[0]]))
    model = PublishedModel(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors = {
        **convert_landmarks(landmark_tensors, shapes, f"au2lm {au2lm}"),
        **_convert(unet_tensors, shapes, UNET, f"lm2face {files.unet_weights}"),
        **_convert(_complete(read_tensors(resnet), shapes), shapes, RESNET, f"ResNet-50 weights {resnet}"),
        **basis,
    }
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})

    read = (au2lm, files.unet_weights, files.unet_config, files.scheduler_config, resnet)
    digests = {str(path): sha256(path) for path in read}
    _write(model, output, _card(digests, noise_kernel))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"checkpoint": str(output), "parameters": parameters, "files": digests}


def released_config(
    unet: ConditionUNetConfig, schedule: ScheduleConfig, noise_kernel: int, components: int
) -> PublishedConfig:
    """Return the `released` preset with what the authors' folder says of its networks.

    Raises:
        CheckpointError: a U-Net that the released pipeline's tensors do not fit.
    """
    preset = PAPER_PRESETS["released"]
    width = preset.renderer.identity_width
    for name, got, expected in (
        ("in_channels", unet.in_channels, 3),
        ("out_channels", unet.out_channels, 3),
        ("cross_attention_dim", unet.cross_attention_dim, width),
    ):
        if got != expected:
            raise CheckpointError(f"lm2face U-Net: {name} is {got}, expected {expected} as the released pipeline feeds")
    return replace(
        preset,
        generator=replace(preset.generator, components=components),
        renderer=replace(preset.renderer, unet=unet, schedule=schedule, blur_kernel=noise_kernel),
    )


def convert_landmarks(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: str
) -> dict[str, torch.Tensor]:
    """Return the tensors of the released landmark module and of its speech model under our names.

    tensors: in the authors' names. shapes: the model's, by our names.

    Raises:
        CheckpointError: tensors are missing, unknown, of another shape or not finite; they are named as the authors do.
    """
    heard = {n.removeprefix(speech.PREFIX): t for n, t in tensors.items() if n.startswith(speech.PREFIX)}
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(speech.PREFIX)}
    renamed_speech, unknown_speech = rename_all(heard, speech.TABLE)
    renamed_kflm, unknown = rename_all(others, kflm.TABLE)
    back_speech, back_kflm = reversed_table(speech.TABLE), reversed_table(kflm.TABLE)

    def original(name: str) -> str:
        if name.startswith(SPEECH):
            inner = name.removeprefix(SPEECH)
            return speech.PREFIX + (rename(inner, back_speech) or inner)
        inner = name.removeprefix(KFLM)
        return rename(inner, back_kflm) or inner

    found = {
        **{KFLM + name: tensor for name, tensor in renamed_kflm.items()},
        **{SPEECH + name: tensor for name, tensor in speech.with_mask(renamed_speech).items()},
    }
    wanted = {name: shape for name, shape in shapes.items() if name.startswith((KFLM, SPEECH))}
    mask = SPEECH + speech.MASK
    if mask not in found:  # only when the projection is missing, which is then named
        wanted.pop(mask, None)
    unknown += [speech.PREFIX + name for name in unknown_speech]
    check_tensors(where, found, wanted, unknown=unknown, original=original)
    return found


def _convert(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], prefix: str, where: str
) -> dict[str, torch.Tensor]:
    found = {prefix + name: tensor for name, tensor in tensors.items()}
    wanted = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
    check_tensors(where, found, wanted, original=lambda name: name.removeprefix(prefix))
    return found


def _complete(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return ResNet-50's tensors without its classifier, with the batch counters that old files lack."""
    counters = {name.removeprefix(RESNET) for name in shapes if name.startswith(RESNET) and name.endswith(_COUNTER)}
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    return {**{name: torch.zeros((), dtype=torch.long) for name in counters}, **kept}


def _write(model: PublishedModel, output: Path, card: str) -> None:
    """Write a checkpoint beside its place and move it there."""
    with replacing(output) as partial:
        save_model(model, partial, card, half=False)


def _card(digests: Mapping[str, str], noise_kernel: int) -> str:
    data = {11: "MEAD", 25: "CREMA-D"}.get(noise_kernel, "the authors' data")
    rows = "\n".join(f"| {Path(path).name} | `{digest}` |" for path, digest in digests.items())
    return f"""# ATL-Diff, the authors' released weights

Imported by `atldiff import-weights` (atldiff {__version__}) from the files below; nothing was trained or changed here.
Landmark module with wav2vec 2.0 base, U-Net and ImageNet's ResNet-50, in float32, in the `released` preset: it does
what the authors' code does, its defects included. Guide noise as for {data} (kernel {noise_kernel}).

| file | sha256 |
|---|---|
{rows}

The basis that carries 68 points to the dense topology (`generator.basis`, `generator.scale`) is that of the bundled
`atl-diff` checkpoint and not the authors'.

**Licence: unknown.** The authors' repository (sonvth/ATL-Diff, arXiv 2507.12804) has none; ask them before you pass
these weights on or build on them.
"""
