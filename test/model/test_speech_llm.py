"""The Speech LLM against an uncached reference; padding, neighbours, checkpoints, gradients."""

import pytest
import torch
import torch.nn.functional as F
from toys import build_with_lora, make_batch, plain_row

from pam.decode.decoder import Decoder
from pam.decode.greedy import PromptMemory, greedy
from pam.decode.request import Request
from pam.decode.settings import Settings
from pam.errors import PamError
from pam.model.build import build_model, load_experiment
from pam.model.ctc import TokenEmbeddingCTC
from pam.model.speech_llm import ESPnetPaMModel, routing_loss
from pam.model.warmup import CTCWarmupModel
from pam.train.hearing import shuffled_audio


@pytest.fixture(params=["tiny_llm", "tiny_qwen"])
def family_model(request, tiny_config):
    """A Llama, and a Qwen2."""
    path = request.getfixturevalue(request.param)
    return build_with_lora(tiny_config | {"llm_conf": tiny_config["llm_conf"] | {"path": path}})


def test_loss_equals_the_plain_formula(family_model, batch):
    rows = [plain_row(family_model, batch, row) for row in range(3)]
    answer = F.cross_entropy(torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows]))
    routing = F.cross_entropy(torch.cat([r[2] for r in rows]), batch["task"])
    loss, stats, weight = family_model(**batch)
    # float32, cache and padding against neither: worst difference seen 5e-7
    torch.testing.assert_close(loss, answer + routing, rtol=1e-5, atol=1e-5)
    assert weight == sum(len(r[1]) for r in rows)
    two = F.cross_entropy(rows[1][0], rows[1][1])
    torch.testing.assert_close(stats["loss_snv"], two, rtol=1e-5, atol=1e-5)


def test_dropped_words_are_read_as_spaces_and_still_predicted(tiny_config, batch):
    model = build_model(tiny_config | {"model_conf": {"bf16": False, "word_dropout": 0.5}}).train()
    chance = torch.rand(batch["text"].shape, generator=torch.Generator().manual_seed(1))
    read = model.drop_words(batch["text"].clamp(min=0), chance)
    assert 0 < (read != batch["text"]).sum() < read.numel()
    assert (read[read != batch["text"]] == model.llm.space).all()
    rows = [plain_row(model, batch, row, read) for row in range(3)]
    expected = F.cross_entropy(torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows]))
    routing = F.cross_entropy(torch.cat([r[2] for r in rows]), batch["task"])
    loss = model(**batch, chance=chance)[0]
    torch.testing.assert_close(loss, expected + routing, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="needs `chance`"):
        model(**batch)
    assert model.eval().drop_words(batch["text"], chance) is batch["text"]


def test_gradients_equal_the_plain_formula(tiny_model, batch):
    parameters = [p for p in tiny_model.parameters() if p.requires_grad]
    rows = [plain_row(tiny_model, batch, row) for row in range(3)]
    plain = F.cross_entropy(torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows]))
    plain = plain + F.cross_entropy(torch.cat([r[2] for r in rows]), batch["task"])
    expected = torch.autograd.grad(plain, parameters, allow_unused=True)
    got = torch.autograd.grad(tiny_model(**batch)[0], parameters, allow_unused=True)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_have_fixed_keys_and_nan_for_absent_tasks(tiny_model, batch):
    _, stats, _ = tiny_model(**batch)
    expected = {f"{v}_{t}" for v in ("loss", "acc", "router_acc") for t in tiny_model.tasks}
    assert set(stats) == expected | {"loss"}
    assert stats["loss_ac"].isnan() and stats["router_acc_asr_noisy"].isnan()
    assert stats["loss_asr_clean"].isfinite()


def test_padding_full_of_nan_changes_nothing(tiny_model, batch):
    dirty = {k: v.clone() for k, v in batch.items()}
    for shape in tiny_model.shapes:
        for row, frames in enumerate(batch[f"{shape.name}_lengths"]):
            dirty[shape.name][row, frames:] = torch.nan
    clean_loss, dirty_loss = tiny_model(**batch)[0], tiny_model(**dirty)[0]
    assert torch.equal(clean_loss, dirty_loss)
    dirty_loss.backward()
    grads = [p.grad for p in tiny_model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)


def test_the_shortest_encoder_sets_the_length(tiny_model, batch):
    longer = dict(batch)
    longer["second"] = torch.cat([batch["second"], torch.ones(3, 2, 8)], 1)
    longer["second_lengths"] = batch["second_lengths"] + 2
    assert torch.equal(tiny_model(**batch)[0], tiny_model(**longer)[0])


def test_every_trainable_weight_gets_a_gradient_and_nothing_else_does(tiny_model):
    batch = make_batch(
        tiny_model, ["a?", "b", "c", "d"], ["x y", "z", "u", "v"], [0, 1, 2, 3], [4] * 4
    )
    tiny_model(**batch)[0].backward()
    for name, parameter in tiny_model.named_parameters():
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert moved == parameter.requires_grad, name


def test_one_step_lowers_the_loss(tiny_model, batch):
    optimizer = torch.optim.AdamW([p for p in tiny_model.parameters() if p.requires_grad], lr=1e-2)
    before = tiny_model(**batch)[0]
    before.backward()
    optimizer.step()
    assert tiny_model(**batch)[0] < before


def test_bf16_is_close_to_float32(tiny_model, batch):
    exact = tiny_model(**batch)[0]
    tiny_model.bf16 = True
    # bfloat16 has 8 bits: relative difference seen 4e-3
    torch.testing.assert_close(tiny_model(**batch)[0], exact, rtol=2e-2, atol=0)


def features_of(model, batch):
    features = {s.name: batch[s.name] for s in model.shapes}
    return features, {name: batch[f"{name}_lengths"] for name in features}


def plain_greedy(model, batch, row, prompt, steps):
    """One utterance, no cache: the whole sequence again for every token."""
    frames = batch["first_lengths"][row]
    states = [
        batch[s.name][row : row + 1, :frames].unflatten(-1, (s.num_states, s.dim)).transpose(1, 2)
        for s in model.shapes
    ]
    llm, ids = model.llm, torch.tensor(model.llm.prompt_ids(prompt))
    last = llm.backbone(inputs_embeds=llm.embed(ids)[None]).last_hidden_state[:, -1]
    gate = model.router.gate(model.router(last))
    whole = torch.cat([llm.embed(ids), model.fuse(states, frames[None], gate)[0][0]])
    said = []
    for _ in range(steps):
        hidden = llm.backbone(inputs_embeds=whole[None]).last_hidden_state[0, -1]
        token = int(llm.logits(hidden).argmax())
        if token == llm.eos:
            break
        said.append(token)
        whole = torch.cat([whole, llm.embed(torch.tensor([token]))])
    return said, int(gate.argmax())


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_batched_cached_decoding_equals_single_uncached(family_model, seed):
    prompts = ["Write it down, please.", "How many?", "Write it down, please."]
    batch = make_batch(family_model, prompts, ["a", "b", "c"], [0, 2, 0], [7, 3, 5], seed)
    features, lengths = features_of(family_model, batch)
    memory = PromptMemory(family_model)
    out = greedy(family_model, features, lengths, prompts, 12, memory)
    for row, prompt in enumerate(prompts):
        tokens, expert = plain_greedy(family_model, batch, row, prompt, 12)
        assert (out.tokens[row], out.experts[row]) == (tokens, expert)
    again = greedy(family_model, features, lengths, prompts, 12, memory)
    assert again.tokens == out.tokens and len(memory.known) == 2
    assert out.texts[0] == family_model.tokenizer.decode(out.tokens[0]).strip()
    torch.testing.assert_close(out.posteriors, family_model.prompt_posteriors(prompts))


@torch.no_grad()
def test_decoding_stops_at_the_end_token(tiny_model, batch, monkeypatch):
    features, lengths = features_of(tiny_model, batch)
    prompts = ["x"] * 3
    free = greedy(tiny_model, features, lengths, prompts, 12).tokens
    # Make the second token of row 0 the end token: the row must stop after one token.
    monkeypatch.setattr(type(tiny_model.llm), "eos", property(lambda self: free[0][1]))
    stopped = greedy(tiny_model, features, lengths, prompts, 12).tokens
    assert stopped[0] == free[0][: free[0].index(free[0][1])]


@torch.no_grad()
def test_long_answers_end_at_their_own_limit(tiny_model, batch):
    features, lengths = features_of(tiny_model, batch)
    free = greedy(tiny_model, features, lengths, ["x"] * 3, 40).tokens
    limited = greedy(
        tiny_model, features, lengths, ["x"] * 3, 40, max_tokens_per_second=75.0
    ).tokens  # 3 a frame of 40 ms
    limits = [max(3 * frames, 16) for frames in (7, 4, 5)]
    assert limited == [row[:limit] for row, limit in zip(free, limits, strict=True)]
    assert any(len(row) > limit for row, limit in zip(free, limits, strict=True))


def test_checkpoints_hold_trainable_weights_only(tiny_model, tiny_config, batch, tmp_path):
    import yaml

    state = tiny_model.state_dict()
    assert set(state) == tiny_model.trainable_names()
    assert any("lora_" in name for name in state) and not any("embed_tokens" in n for n in state)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_config))
    torch.save(state, tmp_path / "model.pth")
    again = load_experiment(tmp_path)
    assert torch.equal(again(**batch)[0], tiny_model(**batch)[0])


def test_a_checkpoint_of_another_system_is_one_clear_error(tiny_model, tiny_config, tmp_path):
    import yaml

    torch.save(tiny_model.state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(tiny_config | {"fusion": "concat", "fusion_conf": {}})
    )
    with pytest.raises(PamError, match="model.pth does not fit .*another system"):
        load_experiment(tmp_path)
    other = tiny_config | {"fusion_conf": {"num_fused": 3}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(other))
    shapes = r"shared.weight is \[2, 5\], not \[3, 5\]"
    with pytest.raises(PamError, match=f"does not fit .*another system: .*{shapes}") as error:
        load_experiment(tmp_path)
    assert "\n" not in str(error.value)
    adapter = {"fusion": "concat", "fusion_conf": {"adapter": {"standardize": True}}}
    torch.save(build_model(tiny_config | adapter).state_dict(), tmp_path / "model.pth")
    encoders = {name: spec | {"num_states": 1} for name, spec in tiny_config["encoders"].items()}
    fewer = tiny_config | adapter | {"encoders": encoders}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(fewer))
    with pytest.raises(PamError, match="another system: fusion.adapters.0.shift is .*, not .1, "):
        load_experiment(tmp_path)
    torch.save(tiny_model.state_dict(), tmp_path / "model.pth")
    (tmp_path / "model.pth").write_bytes((tmp_path / "model.pth").read_bytes()[:500])
    with pytest.raises(PamError, match="model.pth cannot be read: "):
        load_experiment(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(PamError, match="encoders, llm_conf, .* is missing"):
        load_experiment(tmp_path)
    with pytest.raises(PamError, match="no trained model here: correct the path, or run stages 4"):
        load_experiment(tmp_path / "nowhere")


def test_an_experiment_that_averaged_frames_after_ffn_e_is_refused(tiny_config):
    """Earlier versions had `pool: after`; with `before` they did what is done now."""
    with pytest.raises(PamError, match="pool: after: frames are now averaged before FFN_e only"):
        build_model(tiny_config | {"pool": "after"})
    build_model(tiny_config | {"pool": "before"})


def test_frozen_parts_keep_their_type_and_stay_in_eval(tiny_config):
    tiny_config["llm_conf"] = {**tiny_config["llm_conf"], "dtype": "bfloat16"}
    model = build_model(tiny_config).to(dtype=torch.float32, device="cpu")
    assert model.llm.embeddings.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    model.train()
    assert not any(m.training for m in model.llm.modules())
    assert model.fusion.training


@pytest.mark.parametrize("fusion", ["pam", "average", "wavllm", "salmonn"])
def test_a_float32_model_takes_states_of_bfloat16(tiny_config, batch, fusion):
    """Encoders of the paper's scale are in bfloat16, whatever the model's arithmetic is."""
    model = build_model(tiny_config | {"fusion": fusion, "fusion_conf": {}}).eval()
    gate = F.one_hot(batch["task"], 4).float()
    audio = {k: v for k, v in batch.items() if k.startswith(("first", "second"))}
    coarse = {k: v.bfloat16() if v.is_floating_point() else v for k, v in audio.items()}
    same = {k: v.float() if v.is_floating_point() else v for k, v in coarse.items()}
    found, expected = (model.fuse(*model.states(one), gate)[0] for one in (coarse, same))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    model.bf16 = True  # autocast takes them as they are
    assert {state.dtype for state in model.states(coarse)[0]} == {torch.bfloat16}


def test_feature_scale_gives_every_frame_the_embeddings_norm(tiny_config, batch):
    model = build_model(tiny_config | {"model_conf": {"bf16": False, "feature_scale": "embedding"}})
    gate = F.one_hot(batch["task"], 4).float()
    audio = {k: v for k, v in batch.items() if k.startswith(("first", "second"))}
    features, _ = model.fuse(*model.states(audio), gate)
    norms = features[0].norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, model.embedding_norm))


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("model_conf", {"routing": "lable"}, "'lable' is not one of label, predicted"),
        ("model_conf", {"rooting": "label"}, "unknown option 'rooting': did you mean 'routing'"),
        ("router_conf", {"gates": "x"}, "unknown option 'gates': did you mean 'gate'"),
        ("encoders", {"a": {"family": "whisper"}}, "encoders.a: needs family, path, dim"),
        ("model_conf", {"word_dropout": 1.0}, "word_dropout: 1.0 is not in"),
        ("encoders", {}, "at least one encoder"),
        ("llm_conf", {"path": "x", "h_prompt": "first"}, "'first' is not one of last, mean"),
    ],
)
def test_bad_configurations(tiny_config, part, value, message):
    with pytest.raises(PamError, match=message):
        build_model(tiny_config | {part: value})


@torch.no_grad()
def test_the_mean_of_the_prompt_can_route(tiny_config):
    model = build_model(tiny_config | {"llm_conf": tiny_config["llm_conf"] | {"h_prompt": "mean"}})
    prompts = ["Write.", "How many speakers are there?"]
    pooled = model.read_prompts(prompts).pooled
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([model.llm.prompt_ids(prompt)])
        alone = model.llm.backbone(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(pooled[row], alone, rtol=1e-5, atol=1e-5)


def test_lora_can_leave_the_prompt_alone(tiny_model, tiny_config, batch):
    llm_conf = tiny_config["llm_conf"] | {"lora_on_prompt": False}
    model = build_model(tiny_config | {"llm_conf": llm_conf})
    model.load_state_dict(tiny_model.state_dict())
    plain = build_model(tiny_config | {"llm_conf": tiny_config["llm_conf"] | {"lora_rank": 0}})
    prompts = ["Write it down.", "How many speakers?"]
    pooled = model.pooled_prompts(prompts)
    torch.testing.assert_close(pooled, plain.pooled_prompts(prompts), rtol=0, atol=0)
    assert (pooled - tiny_model.pooled_prompts(prompts)).abs().max() > 1e-3
    loss = model(**batch)[0]  # the answer still goes through LoRA, which still learns
    assert (loss - tiny_model(**batch)[0]).abs() > 1e-4
    loss.backward()
    lora = [p.grad for name, p in model.named_parameters() if "lora_" in name]
    assert lora and all(grad is not None and grad.abs().sum() > 0 for grad in lora)
    model.llm.requires_grad_(False)
    model.pooled_prompts(prompts)
    assert not any(p.requires_grad for p in model.llm.parameters())  # frozen stays frozen


def test_unknown_lora_target(tiny_config):
    llm_conf = tiny_config["llm_conf"] | {"lora_targets": ["q_prog"]}
    with pytest.raises(PamError, match="lora_targets.*q_prog"):
        build_model(tiny_config | {"llm_conf": llm_conf})


def test_shuffled_audio_moves_audio_only(tiny_model, batch):
    shuffled = shuffled_audio(batch, tiny_model)
    assert torch.equal(shuffled["first"][1], batch["first"][0])
    assert torch.equal(shuffled["second_lengths"][0], batch["second_lengths"][2])
    for name in ("text", "prompt", "task", "prompt_index"):
        assert torch.equal(shuffled[name], batch[name])


def test_predicted_routing_uses_the_router(tiny_config, batch):
    torch.manual_seed(3)
    model: ESPnetPaMModel = build_model(
        tiny_config | {"model_conf": {"bf16": False, "routing": "predicted"}}
    )
    with torch.no_grad():
        model.router.ffn.weight.zero_()
        model.router.ffn.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))
    model(**batch)[0].backward()
    assert model.fusion.experts[1].weight.grad.abs().sum() > 0
    assert model.fusion.experts[0].weight.grad is None


def rigged(model, bias):
    """The model in validation, with a router that prefers experts whatever the prompt is."""
    with torch.no_grad():
        model.router.ffn.weight.zero_()
        model.router.ffn.bias.copy_(torch.tensor(bias))
        for number, expert in enumerate(model.fusion.experts):
            torch.nn.init.normal_(expert.weight, std=1.0 + number)
    return model.eval()


def forced(model, batch, expert, rows):
    """The plain answer losses of rows [list of [Y]] where the gate takes `expert`."""
    batch = batch | {"task": torch.full_like(batch["task"], expert)}
    plain = [plain_row(model, batch, row) for row in rows]
    return [F.cross_entropy(logits, text, reduction="none") for logits, text, _ in plain]


@pytest.mark.parametrize("gate", ["indicator", "probability"])
def test_a_router_that_is_right_changes_nothing_in_validation(tiny_config, gate, monkeypatch):
    model = build_with_lora(tiny_config | {"router_conf": {"gate": gate}})
    batch = make_batch(model, ["a", "b"], ["hello", "x"], [2, 2], [5, 4])
    rigged(model, [0.0, 0.0, 2.0, 0.0])
    calls, plain = [], model.fuse
    monkeypatch.setattr(model, "fuse", lambda *args: calls.append(1) or plain(*args))
    stats = model(**batch)[1]
    assert torch.equal(stats["loss_routed"], stats["loss"]) and len(calls) == 1
    assert torch.equal(stats["loss_routed_snv"], stats["loss_snv"])
    assert stats["loss_routed_ac"].isnan()


@torch.no_grad()
def test_validation_shows_what_a_wrong_router_does(tiny_model, batch, monkeypatch):
    """Rows of tasks 0, 2, 0: the router takes 3 for all of them, then 2, which is right for one."""
    plain_fuse, rows = tiny_model.fuse, []

    def fuse(states, *others):
        rows.append(len(states[0]))
        return plain_fuse(states, *others)

    for wrong, again in ((3, 3), (2, 2)):
        model = rigged(tiny_model, [5.0 * (expert == wrong) for expert in range(4)])
        losses = forced(model, batch, wrong, range(3))
        with monkeypatch.context() as patch:
            patch.setattr(model, "fuse", fuse)
            loss, stats, _ = model(**batch)
        assert rows == [3, again]
        rows.clear()
        routing = (
            loss
            - torch.cat([forced(model, batch, e, [r])[0] for r, e in enumerate((0, 2, 0))]).mean()
        )
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(
            stats["loss_routed"], torch.cat(losses).mean() + routing, **close
        )
        torch.testing.assert_close(stats["loss_routed_snv"], losses[1].mean(), **close)
        clean = torch.cat([losses[0], losses[2]]).mean()
        torch.testing.assert_close(stats["loss_routed_asr_clean"], clean, **close)
        assert (clean - stats["loss_asr_clean"]).abs() > 1e-2


def test_the_routed_loss_has_the_share_of_its_process(tiny_model):
    """Of two processes with unlike numbers of tokens the mean is that of the joint batch."""
    model = rigged(tiny_model, [0.0, 5.0, 0.0, 0.0])
    whole = make_batch(model, ["a"] * 3, ["hello there", "x", "yes"], [0] * 3, [5, 5, 5])
    joint = model(**whole)[1]
    tokens = whole["text_lengths"].tolist()
    mean = [sum(tokens) / 2, 3 / 2]
    parts = []
    for rows in (slice(0, 1), slice(1, 3)):
        part = {k: v if k in ("prompt", "prompt_lengths") else v[rows] for k, v in whole.items()}
        own = [float(sum(tokens[rows])), float(len(tokens[rows]))]
        parts.append(model(**part, counts=torch.tensor([own, mean, mean]))[1])
    for name in ("loss", "loss_routed", "loss_routed_asr_clean"):
        together = (parts[0][name] + parts[1][name]) / 2
        torch.testing.assert_close(together, joint[name], rtol=1e-5, atol=1e-5)
    assert (joint["loss_routed"] - joint["loss"]).abs() > 1e-2


@pytest.mark.parametrize(
    "system",
    [
        {"fusion": "concat", "fusion_conf": {}},
        {
            "router_conf": {"gate": "probability"},
            "model_conf": {"bf16": False, "routing": "predicted", "routing_loss": False},
        },
    ],
    ids=["no_router", "no_label"],
)
def test_only_labelled_routers_have_a_routed_loss(tiny_config, batch, system):
    model = build_model(tiny_config | system).eval()
    assert not any(name.startswith("loss_routed") for name in model(**batch)[1])


def test_the_routing_loss_is_cross_entropy_or_asks_for_one_of_several():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    task = torch.tensor([0, 3, 1, 1, 2])
    one = torch.nn.functional.one_hot(task, 4).bool()
    expected = torch.nn.functional.cross_entropy(logits, task, reduction="none")
    torch.testing.assert_close(routing_loss(logits, one), expected)
    several = one.clone()
    several[0, 1] = True
    probability = logits[0].softmax(-1)[:2].sum()
    torch.testing.assert_close(routing_loss(logits, several)[0], -probability.log())
    torch.testing.assert_close(routing_loss(logits, several)[1:], expected[1:])


def test_either_expert_is_right_for_a_request_that_says_nothing_of_the_speech(tiny_model, batch):
    """Loss and accuracy of the router take `experts`; without, the task's own is right."""
    tiny_model.eval()
    plain, own, _ = tiny_model(**batch)
    right = torch.nn.functional.one_hot(batch["task"], 4).bool()[:, None]
    again, same, _ = tiny_model(**batch, experts=right)
    assert torch.equal(plain, again) and torch.equal(
        own["router_acc_asr_clean"], same["router_acc_asr_clean"]
    )
    every, stats, _ = tiny_model(**batch, experts=torch.ones_like(right))
    assert every < plain and stats["router_acc_asr_clean"] == 1
    torch.testing.assert_close(every, stats["loss"])


def test_the_router_learns_from_further_prompts_that_change_no_answer(tiny_model, batch):
    """Its loss is the mean over the prompts of a row; the row is read with its own."""
    plain, before, _ = tiny_model(**batch)
    further = batch["prompt_index"].roll(1, 0)
    index = torch.cat([batch["prompt_index"], further], 1)
    loss, after, _ = tiny_model(**batch | {"prompt_index": index})
    for name in before.keys() - {"loss", "loss_routed"}:
        torch.testing.assert_close(after[name], before[name], equal_nan=True)
    pooled = tiny_model.llm.read_prompts(batch["prompt"], batch["prompt_lengths"]).pooled
    logits = tiny_model.router(pooled)

    def routing(rows):
        return torch.nn.functional.cross_entropy(logits[rows[:, 0]], batch["task"])

    own, other = routing(batch["prompt_index"]), routing(further)
    assert abs(own - other) > 0.01
    torch.testing.assert_close(loss - plain, (other - own) / 2)


def test_prompts_that_are_kept_change_no_loss_and_no_gradient(tiny_config, batch):
    llm_conf = tiny_config["llm_conf"] | {"lora_on_prompt": False}
    model = build_model(tiny_config | {"llm_conf": llm_conf}).train()
    model.forward(**batch)[0].backward()
    read = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss = model.forward(**batch)[0]
    model.keep_prompts({"snv": ["How many speakers?", "Another."], "ac": ["Write it down."]})
    asked = []
    model.llm.read_training_prompts = lambda *given: asked.append(given)  # not in training
    kept = model.forward(**batch)[0]
    torch.testing.assert_close(kept, loss, rtol=1e-4, atol=1e-5)
    kept.backward()
    assert not asked
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found, read, rtol=1e-3, atol=1e-5)


def test_prompts_that_are_kept_move_with_the_model(tiny_config):
    """ESPnet builds the model on the CPU and then moves it to the GPU."""
    llm_conf = tiny_config["llm_conf"] | {"lora_on_prompt": False}
    model = build_model(tiny_config | {"llm_conf": llm_conf})
    model.keep_prompts({"ac": ["Another."]})
    ids, lengths = model.llm.prompt_batch(["Another."])
    assert model.to(torch.device("meta"), dtype=torch.float32) is model
    states = model.bank.states(ids, lengths)
    every = [model.bank.all_pooled, states.pooled, states.mask, *states.keys, *states.values]
    assert {tensor.device.type for tensor in every} == {"meta"}


@pytest.fixture
def prompted(tiny_config):
    """A system without a router, whose fusion reads the prompt itself."""
    model = build_with_lora(tiny_config | {"fusion": "prompt_mixture"})
    torch.nn.init.normal_(model.fusion.router.ffn.weight, std=2.0)
    return model.eval()


def test_a_fusion_that_reads_the_prompt_gets_it_and_no_task(prompted, batch):
    """In training: the same features for any task, others for another prompt, no routing loss."""
    assert prompted.router is None and not prompted.labelled
    prompts = prompted.llm.read_prompts(batch["prompt"], batch["prompt_lengths"])
    for task in (None, batch["task"][:2]):
        logits, gate = prompted.route(prompts, task)
        assert logits is None and torch.equal(gate, prompts.pooled)
    loss, stats, _ = prompted(**batch)
    assert torch.equal(prompted(**batch | {"task": (batch["task"] + 1) % 4})[0], loss)
    swapped = batch | {"prompt_index": batch["prompt_index"].roll(1, 0)}
    audio = prompted.states(prompted.audio_of(batch))
    one, other = (
        prompted.fuse(*audio, prompts.pooled[b["prompt_index"][:, 0]])[0] for b in (batch, swapped)
    )
    assert not torch.allclose(one, other, rtol=0.01)
    assert not any(name.startswith(("router_acc", "loss_routed")) for name in stats)


def test_its_warm_up_reads_no_prompt(prompted, batch):
    tokens = prompted.llm.answer_ids("abc")
    warm = CTCWarmupModel(
        prompted, TokenEmbeddingCTC(prompted.llm.embeddings, tokens, prompted.llm.space)
    )
    longer = make_batch(prompted, ["Write."], ["a", "b"], [0, 0], [40, 30])
    loss, _, _ = warm(**longer)
    other = make_batch(prompted, ["Count them, please."], ["a", "b"], [1, 1], [40, 30])
    assert torch.equal(warm(**other)[0], loss)
    loss.backward()
    linear = prompted.fusion.router.ffn
    assert linear.bias.grad.abs().sum() > 0 and linear.weight.grad.abs().sum() == 0


def test_it_answers_without_an_expert(prompted, batch):
    """By each way of decoding; the API then shows neither an expert nor posteriors."""
    names = [shape.name for shape in prompted.shapes]
    features = {name: batch[name] for name in names}
    lengths = {name: batch[f"{name}_lengths"] for name in names}
    expected = greedy(prompted, features, lengths, ["a", "bb", "a"], 5)
    assert (expected.experts, expected.posteriors) == (None, None)
    clips = [{n: x[row, : int(lengths[n][row])] for n, x in features.items()} for row in range(3)]
    requests = [
        Request(row, prompt, lambda clip=clip: clip, 5, 0.0)
        for row, (prompt, clip) in enumerate(zip(["a", "bb", "a"], clips, strict=True))
    ]
    for exact in (True, False):
        for answer in Decoder(prompted, Settings(exact=exact)).answers(requests):
            assert (answer.expert, answer.posterior) == (None, None)
            assert answer.tokens == expected.tokens[answer.key]
    with pytest.raises(PamError, match="this system has no router"):
        prompted.prompt_posteriors(["a"])
