import numpy as np
import pytest

from pam.analysis.perturb import PERTURBATIONS, typos
from pam.analysis.routing import analyse_routing, load_probes, margins
from pam.data.prompts import Prompts, load_all_prompts, normalise
from pam.data.tasks import TASKS
from pam.errors import PamError

PROMPT = "Write down what the speaker says, please!"


def distance(a, b):
    """Edits between two texts, a swap of neighbours counting as one (optimal string alignment)."""
    d = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    d[:, 0], d[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            same = a[i - 1] == b[j - 1]
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (not same))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[-1, -1]


def test_typos_are_the_same_every_time_and_no_more_than_asked():
    assert typos(PROMPT, 1) == typos(PROMPT, 1)
    found = {typos(PROMPT, 1, seed) for seed in range(20)}
    assert len(found) > 10
    assert {distance(PROMPT, text) for text in found} == {1}
    assert all(1 <= distance(PROMPT, typos(PROMPT, 3, seed)) <= 3 for seed in range(20))
    assert typos("is it on?", 2) == "is it on?"


def test_typos_spare_what_is_no_long_word():
    for seed in range(20):
        words = typos("how 12345 are recorded", 1, seed).split()
        assert words[:3] == ["how", "12345", "are"] and words[3] != "recorded"


def test_case_and_punctuation():
    changed = {kind: f(PROMPT, 0) for kind, f in PERTURBATIONS.items()}
    assert changed["lower case"] == "write down what the speaker says, please!"
    assert changed["upper case"] == PROMPT.upper()
    assert changed["no punctuation"] == "Write down what the speaker says please"


def test_margins():
    np.testing.assert_allclose(margins(np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]])), [0.5, 0])


def test_probes_are_for_the_tasks_and_in_no_pool():
    probes = load_probes()
    assert set(probes["paraphrases"]) == set(TASKS)
    prompts = load_all_prompts(list(TASKS))
    known = {normalise(p) for own in prompts.values() for p in (*own.train, *own.unseen)}
    texts = [t for part in probes.values() for group in part.values() for t in group]
    assert len({normalise(text) for text in texts}) == len(texts)
    assert not known & {normalise(text) for text in texts}


def test_damaged_probes(tmp_path):
    path = tmp_path / "probes.yaml"
    path.write_text("paraphrases: {ac: []}\n")
    with pytest.raises(PamError, match=r"paraphrases\.ac: expected a list"):
        load_probes(path)


PROMPTS = {"asr": Prompts(("t1",), ("Word one", "word two")), "ac": Prompts(("t2",), ("Sound",))}
PROBES = {
    "paraphrases": {"asr": ["words"], "ac": ["a sound", "word"], "unknown": ["word"]},
    "other_tasks": {"chat": ["word hello"]},
}


def posteriors(texts):
    """Expert 0 for what holds "word", in this case and spelling; else expert 1."""
    return np.array([[0.9, 0.1] if "word" in text.lower() else [0.2, 0.8] for text in texts])


def test_what_changes_a_routers_mind_is_counted():
    found = analyse_routing(posteriors, PROMPTS, PROBES, ["asr", "ac"])
    as_written, slips = found["robustness"]["as written"], found["robustness"]["one typo"]
    assert (as_written["correct"], as_written["changed"], as_written["count"]) == (3, 0, 3)
    # A slip breaks "word" unless it doubles the d or the w; what is changed is no longer right.
    assert slips["correct"] == 3 - slips["changed"]
    assert found["robustness"]["upper case"]["correct"] == 3
    assert found["posteriors"]["ac"] == [[0.2, 0.8]]
    assert found["margins"]["asr"] == {"least": 0.8, "tenth": 0.8, "median": 0.8}
    assert found["paraphrases"]["correct"] == 2 and found["paraphrases"]["count"] == 3
    assert found["other_tasks"] == [
        {
            "kind": "chat",
            "prompt": "word hello",
            "expert": "asr",
            "probability": 0.9,
            "margin": 0.8,
        }
    ]


def test_experts_without_tasks_have_no_right_one():
    found = analyse_routing(posteriors, PROMPTS, PROBES, ["expert 1", "expert 2"])
    assert found["robustness"]["as written"]["correct"] is None
    assert found["paraphrases"]["correct"] is None
    assert {a["expert"] for a in found["paraphrases"]["answers"]} == {"expert 1", "expert 2"}
