"""Read answers with their own tokens as context and keep the states at every depth of the LLM."""

# B = 1 row, Y answer tokens, D width of the LLM

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pam.data.datadir import DataDir
from pam.data.prompts import prompts_of
from pam.data.sample import even_places
from pam.data.scp import read_text_file
from pam.data.utterances import Utterance, batch_of, read_inputs, read_utterances
from pam.decode.greedy import PromptMemory
from pam.errors import PamError
from pam.exits.measure import Read
from pam.llm.causal_lm import CausalLM
from pam.llm.depth import Depth
from pam.log import progress
from pam.model.speech_llm import ESPnetPaMModel
from pam.score.items import read_items


def speech_answers(
    model: ESPnetPaMModel,
    depth: Depth,
    data_dir: Path,
    config: Mapping[str, Any],
    count: int = 0,
    decoded: Path | None = None,
    sublayers: bool = True,
) -> Iterator[Read]:
    """The answers to an even sample of `count` utterances of a set (0: all), as decoding asks them.

    The prompts are unseen ones, and the router chooses the expert. An answer is the reference, or
    that in `decoded`/SET/hyp.jsonl. Answers without a token are left out.
    """
    data = DataDir.read(data_dir)
    prompts = prompts_of(config, sorted(set(data["utt2task"].values())))
    utterances = read_utterances(data, prompts, "unseen", 0)
    chosen = [utterances[i] for i in even_places(count or len(utterances), len(utterances))]
    texts = {u.id: u.refs[0] for u in chosen} if decoded is None else read_hyp(decoded, data_dir)
    names = [shape.name for shape in model.shapes]
    inputs = read_inputs(data_dir, names, config["feats"], [u.id for u in chosen])
    memory = PromptMemory(model)
    for utterance in progress(chosen, len(chosen), data_dir.name):
        if utterance.id not in texts:
            raise PamError(f"{decoded}/{data_dir.name}/hyp.jsonl: no answer of {utterance.id}")
        ids = [*model.llm.answer_ids(texts[utterance.id]), model.llm.eos]
        batch = batch_of([inputs[utterance.id]], model.device)
        states = read_one(model, depth, memory, utterance, batch, ids, sublayers)
        yield Read(ids, utterance.id, utterance.task, utterance.cluster, states)


def read_hyp(decoded: Path, data_dir: Path) -> dict[str, str]:
    """{id: answer} of a decoded set."""
    items = read_items(decoded / data_dir.name / "hyp.jsonl")
    return {item.id: item.hyp for item in items}


@torch.no_grad()
def read_one(
    model: ESPnetPaMModel,
    depth: Depth,
    memory: PromptMemory,
    utterance: Utterance,
    batch: Mapping[str, Tensor],
    ids: list[int],
    sublayers: bool,
) -> list[Tensor]:
    """The states at every point that predict the tokens of one answer."""
    text = torch.tensor([ids], device=model.device)
    count = torch.tensor([len(ids)], device=model.device)
    with model.autocast():
        prompt = memory([utterance.prompt])
        _, gate = model.route(prompt, None)
        features, frames = model.fuse(*model.states(batch), gate)
        with depth.record(sublayers) as states:
            model.answer(prompt, features, frames, text, count)
    return [state[0, -len(ids) :] for state in states]  # one row has no padding


@torch.no_grad()
def text_answers(
    lm: CausalLM, depth: Depth, file: Path, count: int = 0, tokens: int = 128, sublayers=True
) -> Iterator[Read]:
    """A text file in blocks of `tokens`, each read on its own; an even sample of `count` blocks.

    The first token of a block is not predicted, unless the LLM has a token that begins a text.
    """
    if not file.is_file():
        raise PamError(f"--text {file}: there is no such file")
    ids = lm.text_ids(file.read_text(encoding="utf-8"))
    blocks = [ids[start : start + tokens] for start in range(0, len(ids) - 1, tokens)]
    blocks = [block for block in blocks if len(block) > 1]
    if not blocks:
        raise PamError(f"--text {file}: it has {len(ids)} tokens: give a text of two or more")
    opening = list(lm.template.opening)
    chosen = even_places(count or len(blocks), len(blocks))
    for number in progress(chosen, len(chosen), file.name):
        read = opening + blocks[number]
        first = len(opening) or 1  # the first token that is predicted
        ids_1N = torch.tensor([read[:-1]], device=lm.embeddings.device)
        with depth.record(sublayers) as states:
            lm.backbone(inputs_embeds=lm.embed(ids_1N), use_cache=False)
        answering = [state[0, first - 1 :] for state in states]
        yield Read(read[first:], f"block {number}", "text", str(number), answering)


def token_counts(lm: CausalLM, train: Path) -> Counter[int]:
    """How often each token occurs in the answers of a combined training directory."""
    texts: Iterable[str] = read_text_file(train / "text").values()
    return Counter(token for text in texts for token in [*lm.answer_ids(text), lm.eos])
