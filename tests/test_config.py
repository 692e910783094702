from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import get_args

import pytest

from atldiff.config import (
    FORMAT_VERSION,
    PRESETS,
    TRAIN_PRESETS,
    ATLConfig,
    GeneratorConfig,
    Preset,
    RendererConfig,
    SampleConfig,
    TrainConfig,
    from_dict,
    to_dict,
)

NAN = float("nan")

WRONG: list[tuple[type, dict, str]] = [
    (GeneratorConfig, {"members": 0}, "members"),
    (GeneratorConfig, {"members": 17}, "members"),
    (GeneratorConfig, {"components": 3}, "components"),
    (GeneratorConfig, {"components": 65}, "components"),
    (GeneratorConfig, {"identity_components": -1}, "identity_components"),
    (GeneratorConfig, {"identity_components": 33}, "identity_components"),
    (GeneratorConfig, {"width": 20}, "width"),
    (GeneratorConfig, {"width": 8}, "width"),
    (GeneratorConfig, {"width": 1032}, "width"),
    (GeneratorConfig, {"blocks": 0}, "blocks"),
    (GeneratorConfig, {"blocks": 17}, "blocks"),
    (GeneratorConfig, {"kernel": 4}, "kernel"),
    (GeneratorConfig, {"kernel": 1}, "kernel"),
    (GeneratorConfig, {"kernel": 33}, "kernel"),
    (GeneratorConfig, {"expansion": 0}, "expansion"),
    (GeneratorConfig, {"expansion": 9}, "expansion"),
    (GeneratorConfig, {"dropout": -0.1}, "dropout"),
    (GeneratorConfig, {"dropout": 0.95}, "dropout"),
    (GeneratorConfig, {"dropout": NAN}, "dropout"),
    (GeneratorConfig, {"context_frames": -1}, "context_frames"),
    (GeneratorConfig, {"context_frames": 65}, "context_frames"),
    (GeneratorConfig, {"lookahead_frames": -1}, "lookahead_frames"),
    (GeneratorConfig, {"lookahead_frames": 33}, "lookahead_frames"),
    (RendererConfig, {"stem": 3}, "stem"),
    (RendererConfig, {"stem": 0}, "stem"),
    (RendererConfig, {"side": 72}, "side"),
    (RendererConfig, {"side": 0}, "side"),
    (RendererConfig, {"side": 528}, "side"),
    (RendererConfig, {"origin": (1,)}, "origin"),
    (RendererConfig, {"widths": ()}, "widths"),
    (RendererConfig, {"widths": (24, 48, 64)}, "widths"),
    (RendererConfig, {"widths": (0, 16, 32)}, "widths"),
    (RendererConfig, {"widths": (-16, 16, 32)}, "widths"),
    (RendererConfig, {"widths": (16,) * 6, "blocks": (1,) * 6, "side": 512, "stem": 1}, "widths"),
    (RendererConfig, {"blocks": (1, 2)}, "blocks"),
    (RendererConfig, {"blocks": (1, 0, 1)}, "blocks"),
    (RendererConfig, {"noise_floor": -0.1}, "noise_floor"),
    (RendererConfig, {"noise_floor": 1.1}, "noise_floor"),
    (RendererConfig, {"noise_gain": -1}, "noise_gain"),
    (RendererConfig, {"noise_gain": 4.1}, "noise_gain"),
    (RendererConfig, {"mask_reach_px": 0.5}, "mask_reach_px"),
    (RendererConfig, {"mask_reach_px": 65}, "mask_reach_px"),
    (SampleConfig, {"steps": 0}, "steps"),
    (SampleConfig, {"steps": 65}, "steps"),
    (SampleConfig, {"window_frames": 3}, "window_frames"),
    (SampleConfig, {"window_frames": 65}, "window_frames"),
    (SampleConfig, {"shared_frames": -1}, "shared_frames"),
    (SampleConfig, {"window_frames": 8, "shared_frames": 5}, "shared_frames"),
    (TrainConfig, {"stage": "codec"}, "stage"),
    (TrainConfig, {"steps": 0}, "steps"),
    (TrainConfig, {"steps": 10_000_001}, "steps"),
    (TrainConfig, {"clips_per_batch": 0}, "clips_per_batch"),
    (TrainConfig, {"clips_per_batch": 4097}, "clips_per_batch"),
    (TrainConfig, {"frames": 1}, "frames"),
    (TrainConfig, {"frames": 65}, "frames"),
    (TrainConfig, {"stage": "landmarks", "frames": 15}, "frames"),
    (TrainConfig, {"stage": "landmarks", "frames": 257}, "frames"),
    (TrainConfig, {"optimiser": "sgd"}, "optimiser"),
    (TrainConfig, {"learning_rate": 0.0}, "learning_rate"),
    (TrainConfig, {"learning_rate": 1.5}, "learning_rate"),
    (TrainConfig, {"learning_rate": NAN}, "learning_rate"),
    (TrainConfig, {"warmup_steps": -1}, "warmup_steps"),
    (TrainConfig, {"decay_share": -0.1}, "decay_share"),
    (TrainConfig, {"decay_share": 1.1}, "decay_share"),
    (TrainConfig, {"weight_decay": -0.1}, "weight_decay"),
    (TrainConfig, {"weight_decay": 1.1}, "weight_decay"),
    (TrainConfig, {"clip_norm": 0.0}, "clip_norm"),
    (TrainConfig, {"ema": 1.0}, "ema"),
    (TrainConfig, {"ema": -0.1}, "ema"),
    (TrainConfig, {"seed": -1}, "seed"),
    (TrainConfig, {"seed": 2**32}, "seed"),
    (TrainConfig, {"save_every": 0}, "save_every"),
    (TrainConfig, {"probe_every": 0}, "probe_every"),
    (TrainConfig, {"min_sync": 1.1}, "min_sync"),
    (TrainConfig, {"min_agreement": -0.1}, "min_agreement"),
    (TrainConfig, {"max_lag_frames": -1}, "max_lag_frames"),
    (TrainConfig, {"max_lag_frames": 9}, "max_lag_frames"),
]

EDGES: list[tuple[type, dict]] = [
    (GeneratorConfig, {"components": 4, "identity_components": 0, "width": 16, "blocks": 1, "kernel": 3,
                       "expansion": 1, "dropout": 0.0, "context_frames": 0, "lookahead_frames": 0}),
    (GeneratorConfig, {"components": 64, "identity_components": 32, "width": 1024, "blocks": 16, "kernel": 31,
                       "expansion": 8, "dropout": 0.9, "context_frames": 64, "lookahead_frames": 32}),
    (RendererConfig, {"side": 16, "stem": 1, "widths": (16,), "blocks": (1,), "noise_floor": 0.0, "noise_gain": 0.0,
                      "mask_reach_px": 1.0}),
    (RendererConfig, {"side": 512, "stem": 8, "widths": (16, 32, 48, 64, 80), "blocks": (1,) * 5, "noise_floor": 1.0,
                      "noise_gain": 4.0, "mask_reach_px": 64.0}),
    (SampleConfig, {"steps": 1, "window_frames": 4, "shared_frames": 2}),
    (SampleConfig, {"steps": 64, "window_frames": 64, "shared_frames": 0}),
    (TrainConfig, {"steps": 1, "clips_per_batch": 1, "frames": 2, "learning_rate": 1.0, "warmup_steps": 0,
                   "decay_share": 1.0, "ema": 0.0, "seed": 2**32 - 1, "save_every": 1, "probe_every": 1}),
    (TrainConfig, {"stage": "landmarks", "frames": 16, "max_lag_frames": 8, "min_sync": 1.0}),
    (TrainConfig, {"stage": "landmarks", "frames": 256, "max_lag_frames": 0, "decay_share": 0.0}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "name"), WRONG)
def test_a_wrong_value_is_named(kind: type, values: dict, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^config field {name}: got .*, expected ") as caught:
        kind(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "values"), EDGES)
def test_the_ends_of_each_range_are_allowed(kind: type, values: dict) -> None:
    assert kind(**values) == kind(**values)


def test_every_checked_field_has_a_failing_example() -> None:
    tried = {(kind, name) for kind, _, name in WRONG}
    unchecked = {
        (TrainConfig, "model"), (TrainConfig, "bfloat16"), (TrainConfig, "exclude_sources"),
    }  # fmt: skip
    for kind in (GeneratorConfig, RendererConfig, SampleConfig, TrainConfig):
        for field in fields(kind):
            assert (kind, field.name) in tried | unchecked


@pytest.mark.parametrize("kind", [GeneratorConfig, RendererConfig, ATLConfig, SampleConfig, TrainConfig])
def test_frozen_keyword_only_and_valid_by_default(kind: type) -> None:
    config = kind()
    name = fields(kind)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, getattr(config, name))
    with pytest.raises(TypeError):
        kind(getattr(config, name))
    assert hash(config) == hash(kind())


class TestDictionaries:
    CONFIG = ATLConfig(
        generator=GeneratorConfig(components=7, dropout=0.125, lookahead_frames=2),
        renderer=RendererConfig(side=64, origin=(3, -4), widths=(16, 48), blocks=(2, 1), noise_floor=0.1),
    )

    @pytest.mark.parametrize("config", [ATLConfig(), CONFIG])
    def test_round_trip_through_json(self, config: ATLConfig) -> None:
        values = json.loads(json.dumps(to_dict(config)))
        assert from_dict(values) == config
        assert hash(from_dict(values)) == hash(config)  # lists have become tuples again
        assert values["format_version"] == FORMAT_VERSION
        assert values["method"] == "atl-diff"

    def test_every_field_is_written(self) -> None:
        values = to_dict(self.CONFIG)
        assert set(values["generator"]) == {field.name for field in fields(GeneratorConfig)}
        assert set(values["renderer"]) == {field.name for field in fields(RendererConfig)}

    def test_the_input_is_left_alone(self) -> None:
        values = to_dict(self.CONFIG)
        before = json.dumps(values)
        from_dict(values)
        assert json.dumps(values) == before

    def test_missing_fields_take_their_defaults(self) -> None:
        values = {"format_version": FORMAT_VERSION, "method": "atl-diff", "renderer": {"side": 64}}
        assert from_dict(values) == ATLConfig(renderer=RendererConfig(side=64))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": 2}, "format_version: got 2, expected 1"),
            ({"format_version": None}, "format_version: got None"),
            ({"method": "lmdiff"}, "method: got 'lmdiff', expected 'atl-diff'"),
            ({"device": "cpu"}, "unknown field 'device'; expected fields generator, renderer"),
            ({"renderer": {"sides": 1}}, "renderer: unknown field 'sides'; expected fields .*side"),
            ({"generator": 3}, "generator: got int, expected an object"),
            ({"renderer": {"side": 5}}, "side: got 5"),
        ],
    )
    def test_what_is_wrong_is_named(self, change: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            from_dict({**to_dict(self.CONFIG), **change})


class TestPresets:
    def test_sampling(self) -> None:
        assert set(PRESETS) == set(get_args(Preset))
        assert PRESETS["fast"].steps < PRESETS["balanced"].steps < PRESETS["best"].steps
        assert len({(c.window_frames, c.shared_frames) for c in PRESETS.values()}) == 1

    def test_training(self) -> None:
        assert {config.stage for config in TRAIN_PRESETS.values()} == {"renderer", "landmarks"}
        for name, config in TRAIN_PRESETS.items():
            assert replace(config) == config
            if name in ("renderer", "landmarks"):
                assert config.stage == name
                assert config.model == ATLConfig()  # both stages train parts of one model
        assert TRAIN_PRESETS["debug"].steps < 10
