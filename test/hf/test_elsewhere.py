"""Exported folders give greedy's tokens in a process that has no PaM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from greedys import PROMPTS, clips, greedy_tokens
from safetensors.torch import load_file

from pam.bin import export

STRANGER = Path(__file__).with_name("stranger.py")
CHAT = {"llm_conf": {"lora_on_prompt": False, "h_prompt": "last"}}
CASES = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {"fusion": "average", "fusion_conf": {}, "router_conf": {}}),
    "gemma3": ("gemma3_text", {"llm_conf": {"h_prompt": "last"}}),
    "gpt2": ("gpt2", {}),
    "kept": ("llama", CHAT),  # LoRA that leaves the prompt alone
}


def environment(folder, **more):
    """Without the repository, and with transformers' caches in `folder`."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return kept | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"} | more


@pytest.fixture(scope="module")
def answers(experiment, tmp_path_factory):
    """{case: (greedy's tokens, what the stranger got)}."""
    folder, expected = tmp_path_factory.mktemp("elsewhere"), {}
    for case, (family, options) in CASES.items():
        exp = experiment(family, **options)
        out = folder / case
        assert export.main(["--exp", str(exp), "--to", "hf", str(out), "--bundle"]) == 0
        expected[case] = greedy_tokens(exp, clips(), PROMPTS)[0]
    np.savez(
        folder / "clips.npz", prompts=PROMPTS, **{f"clip{n}": c for n, c in enumerate(clips())}
    )
    words = [sys.executable, str(STRANGER), str(folder / "out.json"), str(folder / "clips.npz")]
    run = subprocess.run(
        [*words, *(str(folder / case) for case in CASES)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((folder / "out.json").read_text())
    return {case: (expected[case], found[str(folder / case)]) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_a_stranger_gets_greedys_tokens(answers, case):
    expected, found = answers[case]
    end = found["end"]

    def cut(row):
        return row[: row.index(end)] if end in row else row

    assert len({tuple(row) for row in expected}) > 1  # the answers depend on the input
    assert [cut(row) for row in found["batch"]] == expected
    assert [cut(row) for row in found["single"]] == expected
    assert cut(found["chat"]) == cut(found["request"]) == expected[0]
    assert found["pipeline"].strip() == found["text"].strip()
    assert found["dtype"] == "torch.float32"


def test_weights_are_found_by_name(experiment, encoder_specs, llms, tmp_path):
    """Encoders and LLM in a hub's cache; the folder has neither, and names their revisions."""
    hub = tmp_path / "hub"
    names = {case: put(hub, spec["path"], case) for case, spec in encoder_specs.items()}
    specs = {case: spec | {"path": names[case]} for case, spec in encoder_specs.items()}
    llm = put(hub, llms["llama"], "llm")
    for kept in (False, True):
        exp = experiment("llama", llm_conf={"lora_on_prompt": not kept})
        expected = greedy_tokens(exp, clips(), PROMPTS)[0]
        rename(exp, specs, llm)
        out = tmp_path / f"out{kept}"
        here = str(Path(export.__file__).parents[2])
        env = environment(tmp_path, HF_HUB_CACHE=str(hub))
        words = ["-m", "pam.bin.export", "--exp", str(exp), "--to", "hf", str(out)]
        run(words, env | {"PYTHONPATH": here})
        config = json.loads((out / "config.json").read_text())
        assert config["llm"] == {"path": llm, "revision": REVISION}
        assert [part["revision"] for part in config["encoders"]] == [REVISION] * 2
        (file,) = out.glob("*.safetensors")
        names = load_file(file)
        assert not [name for name in names if "encoders." in name or "embed" in name]
        clip = {f"clip{n}": c for n, c in enumerate(clips())}
        np.savez(tmp_path / "clips.npz", prompts=PROMPTS, **clip)
        answers = tmp_path / "out.json"
        run([str(STRANGER), str(answers), str(tmp_path / "clips.npz"), str(out)], env)
        found = json.loads(answers.read_text())[str(out)]
        pairs = zip(found["batch"], expected, strict=True)
        assert [row[: len(tokens)] for row, tokens in pairs] == expected


REVISION = "0123456789abcdef0123456789abcdef01234567"


def put(hub, folder, name):
    """Put a model's folder into a hub's cache as `tests/NAME`."""
    repo = hub / f"models--tests--{name}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(REVISION)
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / REVISION).symlink_to(folder)
    return f"tests/{name}"


def rename(exp, specs, llm):
    """Let an experiment name its pretrained parts by these names."""
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["encoders"], config["llm_conf"]["path"] = specs, llm
    (exp / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def run(words, env):
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
