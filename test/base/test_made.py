"""made.json: complete, to be made, or made with something else."""

import json

import pytest

from pam import environment
from pam.config.made import (
    FILE,
    Making,
    differences,
    flatten,
    given,
    licences_of,
    read_record,
    record_digest,
    settings_of,
    stage_seconds,
)
from pam.errors import PamError


def making(folder, settings=None, **others):
    others = {"remedy": "give another --name"} | others
    return Making(folder / "made", "train", {"seed": 0} if settings is None else settings, **others)


def test_what_is_made_is_complete_and_says_with_what_where_and_how_long(tmp_path):
    made = making(tmp_path, {"seed": 0, "fusion_conf": {"rank": 4}}, inputs={"data": "d1"})
    assert not made.is_complete()
    with made.work():
        assert read_record(made.folder, "train")["complete"] is False
    assert made.is_complete()
    record = read_record(made.folder, "train")
    assert record["settings"] == {"seed": 0, "fusion_conf.rank": 4}
    assert record["inputs"] == {"data": "d1"}
    assert {"commit", "machine", "date"} <= record.keys()
    assert list(record["seconds"]) == [f"train {tmp_path.name}/made"]
    assert [file.name for file in made.folder.iterdir()] == [FILE]


def test_the_commit_is_that_at_the_start(tmp_path, monkeypatch):
    """The source may change while a training runs, and another process may end the work."""
    commits = iter(["first", "second", "third", "fourth"])
    monkeypatch.setattr(environment, "commit", lambda: next(commits))
    made = making(tmp_path)
    made.begin()
    with pytest.raises(KeyboardInterrupt), making(tmp_path).work():
        raise KeyboardInterrupt
    making(tmp_path).finish(complete=False)
    assert read_record(made.folder, "train")["commit"] == "second"
    making(tmp_path).begin()
    making(tmp_path).finish()
    assert read_record(made.folder, "train")["commit"] == "third"


def test_a_record_of_an_earlier_version_has_no_commit_before_the_end(tmp_path):
    made = making(tmp_path)
    made.begin()
    file = made.folder / FILE
    records = json.loads(file.read_text())
    del records["train"]["commit"]
    file.write_text(json.dumps(records))
    making(tmp_path).finish()
    assert read_record(made.folder, "train")["commit"] == environment.commit()


def test_other_settings_are_named_with_both_values_and_the_remedy(tmp_path, capsys):
    with making(tmp_path, {"seed": 0, "size": "tiny", "old": [1]}).work():
        pass
    other = making(tmp_path, {"seed": 1, "size": "tiny", "new": "1e-4"})
    with pytest.raises(PamError, match="made was made with other settings; give another --name"):
        other.is_complete()
    assert capsys.readouterr().err.splitlines() == [
        "  it was made with: seed: 0",
        "  now asked for:    seed: 1",
        "  it was made with: old: [1]",
        "  now asked for:    new: 1e-4",
    ]
    assert not making(tmp_path, {"seed": 1}, remedy="").is_complete()  # it is made anew


def test_types_are_told_apart(tmp_path):
    with making(tmp_path, {"a": 1}).work():
        pass
    assert not making(tmp_path, {"a": "1"}, remedy="").is_complete()
    assert making(tmp_path, {"a": 1, "empty": {}}, remedy="").is_complete()
    with making(tmp_path, {"a": (1, 2)}, remedy="").work():  # JSON has lists only
        pass
    assert making(tmp_path, {"a": [1, 2]}, remedy="").is_complete()


def test_an_unfinished_attempt_binds_once_there_is_something_of_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), making(tmp_path).work():
        raise KeyboardInterrupt
    assert read_record(tmp_path / "made", "train")["complete"] is False
    assert not making(tmp_path).is_complete() and making(tmp_path).resumes()
    other = making(tmp_path, {"seed": 1})
    assert not other.is_complete() and not other.resumes()
    with pytest.raises(PamError, match="was made with other settings"):
        making(tmp_path, {"seed": 1}, begun=True).is_complete()
    other.begin()
    assert read_record(tmp_path / "made", "train")["settings"] == {"seed": 1}


def test_seconds_of_attempts_add_up_and_those_of_what_it_is_made_of_are_kept(tmp_path):
    folders = [tmp_path / "raw" / name for name in ("a", "b")]
    data = {"seconds": {"data mini/data": 7.0}}
    for folder in folders:
        Making(folder, "dump", after=[data]).finish(seconds=1.5)
    records = [read_record(folder, "dump") for folder in folders]
    made = Making(tmp_path / "exp", "train", after=records)
    made.begin()
    made.finish(complete=False, seconds=10)
    made.finish(seconds=5)
    Making(tmp_path / "exp/tag/set", "decode", after=[records[0], None]).finish(seconds=2)
    assert stage_seconds(tmp_path / "exp") == {"data": 7, "dump": 3, "train": 15, "decode": 2}
    Making(tmp_path / "exp", "train", {"seed": 1}).begin()
    Making(tmp_path / "exp", "train", {"seed": 1}).finish(seconds=1)  # another one
    assert stage_seconds(tmp_path / "exp")["train"] == 1


def test_stages_of_a_folder_have_a_record_each(tmp_path):
    for stage in ("train", "average"):
        with Making(tmp_path, stage, {"of": stage}).work():
            pass
    assert list(json.loads((tmp_path / FILE).read_text())) == ["train", "average"]
    before = record_digest(read_record(tmp_path, "train"))
    with Making(tmp_path, "average", {"of": "other"}).work():
        pass
    assert record_digest(read_record(tmp_path, "train")) == before
    assert read_record(tmp_path, "report") is None and record_digest(None) is None


@pytest.mark.parametrize("now, same", [("d1", True), ("d2", False), (None, True)])
def test_other_inputs_are_made_anew_and_what_is_gone_is_as_it_was(tmp_path, now, same):
    with making(tmp_path, inputs={"data": "d1"}).work():
        pass
    assert making(tmp_path, inputs={"data": now}).is_complete() == same
    assert making(tmp_path, inputs={"data": "d1", "more": now}).is_complete() == (now is None)
    if not same:
        with pytest.raises(PamError, match="was made with other settings"):
            making(tmp_path, inputs={"data": now}, keeps_inputs=True).is_complete()


def test_other_code_and_products_that_are_gone_are_made_anew(tmp_path):
    product = tmp_path / "product"
    product.touch()
    with making(tmp_path, code="c1", products=[product]).work():
        pass
    assert making(tmp_path, code="c1", products=[product]).is_complete()
    assert not making(tmp_path, code="c2", products=[product]).is_complete()
    product.unlink()
    assert not making(tmp_path, code="c1", products=[product]).is_complete()


@pytest.mark.parametrize("mark", [".settings", ".trained"])
def test_what_an_earlier_version_made_is_refused(tmp_path, mark):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / mark).touch()
    with pytest.raises(PamError, match="made: an earlier version made it .*: give another --name"):
        making(tmp_path).is_complete()


def test_a_damaged_record_names_its_file(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / FILE).write_text("{")
    with pytest.raises(PamError, match=r"made\.json: not valid JSON .*: remove "):
        making(tmp_path).is_complete()


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ({}, {"A": "/a"}, False),  # named for the first time
        ({"A": "/a"}, {}, False),  # not named again
        ({"A": "/a"}, {"A": "/a", "B": "/b"}, False),  # for further sets
        ({"A": "/a"}, {"A": "/b"}, True),
        ({"A": "/a"}, {"B": "/b"}, True),  # in another form
        ({"A": "/a", "size": 1}, {"A": "/a", "size": 2}, True),
        ({"size": 1}, {}, True),
    ],
)
def test_folders_of_corpora_may_be_left_out_or_added(old, new, differ):
    assert bool(differences(old, new)) == differ


def test_settings_of_several_folders_are_one_mapping():
    records = [{"settings": {"size": "short", "seed": n}} for n in (0, 1, 0)]
    assert settings_of(*records, None) == {"size": "short", "seed": [0, 1]}
    assert flatten({"a": {"b": {"c": 1}, "d": {}}, "e": [2]}) == {"a.b.c": 1, "e": [2]}
    assert given(["a=[", "b=x=y"]) == {"a": "[", "b": "x=y"}
    assert given(["segments=0", "audio=flac", "CORPUS=/1"]) == {
        "segments": 0,
        "audio": "flac",
        "CORPUS": "/1",
    }


def test_a_full_disk_does_not_hide_the_first_error(tmp_path, monkeypatch):
    made = making(tmp_path)

    def refused(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(PamError, match="the first"), made.work():
        monkeypatch.setattr(Making, "_write", refused)
        raise PamError("the first")


def test_licences_of_all_that_it_is_made_of_are_kept(tmp_path):
    """A licence that changes makes nothing again."""
    first = Making(tmp_path / "a", "dump", licences={"a_train": "CC0"})
    second = Making(tmp_path / "b", "dump", licences={"b_train": "CC BY 4.0"})
    for making in (first, second):
        making.finish()
    records = [read_record(tmp_path / name, "dump") for name in "ab"]
    Making(tmp_path / "exp", "train", {"seed": 1}, after=[*records, None]).finish()
    found = licences_of([read_record(tmp_path / "exp", "train")])
    assert found == {"a_train": "CC0", "b_train": "CC BY 4.0"}
    assert Making(tmp_path / "a", "dump", licences={"a_train": "other"}).is_complete()


def test_what_earlier_versions_did_not_record_counts_as_unchanged(tmp_path):
    with making(tmp_path, inputs={"weights": "w1"}).work():
        pass
    inputs = {"weights": "w1", "audio": "a1"}
    assert not making(tmp_path, inputs=inputs).is_complete()
    now = making(tmp_path, inputs=inputs, newer=["audio"])
    assert now.is_complete() and now.changed_inputs() == []
    with now.work():  # for another reason
        pass
    assert read_record(tmp_path / "made", "train")["inputs"] == inputs
    now = making(tmp_path, inputs=inputs | {"audio": "a2"}, newer=["audio"])
    assert not now.is_complete() and now.changed_inputs() == ["audio"]


def test_settings_that_only_earlier_versions_recorded_are_not_compared(tmp_path):
    with making(tmp_path, {"seed": 0, "encoders": {"a": {"dim": 8}, "b": {"dim": 4}}}).work():
        pass
    with pytest.raises(PamError, match="was made with other settings"):
        making(tmp_path, {"seed": 0}).is_complete()
    assert making(tmp_path, {"seed": 0}, former="encoders.").is_complete()
    with pytest.raises(PamError, match="was made with other settings"):
        making(tmp_path, {"seed": 1}, former="encoders.").is_complete()


def test_licences_may_be_stated_later(tmp_path):
    """They are added to a complete record, and an attempt that begins again keeps them."""
    made = making(tmp_path)
    made.finish()
    made.amend_licences()
    assert "licences" not in read_record(made.folder, "train")
    for licences in ({"a_train": "CC0"}, {"b_train": "CC BY 4.0"}, {"b_train": "other"}):
        making(tmp_path, licences=licences).amend_licences()
    record = read_record(made.folder, "train")
    assert record["licences"] == {"a_train": "CC0", "b_train": "other"} and record["complete"]
    made = making(tmp_path, {"seed": 1}, after=[record])
    made.begin()
    assert licences_of([read_record(made.folder, "train")]) == record["licences"]
