"""Exported folders give greedy's tokens in a process that has no PaM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
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


def strangers(folder, outs, env):
    """{exported folder: what the stranger got}."""
    clip = {f"clip{n}": c for n, c in enumerate(clips())}
    np.savez(folder / "clips.npz", prompts=PROMPTS, **clip)
    soundfile.write(folder / "clip0.wav", clip["clip0"], 16000, subtype="FLOAT")
    answers = folder / "out.json"
    run([str(STRANGER), str(answers), str(folder / "clips.npz"), *map(str, outs)], env, cwd=folder)
    return json.loads(answers.read_text())


@pytest.fixture(scope="module")
def answers(experiment, tmp_path_factory):
    """{case: (greedy's tokens, what the stranger got)}."""
    folder, expected = tmp_path_factory.mktemp("elsewhere"), {}
    for case, (family, options) in CASES.items():
        exp = experiment(family, **options)
        out = folder / case
        assert export.main(["--exp", str(exp), "--to", "hf", str(out), "--bundle"]) == 0
        expected[case] = greedy_tokens(exp, clips(), PROMPTS)[0]
    found = strangers(folder, [folder / case for case in CASES], environment(folder))
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
    assert cut(found["chat"]) == cut(found["request"]) == cut(found["file"]) == expected[0]
    assert found["pipeline"].strip() == found["text"].strip()
    assert found["dtype"] == "torch.float32"


def test_weights_are_found_by_name(experiment, encoder_specs, llms, tmp_path):
    """Encoders and LLM in a hub's cache; the folder has neither, and names their revisions."""
    hub = tmp_path / "hub"
    names = {case: put(hub, spec["path"], case) for case, spec in encoder_specs.items()}
    specs = {case: spec | {"path": names[case]} for case, spec in encoder_specs.items()}
    llm = put(hub, llms["llama"], "llm")
    exps = [experiment("llama", llm_conf={"lora_on_prompt": on}) for on in (True, False)]
    outs = [tmp_path / f"out{number}" for number in range(2)]
    expected = [greedy_tokens(exp, clips(), PROMPTS)[0] for exp in exps]
    for exp in exps:
        rename(exp, specs, llm)
    here = str(Path(export.__file__).parents[2])
    env = environment(tmp_path, HF_HUB_CACHE=str(hub))
    pairs = [str(path) for pair in zip(exps, outs, strict=True) for path in pair]
    run(["-c", EXPORT, *pairs], env | {"PYTHONPATH": here})
    for out in outs:
        config = json.loads((out / "config.json").read_text())
        assert config["llm"] == {"path": llm, "revision": REVISION}
        assert [part["revision"] for part in config["encoders"]] == [REVISION] * 2
        (file,) = out.glob("*.safetensors")
        names = load_file(file)
        assert not [name for name in names if "encoders." in name or "embed" in name]
    answers = strangers(tmp_path, outs, env)
    for out, tokens in zip(outs, expected, strict=True):
        rows = zip(answers[str(out)]["batch"], tokens, strict=True)
        assert [row[: len(own)] for row, own in rows] == tokens


# Of all pairs of an experiment and a new folder.
EXPORT = """
import sys
from pam.bin import export
for exp, out in zip(sys.argv[1::2], sys.argv[2::2]):
    assert export.main(["--exp", exp, "--to", "hf", out]) == 0
"""
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


def run(words, env, cwd=None):
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
