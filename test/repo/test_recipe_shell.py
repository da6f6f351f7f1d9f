"""The shells of the recipes with a fake Python: what they skip, resume, refuse and clean up."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from processes import is_running, wait_for

from pam.config.experiment import compose
from pam.config.made import read_record, stage_seconds
from pam.device import cores

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["data", "dump", "combine", "train", "average", "decode", "score", "report"]
WITHOUT_DUMP = ["combine train", "combine dev", "train", "average"]


def stages_after_dump(recipe_calls: list[str]) -> list[str]:
    return [call for call in recipe_calls if call.split()[0] not in ("dump", "decode")]


@pytest.mark.parametrize("recipe", ["mini", "multitask"])
def test_all_stages_then_nothing_to_do(recipes, recipe, tmp_path):
    status, output = recipes.run(recipe)
    assert status == 0, output
    calls = recipes.calls()
    assert sum(call.startswith("dump ") for call in calls) == 7
    assert sum(call.startswith("decode ") for call in calls) == 4
    assert calls.count("fetch_models") == 5
    assert calls.index("prepare") < calls.index("dump asr_clean_train") < calls.index("train")
    assert calls[-2:] == ["score", "report"]

    exp = recipes.root / "egs" / recipe / "exp" / "pam_mini_short_s0"
    assert list(stage_seconds(exp)) == STAGES
    assert all(f": {stage} took" in output for stage in STAGES)

    # Nothing heavy is started, and nothing is queued.
    for module in ("torch", "numpy", "transformers"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('it takes seconds')\n")
    prefixes = ("dump_prefix", "train_prefix", "decode_prefix")
    (recipes.root / "utils/cmd.sh").write_text("".join(f"{name}=false\n" for name in prefixes))
    status, output = recipes.run(recipe, PYTHONPATH=str(tmp_path))
    assert status == 0, output
    assert recipes.calls() == []
    said = {line.split("complete: ")[1] for line in output.splitlines() if "complete: " in line}
    for name in recipes.env["SETS"].split():
        assert any(text.endswith(f"dump/raw/{name}") for text in said), output
    tests = {path.parent.name for path in exp.glob("greedy_unseen/*/score.json")}
    decoded = {f"exp/{exp.name}/greedy_unseen/{name}" for name in tests}
    [combined] = (exp.parents[1] / "dump/combined").iterdir()
    rest = {
        "data",
        f"dump/combined/{combined.name}",
        f"exp/{exp.name}",
        f"exp/{exp.name}/model.pth",
    }
    assert rest | decoded | {f"{folder}/score.json" for folder in decoded} <= said, output
    assert any(f"exp/{exp.name}/results.json" in text for text in said), output


def test_a_changed_table_of_a_test_set_is_decoded_and_scored_again(recipes):
    """Whatever the time of the file: it may be a copy of an older one. Which tables count is tested
    in decode/test_decode_set.py."""
    recipes.finished("mini")
    exp, raw = recipes.root / "egs/mini/exp/pam_mini_short_s0", recipes.root / "egs/mini/dump/raw"
    [name, *_] = sorted(file.parent.name for file in exp.glob("greedy_unseen/*/score.json"))
    (raw / name / "text").write_text("utt1 snv\n")
    os.utime(raw / name / "text", (1e9, 1e9))
    status, output = recipes.run("mini", "--stage", "6")
    assert status == 0, output
    assert recipes.calls() == [f"decode {name}", "score", "report"]
    status, output = recipes.run("mini", "--stage", "6")
    assert status == 0 and recipes.calls() == [], output


def test_answers_that_are_gone_edited_or_scored_by_other_code(recipes):
    recipes.finished("mini")
    decoded = recipes.root / "egs/mini/exp/pam_mini_short_s0/greedy_unseen"
    [name, *_] = sorted(file.parent.name for file in decoded.glob("*/score.json"))
    (decoded / name / "hyp.jsonl").write_text("edited\n")
    assert recipes.run("mini", "--stage", "6")[0] == 0
    assert recipes.calls() == ["score", "report"]
    (decoded / name / "hyp.jsonl").unlink()
    assert recipes.run("mini", "--stage", "6")[0] == 0
    assert recipes.calls() == [f"decode {name}", "score", "report"]
    shutil.rmtree(recipes.root / "egs/mini/dump/raw" / name)  # to save space
    assert recipes.run("mini", "--stage", "6")[0] == 0
    assert recipes.calls() == []
    (recipes.root / "pam").unlink()  # a link to the real one
    shutil.copytree(Path(__file__).parents[2] / "pam", recipes.root / "pam")
    (recipes.root / "pam/score/wer.py").write_text("changed = True\n")
    assert recipes.run("mini", "--stage", "6")[0] == 0
    assert recipes.calls() == ["score", "report"]


def test_every_gpu_dumps_decodes_and_scores(recipes, monkeypatch):
    """A job for each GPU that decodes a part of every set on the GPU that it sees; one process
    starts those that dump; the router is scored on a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,4")
    status, output = recipes.run("mini", "--ngpu", "2")
    assert status == 0, output
    folder = recipes.root / "egs/mini"
    (decoded,) = folder.glob("exp/*/greedy_unseen")
    for number, gpu in ((1, "6"), (2, "4")):
        command = (decoded / f"log/decode.{number}.log").read_text().splitlines()[0]
        assert command.startswith(f"# CUDA_VISIBLE_DEVICES={gpu} ")
        assert f"--job {number}/2 " in command and "--ngpu 1" in command
    assert not (decoded / "log/decode.3.log").exists()
    assert "--ngpu 2" in (folder / "dump/log/dump.log").read_text()
    assert "--ngpu 2 --nj 1 " in next(folder.glob("exp/*/train.log")).read_text()
    assert "--ngpu 1" in (decoded / "log/score.log").read_text()


def test_no_machine_is_refused(recipes):
    status, output = recipes.run("mini", "--num_nodes", "0")
    assert status == 1 and "error: --num_nodes 0: expected 1 machine or more" in output


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_every_job_decodes_a_part_of_every_set(recipes, jobs):
    recipes.finished("mini", without="greedy_unseen")
    status, output = recipes.run("mini", "--inference_nj", jobs)
    assert status == 0, output
    (decoded,) = (recipes.root / "egs/mini").glob("exp/*/greedy_unseen")
    logs = [file.read_text() for file in decoded.glob("log/decode.*.log")]
    assert len(logs) == int(jobs)
    assert all("CUDA_VISIBLE_DEVICES" not in log and "--ngpu 0" in log for log in logs)


def test_processes_follow_the_cores(recipes):
    """One per core; those that train or decode at most four."""
    number = cores()
    shutil.copy(ROOT / "utils/options.sh", recipes.root / "utils/options.sh")
    status, output = recipes.run("mini")
    assert status == 0, output
    folder = recipes.root / "egs/mini"
    assert f"--nj {number} " in (folder / "dump/log/dump.log").read_text().splitlines()[0]
    assert len(list(folder.glob("exp/*/greedy_unseen/log/decode.*.log"))) == min(number, 4)
    trains = (folder / "exp/pam_mini_short_s0/train.log").read_text().splitlines()[0]
    assert f" --nj {min(number, 4)} " in trains
    for name in ("nj", "train_nj", "inference_nj"):
        status, output = recipes.run("mini", f"--{name}", "0")
        assert status != 0 and f"--{name} 0: expected a number of processes, or nothing" in output


@pytest.mark.parametrize("given, threads", [("", ("1", "1", "")), ("3", ("3", "3", "3"))])
def test_processes_of_many_have_one_thread(recipes, given, threads):
    """Training, which is alone, has as many as there are cores, unless the user says how many."""
    status, output = recipes.run("mini", OMP_NUM_THREADS=given, NOTE="OMP_NUM_THREADS")
    assert status == 0, output
    noted = dict(call.split("=") for call in recipes.calls() if "=" in call)
    assert tuple(noted[verb] for verb in ("dump", "decode", "train")) == threads


def test_launchers_and_prefixes_of_a_cluster(recipes):
    """Each kind of work has its own; machines are options of training and averaging."""
    launcher = recipes.root / "utils/noted.py"
    launcher.write_text(
        "import os, sys\n"
        "if sys.argv[1] == '--queue':\n"
        "    print('noted:', *sys.argv[2:])\n"
        "    here = os.path.join(os.path.dirname(sys.argv[0]), 'run.py')\n"
        "    os.execv(sys.executable, [sys.executable, here, *sys.argv[3:]])\n"
    )
    (recipes.root / "utils/cmd.sh").write_text(
        "".join(f"{kind}_cmd='noted.py --queue {kind}'\n" for kind in ("dump", "train", "decode"))
        + "train_prefix='env A=1'\n"
    )
    options = ("--num_nodes", "2", "--master_addr", "one:99", "--analyse", "true")
    status, output = recipes.run("mini", *options)
    assert status == 0, output
    noted = [x.split("noted: ")[1] for x in output.splitlines() if "noted: " in x]
    kinds = [(line.split()[0], line.split("pam.bin.")[1].split()[0]) for line in noted]
    assert kinds == [
        *(("dump", "dump"), ("train", "train"), ("train", "average")),
        *(("decode", "decode"), ("decode", "score"), ("decode", "analyse")),
    ]
    for line in noted:
        trains = line.startswith("train ")
        assert ("--num_nodes 2 --master_addr one:99" in line) == trains == ("env A=1" in line)


def test_stages_can_be_chosen(recipes):
    recipes.run("mini", "--stop_stage", "2")
    recipes.calls()
    status, output = recipes.run("mini", "--stage=3", "--stop-stage=5", "--skip_stages", "4")
    assert status != 0 and "run stage 4 first" in output
    assert recipes.calls() == WITHOUT_DUMP[:2]
    status, output = recipes.run("mini", "--stage", "4", "--skip_stages", "6 7 8")
    assert status == 0, output
    assert recipes.calls() == WITHOUT_DUMP[2:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sed", "1"], "unknown option --sed; did you mean --seed?"),
        (["--seed"], "--seed: needs a value"),
        (["--seed", "x"], "--seed x: expected a whole number"),
        (["--seed", "07"], "--seed 07: expected a whole number"),
        (["--stage", "9"], "--stage 9: expected a stage, 1 to 8"),
        (["--stage", "0"], "--stage 0: expected a stage, 1 to 8"),
        (["--stage", "3", "--stop_stage", "2"], "--stage 3 --stop_stage 2: the second must not be"),
        (["--skip_stages", "1,2"], "--skip_stages 1,2: expected stages, 1 to 8, with spaces betw"),
        (["--skip_stages", "1 9"], "--skip_stages 1 9: expected stages, 1 to 8, with spaces betw"),
        (["--system", "pm"], "--system pm: choose from"),
        (["--system", "pamm"], "; did you mean pam?"),
        (["--html", "flase"], "--html flase: choose from true false; did you mean false?"),
        (["--feats", "late"], "--feats late: choose from dumped online"),
        (["--budget", "huge"], "--budget huge: choose from tiny half short long"),
        (["--budget", "huge", "--scale", "paper"], "--budget huge: choose from tiny short long"),
        (["--PATH", "/"], "unknown option --PATH"),
        (["--max_seconds", "20s"], "--max_seconds 20s: expected seconds"),
        (["--min_seconds", "."], "--min_seconds .: expected seconds"),
        (["--min_seconds", "-1"], "--min_seconds -1: expected seconds"),
        (["--min_seconds", "9", "--max_seconds", "8.5"], "9 --max_seconds 8.5: the second must"),
        (["4"], "unexpected argument '4'"),
        (["--print", "nothing"], "unknown option --nothing"),
        (["--config", "none.conf"], "--config none.conf: no such file"),
    ],
)
def test_wrong_options_say_what_is_right(recipes, options, message):
    status, output = recipes.run("mini", *options)
    assert status == 1 and message in output
    assert recipes.calls() == []


def test_config_file_sets_options(recipes, tmp_path):
    good, bad = tmp_path / "my good.conf", tmp_path / "bad.conf"
    good.write_text("seed=7   # as in the paper\ntrain_sets='a b'\n")
    bad.write_text("sead=7\n")
    assert recipes.run("mini", "--config", str(good), "--print", "seed") == (0, "7\n")
    assert recipes.run("mini", "--config", str(good), "--print", "train-sets") == (0, "a b\n")
    status, output = recipes.run("mini", "--config", str(bad))
    assert status == 1 and "bad.conf: unknown option --sead; did you mean --seed?" in output


def test_the_command_line_counts_more_than_files_and_adds_arguments(recipes, tmp_path):
    """As in Kaldi and ESPnet, wherever --config stands; of several files, the last counts."""
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text("size=tiny\nbudget=tiny\ntrain_args='--set a=1'\n")
    two.write_text("budget=long\ntrain_args='--set b=2'\n")
    files = ["--config", str(one), f"--config={two}"]
    more = ["--size", "long", "--train-args", "--set a=3", "--train_args=--set c=4"]
    asked = ["--print", "size budget train_args decode_args"]
    for options in (files + more, more + files, [*more[:2], *files, *more[2:]]):
        found = recipes.run("mini", *options, *asked)
        assert found == (0, "long\nlong\n--set a=1 --set b=2 --set a=3 --set c=4\n\n"), options
    assert recipes.run("mini", *files, *asked) == (0, "tiny\nlong\n--set a=1 --set b=2\n\n")
    status, output = recipes.run("mini", "--config")
    assert (status, output) == (1, "error: --config: needs a value\n")
    status, output = recipes.run("mini", "--config", str(tmp_path))
    assert status == 1 and output.endswith(f"{tmp_path}: no such file; it holds NAME=VALUE lines\n")


def test_of_two_assignments_to_a_key_the_later_counts():
    """So that an option of the command line changes one of a file."""
    own = {"encoders": {}, "batch": {"max_utts": 1}}
    assert compose(own, {}, ["batch.max_utts=4", "batch.max_utts=2"]).batch.max_utts == 2


def test_an_option_may_have_any_value(recipes):
    text = "--set a.b='$(touch x)' \"q\""
    assert recipes.run("mini", f"--train_args={text}", "--print", "train_args") == (0, text + "\n")


def test_a_failing_stage_stops_the_run_and_says_why(recipes):
    """Each run starts where the last one stopped."""
    for verb in ("prepare", "dump", "combine", "train", "average", "score"):
        status, output = recipes.run("mini", FAIL=verb)
        assert status not in (0, None), verb
        assert "failed with status 3" in output and "the reason is written here" in output, verb
        stage = {"prepare": "data"}.get(verb, verb)
        assert f"({stage}) of" in output and "failed; the same command resumes" in output, verb
        assert recipes.calls()[-1].startswith(verb)

    status, output = recipes.run("mini")
    assert status == 0, output
    assert recipes.calls()[-2:] == ["score", "report"]


def test_the_failing_one_of_several_jobs_is_shown(recipes):
    recipes.finished("mini", without="greedy_unseen")
    status, output = recipes.run("mini", "--inference_nj", "3", FAIL="decode 2/3")
    assert status == 3 and "  | the reason is written here" in output
    assert re.findall(r"log/decode\.(.+)\.log", output) == ["2"]


def test_a_joined_recipe_fails_with_its_corpus(recipes):
    status, output = recipes.run("multitask", FAIL="dump")
    assert status != 0 and "the reason is written here" in output
    assert "train" not in recipes.calls()


def test_a_scale_with_budgets_of_its_own_reaches_the_corpora(recipes):
    """Their own default, `short`, is none of its names."""
    scale = recipes.root / "conf/scale/mini.yaml"
    text = scale.read_text()
    assert "\n  short: " in text
    scale.with_name("own.yaml").write_text(text.replace("\n  short: ", "\n  quick: "))
    argv = ["multitask", "--scale", "own", "--stop_stage", "2"]
    status, output = recipes.run(*argv, "--budget", "quick")
    assert status == 0 and "dump ac_test" in recipes.calls(), output
    status, output = recipes.run(*argv)
    assert status == 1 and "--budget short: choose from tiny half quick long" in output


def test_a_joined_recipe_asks_its_corpora_for_its_own_sets_only(recipes):
    """Whoever lacks a set leaves it out: no corpus then has to prepare it."""
    options = ["--test_sets", "ac_test", "--dev_sets", "ac_dev", "--stop_stage", "3"]
    status, output = recipes.run(
        "multitask", *options, SETS="asr_clean_train ac_train ac_dev ac_test"
    )
    assert status == 0, output
    dumped = {call for call in recipes.calls() if call.startswith("dump")}
    assert dumped == {
        f"dump {name}" for name in ("asr_clean_train", "ac_train", "ac_dev", "ac_test")
    }


def test_a_corpus_of_which_nothing_is_asked_is_left_alone(recipes):
    run = recipes.root / "egs/other/run.sh"
    shutil.copytree(recipes.root / "egs/mini", run.parent)
    run.write_text(run.read_text().replace("asr_clean_", "other_").replace("ac_", "more_"))
    sets = [f"--{part}_sets=ac_{part}" for part in ("train", "dev", "test")]
    status, output = recipes.run("multitask", "--corpora", "mini other", *sets, "--stop_stage=3")
    assert status == 0, output
    assert not (run.parent / "data").exists()
    status, output = recipes.run("mini", "--dev_sets", "", "--stop_stage", "3")
    assert status == 1 and "--dev_sets is empty: name at least one set" in output


def test_a_joined_recipe_takes_sets_that_no_list_of_a_corpus_has(recipes):
    """Some that the corpus can prepare, one that was imported, and one that is dumped already."""
    run = recipes.root / "egs/mini/run.sh"
    text = run.read_text().replace("test_sets=", "more_sets='asr_clean_more'\ntest_sets=", 1)
    run.write_text(text)
    for folder in ("mini/data/ac_imported", "multitask/dump/raw/ac_dumped"):
        (recipes.root / "egs" / folder).mkdir(parents=True)
        (recipes.root / "egs" / folder / "wav.scp").touch()
        (recipes.root / "egs" / folder / "utt2task").write_text("utt1 ac\n")
    train = "ac_train asr_clean_more ac_imported ac_dumped"
    argv = ["--train_sets", train, "--dev_sets", "ac_test", "--test_sets", "ac_dev"]
    options = [*argv, "--max_seconds", "9", "--feats", "online", "--stop_stage", "3"]
    sets = recipes.env["SETS"] + " asr_clean_more"
    status, output = recipes.run("multitask", *options, SETS=sets)
    assert status == 0, output
    calls = [call.removeprefix("dump ") for call in recipes.calls() if call.startswith("dump ")]
    assert set(calls) == {"ac_train", "asr_clean_more", "ac_imported", "ac_test", "ac_dev"}
    raw = recipes.root / "egs/multitask/dump/raw"
    drops = {name: json.loads((raw / name / "limits.json").read_text())[1] for name in calls}
    assert [name for name, limited in drops.items() if not limited] == ["ac_dev"]  # what is tested


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--train_sets", "ac_train ac_trian"],
            "--train_sets ac_trian: no recipe of --corpora mini lists this set in its run.sh "
            "(train_sets, dev_sets, test_sets, more_sets) or has it in its data; did you mean "
            "ac_train?",
        ),
        (["--test_sets", "ac_test ac_test"], "--test_sets ac_test: two corpora have sets of the"),
        (["--more_sets", "x"], "--more_sets x: this recipe joins sets of its corpora: write it"),
        (
            ["--corpora", "mini other", "--test_sets", "snv_test_real"],
            "snv_test_real: mini and other have a set of this name: rename it in one of them",
        ),
    ],
)
def test_sets_that_no_corpus_has_or_two_have_run_nothing(recipes, options, message):
    run = recipes.root / "egs/other/run.sh"
    shutil.copytree(recipes.root / "egs/mini", run.parent)
    run.write_text(run.read_text().replace("asr_clean_", "other_").replace("ac_", "more_"))
    for stage in ("1", "3"):
        status, output = recipes.run("multitask", *options, "--stage", stage)
        assert status == 1 and f"error: {message}" in output, output
    assert recipes.calls() == []


def test_the_corpora_list_all_sets_that_they_can_make():
    """What LibriSpeech publishes, for example, is in its lists or among its further sets."""
    names = ["train_sets", "dev_sets", "test_sets", "more_sets"]
    run = [ROOT / "egs/librispeech/run.sh", "--print", " ".join(names)]
    listed = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    prepare = (ROOT / "egs/librispeech/local/prepare.py").read_text()
    parts = re.findall(r'^    "([a-z]+-[a-z0-9-]+)": \d+,$', prepare, re.MULTILINE)
    assert len(parts) == 7
    assert sorted(listed) == sorted(f"librispeech_{part.replace('-', '_')}" for part in parts)


def test_utterances_in_training_and_test_are_told(recipes):
    recipes.finished("mini")
    dump = recipes.root / "egs/mini/dump"
    (train,) = dump.glob("combined/*/train")
    (train / "text").write_text("a-1 x\na-2 y\n")
    (dump / "raw/ac_test/text").write_text("a-2 y\na-3 z\n")
    (dump / "raw/ac_dev/text").write_text("a-4 y\n")
    status, output = recipes.run("mini", "--stage", "3", "--stop_stage", "3")
    assert (
        status == 0 and "warning: 1 utterances of the training set are in other sets too" in output
    )
    assert "the first is a-2 of dump/raw/ac_test/text" in output
    (dump / "raw/ac_test/text").write_text("a-3 z\n")
    assert "warning" not in recipes.run("mini", "--stage", "3", "--stop_stage", "3")[1]


def test_finished_sets_are_not_dumped_again(recipes):
    recipes.finished("mini")
    (recipes.root / "egs/mini/dump/moonshine_base/ac_dev/feats.scp").unlink()
    (recipes.root / "egs/mini/dump/raw/ac_test/wav.scp").unlink()
    assert recipes.run("mini", "--stop_stage", "2")[0] == 0
    assert recipes.calls() == ["dump ac_dev", "dump ac_test"]


def test_other_options_are_another_experiment(recipes):
    recipes.finished("mini")
    status, output = recipes.run("mini", "--seed", "1", "--budget", "long")
    assert status == 0, output
    assert stages_after_dump(recipes.calls()) == ["train", "average", "score", "report"]
    assert (recipes.root / "egs/mini/exp/pam_mini_long_s1/results.json").exists()


def test_another_llm_is_another_experiment(recipes):
    status, output = recipes.run("multitask", "--llm", "smollm2-135m-chat")
    assert status == 0, output
    assert recipes.calls().count("fetch_models") == 5  # its model, and the encoders
    exp = recipes.root / "egs/multitask/exp/pam_mini_smollm2-135m-chat_short_s0"
    assert (
        str(recipes.root / "conf/llm/smollm2-135m-chat.yaml") in (exp / "config.yaml").read_text()
    )
    assert read_record(exp, "train")["settings"]["llm"] == "smollm2-135m-chat"
    status, output = recipes.run("mini", "--llm", "qwen2.5-3b", "--stop_stage", "1")
    assert status == 0, output
    assert (
        recipes.calls().count("fetch_models") == 0
    )  # the encoders are there, the LLM is the hub's
    status, output = recipes.run("mini", "--llm", "qwen")
    assert status == 1 and "--llm qwen: choose from" in output


def test_the_page_can_be_left_out_and_made_later(recipes):
    recipes.finished("mini", without="exp")
    page = recipes.root / "egs/mini/exp/pam_mini_short_s0/report.html"
    assert recipes.run("mini", "--html", "false")[0] == 0
    assert not page.exists()
    recipes.calls()
    assert recipes.run("mini", "--stage", "8")[0] == 0
    assert recipes.calls() == ["report"] and page.exists()
    assert recipes.run("mini", "--html", "maybe")[0] != 0


def test_other_metrics_are_scored_again(recipes):
    recipes.finished("mini")
    status, output = recipes.run("mini", "--metrics", "meteor,cider")
    assert status == 0, output
    assert recipes.calls() == ["score", "report"]
    assert recipes.run("mini", "--metrics", "meteor,cider")[0] == 0
    assert recipes.calls() == []
    status, output = recipes.run("mini", "--metrics", "meteor,cidre")
    assert status == 1 and "--metrics cidre: choose from meteor meteor_1.5 cider" in output


def test_a_metric_may_need_a_model(recipes):
    model = Path(recipes.env["PAM_CACHE"]) / "models/all-minilm-l6-v2/config.json"
    assert recipes.run("multitask", "--stop_stage", "1")[0] == 0
    assert not model.exists()
    assert recipes.run("multitask", "--stop_stage", "1", "--metrics", "sbert")[0] == 0
    assert model.exists()


def test_wordnet_is_fetched_where_a_metric_of_the_sets_needs_it(recipes):
    """In the recipes that new_recipe.sh makes too, and once."""
    for name, needs in zip(reversed(two_new_recipes(recipes)), (False, True), strict=True):
        sets = " ".join(f"{name}_{part}" for part in ("train", "dev", "test"))
        env = {"SETS": sets, name.upper(): str(recipes.root / "corpora" / name)}
        status, output = recipes.run(name, "--stop_stage", "1", **env)
        calls = [call for call in recipes.calls() if call != "fetch_models"]
        assert status == 0 and calls == ["prepare", *["fetch_wordnet"] * needs], output
    (Path(recipes.env["PAM_CACHE"]) / "nltk_data/corpora/wordnet/verb.exc").unlink()
    for calls in (["fetch_wordnet"], []):  # the data are complete; that a machine has it is not
        status, output = recipes.run(name, "--stop_stage", "1", **env)
        assert status == 0 and recipes.calls() == calls, output


def test_edited_configuration_is_refused_not_reused(recipes):
    recipes.finished("mini")
    system = recipes.root / "conf/systems/pam.yaml"
    system.write_text(system.read_text() + "# a comment changes nothing\n")
    assert recipes.run("mini")[0] == 0
    system.write_text(system.read_text() + "fusion_conf: {num_fused: 3}\n")
    status, output = recipes.run("mini")
    assert status == 1
    assert "now asked for:    fusion_conf.num_fused: 3" in output and "--expname" in output
    assert "train" not in recipes.calls()
    assert recipes.run("mini", "--expname", "pam_edited")[0] == 0


def test_other_data_is_refused(recipes):
    recipes.finished("mini")
    status, output = recipes.run("mini", "--size", "tiny")
    assert status == 1 and "now asked for:    size: tiny" in output and "--datadir" in output
    status, output = recipes.run("mini", "--size", "tiny", "--datadir", "other", "--stop_stage=2")
    assert status == 1 and "--dumpdir" in output


def read_from(recipes, *variables: str) -> None:
    """Make `mini` a recipe that reads these folders."""
    lines = [f"{variable}=${{{variable}:-}}\n" for variable in variables]
    (recipes.root / "egs/mini/db.sh").write_text("".join(lines))


@pytest.mark.parametrize("recipe", ["mini", "multitask"])
def test_another_folder_of_the_corpus_is_refused_by_every_stage(recipes, recipe):
    """Stage 1 compares with the data; the others with the dump, before the first of them begins."""
    read_from(recipes, "CORPUS")
    assert recipes.run(recipe, CORPUS="/corpora/a")[0] == 0
    recipes.calls()
    for same in ({}, {"CORPUS": "/corpora/a/"}, {"CORPUS": "/corpora//x/../a"}):
        status, output = recipes.run(recipe, **same)
        assert status == 0 and set(recipes.calls()) <= {"fetch_wordnet"}, output
    for other, stage in product(("/corpora/b", "/nonexistent", "b"), "128"):
        status, output = recipes.run(recipe, "--stage", stage, "--stop_stage", stage, CORPUS=other)
        assert status == 1 and "was made with other settings" in output, (other, stage, output)
        assert "it was made with: CORPUS: /corpora/a\n" in output
        assert f"now asked for:    CORPUS: {(recipes.root / 'egs/mini' / other)}\n" in output
    assert recipes.calls() == []


def two_new_recipes(recipes) -> tuple[str, str]:
    """Copies of the template, whose test sets the stand-in knows to be of `ac` and `snv`."""
    shutil.copytree(ROOT / "egs/TEMPLATE", recipes.root / "egs/TEMPLATE")
    names = ("ac_one", "snv_two")
    for name in names:
        subprocess.run([recipes.root / "utils/new_recipe.sh", name], check=True)
        (recipes.root / "corpora" / name).mkdir(parents=True)
    return names


@pytest.mark.parametrize("where", ["db.sh", "environment"])
def test_two_new_corpora_are_joined_twice_each_with_its_folder(recipes, where):
    """As after their db.sh, or the environment, has named the folders."""
    names = two_new_recipes(recipes)
    folders = {name.upper(): str(recipes.root / "corpora" / name) for name in names}
    if where == "db.sh":
        for name in names:
            db = recipes.root / "egs" / name / "db.sh"
            db.write_text(db.read_text().replace(":-}", f":-{folders.pop(name.upper())}}}"))
    sets = {name: [f"{name}_{part}" for part in ("train", "dev", "test")] for name in names}
    every = " ".join(name for found in sets.values() for name in found)
    argv = ["multitask", "--corpora", " ".join(names), "--stop_stage", "4"]
    status, output = recipes.run(*argv, SETS=every, **folders)
    assert status == 0 and "train" in recipes.calls(), output
    status, output = recipes.run(*argv, SETS=every, **folders)
    assert status == 0 and recipes.calls() == [], output
    for name, found in sets.items():
        logs = (recipes.root / "egs" / name / "data/log/prepare.log").read_text()
        assert f"--corpus {str(recipes.root / 'corpora' / name)!r}" in logs
        for each in found:
            record = read_record(recipes.root / "egs/multitask/dump/raw" / each, "dump")
            assert record["settings"][name.upper()].endswith(f"corpora/{name}")
    other = {"SNV_TWO": str(recipes.root)}
    status, output = recipes.run(*argv, SETS=every, **folders | other)
    assert status == 1 and f"now asked for:    SNV_TWO: {recipes.root}\n" in output


def test_a_variable_that_two_corpora_read_fills_neither(recipes):
    """Recipes that were copied by hand: the environment would be the folder of both."""
    one, two = two_new_recipes(recipes)
    for name in (one, two):
        for file in ("db.sh", "run.sh"):
            path = recipes.root / "egs" / name / file
            path.write_text(path.read_text().replace(name.upper(), "CORPUS"))
    argv = ["multitask", "--corpora", f"{one} {two}"]
    status, output = recipes.run(*argv, CORPUS=str(recipes.root))
    assert status == 1 and recipes.calls() == []
    assert (
        f"error: CORPUS={recipes.root} would be the folder of ac_one and snv_two: rename CORPUS in "
        "one of egs/ac_one/db.sh and egs/snv_two/db.sh (and in its run.sh), or unset it" in output
    )
    for name in (one, two):  # the same variable, but each db.sh has its own folder
        db = recipes.root / "egs" / name / "db.sh"
        db.write_text(db.read_text().replace("{CORPUS:-}", f"{{CORPUS:-../../corpora/{name}}}"))
    every = " ".join(f"{name}_{part}" for name in (one, two) for part in ("train", "dev", "test"))
    for _ in range(2):
        status, output = recipes.run(*argv, "--stop_stage", "3", SETS=every)
        assert status == 0, output


def test_a_folder_binds_the_states_and_the_experiment_too(recipes):
    read_from(recipes, "CORPUS")
    assert recipes.run("mini", CORPUS="/a")[0] == 0
    for elsewhere, remedy in (
        (["--datadir", "other"], "--dumpdir"),
        (["--datadir", "other", "--dumpdir", "elsewhere"], "--expname"),
    ):
        status, output = recipes.run("mini", *elsewhere, CORPUS="/b")
        assert status == 1 and "now asked for:    CORPUS: /b" in output and remedy in output
    status, output = recipes.run("mini", *elsewhere, "--expname", "b", CORPUS="/b")
    assert status == 0, output


@pytest.mark.parametrize("recipe", ["mini", "multitask"])
def test_a_folder_that_is_not_named_again_is_the_recorded_one(recipes, recipe):
    read_from(recipes, "CORPUS")
    assert recipes.run(recipe, "--stop_stage", "1", CORPUS="/a")[0] == 0
    assert recipes.run(recipe, "--stop_stage", "4")[0] == 0
    for name, stage in (("dump/raw/ac_dev", "dump"), ("exp/pam_mini_short_s0", "train")):
        record = read_record(recipes.root / "egs" / recipe / name, stage)
        assert record["settings"]["CORPUS"] == "/a"
    for stage in "234":
        status, output = recipes.run(recipe, "--stage", stage, "--stop_stage", stage, CORPUS="/b")
        assert status == 1 and "now asked for:    CORPUS: /b" in output, output


def test_corpora_without_a_folder_are_named_before_any_is_prepared(recipes):
    read_from(recipes, "VOICES", "BENCH")
    status, output = recipes.run("multitask")
    assert status == 1 and recipes.calls() == []
    assert "error: no folder of mini: name it in db.sh of egs/mini, or leave the corpus" in output
    assert recipes.run("multitask", "--stop_stage", "1", BENCH="/bench")[0] == 0
    assert recipes.run("multitask", "--stop_stage", "1")[0] == 0  # it is prepared


def test_data_of_one_folder_are_not_dumped_as_those_of_another(recipes):
    read_from(recipes, "CORPUS")
    assert recipes.run("mini", "--stop_stage", "1", CORPUS="/a")[0] == 0
    status, output = recipes.run("mini", "--stage", "2", CORPUS="/b")
    assert status == 1 and "data was made with other settings" in output


def test_a_folder_for_further_sets_may_be_named_later(recipes):
    read_from(recipes, "VOICES", "BENCH")
    some = ["--test_sets", "ac_test"]
    assert recipes.run("mini", *some, VOICES="/voices")[0] == 0
    recipes.calls()
    for folders in ({"VOICES": "/voices", "BENCH": "/bench"}, {"VOICES": "/voices"}, {}):
        status, output = recipes.run("mini", *some, **folders)
        assert status == 0 and set(recipes.calls()) <= {"fetch_wordnet"}, output
    for folders in ({"VOICES": "/voices", "BENCH": "/x"}, {"BENCH": "/x"}, {"VOICES": "/x"}):
        assert recipes.run("mini", *some, **folders)[0] == 1, folders


def test_a_corpus_in_another_form_is_another_corpus(recipes):
    read_from(recipes, "FILES", "PARQUET")
    assert recipes.run("mini", "--stop_stage", "1", FILES="/files")[0] == 0
    status, output = recipes.run("mini", "--stop_stage", "1", PARQUET="/parquet")
    assert status == 1 and "FILES: /files" in output and "PARQUET: /parquet" in output


def test_a_tolerance_is_no_setting(recipes):
    recipes.finished("mini")
    status, output = recipes.run("mini", "--stop_stage", "4", "--max_bad", "5%")
    assert status == 0 and recipes.calls() == [], output


def test_what_an_earlier_version_made_is_one_clear_line(recipes):
    """There is no made.json: nothing says what it was made with."""
    recipes.finished("mini")
    exp = recipes.root / "egs/mini/exp/pam_mini_short_s0"
    for folder, remedy in (
        (recipes.root / "egs/mini/dump/raw/ac_dev", "--dumpdir"),
        (exp, "--expname"),
    ):
        (folder / "made.json").rename(folder / ".settings")
        recipes.calls()
        status, output = recipes.run("mini", "--stop_stage", "4")
        [line] = [line for line in output.splitlines() if line.startswith("error: ")][:1]
        assert status == 1 and recipes.calls() == [], output
        assert "an earlier version made it" in line and remedy in line
        (folder / ".settings").rename(folder / "made.json")


@pytest.mark.parametrize("recipe", ["mini", "multitask"])
def test_lengths_are_limited_where_a_model_learns(recipes, recipe):
    """They are settings of the sets that they are for; test sets keep every utterance."""
    dump = recipes.root / "egs" / recipe / "dump"
    status, output = recipes.run(recipe, "--stop_stage", "3", "--max_seconds", "20")
    assert status == 0, output
    limits = {f.parent.name: json.loads(f.read_text()) for f in dump.glob("raw/*/limits.json")}
    assert limits == {
        **dict.fromkeys(["asr_clean_train", "ac_train", "ac_dev"], ["20", True]),
        **dict.fromkeys(["asr_clean_test", "ac_test"], ["20", False]),
        **dict.fromkeys(["asr_noisy_test", "snv_test_real"], ["20", False]),
    }
    status, output = recipes.run(recipe, "--stop_stage", "3", "--max_seconds", "10")
    assert status == 1 and "_train was made with other settings" in output
    assert "made with: max_seconds: 20" in output and "now asked for:    max_seconds: 10" in output
    recipes.calls()
    for folder in [*dump.glob("*/*_train"), *dump.glob("*/*_dev")]:
        shutil.rmtree(folder)
    status, output = recipes.run(recipe, "--stop_stage", "3", "--max_seconds", "10")
    assert status == 0, output
    assert [call for call in recipes.calls() if "_test" in call] == []


def test_limits_that_drop_everything_can_be_corrected(recipes):
    """A dump that has made no states yet binds to nothing."""
    assert recipes.run("mini", "--max_seconds", "0.1", FAIL="dump")[0] != 0
    (recipes.root / "egs/mini/dump/raw/asr_clean_train/scan.jsonl").touch()
    assert recipes.run("mini", "--max_seconds", "20", "--stop_stage", "2")[0] == 0


def test_settings_of_a_run_that_made_nothing_do_not_bind(recipes):
    recipes.finished("mini", without="exp")
    recipes.run("mini", "--train_args", "--set oops", FAIL="train")
    status, output = recipes.run("mini")
    assert status == 0, output


def test_a_training_binds_from_its_first_checkpoint_on(recipes):
    recipes.finished("mini", without="exp")
    exp = recipes.root / "egs/mini/exp/named"
    named = ("--expname", "named", "--stop_stage", "4")
    assert recipes.run("mini", *named, FAIL="train")[0] != 0
    (exp / "warmup").mkdir(parents=True)
    for file in ("config.yaml", "warmup/config.yaml"):  # a crash before the first epoch's end
        (exp / file).touch()
    assert recipes.run("mini", *named, "--seed", "1", FAIL="train")[0] != 0
    assert read_record(exp, "train")["settings"]["seed"] == 1
    (exp / "warmup/checkpoint.pth").touch()
    recipes.calls()
    status, output = recipes.run("mini", *named, "--seed", "2")
    assert status == 1 and "now asked for:    seed: 2" in output and recipes.calls() == []
    status, output = recipes.run("mini", *named, "--seed", "1")
    assert status == 0, output
    shutil.rmtree(exp / "train")  # to save space
    shutil.rmtree(exp / "warmup")
    status, output = recipes.run("mini", *named, "--seed", "2")
    assert status == 1 and "now asked for:    seed: 2" in output


def test_new_decoding_prompts_are_another_folder(recipes):
    recipes.finished("mini")
    recipes.run("mini", "--prompts", "seen")
    calls = recipes.calls()
    assert sum(call.startswith("decode ") for call in calls) == 4 and "train" not in calls
    status, output = recipes.run("mini", "--prompts", "seen", "--inference_tag", "greedy_unseen")
    assert status == 1 and "--inference_tag" in output


@pytest.fixture
def under_nohup() -> Iterator[None]:
    """SIGHUP is ignored, as where pytest was started with nohup; children inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def kill_in_its_sleep(recipes, process: subprocess.Popen, number: signal.Signals) -> None:
    """Send the signal once a verb of the run sleeps: the verb, its child and the run end."""
    pid_file = Path(recipes.env["PIDS"])

    def sleepers() -> list[int]:
        return [int(pid) for pid in pid_file.read_text().split()] if pid_file.exists() else []

    assert wait_for(lambda: len(sleepers()) == 2 or process.poll() is not None)
    pids = sleepers()
    assert len(pids) == 2 and all(is_running(pid) for pid in pids)
    os.kill(process.pid, number)
    ended = wait_for(lambda: not any(is_running(pid) for pid in pids))
    assert ended, f"children live on after {number!r}"
    process.communicate(timeout=300)
    assert process.returncode != 0
    pid_file.unlink()


@pytest.mark.usefixtures("under_nohup")
@pytest.mark.parametrize(
    ("recipe", "verb", "options"),
    [
        ("mini", "train", ()),
        ("multitask", "dump", ()),
        ("multitask", "train", ("--table", "14")),
        ("multitask", "score", ("--table", "14", "--at_once", "2")),
        ("multitask", "dump", ("--table", "early_exit")),
    ],
)
def test_killing_a_run_ends_its_children_and_the_command_resumes(recipes, recipe, verb, options):
    """Each run starts where the last one was killed."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        kill_in_its_sleep(recipes, recipes.start(recipe, *options, SLEEP=verb), number)
    recipes.calls()
    status, output = recipes.run(recipe)
    assert status == 0, output
    assert recipes.calls()[-1] == "report"


def test_help_prints_values_and_comments(recipes):
    status, output = recipes.run("multitask", "--seed", "5", "--help")
    assert status == 0
    assert "--seed 5" in output and "--corpora mini" in output
    assert "first stage to run" in output
    assert recipes.calls() == []
