"""An experiment by hand for the page: some answers have audio, others attack."""

import json

import numpy as np
import soundfile
import yaml

from pam.data.datadir import DataDir

NAME = "tiny <b>"
HOSTILE = [
    "<script>attacked = true; alert(1)</script>",
    "</script><script>attacked = true</script>",
    "<!-- <script> --> ]]> </style>",
    "\"><img src=x onerror='attacked = true'>",
    "javascript:attacked=true //",
    "\u202eto the left \u2066 \u2028 \u2029 \x00 \x1b end",
    "שלום <b>مرحبا",
    "$data $style ${x} %s {0} \\u003c &lt;&amp; `a` | *b*",
    "half a pair \ud800",
    "w" * 3000,
    "",
]
CONFIG = {
    "system": "pam",
    "tasks": ["asr_clean", "ac"],
    "encoders": {"one": {"num_states": 2}, "two": {"num_states": 3}},
}


def answer(number, **others):
    """A line of hyp.jsonl: the odd ones have one word wrong."""
    return {
        "id": f"utt{number:02d}",
        "task": "asr_clean",
        "prompt": "Write it down.",
        "prompt_seen": number % 3 == 0,
        "expert": "asr_clean",
        "posterior": 0.9,
        "hyp": "One two, FOUR!" if number % 2 else "One two, three.",
        "ref": "one two three",
        "refs": ["one two three"],
    } | others


ANSWERS = [answer(number) for number in range(40)]
ANSWERS[5] |= {"expert": "ac", "posterior": 0.4}
ATTACKS = [
    answer(number, id=f"a{number} {text}", task="ac", prompt=text, hyp=text, ref=text, refs=[text])
    for number, text in enumerate(HOSTILE)
]


def write_set(exp, name, answers):
    folder = exp / "greedy_unseen" / name
    folder.mkdir(parents=True)
    (folder / "hyp.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in answers))


def write_audio(raw, name, answers, seconds=0.5):
    """A data directory whose utterances share one clip."""
    raw.mkdir(parents=True, exist_ok=True)
    clip = raw / f"{name}.flac"
    noise = np.random.default_rng(0).normal(0, 0.1, round(16000 * seconds))
    soundfile.write(clip, noise, 16000)
    utts = [line["id"] for line in answers]
    values = {"wav.scp": str(clip), "text": "a", "utt2spk": "s", "utt2task": "asr_clean"}
    DataDir({file: dict.fromkeys(utts, value) for file, value in values.items()}).write(raw / name)


def make_experiment(root):
    """root/exp/NAME with its dump: one set with audio, one that attacks and has none."""
    exp = root / "exp" / NAME
    write_set(exp, "asr_clean_test", ANSWERS)
    write_set(exp, "ac_test", ATTACKS)
    write_audio(root / "dump" / "raw", "asr_clean_test", ANSWERS)
    (exp / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    import torch  # takes seconds, and most tests need no weights

    weights = {"fusion.shared.weight": torch.arange(10.0).view(2, 5) - 3}
    weights |= {f"fusion.experts.{n}.weight": torch.full((2, 5), 0.2) for n in range(2)}
    torch.save(weights, exp / "model.pth")
    return exp
