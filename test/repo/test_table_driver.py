"""`./run.sh --table`: what it runs in which order, that it resumes, what it only says."""

import json

import pytest

from pam.config.made import read_record

SETS = ("asr_clean_test", "asr_noisy_test", "snv_test_real", "ac_test")
METRICS = ("wer", "accuracy", "meteor")
HALF = {"numerators": [0, 1], "denominators": None, "scale": 100}
SINGLE = ["single_whisper", "single_wavlm", "single_wav2vec2"]
ALL = [*SINGLE, "wavllm", "salmonn", "average", "pam"]
TABLE_1 = [f"{system}_mini_short_s0" for system in ALL]
PAIRS = [("whisper", "wavlm"), ("whisper", "wav2vec2"), ("wavlm", "wav2vec2")]
EACH = ["train", "average", "score", "report", "table"]


def stored(recipes) -> list[str]:
    files = recipes.root.glob("egs/multitask/exp/results/mini/*.json")
    return sorted(file.stem for file in files)


def verbs(recipes) -> list[str]:
    """Of the calls, those that are neither data, dump nor one of several jobs."""
    once = ("decode", "dump", "combine", "prepare", "fetch_models", "fetch_wordnet")
    return [call for call in recipes.calls() if call.split()[0] not in once]


def test_a_table_runs_what_it_lacks_and_nothing_twice(recipes):
    status, output = recipes.run("multitask", "--table", "14")
    assert status == 0, output
    calls = recipes.calls()
    assert calls.index("combine train") < calls.index("train")
    assert [c for c in calls if c in EACH] == ["table", *EACH]
    assert stored(recipes) == ["pam_mini_short_s0"]
    text = (recipes.root / "egs/multitask/exp/results/mini/table14.md").read_text()
    assert "| pam_mini_short_s0 |" in text

    status, output = recipes.run("multitask", "--table", "14")
    assert status == 0, output
    assert recipes.calls() == ["table", "table"]  # the plan, and the table

    status, output = recipes.run("multitask", "--table", "14", "--seeds", "0 1")
    assert status == 0, output
    assert verbs(recipes) == ["table", *EACH]
    assert stored(recipes) == ["pam_mini_short_s0", "pam_mini_short_s1"]


def test_variants_keep_their_options_and_those_of_the_command(recipes):
    recipes.finished("multitask", without="exp")
    argv = ["--table", "13", "--train_args", "--set batch.max_utts=4"]
    for name in (*SINGLE, "pam"):
        put(recipes, f"{name}_mini_short_s0", name)
    put(
        recipes,
        "single_whisper-hubert_mini_short_s0",
        "single_whisper",
        options=["use_encoders=[hubert]"],
    )
    pairs = ["whisper-hubert", "wavlm-hubert", "wav2vec2-hubert"]
    triples = ["whisper-wavlm-wav2vec2", *(f"{a}-{b}-hubert" for a, b in PAIRS)]
    for names in (*pairs, *triples):
        chosen = f"use_encoders=[{names.replace('-', ',')}]"
        put(recipes, f"pam-{names}_mini_short_s0", "pam", options=[chosen])
    (recipes.root / "egs/multitask/use_encoders=w").touch()  # no option is a pattern of files
    status, output = recipes.run("multitask", *argv)
    assert status == 0, output
    pair = "pam-whisper-wavlm_mini_short_s0"
    made = read_record(recipes.root / f"egs/multitask/exp/{pair}", "train")
    assert made["notes"]["set"] == ["batch.max_utts=4", "use_encoders=[whisper,wavlm]"]
    assert made["settings"]["batch.max_utts"] == 4
    found = json.loads((recipes.root / f"egs/multitask/exp/results/mini/{pair}.json").read_text())
    assert found["options"] == ["batch.max_utts=4", "use_encoders=[whisper,wavlm]"]
    assert verbs(recipes) == ["table", *EACH * 3]


def put(recipes, name: str, system: str, folder: str = "exp/results", options=()) -> None:
    """A result that is there already."""
    path = recipes.root / f"egs/multitask/{folder}/mini/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"system": system, "scale": "mini", "budget": "short", "seed": 0}
    made["options"] = list(options)
    sets = {name: {"ids": "same", "metrics": dict.fromkeys(METRICS, HALF)} for name in SETS}
    path.write_text(json.dumps(made | {"sets": sets}))


def test_committed_results_are_read_and_never_written(recipes):
    recipes.finished("multitask", without="exp")
    put(recipes, "pam_mini_short_s0", "pam", "RESULTS")
    committed = recipes.root / "egs/multitask/RESULTS"
    before = (committed / "mini/pam_mini_short_s0.json").read_bytes()
    status, output = recipes.run("multitask", "--table", "14")
    assert status == 0, output
    assert recipes.calls() == ["table", "table"]
    text = (recipes.root / "egs/multitask/exp/results/mini/table14.md").read_text()
    assert "| RESULTS/mini |" in text
    status, output = recipes.run("multitask")  # the main job has a result of its own
    assert status == 0, output
    assert stored(recipes) == ["pam_mini_short_s0"]
    files = [path for path in committed.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [before]


def test_published_results_can_be_left_out(recipes):
    """Then the command of a published table trains its systems; else, if they count, it says so."""
    recipes.finished("multitask", without="exp")
    put(recipes, "pam_mini_short_s0", "pam", "RESULTS")
    argv = ["multitask", "--table", "14", "--published", "false"]
    status, output = recipes.run(*argv, "--dry_run", "true", "--train_args", "--set accum_grad=2")
    assert status == 0 and "missing: pam_mini_short_s0" in output and "counted" not in output
    recipes.calls()
    status, output = recipes.run(*argv)
    assert status == 0, output
    assert verbs(recipes) == ["table", *EACH] and stored(recipes) == ["pam_mini_short_s0"]
    argv = [*argv[:3], "--seeds", "1", "--dry_run", "true"]
    status, output = recipes.run(*argv, "--train_args", "--set dev_utts=4")
    assert "counted: pam_mini_short_s0, trained with no further --set; the missing ones" in output
    assert status == 0 and "would be trained with --set dev_utts=4: " in output


def test_a_failed_system_stops_no_other_and_resumes_where_it_was(recipes):
    recipes.finished("multitask", without="exp")
    for name in ALL[:5]:
        put(recipes, f"{name}_mini_short_s0", name)
    status, output = recipes.run("multitask", "--table", "1", FAIL="score")
    assert status != 0 and "(score) of" in output and "the same command resumes" in output
    both = "average_mini_short_s0 pam_mini_short_s0"
    assert f"--table 1: failed (see above): {both}: the same command tries again" in output
    assert verbs(recipes) == ["table", *["train", "average", "score"] * 2]
    status, output = recipes.run("multitask", "--table", "1")
    assert status == 0, output
    assert verbs(recipes) == ["table", *["score", "report", "table"] * 2]
    assert stored(recipes) == sorted(TABLE_1)


@pytest.mark.parametrize("status", [138, 143])
def test_a_training_that_a_signal_stopped_stops_the_table(recipes, status):
    recipes.finished("multitask", without="exp")
    found, output = recipes.run("multitask", "--table", "1", FAIL="train", STATUS=str(status))
    assert found == status and "was stopped by a signal; the same command resumes" in output
    assert verbs(recipes) == ["table", "train"]


def test_systems_at_the_same_time_make_the_same_table(recipes):
    recipes.finished("multitask", without="exp")
    for name in ALL[:4]:
        put(recipes, f"{name}_mini_short_s0", name)
    argv = ["multitask", "--table", "1", "--at_once", "2"]
    status, output = recipes.run(*argv, FAIL="score")
    assert status != 0 and "the same command tries again" in output
    assert stored(recipes) == sorted(TABLE_1[:4])
    recipes.calls()
    status, output = recipes.run(*argv)
    assert status == 0, output
    again = verbs(recipes)
    assert [again.count(verb) for verb in ("train", "score", "report")] == [0, 3, 3]
    assert stored(recipes) == sorted(TABLE_1)
    text = (recipes.root / "egs/multitask/exp/results/mini/table01.md").read_text()
    assert text.count("_mini_short_s0 |") == len(TABLE_1)


def test_systems_at_the_same_time_have_gpus_of_their_own(recipes):
    recipes.finished("multitask", without="exp")
    for name in ALL[:5]:
        put(recipes, f"{name}_mini_short_s0", name)
    argv = ["multitask", "--table", "1", "--at_once", "2", "--ngpu", "2"]
    note = {"NOTE": "CUDA_VISIBLE_DEVICES"}
    status, output = recipes.run(*argv, **note, GPUS="3")
    assert status != 0 and "--ngpu 2: 4 GPUs are needed, and 3 can be seen" in output
    assert verbs(recipes) == ["table", "table="]
    status, output = recipes.run(*argv, **note, GPUS="4", CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert status == 0, output
    seen = [c for c in recipes.calls() if c.startswith("train=")]
    assert sorted(seen) == ["train=4,5", "train=6,7"]


def test_a_system_is_the_same_whichever_table_asks(recipes):
    """Trained for one table, it is there for another, for other seeds and for the plain recipe."""
    status, output = recipes.run("multitask", "--table", "15", FAIL="score")
    assert status != 0 and verbs(recipes) == ["table", "train", "average", "score"]
    status, output = recipes.run("multitask", "--table", "14", "--seeds", "0")
    assert status == 0, output
    assert verbs(recipes) == ["table", "score", "report", "table"]
    status, output = recipes.run("multitask")
    assert status == 0, output
    assert verbs(recipes) == []
    assert len(list((recipes.root / "egs/multitask/dump/combined").iterdir())) == 1


def test_a_dry_run_only_speaks(recipes):
    put(recipes, "pam_mini_short_s0", "pam")
    status, output = recipes.run("multitask", "--table", "1", "--dry_run", "true")
    assert status == 0, output
    missing = [line.split(",")[0] for line in output.splitlines() if line.startswith("missing: ")]
    assert missing == [f"missing: {name}" for name in TABLE_1[:-1]]
    assert recipes.calls() == ["table"] and stored(recipes) == ["pam_mini_short_s0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--table", "99"], "--table '99': "),
        (["--table", "1", "--results", ""], "--results is empty"),
        (["--table", "1", "--at_once", "0"], "--at_once 0: expected the number of systems"),
        (["--table", "1", "--dry_run", "yes"], "--dry_run yes: choose from true false"),
        (["--table", "1", "--scale", "mimi"], "--scale mimi: choose from"),
        (["--table", "1", "--seeds", "0 --out x"], "--seeds 0 --out x: expected whole numbers"),
        (["--table", "1", "--seeds", "*"], "--seeds *: expected whole numbers"),
        (["--table", "", "--seeds", "0 1"], "--seeds 0 1: name a --table, or leave this out"),
        (["--dry_run", "true"], "--dry_run true: name a --table, or leave this out"),
        (["--published", "false"], "--published false: name a --table, or leave this out"),
        (
            ["--table", "early_exit", "--published", "false"],
            "--published and --dry_run are of other",
        ),
        (["--at_once", "2"], "--at_once 2: name a --table, or leave this out"),
        (["--table", "early_exit", "--dry_run", "touch x"], "--dry_run touch x: choose from"),
        (["--table", "early_exit", "--dry_run", "true"], "are of other tables: leave them out"),
        (["--table", "early_exit", "--seeds", "0 1"], "are of other tables: leave them out"),
        (["--table", "1", "--prompts", "seen"], "--prompts seen: tables use decoding with unseen"),
        (["--table", "1", "--inference_tag", "x"], "--inference_tag x: tables use decoding with"),
        (["--table", "1", "--stage", "4"], "--table 1: --stage 4: a table runs the stages that it"),
        (["--table", "1", "--stop_stage", "3"], "--stop_stage 3: a table runs the stages that it"),
        (["--table", "early_exit", "--stage", "4"], "--table early_exit: --stage 4: a table runs"),
        (["--table", "1", "--system", "average"], "--system average: a table trains each of its"),
        (["--table", "1", "--expname", "x"], "--expname x: a table trains each of its systems und"),
        (
            ["--table", "1", "--analyse", "true"],
            "--analyse true: a table analyses the models whose",
        ),
        (["--table", "1", "--llm", "qwen2.5-3b"], "--llm qwen2.5-3b: no name of a result says it"),
        (["--table", "1", "--skip_stages", "1 7"], "--skip_stages 1 7: a system without stages 4"),
        (
            ["--table", "1", "--seeds", "0 1", "--seed", "2"],
            "--seed 2: --seeds 0 1 names the seeds",
        ),
    ],
)
def test_wrong_options_run_nothing(recipes, options, message):
    status, output = recipes.run("multitask", *options)
    assert status != 0 and message in output
    assert [call for call in recipes.calls() if call != "table"] == []
    assert not (recipes.root / "egs/multitask/x").exists()


def test_a_result_that_was_lost_is_written_again(recipes):
    recipes.finished("multitask")
    (recipes.root / "egs/multitask/exp/results/mini/pam_mini_short_s0.json").unlink()
    status, output = recipes.run("multitask")
    assert status == 0, output
    assert [c for c in recipes.calls() if c != "fetch_wordnet"] == ["report"]
    assert stored(recipes) == ["pam_mini_short_s0"]


def test_a_result_of_fewer_sets_is_completed(recipes):
    """It was decoded on one set; nothing is trained again."""
    recipes.finished("multitask", without="exp")
    for system in ALL[:-1]:
        put(recipes, f"{system}_mini_short_s0", system)
    status, output = recipes.run("multitask", "--test_sets", "ac_test")
    assert status == 0, output
    recipes.calls()
    status, output = recipes.run("multitask", "--table", "1")
    assert status == 0, output
    assert verbs(recipes) == ["table", "score", "report", "table"]
    kept = recipes.root / "egs/multitask/exp/results/mini/pam_mini_short_s0.json"
    assert set(json.loads(kept.read_text())["sets"]) > {"ac_test", "asr_clean_test"}


def test_a_metric_that_lacks_something_stops_no_table(recipes):
    recipes.finished("multitask", without="exp")
    for system in ALL[:-1]:
        put(recipes, f"{system}_mini_short_s0", system)
    argv = ["--table", "1", "--metrics", "spice"]
    status, output = recipes.run("multitask", *argv)
    assert status == 0, output
    assert [c for c in recipes.calls() if c in EACH] == ["table", *EACH]
    status, output = recipes.run("multitask", "--metrics", "spice")
    assert status == 1 and "error: some of --metrics spice are not measured" in output
    # All else was done, and the same command tries again.
    assert [c for c in recipes.calls() if c in EACH] == ["score", "report"]
    status, output = recipes.run("multitask")
    assert status == 0, output


def test_table_12_analyses_the_model_once(recipes):
    recipes.finished("multitask")
    status, output = recipes.run("multitask", "--table", "12")
    assert status == 0, output
    assert verbs(recipes) == ["table", "analyse", "report", "table"]
    assert "| one" in (recipes.root / "egs/multitask/exp/results/mini/table12.md").read_text()
    status, output = recipes.run("multitask", "--table", "12")
    assert status == 0, output
    assert verbs(recipes) == ["table", "table"]


PART = ["train", "average", "score", "report"]
GATE = ["extend", "train", "average"]


def test_the_page_of_early_exit_needs_two_systems_with_a_gate_each(recipes):
    """It resumes where it was; the measurements themselves say what is complete."""
    recipes.finished("multitask", without="exp")
    argv = ["multitask", "--table", "early_exit"]
    status, output = recipes.run(*argv, FAIL="extend")
    assert status != 0
    assert verbs(recipes) == [*PART, *PART, "extend"]
    status, output = recipes.run(*argv)
    assert status == 0, output
    assert verbs(recipes) == [*GATE, *GATE, *["exit_analysis"] * 5]
    exp = recipes.root / "egs/multitask/exp"
    made = {path.parent.name: read_record(path.parent, "train") for path in exp.glob("*/made.json")}
    options = {name: record["notes"]["set"] for name, record in made.items()}
    joint = ["model_conf.exits.share=0.5", "model_conf.exits.per_batch=4"]
    gate = ["phases.llm.optim_conf.lr=5e-3", "model_conf.exits.per_batch=8"]
    main = "pam_mini_short_s0"
    assert options == {
        **{main: [], f"{main}-joint": joint, f"{main}-gate": gate, f"{main}-joint-gate": gate}
    }
    assert made[f"{main}-gate"]["settings"]["init"] == f"exp/{main}-no_gate"
    results = exp / "results"
    names = {file.stem for file in (results / "early_exit").iterdir()}
    assert names == {"without_joint", "with_joint", "own_answers", "plain_text"}
    assert (results / "EARLY_EXIT.md").is_file()
    status, output = recipes.run(*argv)
    assert status == 0 and verbs(recipes) == ["exit_analysis"] * 5
