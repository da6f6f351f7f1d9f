"""How a set is written: the same bytes for any number of processes; nothing twice or stale."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "egs/mini/local")]

import mini_items  # noqa: E402
from mini_items import Item, rng_for, write_set  # noqa: E402

from pam.data.datadir import DataDir, validate  # noqa: E402


def toy_items(count: int = 6, seed: int = 0) -> list[Item]:
    return [
        Item(f"s{i % 2}-{i:03d}", f"s{i % 2}", f"words {i}", (seed, i), {"text_ref2": f"more {i}"})
        for i in range(count)
    ]


def toy_render(item: Item) -> np.ndarray:
    seed, number = item.recipe
    return rng_for(seed, str(number)).normal(size=800 + number).astype(np.float32) * 0.1


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder; its own path in them is replaced."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(str(folder).encode(), b"OUT")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    for nj in (1, 2):
        write_set(tmp_path / str(nj), "toy", "ac", toy_items(), toy_render, nj)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert "audio/toy/s0-000.flac" in contents(tmp_path / "1")


def test_a_set_is_a_valid_directory(tmp_path):
    summary = write_set(tmp_path, "toy", "ac", toy_items(), toy_render, 1)
    assert validate(tmp_path / "toy") == []
    assert (summary.items, summary.speakers) == (6, 2)
    assert summary.hours == pytest.approx(sum(800 + i for i in range(6)) / 16000 / 3600, rel=0.02)
    found = DataDir.read(tmp_path / "toy")
    assert found["text_ref2"]["s1-003"] == "more 3" and found["utt2task"]["s1-003"] == "ac"


def test_a_killed_run_is_resumed(tmp_path):
    def killed(item: Item) -> np.ndarray:
        if item.id == "s1-003":
            raise KeyboardInterrupt
        return toy_render(item)

    with pytest.raises(KeyboardInterrupt):
        write_set(tmp_path / "a", "toy", "ac", toy_items(), killed, 1)
    assert not (tmp_path / "a/toy/wav.scp").exists()
    rendered = []

    def counting(item: Item) -> np.ndarray:
        rendered.append(item.id)
        return toy_render(item)

    write_set(tmp_path / "a", "toy", "ac", toy_items(), counting, 1)
    assert rendered == ["s1-003", "s0-004", "s1-005"]
    write_set(tmp_path / "a", "toy", "ac", toy_items(), counting, 1)
    assert len(rendered) == 3  # a complete set is left alone
    write_set(tmp_path / "b", "toy", "ac", toy_items(), toy_render, 1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("change", ["seed", "count", "version"])
def test_other_items_replace_what_is_there(tmp_path, monkeypatch, change):
    write_set(tmp_path / "a", "toy", "ac", toy_items(), toy_render, 1)
    items = toy_items(4 if change == "count" else 6, seed=int(change == "seed"))
    if change == "version":
        monkeypatch.setattr(mini_items, "RECIPE_VERSION", mini_items.RECIPE_VERSION + 1)
    (tmp_path / "a/audio/toy/stale.flac").write_bytes(b"")
    write_set(tmp_path / "a", "toy", "ac", items, toy_render, 1)
    write_set(tmp_path / "b", "toy", "ac", items, toy_render, 1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_shares_a_source_is_one_cluster(tmp_path):
    sources = [("bell",), ("dog", "rain"), ("rain", "a/owl"), ("a/owl", "cow"), ("cat", "dog"), ()]
    items = [replace(item, sources=own) for item, own in zip(toy_items(), sources, strict=True)]
    write_set(tmp_path, "toy", "ac", items, toy_render, 1)
    data = DataDir.read(tmp_path / "toy")
    found = [data["utt2cluster"][item.id] for item in items]
    assert found == ["bell", "a_owl", "a_owl", "a_owl", "a_owl", "s1-005"]
    assert validate(tmp_path / "toy") == []


def test_sets_without_clusters_are_made_again(tmp_path):
    """What an earlier version has written has no utt2cluster: other items."""
    write_set(tmp_path, "toy", "ac", toy_items(), toy_render, 1)
    items = [replace(item, sources=("one",)) for item in toy_items()]
    write_set(tmp_path, "toy", "ac", items, toy_render, 1)
    assert set(DataDir.read(tmp_path / "toy")["utt2cluster"].values()) == {"one"}
