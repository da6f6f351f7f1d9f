"""The report verb on experiments written by hand: whole, with gaps, hostile, damaged."""

import json
import multiprocessing

import pytest
import yaml
from processes import locked_by_another

from pam.bin import report
from pam.config.made import Making
from pam.errors import PamError
from pam.lock import in_turn
from pam.report import tables
from pam.report.blocks import to_markdown

CONFIG = {
    "scale": "mini",
    "system": "pam",
    "seed": 3,
    "budget": "short",
    "warmup": "ctc",
    "encoders": {"one": {"num_states": 2}, "two": {"num_states": 3}},
    "llm_conf": {"path": "cache:tiny"},
    "tasks": ["asr_clean", "ac"],
}
WER = {
    "set": "clean_test",
    "task": "asr_clean",
    "metric": "wer",
    "value": 12.5,
    "count": 4,
    "errors": 5,
    "ref_words": 40,
    "ci95": [3.25, 20.75],
    "hits": 36,
    "sub": 3,
    "del": 1,
    "ins": 1,
    "sentence_errors": 2,
}
WER["whisper"] = {**WER, "value": 10.0, "errors": 4, "sub": 2, "hits": 37}
METEOR = {
    "set": "ac_test",
    "task": "ac",
    "metric": "meteor",
    "value": 21.125,
    "count": 2,
    "errors": None,
    "ci95": [20.0, 22.0],
}
HEARING = {"asr_clean": {"dev_loss": 1.25, "dev_loss_shuffled": 3.5, "count": 30}}
ROUTER = {
    "seen": {
        "correct": 100,
        "count": 100,
        "accuracy": 100.0,
        "ci95": [96.3, 100.0],
        "tasks": {
            "asr_clean": {"correct": 50, "count": 50},
            "ac": {"correct": 50, "count": 50},
        },
        "misrouted": [],
    },
    "unseen": {
        "correct": 299,
        "count": 300,
        "accuracy": 99.6667,
        "ci95": [98.1, 99.9],
        "tasks": {
            "asr_clean": {"correct": 149, "count": 150},
            "ac": {"correct": 150, "count": 150},
        },
        "misrouted": [{"task": "asr_clean", "prompt": "a | b", "chosen": "ac", "probability": 0.6}],
    },
}
HOSTILE = "_a_ a | b\n| c <script>x</script> `code` *bold* [link](http://x) \\ \u202e ~~$x$~~ # é"


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make(root, name="tiny", **config):
    """A complete experiment without figures' sources."""
    exp = root / "exp" / name
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    for score in (WER, METEOR):
        write_json(exp / "greedy_unseen" / score["set"] / "score.json", score)
    hyp = {
        "id": "u1",
        "task": "asr_clean",
        "prompt": "Write it down.",
        "prompt_seen": False,
        "expert": "asr_clean",
        "posterior": 1.0,
        "hyp": HOSTILE,
        "ref": "words",
        "refs": ["words"],
    }
    lines = [json.dumps(hyp | {"id": f"u{number}"}) for number in range(4)]
    (exp / "greedy_unseen/clean_test/hyp.jsonl").write_text("\n".join(lines) + "\n")
    write_json(exp / "hearing.json", HEARING)
    write_json(exp / "router.json", ROUTER)
    Making(
        exp, "train", {"seed": 3, "size": "```"}, after=[{"seconds": {"dump raw/a": 12.4}}]
    ).finish(seconds=100)
    return exp


def run(*exps, **options):
    argv = ["--exp", *map(str, exps), "--figures", "no"]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    report.main(argv)
    out = options.get("out", exps[0] / "RESULTS.md")
    return out.read_text(encoding="utf-8")


def test_results_json_has_exactly_the_agreed_content(tmp_path):
    exp = make(tmp_path)
    run(exp)
    found = json.loads((exp / "results.json").read_text())
    assert list(found) == (
        ["system", "scale", "seed", "budget", "commit", "sets", "router", "hearing", "seconds"]
        + ["name", "decodings", "environment", "settings", "notes", "licences"]
        + ["config", "curves", "weights"]
        + ["analysis"]
    )
    assert (found["system"], found["scale"], found["seed"], found["budget"]) == (
        ("pam", "mini", 3, "short")
    )
    assert set(found["sets"]) == {"clean_test", "ac_test"}
    assert found["sets"]["clean_test"]["value"] == 12.5
    assert found["sets"]["clean_test"]["ci95"] == [3.25, 20.75]
    for entry in found["sets"].values():
        assert {"task", "metric", "value", "count", "ci95"} <= entry.keys()
    keys = ("correct", "count", "accuracy")
    assert {
        split: {key: entry[key] for key in keys} for split, entry in found["router"].items()
    } == {
        "seen": {"correct": 100, "count": 100, "accuracy": 100.0},
        "unseen": {"correct": 299, "count": 300, "accuracy": 99.6667},
    }
    assert (found["router"], found["hearing"]) == (ROUTER, HEARING)
    assert found["name"] == "tiny" and found["config"] == CONFIG
    decoded = found["decodings"]["greedy_unseen"]["clean_test"]
    assert decoded["score"] == WER and decoded["samples"][0]["hyp"] == HOSTILE
    assert found["seconds"] == {"dump": 12.4, "train": 100}


def test_the_report_says_where_it_was_trained_not_where_it_is_written(tmp_path):
    exp = make(tmp_path)
    there = {"command": "./run.sh", "commit": "abc-dirty", "machine": "two | cores", "torch": None}
    write_json(exp / "environment.json", there)
    text = run(exp)
    assert json.loads((exp / "results.json").read_text())["commit"] == "abc-dirty"
    for line in ("- command: ./run.sh", "- machine: two \\| cores", "- torch: —"):
        assert f"{line}\n" in text


def test_tables_hold_the_values_with_their_counts(tmp_path):
    text = run(make(tmp_path))
    lines = text.splitlines()
    assert (
        "| clean_test | asr_clean | WER % | 12.50 (5 / 40, 95 % CI 3.2–20.8) | 4 | "
        "Whisper normalisation 10.00 |"
    ) in lines
    assert any(line.startswith("| ac_test | ac | METEOR × 100 | 21.12 (95 % CI") for line in lines)
    # ESPnet's table: percents of 40 words; half of the sentences have an error.
    assert "| dataset | Snt | Wrd | Corr | Sub | Del | Ins | Err | S.Err |" in lines
    assert "| clean_test | 4 | 40 | 90.0 | 7.5 | 2.5 | 2.5 | 12.5 | 50.0 |" in lines
    assert "| clean_test | 4 | 40 | 92.5 | 5.0 | 2.5 | 2.5 | 10.0 | 50.0 |" in lines
    assert ("| unseen | 99.67 % (299 / 300, 95 % CI 98.1–99.9) | 149 / 150 | 150 / 150 |") in lines
    assert "| unseen | asr_clean | ac | 0.60 | a \\| b |" in lines
    assert "| asr_clean | 1.2500 | 3.5000 | 2.2500 | 30 |" in lines
    assert "| train | 100 |" in lines
    assert "| all | 112 |" in lines
    assert "- seed: 3" in lines
    assert "- CTC warm-up: used" in lines
    for name in ("commit", "torch", "transformers", "espnet", "peft", "python", "machine", "date"):
        assert any(line.startswith(f"- {name}: ") for line in lines)


def cells(line):
    """The cells of a table's line, split where Markdown splits: at bars that are not escaped."""
    out, current, escaped = [], "", False
    for c in line.strip()[1:]:
        if c == "|" and not escaped:
            out.append(current)
            current = ""
        else:
            current += c
        escaped = c == "\\" and not escaped
    assert not current.strip()
    return out


def test_every_table_is_rectangular_whatever_was_said(tmp_path):
    text = run(make(tmp_path))
    block = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(cells(line)))
        elif block:
            assert len(set(block)) == 1
            block = []
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\u202e" not in text
    assert (
        "\\_a\\_ a \\| b \\| c \\<script\\>x\\</script\\> \\`code\\` \\*bold\\* \\[link\\]" in text
    )


def test_settings_cannot_end_their_code_block(tmp_path):
    text = run(make(tmp_path))
    assert '````text\nseed: 3\nsize: "```"\n````' in text


def test_samples_are_taken_evenly(tmp_path):
    text = run(make(tmp_path), samples=2)
    shown = [line for line in text.splitlines() if line.startswith("| clean_test | u")]
    assert [cells(line)[1].strip() for line in shown] == ["u1", "u3"]
    assert "### Answers" not in run(make(tmp_path, "b"), samples=0)


def test_what_is_missing_is_a_gap_not_a_number(tmp_path):
    exp = tmp_path / "exp" / "bare"
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text("system: pam\n")
    text = run(exp)
    assert text.count("—, not measured") >= 4  # sets, router, hearing, time
    for name in ("seed", "scale", "budget", "CTC warm-up", "command", "LLM"):
        assert f"- {name}: —" in text.splitlines()
    found = json.loads((exp / "results.json").read_text())
    assert (found["sets"], found["router"], found["hearing"], found["seconds"]) == (
        ({}, None, None, {})
    )
    assert found["seed"] is None


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"fusion": "pam"}, "—, not measured."),
        ({"fusion": "concat"}, "—: this system routes nothing."),
        ({"fusion": "pam", "fusion_conf": {"routed": False}}, "—: this system routes nothing."),
        ({"fusion": "moe_audio"}, "—: the experts of this system belong to no task"),
        (
            {"fusion": "pam", "model_conf": {"routing": "predicted", "routing_loss": False}},
            "—: the experts of this system belong to no task",
        ),
    ],
)
def test_why_there_is_no_accuracy_of_routing(tmp_path, config, expected):
    exp = make(tmp_path, **config)
    (exp / "router.json").unlink()
    text = run(exp)
    assert text.split("### Router\n\n")[1].startswith(expected)
    assert json.loads((exp / "results.json").read_text())["router"] is None


def test_a_caption_score_without_a_baseline_says_so(tmp_path):
    text = run(make(tmp_path))
    assert "most frequent training caption: —, not measured" in text


def test_further_caption_metrics_and_what_they_lacked():
    cider = {"value": 0.51236, "ci95": [0.40001, 0.6], "count": 2, "references": 10}
    metrics = {"cider": cider, "spice": {"missing": "no jar | here"}}
    shown = to_markdown(
        [tables.caption_table({"ac_test": {"score": METEOR | {"metrics": metrics}}})]
    )
    rows = [line for line in shown.splitlines() if line.startswith("| ac_test")]
    assert rows == [
        "| ac_test | CIDEr | 0.5124 (95 % CI 0.4000–0.6000) | 2 | 10 references |",
        "| ac_test | SPICE | — |  | —, not measured: no jar \\| here |",
    ]
    assert tables.caption_table({"ac_test": {"score": METEOR}}) is None


def test_wer_that_whispers_normalisation_has_no_words_for(tmp_path):
    """A set of fillers only: its line says so, and it is in no table of that normalisation."""
    exp = make(tmp_path)
    run(exp)
    tables_before = (exp / "RESULTS.md").read_text().count("| clean_test |")
    write_json(exp / "greedy_unseen/clean_test/score.json", WER | {"whisper": None})
    run(exp)
    text = (exp / "RESULTS.md").read_text()
    assert "Whisper normalisation —: it leaves no word of the references" in text
    assert "WER, basic normalisation:" in text and "WER, whisper normalisation:" not in text
    assert text.count("| clean_test |") == tables_before - 1


def test_several_experiments_are_compared(tmp_path):
    first, second = make(tmp_path, "a", warmup="none"), make(tmp_path, "b")
    (second / "greedy_unseen/ac_test/score.json").unlink()
    text = run(first, second, out=tmp_path / "RESULTS.md")
    lines = text.splitlines()
    assert "## Comparison" in lines
    row = next(line for line in lines if line.startswith("| b |"))
    assert cells(row)[1].strip() == "—"
    assert "- CTC warm-up: not used" in lines
    assert "- CTC warm-up: used" in lines
    assert (first / "results.json").is_file()
    assert (second / "results.json").is_file()


def test_unseen_prompts_are_the_main_decoding(tmp_path):
    exp = make(tmp_path)
    write_json(exp / "greedy_seen/clean_test/score.json", WER | {"value": 1.0})
    text = run(exp)
    assert text.index("decoded as greedy_unseen") < text.index("decoded as greedy_seen")
    found = json.loads((exp / "results.json").read_text())
    assert found["sets"]["clean_test"]["value"] == 12.5


def test_wrong_or_damaged_experiments_are_one_line(tmp_path):
    with pytest.raises(PamError, match="not an experiment"):
        run(tmp_path)
    exp = make(tmp_path)
    (exp / "router.json").write_text("{")
    with pytest.raises(PamError, match=r"router\.json: not valid JSON"):
        run(exp)
    (exp / "router.json").write_text("[]")
    with pytest.raises(PamError, match=r"router\.json: expected a dict"):
        run(exp)
    (exp / "router.json").unlink()
    write_json(exp / "greedy_unseen/ac_test/score.json", {"set": "x"})
    with pytest.raises(PamError, match=r"score\.json: no 'count' in it"):
        run(exp)


def test_the_readme_gets_the_tables_and_keeps_the_rest(tmp_path):
    exp = make(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("top\n<!-- results: begin -->\nold\n<!-- results: end -->\nbottom\n")
    write_json(exp / "environment.json", {"command": "./run.sh --seed 3", "commit": "abc"})
    options = ["--exp", str(exp), "--figures", "no"]
    for _ in range(2):  # doing it again changes nothing
        report.main([*options, "--readme", str(readme)])
    text = readme.read_text()
    assert text.startswith(
        "top\n<!-- results: begin -->\n**tiny**, by `./run.sh --seed 3` at commit abc:"
    )
    assert text.endswith("\n<!-- results: end -->\nbottom\n") and "old" not in text
    assert text.count("12.50 (5 / 40, 95 % CI 3.2–20.8)") == 1 and "1.2500" in text
    readme.write_text("no markers")
    with pytest.raises(PamError, match="README.md: the results need the lines"):
        report.main([*options, "--readme", str(readme)])
    assert readme.read_text() == "no markers"


def test_options_of_decoding_are_reported(tmp_path):
    """Batch size, type and mode among them; of sets decoded otherwise, and before these were
    recorded, it is said which."""
    exp = make(tmp_path)
    assert "Options of decoding: not recorded." in run(exp)
    made = {"prompts": "unseen", "exact": True, "batch_size": 32, "dtype": "bfloat16"}
    inputs = {"model": "m0", "data": "d0", "prompts": "p0"}
    for score in (WER, METEOR):
        Making(exp / "greedy_unseen" / score["set"], "decode", made, inputs).finish()
    line = 'prompts "unseen", exact true, batch_size 32, dtype "bfloat16".'
    assert f"Options of decoding: {line}" in run(exp).replace("\\_", "_")
    other = made | {"exact": False, "batch_size": 8}
    Making(exp / "greedy_unseen" / METEOR["set"], "decode", other, inputs).finish()
    text = run(exp).replace("\\_", "_")
    assert f"Options of decoding {WER['set']}: {line}" in text
    changed = line.replace("exact true, batch_size 32", "exact false, batch_size 8")
    assert f"Options of decoding {METEOR['set']}: {changed}" in text


def test_reports_of_one_experiment_take_turns(tmp_path, monkeypatch):
    """They write the same files."""
    exp, fork, work = make(tmp_path), multiprocessing.get_context("fork"), report.work
    begun = fork.Event()
    monkeypatch.setattr(report, "work", lambda args: begun.set() or work(args))
    second = fork.Process(target=run, args=[exp])
    with locked_by_another(exp, "report", lambda folder, _: in_turn(folder)):
        second.start()
        assert not begun.wait(1)
    second.join(60)
    assert second.exitcode == 0 and begun.is_set() and (exp / "results.json").exists()
