from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, fields, is_dataclass, replace
from typing import Any, get_args

import pytest

from atldiff.config import (
    DIFFTALKER_PRESETS,
    FORMAT_VERSION,
    LMDIFF_PRESETS,
    PAPER_PRESETS,
    PAPER_SAMPLING,
    PRESETS,
    TRAIN_PRESETS,
    ATLConfig,
    CompletionConfig,
    ConditionUNetConfig,
    DiffTalkerConfig,
    GeneratorConfig,
    IdentityDiffusionConfig,
    JointConfig,
    KFLMConfig,
    LatentDiffusionConfig,
    LMDiffConfig,
    Method,
    MethodConfig,
    Preset,
    PublishedConfig,
    RendererConfig,
    SampleConfig,
    ScheduleConfig,
    SyncConfig,
    TrainConfig,
    from_dict,
    method_of,
    sampling_presets,
    to_dict,
)

HEARING = ATLConfig(generator=GeneratorConfig(features="whisper"))
SIXTY_EIGHT = DiffTalkerConfig(generator=CompletionConfig(features="whisper", points="sixty-eight"))
NAN = float("nan")

WRONG: list[tuple[type, dict, str]] = [
    (GeneratorConfig, {"features": "wav2vec2"}, "features"),
    (GeneratorConfig, {"whisper_layers": 0}, "whisper_layers"),
    (GeneratorConfig, {"whisper_layers": 5}, "whisper_layers"),
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
    (RendererConfig, {"height": 72}, "height"),
    (RendererConfig, {"height": -80}, "height"),
    (RendererConfig, {"scale": 0.2}, "scale"),
    (RendererConfig, {"scale": 4.5}, "scale"),
    (RendererConfig, {"head": "deconvolution"}, "head"),
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
    (SampleConfig, {"every": 0}, "every"),
    (SampleConfig, {"every": 5}, "every"),
    (TrainConfig, {"perceptual_weight": -1.0}, "perceptual_weight"),
    (TrainConfig, {"sharpen": -0.1}, "sharpen"),
    (TrainConfig, {"tint": 0.6}, "tint"),
    (RendererConfig, {"keep_seen": 1.1}, "keep_seen"),
    (RendererConfig, {"chroma": 1.1}, "chroma"),
    (TrainConfig, {"sharpen": 1.0}, "sharpen"),
    (TrainConfig, {"model": TRAIN_PRESETS["mouth"].model, "sharpen": 4.1}, "sharpen"),
    (TrainConfig, {"adversarial_weight": -1.0}, "adversarial_weight"),
    (TrainConfig, {"perceptual_weight": 1.0}, "perceptual_weight"),
    (TrainConfig, {"stage": "codec"}, "stage"),
    (TrainConfig, {"stage": "joint"}, "stage"),
    (TrainConfig, {"stage": "sync", "frames": 25}, "stage"),
    (TrainConfig, {"stage": "sync", "frames": 25, "model": LMDiffConfig()}, "stage"),
    (TrainConfig, {"stage": "sync", "frames": 15, "model": TRAIN_PRESETS["lmdiff-sync"].model}, "frames"),
    (SyncConfig, {"frames": 1}, "frames"),
    (SyncConfig, {"frames": 12}, "frames"),
    (SyncConfig, {"margin_frames": -1}, "margin_frames"),
    (SyncConfig, {"margin_frames": 9}, "margin_frames"),
    (SyncConfig, {"side": 15}, "side"),
    (SyncConfig, {"widths": (16,)}, "widths"),
    (SyncConfig, {"widths": (16, 24)}, "widths"),
    (SyncConfig, {"width": 4}, "width"),
    (SyncConfig, {"temperature": 0.0}, "temperature"),
    (JointConfig, {"sync_weight": -0.1}, "sync_weight"),
    (JointConfig, {"sync_weight": 101}, "sync_weight"),
    (
        LMDiffConfig,
        {"generator": CompletionConfig(lookahead_frames=1), "joint": JointConfig(sync=SyncConfig())},
        "margin_frames",
    ),
    (TrainConfig, {"steps": 0}, "steps"),
    (TrainConfig, {"steps": 10_000_001}, "steps"),
    (TrainConfig, {"clips_per_batch": 0}, "clips_per_batch"),
    (TrainConfig, {"clips_per_batch": 4097}, "clips_per_batch"),
    (TrainConfig, {"accumulate": 0}, "accumulate"),
    (TrainConfig, {"accumulate": 4097}, "accumulate"),
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
    (TrainConfig, {"stage": "landmarks", "frames": 16, "model": HEARING, "spoken": 17}, "spoken"),
    (TrainConfig, {"stage": "landmarks", "frames": 16, "spoken": 1}, "spoken"),
    (TrainConfig, {"stage": "landmarks", "frames": 20, "model": HEARING}, "frames"),
    (TrainConfig, {"stage": "landmarks", "frames": 20, "model": DIFFTALKER_PRESETS["compact"]}, "frames"),
    (TrainConfig, {"stage": "landmarks", "frames": 16, "model": DIFFTALKER_PRESETS["paper"], "spoken": 1}, "spoken"),
    (TrainConfig, {"stage": "landmarks", "frames": 16, "model": SIXTY_EIGHT, "spoken": 1}, "spoken"),
    (TrainConfig, {"min_sync": 1.1}, "min_sync"),
    (TrainConfig, {"min_agreement": -0.1}, "min_agreement"),
    (TrainConfig, {"max_lag_frames": -1}, "max_lag_frames"),
    (TrainConfig, {"max_lag_frames": 9}, "max_lag_frames"),
    (KFLMConfig, {"features": "hubert"}, "features"),
    (KFLMConfig, {"feature_width": 12}, "feature_width"),
    (KFLMConfig, {"feature_width": 4100}, "feature_width"),
    (KFLMConfig, {"feature_width": 258}, "feature_width"),
    (KFLMConfig, {"feature_width": 256, "speech_model": ""}, "feature_width"),
    (KFLMConfig, {"frames": 4}, "frames"),
    (KFLMConfig, {"frames": 61}, "frames"),
    (KFLMConfig, {"hop_frames": 14}, "hop_frames"),
    (KFLMConfig, {"hop_frames": 31}, "hop_frames"),
    (KFLMConfig, {"attention_over": "space"}, "attention_over"),
    (KFLMConfig, {"emotion": "none"}, "emotion"),
    (KFLMConfig, {"emotions": -1}, "emotions"),
    (KFLMConfig, {"emotions": 9}, "emotions"),
    (KFLMConfig, {"coordinates": "pixels"}, "coordinates"),
    (KFLMConfig, {"feed_forward": 15}, "feed_forward"),
    (KFLMConfig, {"feed_forward": 8193}, "feed_forward"),
    (KFLMConfig, {"fusion_width": 7}, "fusion_width"),
    (KFLMConfig, {"fusion_width": 2049}, "fusion_width"),
    (KFLMConfig, {"mouth_fusion_width": 7}, "mouth_fusion_width"),
    (KFLMConfig, {"mouth_fusion_width": 2049}, "mouth_fusion_width"),
    (KFLMConfig, {"kan_width": 7}, "kan_width"),
    (KFLMConfig, {"kan_width": 4097}, "kan_width"),
    (KFLMConfig, {"kan_grid": 0}, "kan_grid"),
    (KFLMConfig, {"kan_grid": 33}, "kan_grid"),
    (KFLMConfig, {"kan_order": 0}, "kan_order"),
    (KFLMConfig, {"kan_order": 6}, "kan_order"),
    (KFLMConfig, {"dropout": -0.1}, "dropout"),
    (KFLMConfig, {"dropout": 0.91}, "dropout"),
    (KFLMConfig, {"dropout": NAN}, "dropout"),
    (KFLMConfig, {"mouth_weight": -0.1}, "mouth_weight"),
    (KFLMConfig, {"mouth_weight": 1.1}, "mouth_weight"),
    (KFLMConfig, {"components": 3}, "components"),
    (KFLMConfig, {"components": 65}, "components"),
    (ScheduleConfig, {"train_steps": 1}, "train_steps"),
    (ScheduleConfig, {"train_steps": 10_001}, "train_steps"),
    (ScheduleConfig, {"beta_start": 0.0}, "beta_start"),
    (ScheduleConfig, {"beta_start": 0.03}, "beta_start"),
    (ScheduleConfig, {"beta_start": NAN}, "beta_start"),
    (ScheduleConfig, {"beta_end": NAN}, "beta_end"),
    (ScheduleConfig, {"beta_end": 1.0}, "beta_end"),
    (ScheduleConfig, {"beta_end": 0.0}, "beta_end"),
    (ScheduleConfig, {"beta_schedule": "cosine"}, "beta_schedule"),
    (ScheduleConfig, {"prediction": "x0"}, "prediction"),
    (ScheduleConfig, {"spacing": "random"}, "spacing"),
    (ScheduleConfig, {"steps_offset": -1}, "steps_offset"),
    (ScheduleConfig, {"steps_offset": 101}, "steps_offset"),
    (ScheduleConfig, {"clip_sample": -1.0}, "clip_sample"),
    (ScheduleConfig, {"clip_sample": 101.0}, "clip_sample"),
    (IdentityDiffusionConfig, {"side": 16}, "side"),
    (IdentityDiffusionConfig, {"side": 120}, "side"),
    (IdentityDiffusionConfig, {"side": 528}, "side"),
    (IdentityDiffusionConfig, {"clip_frames": 3}, "clip_frames"),
    (IdentityDiffusionConfig, {"clip_frames": 65}, "clip_frames"),
    (IdentityDiffusionConfig, {"blur_kernel": 1}, "blur_kernel"),
    (IdentityDiffusionConfig, {"blur_kernel": 12}, "blur_kernel"),
    (IdentityDiffusionConfig, {"blur_kernel": 65}, "blur_kernel"),
    (IdentityDiffusionConfig, {"mask_scale": "video"}, "mask_scale"),
    (IdentityDiffusionConfig, {"noise_floor": -0.1}, "noise_floor"),
    (IdentityDiffusionConfig, {"noise_floor": 1.1}, "noise_floor"),
    (IdentityDiffusionConfig, {"noise_over_time": "none"}, "noise_over_time"),
    (IdentityDiffusionConfig, {"noise": "none"}, "noise"),
    (IdentityDiffusionConfig, {"prior": "mean"}, "prior"),
    (IdentityDiffusionConfig, {"identity": "clip"}, "identity"),
    (IdentityDiffusionConfig, {"identity_tokens": 0}, "identity_tokens"),
    (IdentityDiffusionConfig, {"identity_tokens": 60}, "identity_tokens"),
    (IdentityDiffusionConfig, {"identity_tokens": 1089}, "identity_tokens"),
    (IdentityDiffusionConfig, {"identity": "resnet50", "identity_width": 16}, "identity_tokens"),
    (IdentityDiffusionConfig, {"identity_width": 3}, "identity_width"),
    (IdentityDiffusionConfig, {"identity_width": 1025}, "identity_width"),
    (IdentityDiffusionConfig, {"emotions": -1}, "emotions"),
    (IdentityDiffusionConfig, {"emotions": 9}, "emotions"),
    (IdentityDiffusionConfig, {"network": "unet2d"}, "network"),
    (IdentityDiffusionConfig, {"axes": "thwbc"}, "axes"),
    (IdentityDiffusionConfig, {"stem": 3}, "stem"),
    (IdentityDiffusionConfig, {"widths": (24, 48, 64)}, "widths"),
    (IdentityDiffusionConfig, {"widths": ()}, "widths"),
    (IdentityDiffusionConfig, {"blocks": (1, 2)}, "blocks"),
    (IdentityDiffusionConfig, {"blocks": (1, 0, 1)}, "blocks"),
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
    (KFLMConfig, {"features": "log-mel", "feature_width": 16, "feed_forward": 16, "frames": 5, "hop_frames": 3,
                  "emotions": 0, "fusion_width": 8, "mouth_fusion_width": 8, "kan_width": 8, "kan_grid": 1,
                  "kan_order": 1, "dropout": 0.0, "mouth_weight": 0.0, "components": 4}),
    (KFLMConfig, {"feature_width": 4096, "feed_forward": 8192, "frames": 60, "hop_frames": 60, "emotions": 8,
                  "fusion_width": 2048, "mouth_fusion_width": 2048, "kan_width": 4096, "kan_grid": 32, "kan_order": 5,
                  "dropout": 0.9, "mouth_weight": 1.0, "components": 64}),
    (ScheduleConfig, {"train_steps": 2, "beta_start": 0.02, "steps_offset": 0, "clip_sample": 0.0}),
    (ScheduleConfig, {"train_steps": 10_000, "beta_end": 0.999, "steps_offset": 100, "clip_sample": 100.0}),
    (IdentityDiffusionConfig, {"side": 32, "stem": 1, "widths": (16,), "blocks": (1,), "clip_frames": 4,
                               "blur_kernel": 3, "noise_floor": 0.0, "identity_tokens": 1, "identity_width": 4,
                               "emotions": 0}),
    (IdentityDiffusionConfig, {"side": 512, "stem": 8, "widths": (16,) * 5, "blocks": (1,) * 5, "clip_frames": 64,
                               "blur_kernel": 63, "noise_floor": 1.0, "identity_tokens": 1024, "identity_width": 1024,
                               "emotions": 8}),
    (IdentityDiffusionConfig, {"identity": "resnet50", "identity_tokens": 8, "identity_width": 256}),
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
        (RendererConfig, "layered"), (SampleConfig, "lent_teeth"),
        (TrainConfig, "model"), (TrainConfig, "bfloat16"), (TrainConfig, "exclude_sources"),
        (KFLMConfig, "speech_model"), (KFLMConfig, "positions"), (KFLMConfig, "residual"),
        (ScheduleConfig, "end_at_one"),
        (IdentityDiffusionConfig, "unet"), (IdentityDiffusionConfig, "schedule"),
    }  # fmt: skip
    for kind in (
        GeneratorConfig, RendererConfig, SampleConfig, TrainConfig, KFLMConfig, ScheduleConfig, IdentityDiffusionConfig,
    ):  # fmt: skip
        for field in fields(kind):
            assert (kind, field.name) in tried | unchecked


@pytest.mark.parametrize(
    "kind",
    [GeneratorConfig, RendererConfig, ATLConfig, SampleConfig, TrainConfig, KFLMConfig, ScheduleConfig,
     ConditionUNetConfig, IdentityDiffusionConfig, PublishedConfig],
)  # fmt: skip
def test_frozen_keyword_only_and_valid_by_default(kind: type) -> None:
    config = kind()
    name = fields(kind)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, getattr(config, name))
    with pytest.raises(TypeError):
        kind(getattr(config, name))
    assert hash(config) == hash(kind())


def is_nested(kind: type) -> bool:
    """Whether a configuration is part of the published method's."""
    return kind in (KFLMConfig, ScheduleConfig, IdentityDiffusionConfig)


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

    @pytest.mark.parametrize("presets", [DIFFTALKER_PRESETS, LMDIFF_PRESETS], ids=["difftalker", "lmdiff"])
    def test_a_completion_generator_that_says_nothing_of_features_hears_log_mel(self, presets: dict) -> None:
        """Checkpoints from before there were others; and the papers' own, which know nothing else."""
        values = to_dict(presets["compact"])
        assert values["generator"].pop("features") == "whisper"
        assert from_dict(values) == replace(presets["compact"], generator=CompletionConfig())
        assert CompletionConfig().features == presets["paper"].generator.features == "mel"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": 2}, "format_version: got 2, expected 1"),
            ({"format_version": None}, "format_version: got None"),
            ({"method": "lm-diff"}, "method: got 'lm-diff', expected 'atl-diff'"),
            ({"device": "cpu"}, "unknown field 'device'; expected fields generator, renderer"),
            ({"renderer": {"sides": 1}}, "renderer: unknown field 'sides'; expected fields .*side"),
            ({"generator": 3}, "generator: got int, expected an object"),
            ({"renderer": {"side": 5}}, "side: got 5"),
        ],
    )
    def test_what_is_wrong_is_named(self, change: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            from_dict({**to_dict(self.CONFIG), **change})


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every value of nested dictionaries with the way to it."""
    return [
        leaf
        for name, value in values.items()
        for leaf in (leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)])
    ]


def changed(values: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The dictionaries with one value changed, or added."""
    name, *rest = path
    return {**values, name: changed(values[name], tuple(rest), value) if rest else value}


MODELS: dict[str, MethodConfig] = {
    **{name: config for name, config in PAPER_PRESETS.items()},
    **{f"train {name}": config.model for name, config in TRAIN_PRESETS.items()},
    "atl-diff": ATLConfig(),
}


class TestBothMethods:
    @pytest.mark.parametrize("name", MODELS)
    def test_round_trip_through_json(self, name: str) -> None:
        config = MODELS[name]
        values = json.loads(json.dumps(to_dict(config)))
        again = from_dict(values)
        assert again == config
        assert type(again) is type(config)
        assert hash(again) == hash(config)
        assert values["format_version"] == FORMAT_VERSION
        assert values["method"] == method_of(config)
        assert values["method"] in get_args(Method)
        assert {key: values[key] for key in asdict(config)} == json.loads(json.dumps(asdict(config)))

    @pytest.mark.parametrize("part", [("generator",), ("renderer",), ("renderer", "schedule"), ("renderer", "unet")])
    def test_an_unknown_field_is_named_at_any_depth(self, part: tuple[str, ...]) -> None:
        values = changed(to_dict(PublishedConfig()), (*part, "wings"), 2)
        with pytest.raises(ValueError, match=rf"^config {part[-1]}: unknown field 'wings'; expected fields ") as caught:
            from_dict(values)
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=rf"^config {part[-1]}: got list, expected an object"):
            from_dict(changed(to_dict(PublishedConfig()), part, []))

    @pytest.mark.parametrize("method", ["atl-diff", "atl-diff-paper"])
    def test_every_value_of_another_type_is_named(self, method: str) -> None:
        values = to_dict(PublishedConfig() if method == "atl-diff-paper" else ATLConfig())
        found = leaves({name: part for name, part in values.items() if isinstance(part, dict)})
        assert len(found) > 15
        for path, value in found:
            for wrong in (None, {}, 3 if isinstance(value, (str, bool, tuple)) else "3", not isinstance(value, bool)):
                if wrong is False:
                    wrong = 1  # a number where a truth value belongs
                with pytest.raises(ValueError, match=rf"^config (field )?{path[-1]}: got ") as caught:
                    from_dict(changed(values, path, wrong))
                assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("kind", "wrong", "name"), [case for case in WRONG if is_nested(case[0])])
    def test_a_value_out_of_range_is_named_when_it_is_read(self, kind: type, wrong: dict, name: str) -> None:
        part = {KFLMConfig: ("generator",), IdentityDiffusionConfig: ("renderer",)}.get(kind, ("renderer", "schedule"))
        values = to_dict(PublishedConfig())
        for field, value in wrong.items():
            values = changed(values, (*part, field), list(value) if isinstance(value, tuple) else value)
        with pytest.raises(ValueError, match=rf"^config field {name}: got .*, expected "):
            from_dict(values)

    def test_a_whole_number_is_a_number(self) -> None:
        values = changed(to_dict(PublishedConfig()), ("renderer", "noise_floor"), 1)
        assert from_dict(values) == PublishedConfig(renderer=IdentityDiffusionConfig(noise_floor=1))

    def test_methods_are_not_mixed_up(self) -> None:
        values = {**to_dict(PAPER_PRESETS["compact"]), "method": "atl-diff"}
        with pytest.raises(ValueError, match="unknown field"):
            from_dict(values)
        with pytest.raises(ValueError, match="method: got 'paper', expected 'atl-diff', 'atl-diff-paper', 'd"):
            from_dict({**values, "method": "paper"})

    def test_every_field_has_a_description(self) -> None:
        """The tables of the documentation and the help are made of them."""
        import inspect

        for kind in (
            KFLMConfig, ScheduleConfig, ConditionUNetConfig, IdentityDiffusionConfig, TrainConfig,
            LatentDiffusionConfig, SyncConfig, JointConfig,
        ):  # fmt: skip
            source = inspect.getsource(kind)
            for field in fields(kind):
                after = source[source.index(f"\n    {field.name}: ") :]
                assert '"""' in after[: after.index("\n    def ") if "\n    def " in after else None].split("\n\n")[0]
                assert is_dataclass(kind)


class TestPresets:
    def test_sampling_belongs_to_the_method(self) -> None:
        assert sampling_presets(PublishedConfig().renderer) == PAPER_SAMPLING
        assert sampling_presets(ATLConfig().renderer) is PRESETS
        short = sampling_presets(IdentityDiffusionConfig(clip_frames=8))
        assert {(c.window_frames, c.shared_frames) for c in short.values()} == {(8, 2)}
        assert set(PAPER_SAMPLING) == set(get_args(Preset))
        assert PAPER_SAMPLING["fast"].steps < PAPER_SAMPLING["balanced"].steps < PAPER_SAMPLING["best"].steps == 8
        assert {c.window_frames for c in PAPER_SAMPLING.values()} == {IdentityDiffusionConfig().clip_frames} == {32}
        levels = {config.renderer.schedule.train_steps for config in PAPER_PRESETS.values()}
        assert max(c.steps for c in PAPER_SAMPLING.values()) <= min(levels)

    def test_what_the_paper_states(self) -> None:
        """papers.md 1.2 to 1.6: a second of 30 frames, 8 emotions, a window of 128, 64 tokens of 32, the 0.1."""
        for name in ("fixed", "released"):
            generator, renderer = PAPER_PRESETS[name].generator, PAPER_PRESETS[name].renderer
            assert (generator.features, generator.feature_width, generator.frames) == ("wav2vec2", 768, 30)
            assert generator.emotions == renderer.emotions == 8
            assert generator.mouth_weight == 0.8
            assert (renderer.side, renderer.clip_frames, renderer.noise_floor) == (128, 32, 0.1)
            assert (renderer.identity_tokens, renderer.identity_width) == (64, 32)
            assert renderer.unet.cross_attention_dim == renderer.identity_width
        assert PAPER_PRESETS["released"].generator.attention_over == "batch"
        assert PAPER_PRESETS["fixed"].generator.attention_over == "time"

    def test_sampling(self) -> None:
        assert set(PRESETS) == set(get_args(Preset))
        assert PRESETS["fast"].steps < PRESETS["balanced"].steps < PRESETS["best"].steps
        assert len({(c.window_frames, c.shared_frames) for c in PRESETS.values()}) == 1

    def test_training(self) -> None:
        assert {config.stage for config in TRAIN_PRESETS.values()} == {
            "renderer",
            "landmarks",
            "codec",
            "joint",
            "sync",
            "motion",
        }
        for name, config in TRAIN_PRESETS.items():
            assert replace(config) == config
            if name in ("renderer", "landmarks-mel"):
                assert config.stage == name.removesuffix("-mel")
                assert config.model == ATLConfig()
            if name == "landmarks":
                assert config.stage == name
                assert config.model.generator.features == "whisper"
                assert config.model.renderer == ATLConfig().renderer  # `--weights` brings another
            if name.startswith("paper-"):
                assert config.stage == name.removeprefix("paper-")
                assert config.model == PAPER_PRESETS["compact"]
            if name.startswith("difftalker"):
                stage = dict.fromkeys(("difftalker", "difftalker-sd", "difftalker-window"), "renderer")
                assert config.stage == stage.get(name, name.removeprefix("difftalker-").removesuffix("-mel"))
                kinds = {"sd": "stable-diffusion", "codec": "window", "window": "window"}
                model = DIFFTALKER_PRESETS[kinds.get(name.removeprefix("difftalker-"), "compact")]
                assert config.model == (replace(model, generator=CompletionConfig()) if "-mel" in name else model)
            if name.startswith("lmdiff"):
                renders = name in ("lmdiff", "lmdiff-window")
                stage = "renderer" if renders else name.removesuffix("-mel").rpartition("-")[2]
                assert config.stage == stage
                joint = JointConfig(sync=SyncConfig()) if name == "lmdiff-sync" else JointConfig()
                model = LMDIFF_PRESETS["window" if name == "lmdiff-sync" or "window" in name else "compact"]
                model = replace(model, generator=CompletionConfig()) if "-mel" in name else model
                assert config.model == replace(model, joint=joint)
        assert TRAIN_PRESETS["debug"].steps < 10
