from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from atldiff.config import ScheduleConfig
from atldiff.errors import CheckpointError
from atldiff.released.renderer import find_files, read_schedule, read_unet, schedule_from_diffusers

torch.set_num_threads(1)

UNET = {"_class_name": "UNet3DConditionModel", "in_channels": 3, "out_channels": 3, "cross_attention_dim": 32}
DDIM = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.30.2", "num_train_timesteps": 1000}


def write(folder: Path, *, flat: bool = False, unet: dict[str, Any] = UNET, scheduler: dict[str, Any] = DDIM) -> Path:
    inside, beside = (folder, folder) if flat else (folder / "unet", folder / "scheduler")
    for path in (inside, beside):
        path.mkdir(exist_ok=True)
    (inside / "config.json").write_text(json.dumps(unet))
    save_file({"conv_in.bias": torch.ones(2)}, inside / "diffusion_pytorch_model.safetensors")
    (beside / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


@pytest.mark.parametrize("flat", [False, True])
def test_both_layouts_are_read(tmp_path: Path, flat: bool) -> None:
    files = find_files(write(tmp_path, flat=flat))
    config, tensors = read_unet(files)
    assert config.cross_attention_dim == 32
    assert list(tensors) == ["conv_in.bias"]
    assert read_schedule(files).train_steps == 1000


def test_a_scheduler_in_its_place_and_a_unet_at_the_top(tmp_path: Path) -> None:
    write(tmp_path, flat=True)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler_config.json").rename(tmp_path / "scheduler" / "scheduler_config.json")
    assert find_files(tmp_path).scheduler_config.parent.name == "scheduler"


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("unet/config.json", "no unet/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "no unet/diffusion_pytorch_model.safetensors"),
        ("scheduler/scheduler_config.json", "no scheduler/scheduler_config.json"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, missing: str, message: str) -> None:
    (write(tmp_path) / missing).unlink()
    with pytest.raises(CheckpointError, match=message):
        find_files(tmp_path)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        find_files(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no unet/config.json"):
        find_files(tmp_path)


@pytest.mark.parametrize("where", ["index", "config"])
def test_a_unet_of_the_authors_own_is_named(tmp_path: Path, where: str) -> None:
    write(tmp_path)
    if where == "index":
        (tmp_path / "model_index.json").write_text('{"unet": ["diffusion", "DiffusionModelUNet"]}')
    else:
        write(tmp_path, unet=UNET | {"_class_name": "DiffusionModelUNet"})
    with pytest.raises(CheckpointError, match=r"DiffusionModelUNet.*UNet3DConditionModel"):
        read_unet(find_files(tmp_path))


def test_a_scheduler_we_do_not_have_is_named(tmp_path: Path) -> None:
    write(tmp_path, scheduler=DDIM | {"_class_name": "DDPMScheduler"})
    with pytest.raises(CheckpointError, match="class DDPMScheduler, expected DDIMScheduler"):
        read_schedule(find_files(tmp_path))


class TestSchedule:
    def test_left_out_fields_have_diffusers_defaults(self) -> None:
        diffusers = pytest.importorskip("diffusers")
        written = dict(diffusers.DDIMScheduler().config)
        assert schedule_from_diffusers({}) == schedule_from_diffusers(written)
        assert schedule_from_diffusers(written) == ScheduleConfig(prediction="epsilon", spacing="leading")

    def test_every_field_arrives(self) -> None:
        values = {
            "num_train_timesteps": 500, "beta_start": 0.001, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1,
            "clip_sample": True, "clip_sample_range": 2.0, "set_alpha_to_one": False, "trained_betas": None,
            "thresholding": False, "rescale_betas_zero_snr": False, "sample_max_value": 1.0,
        }  # fmt: skip
        assert schedule_from_diffusers(values) == ScheduleConfig(
            train_steps=500, beta_start=0.001, beta_end=0.012, beta_schedule="scaled_linear", prediction="v_prediction",
            spacing="trailing", steps_offset=1, clip_sample=2.0, end_at_one=False,
        )  # fmt: skip
        assert schedule_from_diffusers(values | {"clip_sample": False}).clip_sample == 0

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"thresholding": True}, "thresholding"),
            ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
            ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
            ({"variance_type": "learned", "b": 2}, "unknown fields b, variance_type"),
            ({"prediction_type": "flow"}, "prediction"),
            ({"clip_sample": "yes"}, "clip_sample"),
            ({"steps_offset": "1"}, "steps_offset"),
        ],
    )
    def test_what_we_cannot_sample_is_refused(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            schedule_from_diffusers(values)
