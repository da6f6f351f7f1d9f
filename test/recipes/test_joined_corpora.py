"""A new corpus by the guide's own words, joined with the paper's four: stages 1 to 3, five experts.

A copy of the project is used; the corpora are imitations, encoders and LLM are tiny and random.
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
from imitations import (
    air_bench,
    ami_parquet,
    audio_bench,
    audiocaps,
    common_voice,
    encoded,
    librispeech,
    write,
)

from pam.config.made import read_record
from pam.data.audio import load_audio
from pam.data.concat import is_concat
from pam.data.datadir import DataDir
from pam.data.tasks import all_tasks

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other")
TASKS = ["asr_clean", "asr_noisy", "snv", "ac", "bird_song"]
CORPORA = "librispeech ami snv audiocaps birds"


class Project:
    """A copy of the project, and the corpora that its environment names."""

    def __init__(self, folder: Path):
        self.root, self.corpora = folder / "a project", folder / "my corpora"
        for part in ("pam", "conf", "utils"):
            shutil.copytree(ROOT / part, self.root / part, ignore=unwanted)
        for recipe in ("TEMPLATE", "librispeech", "ami", "snv", "audiocaps", "multitask"):
            shutil.copytree(ROOT / "egs" / recipe, self.root / "egs" / recipe, ignore=unwanted)
        write(self.root / "tools/fetch_wordnet.py", "# the real one downloads\n")
        shutil.copy(ROOT / "tools/fetch_url.py", self.root / "tools")
        places = {
            "LIBRISPEECH": librispeech(self.corpora / "LibriSpeech", PARTS),
            "AMI_PARQUET": ami_parquet(self.corpora / "ami"),
            "COMMON_VOICE": common_voice(self.corpora / "cv"),
            "AIR_BENCH": air_bench(self.corpora / "AIR-Bench"),
            "AUDIOCAPS": audiocaps(self.corpora / "audiocaps"),
            "AUDIOBENCH": audio_bench(self.corpora / "AudioLLMs"),
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PATH": path, "PYTHONPATH": "", "PAM_CACHE": str(folder / "cache")}
        self.env = os.environ | own | {name: str(place) for name, place in places.items()}

    def __call__(self, command: str) -> str:
        """The output of a command of the shell in the project's folder."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.root, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def recipe(self, command: str, last_stage: int) -> str:
        """A run.sh with audio only: encoders run online, so none is needed before training."""
        more = f"--scale paper --feats online --budget tiny --size tiny --stop_stage {last_stage}"
        return self(f"{command} {more} --python '{sys.executable}'")


def unwanted(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("__pycache__", "data", "dump", "exp", "RESULTS")
            and Path(folder).name != "pam"]  # fmt: skip


def make_birds(folder: Path) -> None:
    for part in ("train", "dev", "test"):
        for bird in ("robin", "wren"):
            for number in range(3):
                seed = len(part) + len(bird) + number
                write(folder / part / bird / f"{number}.wav", encoded(0.5, 22050, seed))


class Guide:
    """The blocks of egs/TEMPLATE/README.md as a reader takes them."""

    def __init__(self, text: str):
        plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        self.commands = [line.strip() for line in re.findall(r"^ {4}\S.*$", plain, re.MULTILINE)]
        self.python = self._block(text, "python")
        self.yaml = self._block(text, "yaml")

    @staticmethod
    def _block(text: str, language: str) -> tuple[str, str]:
        """(file named in the heading of the step, content)"""
        step = next(
            step for step in re.split(r"^\*\*", text, flags=re.M) if f"```{language}" in step
        )
        return re.search(r"`(egs/[\w./]+)`", step)[1], step.split(f"```{language}\n")[1].split(
            "```"
        )[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """With the recipe `birds` made by the guide, word for word, and all corpora joined."""
    project = Project(tmp_path_factory.mktemp("joined"))
    guide = Guide((project.root / "egs/TEMPLATE/README.md").read_text(encoding="utf-8"))
    copy, name_task, alone, together = guide.commands
    make_birds(project.corpora / "birds")
    birds = str(project.corpora / "birds")

    project(copy)
    for file, content in (guide.python, guide.yaml):
        write(project.root / file, content)
    project(name_task)
    project.recipe(alone.replace("/data/birds", f"'{birds}'"), 2)

    together = together.replace("/data/birds", f"'{birds}'").replace('"mini birds"', f'"{CORPORA}"')
    assert CORPORA in together
    project.recipe(together, 3)
    return project


@pytest.fixture(autouse=True)
def tasks_of_the_copy(project, monkeypatch):
    """Here too: this process has the real project's recipes, and so its tasks."""
    monkeypatch.setattr("pam.data.rules.all_tasks", lambda: all_tasks(project.root))


def combined(project: Project, part: str) -> DataDir:
    (folder,) = (project.root / "egs/multitask/dump/combined").iterdir()
    return DataDir.read(folder / part)


def dumped(project: Project) -> Path:
    return project.root / "egs/multitask/dump/raw"


def test_the_new_recipe_runs_alone(project):
    data = DataDir.read(project.root / "egs/birds/dump/tiny/raw/birds_train")
    assert data["text"]["robin-train-0"] == "a robin" and len(data) == 6
    assert set(data["utt2task"].values()) == {"bird_song"}


def test_every_corpus_is_prepared_and_dumped(project):
    names = {folder.name for folder in dumped(project).iterdir()}
    assert names == {
        "librispeech_train_clean_100", "librispeech_dev_clean", "librispeech_dev_other",
        "librispeech_test_clean", "librispeech_test_other",
        "ami_train", "ami_dev", "ami_test",
        "snv_commonvoice_train", "snv_commonvoice_dev", "snv_airbench", "snv_airbench_official",
        "audiocaps_train", "audiocaps_val", "audiocaps_test",
        "audiocaps_test_audiobench", "audiocaps_test_qa",
        "birds_train", "birds_dev", "birds_test",
    }  # fmt: skip
    for name in names:
        data = DataDir.read(dumped(project) / name)
        for utt, entry in list(data["wav.scp"].items())[:2]:
            assert load_audio(entry).size == int(data["utt2num_samples"][utt])
    official = DataDir.read(dumped(project) / "snv_airbench_official")
    assert set(official["choices"]) == set(official["prompt"]) == set(official["text"])


def test_the_joined_training_set_has_all_tasks(project):
    train, dev = combined(project, "train"), combined(project, "dev")
    for data, counts in ((train, [4, 40, 40, 2, 6]), (dev, [8, 8, 8, 2, 6])):
        tasks = list(data["utt2task"].values())
        assert [tasks.count(task) for task in TASKS] == counts
    snv = {utt for utt, task in train["utt2task"].items() if task == "snv"}
    assert {utt for utt, entry in train["wav.scp"].items() if is_concat(entry)} == snv
    assert not list((project.root / "egs").rglob("snv*.flac"))
    assert dev["text_ref5"].keys() == {u for u, t in dev["utt2task"].items() if t == "ac"}


def test_other_items_are_not_taken_for_the_same(project):
    """An option that only this recipe has is part of what its data are made with."""
    assert read_record(project.root / "egs/snv/data", "data")["settings"] == {
        "size": "tiny",
        "num_items": 137041,
        "segments": 0,
        "data_seed": 0,
        "audio": "virtual",
        "COMMON_VOICE": f"{project.corpora}/cv",
        "AIR_BENCH": f"{project.corpora}/AIR-Bench",
    }
    with pytest.raises(AssertionError, match="now asked for:    segments: 4"):
        project.recipe("egs/snv/run.sh --segments 4", 1)


TRAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import yaml
from tiny import save_tiny
from pam.bin.train import main
spec = save_tiny("whisper_unpadded", Path("tiny-whisper"))
scale = yaml.safe_load(open("tiny.yaml"))
scale["encoders"] = {"enc": spec | {"dim": 32, "num_states": 3}}
yaml.safe_dump(scale, open("tiny.yaml", "w"))
main(sys.argv[2:])
"""


def test_a_fifth_expert_appears_and_learns_from_its_prompts(project, tmp_path, tiny_llm):
    """Two steps a task through tiny online encoders, on the joined set, concatenations and all."""
    import torch

    scale = {
        "llm_conf": {"path": tiny_llm, "dtype": "float32", "lora_rank": 2, "lora_alpha": 4},
        "model_conf": {"bf16": False},
        "feats": "online",
        "warmup": "none",
        "batch": {"max_utts": 2, "max_frames": 500},
        "dev_utts": 2,
        "phases": {"llm": {"optim_conf": {"lr": 1e-2}, "warmup_steps": 2}},
        "budgets": {"short": {"steps": 10, "steps_per_epoch": 10}},
    }
    (project.root / "tiny.yaml").write_text(yaml.safe_dump(scale))
    (folder,) = (project.root / "egs/multitask/dump/combined").iterdir()
    options = ["--scale_config", "tiny.yaml", "--system_config", "conf/systems/pam.yaml"]
    options += ["--train", folder / "train", "--dev", folder / "dev", "--expdir", tmp_path / "exp"]
    command = [sys.executable, "-c", TRAIN, ROOT / "test/encoders", *options]
    env = project.env | {"PYTHONPATH": str(project.root)}
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text())
    assert config["tasks"] == TASKS
    weights = torch.load(tmp_path / "exp/train/last.pth", weights_only=True)
    experts = {name.split(".")[2] for name in weights if name.startswith("fusion.experts.")}
    assert experts == {"0", "1", "2", "3", "4"}
    (curve,) = json.loads((tmp_path / "exp/curves.json").read_text())
    assert {f"loss_{task}" for task in TASKS} <= curve["train"].keys() & curve["dev"].keys()
