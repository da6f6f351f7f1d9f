"""Draws of a batch: the same in any number of processes, whatever else was drawn."""

import numpy as np
import pytest
import torch

from pam.data.prompts import Prompts
from pam.data.utterances import Inputs
from pam.train.collate import Collate
from pam.train.dataset import TrainingSet
from pam.train.iterators import Batch, Step, Utterances, loader

UTTS = [f"u{i}" for i in range(7)]
TEXTS = {utt: "ab" * (1 + number) for number, utt in enumerate(UTTS)}


class Words:
    """The part of an LLM that batches need: a character is a token."""

    eos = 0

    def answer_ids(self, text):
        return [ord(letter) for letter in text]

    def prompt_batch(self, prompts):
        numbers = [[int(prompt)] for prompt in prompts]
        return torch.tensor(numbers), torch.ones(len(numbers), dtype=torch.long)


def data():
    """Answers without audio."""
    tasks = dict.fromkeys(UTTS, "asr")
    return TrainingSet(Words(), ["asr"], TEXTS, tasks, Inputs(None, {}), end=True)


PROMPTS = Prompts(tuple(map(str, range(1000))), ())


def collate(per_batch=0, router_prompts=1, seed=0, banks=None):
    return Collate(Words(), {"ac": PROMPTS}, per_batch, router_prompts, banks, seed)


def draws(world=1, number=0, workers=0, **options):
    """{utterance: (its prompt, its chances)} and the counts of all processes."""
    found, counts = {}, []
    for rank in range(world):
        step = Step(Batch(UTTS, number), UTTS, 1, rank, world)
        ((utts, batch),) = loader(data(), [step], collate(**options), workers)
        for row, utt in enumerate(utts if step.own else []):
            prompt = int(batch["prompt"][batch["prompt_index"][row, 0]])
            tokens = batch["text_lengths"][row]
            chances = batch["chance"][row, :tokens].tolist() if "chance" in batch else None
            found[utt] = prompt, chances
        counts.append(batch["counts"])
    return found, counts


@pytest.mark.parametrize("per_batch", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", [0, None])
def test_any_number_of_processes_draws_what_one_draws(per_batch, seed):
    one, _ = draws(per_batch=per_batch, seed=seed)
    assert list(one) == UTTS
    for world in (2, 3, 9):
        assert draws(world, per_batch=per_batch, seed=seed)[0] == one
    prompts = [prompt for prompt, _ in one.values()]
    assert len(set(prompts)) == (per_batch or 7)
    if per_batch:
        assert all(prompt == prompts[row % per_batch] for row, prompt in enumerate(prompts))
    if seed is None:
        assert prompts == [row % (per_batch or 7) for row in range(7)]
        assert all(chances is None for _, chances in one.values())


def test_further_prompts_teach_the_router():
    """They change no utterance's own prompt, and another process draws the same."""
    one, _ = draws()
    assert draws(router_prompts=3)[0] == one
    step = Step(Batch(UTTS, 0), UTTS, 1, 0, 1)
    ((_, batch),) = loader(data(), [step], collate(router_prompts=3), 0)
    rows = batch["prompt"][batch["prompt_index"]][..., 0].tolist()
    assert len(set(sum(rows, []))) == 3 * len(UTTS)
    assert batch["experts"].shape == (len(UTTS), 3, 1)
    shared = Step(Batch(UTTS, 0), UTTS, 1, 1, 2)
    ((_, part),) = loader(data(), [shared], collate(router_prompts=3), 0)
    assert part["prompt"][part["prompt_index"]][..., 0].tolist() == rows[1::2]
    ((_, dev),) = loader(data(), [step], collate(router_prompts=3, seed=None), 0)
    assert dev["prompt_index"].shape == (len(UTTS), 1)


def test_draws_depend_on_no_generator_and_no_worker():
    np.random.seed(1)
    torch.manual_seed(1)
    one, _ = draws()
    np.random.seed(2)
    torch.manual_seed(2)
    assert draws()[0] == one and draws(workers=1)[0] == one


def test_draws_differ_between_utterances_passes_and_seeds():
    one, other, seeded = draws()[0], draws(number=1)[0], draws(seed=1)[0]
    for second in (other, seeded):
        assert sum(one[utt][0] != second[utt][0] for utt in UTTS) >= 6
        assert all(one[utt][1] != second[utt][1] for utt in UTTS)
    first = [chances[:2] for _, chances in one.values()]
    assert len(set(map(tuple, first))) == len(first)
    every = np.concatenate([chances for _, chances in one.values()])
    assert every.min() >= 0 and every.max() < 1


def test_counts_are_of_the_process_its_batch_and_its_update():
    update = [*UTTS, "u6"]  # and a batch that has an utterance of the next pass
    tokens = {utt: len(text) + 1 for utt, text in TEXTS.items()}
    for rank, own in ((0, ["u0", "u3", "u6"]), (1, ["u1", "u4"]), (2, ["u2", "u5"])):
        step = Step(Batch(UTTS, 0), update, 2, rank, 3)
        _, items, counts = Utterances(data())[step]
        assert [utt for utt, _ in items] == own
        expected = [
            [sum(tokens[utt] for utt in own), len(own)],
            [sum(tokens.values()) / 3, 7 / 3],
            [(sum(tokens.values()) + tokens["u6"]) / 6, 8 / 6],
        ]
        np.testing.assert_allclose(counts, expected, rtol=1e-6)
    assert draws(world=9)[1][8].tolist()[0] == [0, 0]  # it has none, and computes the first


def test_experts_that_are_right_for_a_prompt():
    both = {"0": frozenset({"clean", "noisy"})}
    prompts = {
        "clean": Prompts(("0", "1"), (), shared=both),
        "noisy": Prompts(("0", "2"), (), shared=both),
        "ac": Prompts(("3",), ()),
    }
    right = Collate(Words(), prompts).right_experts(["01", "02", "33"], [0, 1, 2])
    assert right.int().tolist() == [
        [[1, 1, 0], [1, 0, 0]],
        [[1, 1, 0], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 1]],
    ]


def test_with_a_bank_all_prompts_are_of_it():
    bank = PROMPTS.bank(20, seed=0)
    assert bank == PROMPTS.bank(20, seed=0) != PROMPTS.bank(20, seed=1)
    assert len(bank) == 20 and len(set(bank)) > 15
    banks = {"ac": bank}
    drawn = {draws(number=number, banks=banks)[0][utt][0] for number in range(60) for utt in UTTS}
    assert drawn == set(map(int, bank))
    assert draws(banks=banks, world=3)[0] == draws(banks=banks)[0]
    assert draws(banks=banks, seed=None)[0] == draws(seed=None)[0]  # validation has its own prompts
