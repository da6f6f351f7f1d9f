"""Training's loss, decoding and the API on a pretended GPU: nothing is left on the CPU.

The cases run in a process of their own, this file as a program: `pretend_gpu` changes torch.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from toys import small_config

TEST = Path(__file__).resolve().parents[1]
BFLOAT16 = {"llm_conf": {"dtype": "bfloat16"}, "model_conf": {"bf16": True}}
MINI = {  # the settings of the mini scale
    "llm_conf": {"attention": "eager", "lora_on_prompt": False, "h_prompt": "mean"},
    "fusion_conf": {"adapter": {"kind": "linear", "norm": True, "standardize": True, "stack": 2}},
    "router_conf": {"standardize": True},
    "model_conf": {"feature_scale": "embedding", "word_dropout": 0.2},
}
LOSSES = {
    "paper": BFLOAT16,
    "mini": MINI,
    "checkpointing": BFLOAT16 | {"llm_conf": {"dtype": "bfloat16", "gradient_checkpointing": True}},
    "exits": {**BFLOAT16, "model_conf": {"bf16": True, "exits": {"share": 0.5, "gate": True}}},
    "average": BFLOAT16 | {"fusion": "average", "fusion_conf": {}},
    "moe_audio": BFLOAT16 | {"fusion": "moe_audio", "fusion_conf": {}},
    "prompt_mixture": BFLOAT16 | {"fusion": "prompt_mixture", "fusion_conf": {}},
}
SEARCHES = {
    "greedy": {},
    "without repeats": {"no_repeat_ngram_size": 2},
    "in batches": {"exact": False, "batch_size": 3, "no_repeat_ngram_size": 2},
    "drafts": {"drafter": "ctc"},
    "beam": {"beam": 3, "no_repeat_ngram_size": 2},
    "sampling": {"temperature": 1.0, "top_p": 0.9, "no_repeat_ngram_size": 2},
    "early exit": {"early_exit": "softmax", "no_repeat_ngram_size": 2},
}
CASES = [
    *(f"loss: {name}" for name in LOSSES),
    *(f"{kind}: {name}" for kind in ("float32", "bfloat16") for name in SEARCHES),
    *("warm-up", "API", "refuses a tensor of the CPU"),
]


@pytest.fixture(scope="module")
def results(tiny_llm, tmp_path_factory) -> dict[str, str]:
    """Case → "" or its error."""
    out = tmp_path_factory.mktemp("gpu") / "results.json"
    path = os.pathsep.join([str(TEST), str(TEST.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, json.dumps(small_config(tiny_llm)), str(out)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize("case", CASES)
def test_on_a_pretended_gpu(results, case):
    assert results[case] == ""


# --- the program ----------------------------------------------------------------------------------


def merged(config: dict, more: dict) -> dict:
    out = dict(config)
    for key, value in more.items():
        both = isinstance(value, dict) and value and isinstance(config.get(key), dict)
        out[key] = {**config[key], **value} if both else value
    return out


def built(config: dict, more: dict):
    from pam.model.build import build_model

    return build_model(merged(config, more))


def batch_of(model) -> dict:
    import torch
    from toys import make_batch

    prompts = ["Write it down.", "How many speakers?", "Write it down."]
    batch = make_batch(model, prompts, ["hello there", "two", "a"], [0, 2, 0], [7, 4, 5])
    right = torch.nn.functional.one_hot(batch["task"], 4).bool()[:, None]
    counts = torch.tensor([[17.0, 3.0]] * 3)
    chance = torch.rand(batch["text"].shape)
    return batch | {"chance": chance, "draw": torch.tensor(5), "counts": counts, "experts": right}


def loss(config: dict, more: dict) -> None:
    model = built(config, more)
    batch = batch_of(model)
    if more is MINI:
        model.keep_prompts({"a": ["Write it down.", "How many speakers?"]})
    model.to("cuda").train()
    found = model(**{key: value.to("cuda") for key, value in batch.items()})[0]
    assert found.device.type == "cuda" and found.item() > 0


def warm_up(config: dict) -> None:
    from pam.model.ctc import TokenEmbeddingCTC
    from pam.model.warmup import CTCWarmupModel

    model = built(config, BFLOAT16)
    batch = batch_of(model)
    ctc = TokenEmbeddingCTC(model.llm.embeddings, range(1, 200), model.llm.space)
    warming = CTCWarmupModel(model, ctc).to("cuda").train()
    assert warming(**{key: value.to("cuda") for key, value in batch.items()})[0].item() > 0


def search(config: dict, kind: str, options: dict) -> None:
    import torch

    from pam.decode.decoder import Decoder
    from pam.decode.request import Request
    from pam.decode.settings import Settings

    model = built(config, BFLOAT16 if kind == "bfloat16" else {}).eval()

    def load(number: int) -> dict:
        sizes = {s.name: (5 + number, s.num_states * s.dim) for s in model.shapes}
        return {name: torch.randn(size) for name, size in sizes.items()}

    prompts = ["Write it down.", "How many?", "Write it down."]
    requests = [
        Request(n, prompt, partial(load, n), 12, 0, f"utterance {n}")
        for n, prompt in enumerate(prompts)
    ]
    decoder = Decoder(model.to("cuda"), Settings(**options))
    answers = list(decoder.answers(requests))
    assert len(answers) == 3 and max(len(a.tokens) for a in answers) > 2
    assert all(a.posterior.device.type == "cpu" for a in answers)
    states = decoder.memory.known["How many?"]
    assert not any(x.requires_grad for x in (states.pooled, *states.keys, *states.values))


def api(config: dict) -> None:
    import numpy as np
    import torch
    from toys import ToyEncoder

    from pam.decode.api import SpeechLLM

    model = built(config, BFLOAT16)
    encoders = {s.name: ToyEncoder(s.num_states, s.dim) for s in model.shapes}
    model.encoders = torch.nn.ModuleDict(encoders)
    llm = SpeechLLM(model.eval().to("cuda"), no_repeat_ngram_size=2)
    clip = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert llm.generate(clip, "Write it down.").expert is not None
    assert sum(llm.route("Write it down.").values()) == pytest.approx(1, abs=1e-3)


def mixed() -> None:
    import torch

    with pytest.raises(RuntimeError, match="tensors of the CPU"):
        torch.ones(3, device="cuda") + torch.ones(3)


def main(text: str, out: Path) -> None:
    from pretend_gpu import PretendGPU

    config = json.loads(text)
    cases = {f"loss: {name}": partial(loss, config, more) for name, more in LOSSES.items()}
    for kind in ("float32", "bfloat16"):
        for name, options in SEARCHES.items():
            cases[f"{kind}: {name}"] = partial(search, config, kind, options)
    cases |= {"warm-up": partial(warm_up, config), "API": partial(api, config)}
    cases["refuses a tensor of the CPU"] = mixed
    results = {}
    for name, case in cases.items():
        try:
            with PretendGPU():
                case()
            results[name] = ""
        except Exception as error:  # any is a result
            results[name] = f"{type(error).__name__}: {error}"
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
