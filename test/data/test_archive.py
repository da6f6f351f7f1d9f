"""Archives: what is written is read, by us and by kaldiio; nothing is left half-written."""

import pickle

import kaldiio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pam.atomic import part_of
from pam.data import archive
from pam.errors import PamError

FLOAT16 = arrays.arrays(
    np.float16,
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=40),
    elements=st.floats(-1000, 1000, width=16),
)


def some(count=5):
    random = np.random.default_rng(0)
    return {f"spk-{i}": random.normal(size=(i + 1, 30)).astype(np.float16) for i in range(count)}


@settings(max_examples=30, deadline=None)
@given(st.lists(FLOAT16, min_size=1, max_size=4))
def test_round_trip(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("archive")
    items = {f"ütt-{i}": array for i, array in enumerate(written)}
    archive.write_archive(folder / "feats.1.ark", folder / "feats.1.scp", items.items())
    pointers = archive.read_scp(folder / "feats.1.scp")
    by_kaldiio = kaldiio.load_scp(str(folder / "feats.1.scp"))
    assert list(pointers) == list(items)
    for utt, array in items.items():
        for back in (archive.load(pointers[utt], utt), by_kaldiio[utt]):
            assert back.dtype == np.float16
            np.testing.assert_array_equal(back, array)


def test_deterministic_and_usable_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = archive.write_archive("a.ark", "a.scp", some().items())
    archive.write_archive("b.ark", "b.scp", some().items())
    assert (tmp_path / "a.ark").read_bytes() == (tmp_path / "b.ark").read_bytes()
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(archive.load(first["spk-3"], "spk-3"), some()["spk-3"])


def test_loaded_arrays_can_be_written_to(tmp_path):
    pointers = archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", some().items())
    archive.load(pointers["spk-0"], "spk-0")[:] = 0
    assert archive.load(pointers["spk-0"], "spk-0").any()


def test_merge(tmp_path):
    items = some(6)
    for part in range(2):
        mine = {utt: array for i, (utt, array) in enumerate(items.items()) if i % 2 == part}
        archive.write_archive(tmp_path / f"{part}.ark", tmp_path / f"{part}.scp", mine.items())
    parts = [tmp_path / "1.scp", tmp_path / "0.scp"]
    merged = archive.merge_scp(parts, tmp_path / "feats.scp")
    assert list(archive.read_scp(tmp_path / "feats.scp").items()) == sorted(merged.items())
    np.testing.assert_array_equal(archive.load(merged["spk-4"], "spk-4"), items["spk-4"])
    with pytest.raises(PamError, match=r"0.scp: 'spk-0' is in another part"):
        archive.merge_scp([*parts, tmp_path / "0.scp"], tmp_path / "twice.scp")
    assert not (tmp_path / "twice.scp").exists()


@pytest.mark.parametrize("keep", [0, 2, 5, 20, 150])
def test_truncated(tmp_path, keep):
    pointers = archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", some(1).items())
    with (tmp_path / "a.ark").open("r+b") as file:
        file.truncate(len("spk-0 ") + keep)
    with pytest.raises(PamError, match=r"a\.ark:6: truncated or missing.*dump stage"):
        archive.load(pointers["spk-0"], "spk-0")


def test_missing_ark_and_wrong_offset(tmp_path):
    with pytest.raises(PamError, match="none.ark:3: truncated or missing"):
        archive.load(f"{tmp_path}/none.ark:3", "spk-0")
    pointers = archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", some(1).items())
    for wrong in (pointers["spk-0"] + "1", pointers["spk-0"].rpartition(":")[0]):
        with pytest.raises(PamError, match="truncated or missing"):
            archive.load(wrong, "spk-0")


def test_a_pointer_to_another_utterance(tmp_path):
    """The archive was written again, from other utterances whose arrays are as large."""
    old, new = (
        {utt: np.full((2, 3), place, np.float16) for place, utt in enumerate(utts)}
        for utts in (["ann-1", "ann-2", "z"], ["ann-1", "bob-2", "ümit-9"])
    )
    pointers = archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", old.items())
    archive.write_archive(tmp_path / "a.ark", tmp_path / "b.scp", new.items())
    np.testing.assert_array_equal(archive.load(pointers["ann-1"], "ann-1"), old["ann-1"])
    for pointer in archive.read_scp(tmp_path / "b.scp").values():
        for utt in ("ann-2", "z", "a-longer-id-than-what-lies-before-it"):
            told = rf"a\.ark:\d+: other states than those of '{utt}': .*remove the combined set"
            with pytest.raises(PamError, match=told):
                archive.load(pointer, utt)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "pkl.ark").write_bytes(b"utt PKL" + pickle.dumps(Bomb()))
    with pytest.raises(PamError):
        archive.load(f"{tmp_path}/pkl.ark:4", "utt")
    kaldiio.save_ark(
        str(tmp_path / "object.ark"), {"utt": np.array([Bomb()])}, write_function="numpy"
    )
    with pytest.raises(PamError):
        archive.load(f"{tmp_path}/object.ark:4", "utt")


def test_full_disk_leaves_nothing(tmp_path):
    part_of(tmp_path / "a.ark").symlink_to("/dev/full")
    with pytest.raises(PamError, match=r"a\.ark: .*the disk is full: free some space"):
        archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", some().items())
    part_of(tmp_path / "a.scp").symlink_to("/dev/full")
    with pytest.raises(PamError, match=r"a\.scp: .*the disk is full"):
        archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", some().items())
    assert [file.name for file in tmp_path.iterdir()] == ["a.ark"]  # no scp: not complete


def test_a_failing_source_leaves_nothing(tmp_path):
    def items():
        yield "a", np.zeros(3, np.float16)
        raise RuntimeError("the encoder failed")

    with pytest.raises(RuntimeError, match="the encoder failed"):
        archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items())
    assert not list(tmp_path.iterdir())


def test_refused_items(tmp_path):
    def write(*items):
        archive.write_archive(tmp_path / "a.ark", tmp_path / "a.scp", items)

    good = np.zeros((2, 2), np.float16)
    with pytest.raises(PamError, match="'u' comes twice"):
        write(("u", good), ("u", good))
    with pytest.raises(PamError, match="'u' has NaN or infinite"):
        write(("u", np.array([np.inf], np.float16)))
    with pytest.raises(TypeError, match="float32"):
        write(("u", good.astype(np.float32)))
    assert not list(tmp_path.iterdir())
