"""What stands around prompt, audio and answer, and that one pass over all of it gives the same."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing
from toys import make_batch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pam.decode.greedy import greedy
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.template import make_template
from pam.model.build import build_model

# As SmolLM2's, Qwen2.5's and Llama 3's do: a system turn of its own, trimmed texts, a date.
CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help. "
    "{{ date_string or strftime_now('%d %b %Y') }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = ["Write it down.", "How many speakers?", "Write it down."]


@pytest.fixture
def tokenizer(tiny_llm):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.fixture
def chat_llm(tiny_llm, tokenizer, tmp_path):
    """A folder with the tiny LLM and a tokenizer with a chat template."""
    torch.manual_seed(5)
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm)
    llm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    llm.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    return str(tmp_path / "chat")


@pytest.fixture
def chat_model(tiny_config, chat_llm):
    torch.manual_seed(1)
    conf = tiny_config["llm_conf"] | {"path": chat_llm, "template": "chat"}
    return build_model(tiny_config | {"llm_conf": conf})


def test_the_pieces_make_the_chat_template(tokenizer):
    template = make_template(tokenizer, "chat")
    words = [tokenizer(text).input_ids for text in ("Write it down.", "hello there")]
    pieces = [*template.opening, *words[0], *template.closing, *words[1], template.end]
    turns = [
        {"role": "user", "content": "Write it down."},
        {"role": "assistant", "content": "hello there"},
    ]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, date_string="26 Jul 2024")
    assert tokenizer.decode(pieces) + "\n" == whole
    assert tokenizer(whole).input_ids[:-1] == pieces
    # The turn ends where the template ends it, whatever the tokenizer's eos_token is.
    assert tokenizer.decode(template.end) == "<|im_end|>" != tokenizer.eos_token
    assert template.joint == ""


def test_plain_text_has_the_tokenizers_own_start_and_end(tokenizer):
    template = make_template(tokenizer, "plain")
    assert template.opening == template.closing == ()
    assert (template.joint, template.end) == (" ", tokenizer.eos_token_id)
    bos = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    assert make_template(tokenizer, "plain").opening == (bos,)  # as Llama's


def test_ids_of_prompts_and_answers(chat_llm):
    plain, chat = CausalLM(chat_llm), CausalLM(chat_llm, template="chat")
    assert plain.prompt_ids("Hi") == plain.tokenizer("Hi").input_ids
    assert chat.prompt_ids("Hi")[len(chat.template.opening) :] == plain.prompt_ids("Hi")
    assert plain.answer_ids("two") == plain.tokenizer(" two").input_ids
    assert chat.answer_ids("two") == plain.tokenizer("two").input_ids
    assert plain.eos != chat.eos
    assert plain.tokenizer.pad_token is None  # a tokenizer needs none: prompts are masked
    ids, lengths = chat.prompt_batch(["Hi", "Hello"])
    assert lengths.tolist() == [len(chat.prompt_ids(text)) for text in ("Hi", "Hello")]


def whole_row(model, batch, row):
    """One utterance in one pass: logits of the answer's tokens, the tokens, h_prompt."""
    llm, template = model.llm, model.llm.template
    index = batch["prompt_index"][row, 0]
    prompt = batch["prompt"][index, : batch["prompt_lengths"][index]]
    text = batch["text"][row, : batch["text_lengths"][row]]
    frames = batch["first_lengths"][row]
    audio = {k: v[row : row + 1] for k, v in batch.items() if k.startswith(("first", "second"))}
    gate = F.one_hot(batch["task"][row : row + 1], len(model.tasks)).float()
    features = model.fuse(*model.states(audio), gate)[0][0][:frames]
    closing = llm.embed(torch.tensor(template.closing))
    parts = [llm.embed(prompt), features, closing, llm.embed(text[:-1])]
    hidden = llm.backbone(inputs_embeds=torch.cat(parts)[None]).last_hidden_state[0]
    return llm.logits(hidden[-len(text) :]), text, hidden[len(prompt) - 1]


def test_a_chat_in_one_pass_gives_the_same_loss_and_router_input(chat_model):
    batch = make_batch(chat_model, PROMPTS, ["hello there", "two", "a"], [0, 2, 0], [7, 4, 5])
    rows = [whole_row(chat_model, batch, row) for row in range(3)]
    answer = F.cross_entropy(torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows]))
    h_prompt = torch.stack([r[2] for r in rows])
    routing = F.cross_entropy(chat_model.router(h_prompt), batch["task"])
    loss, _, _ = chat_model(**batch)
    torch.testing.assert_close(loss, answer + routing, rtol=1e-5, atol=1e-5)
    pooled = chat_model.read_prompts(PROMPTS).pooled
    torch.testing.assert_close(pooled, h_prompt, rtol=1e-5, atol=1e-5)


def test_the_mean_of_a_prompt_leaves_the_opening_out(chat_llm):
    llm = CausalLM(chat_llm, dtype="float32", template="chat", h_prompt="mean")
    ids, lengths = llm.prompt_batch(PROMPTS[:2])
    pooled = llm.read_prompts(ids, lengths).pooled
    for row in range(2):
        alone = llm.backbone(input_ids=ids[row : row + 1, : lengths[row]]).last_hidden_state[0]
        own = alone[len(llm.template.opening) :].mean(0)
        torch.testing.assert_close(pooled[row], own, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_decoding_answers_after_the_closing(chat_model):
    batch = make_batch(chat_model, PROMPTS, ["a", "b", "c"], [0, 2, 0], [7, 3, 5])
    features = {s.name: batch[s.name] for s in chat_model.shapes}
    lengths = {name: batch[f"{name}_lengths"] for name in features}
    task = batch["task"]
    out = greedy(chat_model, features, lengths, PROMPTS, 6, expert=task)
    for row, tokens in enumerate(out.tokens):
        said = [*tokens, chat_model.llm.eos][:6]
        batch["text"][row, :1], batch["text_lengths"][row] = 0, 1
        for step, token in enumerate(said):
            text = torch.tensor([*said[:step], 0])
            one = batch | {"text": text.expand(3, -1), "text_lengths": torch.tensor([step + 1] * 3)}
            assert int(whole_row(chat_model, one, row)[0][-1].argmax()) == token


def test_the_date_of_a_template_is_fixed(tokenizer):
    assert "26 Jul 2024" in tokenizer.decode(make_template(tokenizer, "chat").opening)


@pytest.mark.parametrize(
    "chat, message",
    [
        (None, "has no chat template: use plain, or an instruct model"),
        ("{% for m in messages %}{{ m['content'] }}.{% endfor %}", "no special token"),
        ("<|im_start|>{{ messages[-1]['role'] }}", "does not hold each turn's text once"),
    ],
)
def test_templates_that_cannot_be_used(tokenizer, chat, message):
    tokenizer.chat_template = chat
    with pytest.raises(PamError, match=message):
        make_template(tokenizer, "chat")


def test_other_errors(tokenizer, tmp_path):
    with pytest.raises(PamError, match="llm_conf.template: 'chta': did you mean 'chat'"):
        make_template(tokenizer, "chta")
    tokenizer.eos_token = None
    with pytest.raises(PamError, match="has no eos_token"):
        make_template(tokenizer, "plain")
    for path in (str(tmp_path), "/nowhere/at/all", "nobody/no-such-llm", "cache:no-such-llm"):
        with pytest.raises(PamError, match="cannot be loaded as an LLM|fetch_models.py") as error:
            CausalLM(path)
        assert path in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut off", "no weights", "of another size"])
def test_damaged_weights_are_one_line(tiny_llm, tmp_path, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_llm, folder)
    weights = folder / "model.safetensors"
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no weights":
        weights.write_bytes(b"<html>not found</html>")
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(PamError, match="damaged' cannot be loaded as an LLM: ") as error:
        CausalLM(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "targets, layers",
    [
        (
            "all-linear",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        ("o_proj", {"o_proj"}),
    ],
)
@pytest.mark.parametrize("family", ["tiny_llm", "tiny_qwen"])
def test_lora_targets(request, family, targets, layers):
    path = request.getfixturevalue(family)
    llm = CausalLM(path, lora_rank=2, lora_targets=targets)
    names = [
        n.split(".lora_")[0].split(".")[-1] for n, p in llm.named_parameters() if p.requires_grad
    ]
    assert set(names) == layers and len(names) == 2 * 2 * len(layers)


@pytest.mark.parametrize(
    "targets, message",
    [
        (["q_prj"], "lora_targets: 'q_prj': did you mean 'q_proj'"),
        (["q_proj", "c_attn"], "lora_targets: 'c_attn': known: all-linear, down_proj"),
        ("all_linear", "lora_targets: 'all_linear': did you mean 'all-linear'"),
        ([], "lora_targets: "),
    ],
)
def test_lora_targets_that_match_nothing(tiny_llm, targets, message):
    with pytest.raises(PamError, match=message) as error:
        CausalLM(tiny_llm, lora_rank=2, lora_targets=targets)
    assert "\n" not in str(error.value)


@pytest.mark.models
def test_the_mini_llms_chat_template():
    from pam.paths import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("cache:smollm2-135m-instruct"))
    template = make_template(tokenizer, "chat")
    assert tokenizer.decode(template.opening).endswith("<|im_end|>\n<|im_start|>user\n")
    assert tokenizer.decode(template.closing) == "<|im_end|>\n<|im_start|>assistant\n"
    assert template.end == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert make_template(tokenizer, "plain").opening == ()
