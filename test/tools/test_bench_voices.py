"""The benchmark of separated voices on toys: a known area, and items that do not fit the set."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pam.data.datadir import DataDir  # noqa: E402
from pam.errors import PamError  # noqa: E402
from tools import bench_voices  # noqa: E402
from tools.bench_voices import Item, area, cosines  # noqa: E402


def item(name: str, people: str) -> Item:
    return Item(name, name, "", (), {"text_warmup": people})


def test_area_is_the_share_of_pairs_in_order():
    assert area([0.9, 0.8], [0.1, 0.2, 0.3]) == 1
    assert area([0.1], [0.9, 0.8]) == 0
    assert area([0.5, 0.1], [0.2, 0.3]) == 0.5


def test_pairs_are_of_one_item():
    vectors_IKD = torch.tensor([[[1.0, 0], [0, 2], [3, 0]], [[0, 1], [0, 5], [0, -1]]])
    same, different = cosines(vectors_IKD, [item("i", "ann bob ann"), item("j", "bob bob cid")])
    assert same == [1, 1] and different == [0, 0, -1, -1]


def test_another_set_is_refused(monkeypatch, tmp_path):
    drawn = [item("i", "ann bob"), item("j", "bob bob")]
    monkeypatch.setattr(bench_voices, "speaker_items", lambda part, count, seed: drawn[:count])
    tables = {"text_warmup": {"i": "ann bob", "j": "bob bob"}, "text": {"i": "two", "j": "one"}}
    data = DataDir(tables)
    assert bench_voices.items_of(tmp_path / "snv_dev", data, 0) == drawn
    monkeypatch.setattr(
        bench_voices, "speaker_items", lambda *_: [dataclasses.replace(drawn[0], id="k"), drawn[1]]
    )
    with pytest.raises(PamError, match="snv_dev: not what egs/mini/local/prepare.py draws"):
        bench_voices.items_of(tmp_path / "snv_dev", data, 0)
