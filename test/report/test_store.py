"""The small result that an experiment leaves for the tables."""

import json

import pytest
import yaml
from stored_results import result

from pam.bin import report
from pam.config.made import Making
from pam.errors import PamError
from pam.paper.store import read_store
from pam.report.store import sums_of, write_stored
from pam.score.compare import ratio
from pam.score.utterances import Statistics, write_utterances

CONFIG = {
    "system": "pam",
    "scale": "mini",
    "budget": "short",
    "seed": 3,
    "encoders": {"one": {"num_states": 2}, "two": {"num_states": 3}},
    "llm_conf": {"path": "cache:tiny"},
    "phases": {"llm": {"warmup_steps": 30}},
}
SETS = {
    "clean_test": ("asr_clean", "wer", Statistics([1, 0], [4, 6], 100, errors=True)),
    "ac_test": ("ac", "meteor", Statistics([0.123456, 1.0], None, 100)),
}


def make(root, name="tiny", tag="greedy_unseen", **config):
    exp = root / "exp" / name
    combined = root / "combined"
    for folder in (exp / "train", combined):
        folder.mkdir(parents=True, exist_ok=True)
    (exp / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    (exp / "train/config.yaml").write_text(yaml.safe_dump({"train_dir": str(combined)}))
    data = {"clean_train": {"task": "asr_clean", "utterances": 7, "hours": 0.5}}
    (combined / "sets.json").write_text(json.dumps({"sets": data, "encoders": []}))
    notes = {"set": ["a.b=1", 'encoders.x={"family":"y"}'], "scale_hash": "abc"}
    Making(exp, "train", {"seed": 3}, notes=notes).finish(seconds=100)
    for name_, (task, metric, statistics) in SETS.items():
        folder = exp / tag / name_
        score = {"set": name_, "task": task, "metric": metric, "value": 10.0, "count": 2}
        counts = dict.fromkeys(("errors", "ref_words", "hits", "sub", "del", "ins"), 1)
        score |= counts | {"sentence_errors": 1, "whisper": {"value": 1.0, "count": 2, **counts}}
        score["whisper"]["sentence_errors"] = 1
        score |= {
            "metrics": {
                "cider": {"value": 1.0, "count": 2, "references": 10, "ci95": None},
                "spice": {"missing": "two jars"},
            }
        }
        folder.mkdir(parents=True)
        (folder / "score.json").write_text(json.dumps(score))
        clusters = ["s2", "s1"] if name_ == "clean_test" else None
        write_utterances(folder / "utterances.json", ["u1", "u2"], {metric: statistics}, clusters)
    return exp


def store(root, *exps):
    folder = root / "RESULTS/mini"
    argv = ["--exp", *map(str, exps), "--figures", "no", "--samples", "0", "--store", str(folder)]
    report.main(argv)
    return read_store(folder)


def test_a_result_holds_what_a_table_needs(tmp_path):
    found = store(tmp_path, make(tmp_path))["tiny"]
    expected = {"system": "pam", "scale": "mini", "budget": "short", "seed": 3}
    assert expected.items() <= found.items()
    assert found["options"] == ["a.b=1", 'encoders.x={"family":"y"}']
    assert (found["encoders"], found["llm"]) == ({"one": 2, "two": 3}, "cache:tiny")
    assert found["seconds"] == {"train": 100} and found["scale_hash"] == "abc"
    assert found["training_data"]["clean_train"]["hours"] == 0.5
    wer = found["sets"]["clean_test"]["metrics"]["wer"]
    assert (wer["value"], wer["numerators"], wer["denominators"]) == (10.0, [1, 0], [4, 6])
    assert wer["errors"] and ratio(sums_of(found["sets"]["clean_test"], "wer")) == 10
    assert found["sets"]["ac_test"]["metrics"]["meteor"]["numerators"] == [0.1235, 1.0]
    assert found["sets"]["ac_test"]["ids"] == found["sets"]["clean_test"]["ids"]
    assert found["sets"]["ac_test"]["missing"] == {"spice": "two jars"}
    assert found["sets"]["clean_test"]["clusters"] == {"names": ["s1", "s2"], "of": [1, 0]}
    assert sums_of(found["sets"]["clean_test"], "wer").clusters == ("s2", "s1")
    assert found["sets"]["ac_test"]["clusters"] is None
    path = tmp_path / "RESULTS/mini/tiny.json"
    assert "\n" + '    "ac_test": {"task":"ac","count":2,' in path.read_text()


def test_hashes_tell_what_a_table_compares_from_what_must_be_alike(tmp_path):
    changes = {
        "a": {},
        "b": {"system": "average", "fusion": "average", "seed": 4},
        "c": {"phases": {"llm": {"warmup_steps": 31}}},
        "d": {"checkpoint_minutes": 1.0, "num_workers": 3, "no_repeat_ngram_size": 3},
        "e": {"llm_conf": CONFIG["llm_conf"] | {"gradient_checkpointing": True, "shard": True}},
    }
    exps = [make(tmp_path, name, **change) for name, change in changes.items()]
    found = store(tmp_path, *exps)
    assert found["a"]["config_hash"] != found["b"]["config_hash"]
    assert found["a"]["training_hash"] == found["b"]["training_hash"]
    assert found["a"]["training_hash"] != found["c"]["training_hash"]
    for hashed in ("training_hash", "setup_hash"):
        assert found["a"][hashed] == found["d"][hashed] == found["e"][hashed]
    assert found["a"]["setup_hash"] != found["b"]["setup_hash"]
    pooled = store(tmp_path, make(tmp_path, "pooled", pool="after"))[
        "pooled"
    ]  # no row's own option
    assert pooled["training_hash"] != found["a"]["training_hash"]
    gone = make(tmp_path, "gone")
    (tmp_path / "combined/sets.json").unlink()  # what it was trained on is gone: unknown
    assert store(tmp_path, gone)["gone"]["training_hash"] is None


def test_only_the_decoding_with_unseen_prompts_is_kept(tmp_path):
    assert store(tmp_path, make(tmp_path, tag="greedy_seen"))["tiny"]["sets"] == {}


def test_statistics_that_are_missing_are_named(tmp_path):
    exp = make(tmp_path)
    (exp / "greedy_unseen/ac_test/utterances.json").unlink()
    with pytest.raises(PamError, match=r"utterances\.json.*run the score stage again"):
        store(tmp_path, exp)


def test_what_is_not_recorded_is_no_option(tmp_path):
    exp = make(tmp_path)
    (exp / "made.json").unlink()
    found = store(tmp_path, exp)["tiny"]
    assert (found["options"], found["scale_hash"], found["seconds"]) == ([], None, {})


def test_stored_files_are_one_line_a_set(tmp_path):
    kept = result("pam")
    write_stored(tmp_path / "x.json", kept)
    assert read_store(tmp_path) == {
        "x": {**json.loads(json.dumps(kept)), "name": "x", "file": str(tmp_path / "x.json")}
    }
    assert (
        len((tmp_path / "x.json").read_text().splitlines()) == len(kept) + 1 + len(kept["sets"]) + 2
    )
