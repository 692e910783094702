"""The released landmark module's names of tensors to those of `landmarks.kflm.KFLM`."""

from __future__ import annotations

_BLOCK = {
    "transformer_encoder.0.layers.0.": "encoder.",
    "transformer_encoder.1.": "memory.",
    "transformer_decoder.layers.0.": "decoder.",
    "conv.": "query.",
}
_BLOCKS = {"trans_ct.": "face_context.", "trans_gb.": "face_global.", "trans_gbm.": "mouth_global."}

TABLE = {
    **{theirs + part: ours + new for theirs, ours in _BLOCKS.items() for part, new in _BLOCK.items()},
    "lstm.": "face_lstm.",
    "mouth.": "mouth_lstm.",
    "R1.": "face_fusion.",
    "R2.0.": "face_gate.",
    "R3.": "mouth_fusion.",
    "KAN.": "head.",
}
