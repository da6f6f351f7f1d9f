"""A new encoder, fusion, metric, drafter, task and corpus: one file and one line each.

All stages work with them. The parts are in `dummies`. They are put into a copy of the project,
which runs as a clone does.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pam.data.archive import load, read_scp

ROOT = Path(__file__).resolve().parents[2]
DUMMIES = Path(__file__).with_name("dummies")
# dummy: the file that it is, the file of the registry, its line there
LINES = {
    "encoder.py": ("pam/encoders/dummy.py", "ENCODERS", '"pam.encoders.dummy:DummyEncoder"'),
    "fusion.py": ("pam/fusion/dummy.py", "FUSIONS", '"pam.fusion.dummy:Dummy"'),
    "drafter.py": (
        "pam/decode/drafters/dummy.py",
        "DRAFTERS",
        '"pam.decode.drafters.dummy:SameToken"',
    ),
    "metric.py": ("pam/score/dummy.py", "METRICS", '"pam.score.dummy:SameLength"'),
}
NAMES = {"metric.py": "same_length"}  # the others are called dummy


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project with the dummies: for a part its file and a line, for a task its file; a recipe
    made by utils/new_recipe.sh with a preparation of its own, and a line that names the task."""
    root = tmp_path_factory.mktemp("new") / "project"
    unwanted = shutil.ignore_patterns("__pycache__")
    for part in ("pam", "conf", "utils", "egs/TEMPLATE"):
        shutil.copytree(ROOT / part, root / part, ignore=unwanted)
    for dummy, (file, registry, entry) in LINES.items():
        shutil.copy(DUMMIES / dummy, root / file)
        add_line(root / file, registry, f'        "{NAMES.get(dummy, "dummy")}": {entry},\n')
    subprocess.run([root / "utils/new_recipe.sh", "notes"], check=True, capture_output=True)
    recipe = root / "egs/notes"
    shutil.copy(DUMMIES / "prepare.py", recipe / "local/prepare.py")
    (recipe / "conf/prompts").mkdir()
    shutil.copy(DUMMIES / "humming.yaml", recipe / "conf/prompts")
    run = (recipe / "run.sh").read_text()
    assert run.count("task=asr_clean ") == 1
    (recipe / "run.sh").write_text(run.replace("task=asr_clean ", "task=humming "))
    return root


def add_line(part: Path, registry: str, line: str) -> None:
    file = part.with_name("__init__.py")
    text = file.read_text(encoding="utf-8")
    start = re.search(rf'^{registry} = Registry\(\n    "\w+",\n    \{{\n', text, re.MULTILINE).end()
    file.write_text(text[:start] + line + text[start:], encoding="utf-8")


def in_project(project: Path, *command: str | Path, **env: str) -> str:
    process = subprocess.run(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)} | env,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


@pytest.fixture(scope="module")
def done(project, tiny_llm, tmp_path_factory) -> tuple[Path, str]:
    """The folder in which the stages worked, and what they printed."""
    work = tmp_path_factory.mktemp("work")
    options = ["--stop_stage", "1", "--python", sys.executable, "--datadir", work / "data"]
    in_project(project, project / "egs/notes/run.sh", *options, NOTES=str(work))
    scale = {
        "encoders": {
            "dummy": {
                "family": "dummy",
                "path": "dummy",
                "conf": {"gain": 2.0},
                "dim": 3,
                "num_states": 2,
            }
        },
        "llm_conf": {"path": tiny_llm, "dtype": "float32", "lora_rank": 2},
        "feats": "dumped",
        "warmup": "none",
        "batch": {"max_utts": 2, "max_frames": 100},
        "phases": {"llm": {"optim_conf": {"lr": 1e-3}, "warmup_steps": 1}},
        "budgets": {"short": {"steps": 1, "steps_per_epoch": 1}},
    }
    (work / "scale.yaml").write_text(yaml.safe_dump(scale))
    (work / "system.yaml").write_text("fusion: dummy\nfusion_conf: {size: 5}\n")
    places = [work / "data", work, work / "scale.yaml", work / "system.yaml"]
    return work, in_project(project, sys.executable, DUMMIES / "stages.py", *places)


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_corpus_is_prepared(done):
    work, _ = done
    assert (work / "data/notes_dev/text").read_text() == "ann-dev-a note a\nann-dev-b note b\n"


def test_a_drafter_proposes_and_changes_no_answer(done):
    work, printed = done
    assert "dummy drafter: 2 rows, at most 15" in printed
    found = [
        (work / f"exp/dummy/{tag}/notes_test/hyp.jsonl").read_text() for tag in ("tag", "drafted")
    ]
    assert found[0] == found[1]


def test_an_encoder_is_dumped_and_explained(done):
    work, printed = done
    folder = work / "dump/dummy/notes_train"
    settings = read(folder / "made.json")["dump"]["settings"]
    told = (settings["num_states"], settings["dim"], read(folder / "dump.json")["utterances"])
    assert told == (2, 3, 2)
    states = {utt: load(pointer, utt) for utt, pointer in read_scp(folder / "feats.scp").items()}
    assert {utt: x.shape for utt, x in states.items()} == {
        "ann-train-a": (13, 6),
        "ann-train-b": (14, 6),
    }
    assert "dummy: dummy 3×2" in printed
    assert "encoders.dummy.conf.gain  (a number, at least 0; default: 1.0)" in printed


def test_a_fusion_is_trained_and_explained(done):
    work, printed = done
    config = yaml.safe_load((work / "exp/dummy/config.yaml").read_text())
    assert (config["fusion"], config["fusion_conf"]) == ("dummy", {"size": 5})
    assert [point["step"] for point in read(work / "exp/dummy/curves.json")] == [1]
    assert "Width of the layer between. Of: dummy." in printed


def test_a_task_has_an_expert_and_answers(done):
    work, _ = done
    config = yaml.safe_load((work / "exp/dummy/config.yaml").read_text())
    assert config["tasks"] == ["humming"]
    lines = (work / "exp/dummy/tag/notes_test/hyp.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    assert {item["id"] for item in items} == {"ann-test-a", "ann-test-b"}
    assert {(item["expert"], item["prompt"]) for item in items} == {
        ("humming", "Tell me the note that is hummed.")
    }
    assert read(work / "exp/dummy/router.json")["unseen"]["tasks"] == {
        "humming": {"correct": 1, "count": 1}
    }


def test_a_metric_scores_and_is_reported(done, project):
    work, _ = done
    score = read(work / "exp/dummy/tag/notes_test/score.json")
    assert (score["metric"], score["count"], score["extra"]) == ("same_length", 2, 7)
    hyps = (work / "exp/dummy/tag/notes_test/hyp.jsonl").read_text().splitlines()
    right = sum(len(item["hyp"]) == len(item["ref"]) for item in map(json.loads, hyps))
    assert score["value"] == 100 * right / 2
    code = (
        "import json, sys; from pam.report.tables import value_with_proof;"
        "from pam.score.metric import metric_called; score = json.load(open(sys.argv[1]));"
        "print(metric_called(score['metric']).label, value_with_proof(score))"
    )
    file = work / "exp/dummy/tag/notes_test/score.json"
    shown = in_project(project, sys.executable, "-c", code, file)
    assert shown.startswith(f"same length % {score['value']:.1f} (of 2, 95 % CI ")


def test_what_the_parts_are_not_is_an_error(project):
    """The typed configuration knows the dummies' options as well as the others'."""
    code = "from pam.config import read_layers; read_layers('s.yaml', 's.yaml')"
    (project / "s.yaml").write_text("fusion: dummy\nfusion_conf: {sise: 3}\n")
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
    )
    assert "s.yaml: fusion_conf: unknown option 'sise': did you mean 'size'" in process.stderr
