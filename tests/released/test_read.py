from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atldiff.errors import CheckpointError
from atldiff.files import sha256
from atldiff.released.names import check_tensors, rename, rename_all, reversed_table
from atldiff.released.read import read_json, read_lightning

torch.set_num_threads(1)


class Code:
    """What a pickle can do when it is trusted."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_lightning_checkpoint_gives_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "epoch=399-step=106800.ckpt"
    torch.save(
        {
            "epoch": 399,
            "pytorch-lightning_version": "2.3.3",
            "state_dict": {"a.weight": torch.arange(3.0)},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1), "dirpath": "/somewhere"}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 3e-4}]}],
            "hyper_parameters": {"batch": 4, "init_lr": 3e-4},
        },
        path,
    )
    assert read_lightning(path)["a.weight"].tolist() == [0, 1, 2]


def test_bare_tensors_do_too(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "bare.ckpt")
    save_file({"a": torch.ones(2)}, tmp_path / "bare.safetensors")
    for name in ("bare.ckpt", "bare.safetensors"):
        assert read_lightning(tmp_path / name)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("container", ["zip", "bare"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, container: str) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    held = {"state_dict": {"a": torch.ones(2)}, "hyper_parameters": Code(target)}
    if container == "zip":
        torch.save(held, path)
    else:
        path.write_bytes(pickle.dumps({"hyper_parameters": Code(target)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"(mkdir|posix)") as caught:
        read_lightning(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)


def test_a_harmless_object_is_named_and_the_way_out_works(tmp_path: Path) -> None:
    path = tmp_path / "with_path.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "hyper_parameters": {"root": Path("/data")}}, path)
    with pytest.raises(CheckpointError, match=r"pickled pathlib\..*was not run.*torch\.save") as caught:
        read_lightning(path)
    first, second = str(caught.value).split("`")[1:4:2]
    held: dict[str, object] = {"torch": torch}
    exec(first, held)  # what the message tells somebody who trusts the file to do
    exec(second.replace("'au2lm.ckpt'", repr(str(tmp_path / "au2lm.ckpt"))), held)
    assert read_lightning(tmp_path / "au2lm.ckpt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([1, 2], "got a list"),
        ({"state_dict": [1]}, "'state_dict' is a list"),
        ({"epoch": 3, "model": {"a": torch.ones(1)}}, "'epoch' is a int"),
        ({"state_dict": {}}, "expected named tensors"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, held: object, message: str) -> None:
    torch.save(held, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=message):
        read_lightning(tmp_path / "x.ckpt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_lightning(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a torch file"):
        read_lightning(tmp_path / "text.ckpt")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CheckpointError, match="got list"):
        read_json(tmp_path / "list.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        read_json(tmp_path / "bad.json")


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1


class TestNames:
    TABLE = {"old.part.": "new.", "old.": "rest."}

    def test_the_first_prefix_that_matches_counts(self) -> None:
        assert rename("old.part.weight", self.TABLE) == "new.weight"
        assert rename("old.other", self.TABLE) == "rest.other"
        assert rename("none", self.TABLE) is None
        back = reversed_table(self.TABLE)
        assert rename("new.weight", back) == "old.part.weight"

    def test_unknown_ones_are_listed(self) -> None:
        renamed, unknown = rename_all({"old.a": torch.ones(1), "b": torch.ones(1)}, self.TABLE)
        assert list(renamed) == ["rest.a"]
        assert unknown == ["b"]

    def test_many_missing_names_are_cut_and_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        wanted = {f"tensor{index:02}": (1,) for index in range(30)}
        with caplog.at_level("DEBUG", logger="atldiff.released.names"), pytest.raises(CheckpointError) as caught:
            check_tensors("file x", {"more": torch.ones(1)}, wanted, unknown=["other"], original=str.upper)
        text = str(caught.value)
        assert "TENSOR19, ..." in text
        assert "TENSOR20" not in text
        assert "(30 in all)" in text
        assert "unknown tensors MORE, other (2 in all)" in text
        assert "\n" not in text
        assert len(caplog.messages) == 32

    def test_shape_and_numbers(self) -> None:
        good = torch.ones(2)
        check_tensors("x", {"a": good}, {"a": (2,)})
        with pytest.raises(CheckpointError, match=r"tensor a has shape \(2,\), expected \(3,\)"):
            check_tensors("x", {"a": good}, {"a": (3,)})
        with pytest.raises(CheckpointError, match="tensor a holds NaN"):
            check_tensors("x", {"a": good * float("nan")}, {"a": (2,)})
