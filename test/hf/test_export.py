"""The other forms of an export, its model card, and what it refuses."""

import json
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch
import yaml
from greedys import PROMPTS, TOKENS, clips, greedy_tokens
from peft import PeftModel
from processes import locked_by_another
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pam.bin import export
from pam.errors import PamError
from pam.hf import merging, push
from pam.hf.folder import new_folder
from pam.hf.pam_inputs import PaMInputs
from pam.lock import alone_at
from pam.model.build import load_experiment, load_learned, read_learned

SCORE = {
    "set": "asr_clean_test",
    "task": "asr_clean",
    "metric": "wer",
    "value": 12.34,
    "count": 120,
    "errors": 92,
    "ref_words": 745,
    "ci95": [10.11, 14.55],
    "clusters": {"count": 2, "effective": 1.9, "few": True, "resampled": "utterances"},
}


def run(exp, to, out, *more):
    return export.main(["--exp", str(exp), "--to", to, str(out), *more])


@pytest.fixture(scope="module")
def exp(experiment):
    return experiment("qwen2")


@pytest.fixture(scope="module")
def kept(experiment):
    """LoRA leaves the prompt alone."""
    return experiment("llama", llm_conf={"lora_on_prompt": False})


@pytest.fixture(scope="module")
def vllm(exp, tmp_path_factory):
    out = tmp_path_factory.mktemp("vllm") / "out"
    assert run(exp, "vllm", out, "--bundle") == 0
    return out


@pytest.fixture
def inputs(vllm, monkeypatch):
    """The helper with the repository's code; `test_elsewhere.py` loads the code of a folder."""
    from pam.hf import modeling_pam, pam_inputs, processing_pam

    def drop(cls):
        return SimpleNamespace(
            from_pretrained=lambda where, trust_remote_code: cls.from_pretrained(where)
        )

    model = modeling_pam.PaMForConditionalGeneration
    monkeypatch.setattr(pam_inputs, "AutoModelForMultimodalLM", drop(model))
    monkeypatch.setattr(pam_inputs, "AutoProcessor", drop(processing_pam.PaMProcessor))
    return PaMInputs(vllm / "pam")


def test_vllms_inputs_give_greedys_tokens(exp, vllm, inputs):
    """transformers' own generate on the merged LLM, whose folder is a plain one."""
    expected = greedy_tokens(exp, clips(), PROMPTS)[0]
    llm = AutoModelForCausalLM.from_pretrained(vllm)
    assert not [name for name, _ in llm.named_parameters() if "lora" in name]
    width = llm.get_input_embeddings().weight.shape[1]
    vocabulary = llm.get_input_embeddings().weight.shape[0]
    for one, tokens in zip(inputs(clips(), PROMPTS), expected, strict=True):
        embeds, ids = one["prompt_embeds"], one["prompt_token_ids"]
        assert embeds.shape == (len(ids), width) and embeds.dtype == llm.dtype
        assert embeds.device.type == "cpu" and max(ids) < vocabulary
        found = llm.generate(inputs_embeds=embeds[None], max_new_tokens=TOKENS)[0].tolist()
        assert found[: len(tokens)] == tokens


def test_vllms_folder_has_the_file_that_makes_inputs(vllm):
    text = (vllm / "pam_inputs.py").read_text()
    assert "import pam" not in text.replace("import pam_inputs", "") and "class PaMInputs" in text
    assert AutoTokenizer.from_pretrained(vllm)("a").input_ids
    assert (vllm / "pam/processor_config.json").is_file()


def test_lora_that_leaves_the_prompt_alone_is_refused_with_a_remedy(kept, tmp_path):
    with pytest.raises(PamError, match=r"train with --set llm_conf.lora_on_prompt=true"):
        run(kept, "vllm", tmp_path / "out", "--bundle")
    assert not list(tmp_path.iterdir())


def test_a_merge_that_changes_the_llm_is_refused(exp, monkeypatch, tmp_path):
    def broken(lm):
        copy, shared = merged(lm), {p.data_ptr() for p in lm.parameters()}
        for parameter in copy.llm.parameters():
            if parameter.data_ptr() not in shared:
                parameter.data.mul_(1.1)
        return copy

    merged = merging.merged_copy
    monkeypatch.setattr(merging, "merged_copy", broken)
    with pytest.raises(PamError, match=r"merging LoRA changes the LLM's logits by \d"):
        run(exp, "hf", tmp_path / "out", "--bundle")


def test_weights_of_a_local_folder_need_bundle(exp, tmp_path):
    with pytest.raises(PamError, match="tiny-qwen is a folder of this machine.*--bundle"):
        run(exp, "hf", tmp_path / "out")


def test_an_export_to_a_folder_has_one_program_at_a_time(tmp_path):
    out = tmp_path / "out"
    refused = pytest.raises(PamError, match="out: another export is running")
    with locked_by_another(out, "export", alone_at), refused, new_folder(out):
        pass
    with new_folder(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_overwritten(exp, tmp_path):
    with pytest.raises(PamError, match="it exists: remove it"):
        run(exp, "hf", tmp_path, "--bundle")


@torch.no_grad()
def test_peft_reads_the_adapter(exp, llms, tmp_path):
    assert run(exp, "lora", tmp_path / "out") == 0
    own = load_experiment(exp)
    llm = AutoModelForCausalLM.from_pretrained(llms["qwen2"], dtype="float32")
    adapted = PeftModel.from_pretrained(llm, tmp_path / "out")
    ids = torch.tensor([own.llm.text_ids("Is it so?")])
    expected = own.llm.logits(own.llm.backbone(inputs_embeds=own.llm.embed(ids)).last_hidden_state)
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    fusion = load_file(tmp_path / "out/fusion.safetensors")
    learned = {k: v for k, v in read_learned(exp).items() if not k.startswith("llm.")}
    assert fusion.keys() == learned.keys()
    assert all(torch.equal(fusion[name], value) for name, value in learned.items())


def test_an_adapter_that_needs_care_says_so(kept, experiment, tmp_path):
    assert run(kept, "lora", tmp_path / "out") == 0
    assert "to be off while the prompt is read" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(PamError, match="has no LoRA"):
        run(experiment("llama", llm_conf={"lora_rank": 0}), "lora", tmp_path / "none")


def test_espnet_unpacks_it(exp, tmp_path):
    from espnet2.main_funcs.pack_funcs import unpack

    assert run(exp, "espnet", tmp_path / "model.zip") == 0
    found = unpack(tmp_path / "model.zip", tmp_path / "unpacked")
    assert set(found) == {"asr_model_file", "asr_train_config"}
    folder = tmp_path / "again"
    folder.mkdir()
    for key, name in (("asr_model_file", "model.pth"), ("asr_train_config", "config.yaml")):
        (folder / name).symlink_to(found[key])
    model = load_experiment(folder)
    load_learned(model, exp)
    assert [*(tmp_path / "unpacked").rglob("template.json")]
    with pytest.raises(PamError, match="name a file like MODEL.zip"):
        run(exp, "espnet", tmp_path / "model")


def test_a_model_without_lora_is_exported(experiment, tmp_path):
    exp = experiment("llama", llm_conf={"lora_rank": 0})
    assert run(exp, "hf", tmp_path / "out", "--bundle") == 0


@pytest.fixture
def card(experiment, tmp_path):
    """Front matter and text of the card of a scored experiment."""
    exp = experiment("llama")
    folder = exp / "greedy_unseen/asr_clean_test"
    folder.mkdir(parents=True)
    (folder / "score.json").write_text(json.dumps(SCORE))
    sets = {"settings": {"train_sets": ["a_train", "b_train", "c_train"]}, "complete": True}
    made = {"train": {**sets, "licences": {"a_train": "CC BY 4.0", "a_test": "CC0"}}}
    (exp / "made.json").write_text(json.dumps(made))
    words = ("--bundle", "--licence", "cc-by-4.0", "--data_licence", "b_train=my own")
    assert run(exp, "hf", tmp_path / "out", *words) == 0
    _, head, text = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_has_the_scores_with_their_intervals(card):
    head, text = card
    assert head["pipeline_tag"] == "audio-text-to-text" and "audio-text-to-text" in head["tags"]
    assert (head["license"], head["library_name"]) == ("cc-by-4.0", "transformers")
    (result,) = head["model-index"][0]["results"]
    assert result["task"]["type"] == "automatic-speech-recognition"
    assert result["dataset"]["name"] == "asr_clean_test"
    (metric,) = result["metrics"]
    assert (metric["type"], metric["value"]) == ("wer", 12.34)
    assert "95% CI" in metric["name"] and "120 utterances" in metric["name"]
    assert "for these 2 clusters only)" in metric["name"] and "for these 2 clusters only)" in text
    assert "95% CI" in text and "tiny-llm" in text


def test_the_card_has_the_versions_of_all_that_its_example_needs(card, tmp_path):
    _, text = card
    for name in ("jaxtyping", "numpy", "soundfile", "soxr", "torch", "transformers"):
        assert f"{name} {version(name).partition('+')[0]}" in text, name
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["transformers_version"] == version("transformers")


def test_the_card_has_the_licence_of_every_training_set(card):
    _, text = card
    found = text.split("## Training data and licences\n\n")[1].splitlines()[2:]
    assert found == [
        "| a_train | CC BY 4.0 |",
        "| b_train | my own |",
        '| c_train | unknown (state it: pam export --data_licence "SET=LICENCE") |',
    ]


def test_a_card_without_a_record_of_the_data_says_so(exp, tmp_path):
    assert run(exp, "hf", tmp_path / "out", "--bundle") == 0
    assert "sets of this training were not recorded" in (tmp_path / "out/README.md").read_text()


@pytest.fixture
def hub(monkeypatch):
    """What a hub is asked for; `there`: an existing repository is private."""
    found = SimpleNamespace(calls=[], there=None)

    def create_repo(repo, private, exist_ok):
        found.calls.append(("repo", repo, private))
        found.there = private if found.there is None else found.there
        return f"https://hub/{repo}"

    api = SimpleNamespace(
        create_repo=create_repo,
        repo_info=lambda repo: SimpleNamespace(private=found.there),
        upload_folder=lambda repo_id, folder_path: found.calls.append((repo_id, folder_path)),
    )
    monkeypatch.setattr(push, "HfApi", lambda token: found.calls.append(token) or api)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return found


@pytest.mark.parametrize(("more", "private"), [([], None), (["--private"], True)])
def test_push_uploads_the_folder(exp, tmp_path, hub, more, private):
    out = tmp_path / "out"
    assert run(exp, "lora", out, "--push", "me/model", *more) == 0
    assert hub.calls == ["secret", ("repo", "me/model", private), ("me/model", out)]


def test_nothing_private_is_pushed_to_a_public_repository(tmp_path, hub):
    hub.there = False
    with pytest.raises(PamError, match="--private: me/model exists and is public"):
        push.push(tmp_path, "me/model", private=True)
    assert (len(hub.calls), hub.calls[-1][0]) == (2, "repo")


def test_push_without_a_token_fails_first(exp, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PamError, match="HF_TOKEN is not set"):
        run(exp, "lora", tmp_path / "out", "--push", "me/model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hf", "--bundle", "--data_licence", "a"], "--data_licence a: expected SET=LICENCE"),
        (["hf", "--bundle", "--data_licence", "a=CC0"], "no training set has this name"),
        (["lora", "--data_licence", "a=CC0"], "--to lora has no model card"),
        (["lora", "--bundle"], "--bundle: --to lora has no pretrained weights"),
        (["lora", "--private"], "--private: nothing is uploaded: give --push USER/NAME"),
        (["espnet", "--push", "a/b"], "--push: --to espnet writes one file"),
    ],
)
def test_options_that_do_not_fit(exp, tmp_path, words, message):
    with pytest.raises(PamError, match=message):
        run(exp, words[0], tmp_path / "out", *words[1:])


def test_help_imports_no_torch():
    code = (
        "import sys; from pam.bin import export; export.get_parser().format_help(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
