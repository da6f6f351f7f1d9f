"""AIR-Bench's questions about the number of speakers, in two ways.

Foundation/Foundation_meta.json is a list of questions of many tasks, each with `path`, `question`,
`choice_a` to `choice_d` (the last two may be missing), `answer_gt` (the text of the right choice),
`task_name`, `dataset_name` and `uniq_id`; the audio is Foundation/TASK_DATASET/PATH.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam.data.choices import choices_entry
from pam.data.corpus import cluster_id, report_count, report_left_out
from pam.data.datadir import DataDir
from pam.data.importing import LeftOut
from pam.data.scp import id_fault, one_line
from pam.errors import PamError
from pam.log import get_logger
from pam.score.parse import parse_number

AIR_BENCH_TASK = "Speaker_Number_Verification"
TASK = "snv"
PUBLISHED = 1000  # questions, by the decimals of the accuracies in the paper
LETTERS = "ABCD"
NO_AUDIO = "no such audio file"
NO_ANSWER = "the answer is no choice with a number"
NO_QUESTION = "no question, or no uniq_id that can be an utterance's"
# The benchmark's own wording; its lines end with "\n" in the file `prompt`.
OFFICIAL = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next "
    "line, you may only choose A or B or C or D."
)
logger = get_logger("prepare")


@dataclass(frozen=True)
class Question:
    id: str
    audio: Path
    question: str
    choices: dict[str, str]
    letter: str  # of the right choice
    number: int  # of speakers


def read_questions(corpus: Path) -> tuple[list[Question], dict[str, list[str]]]:
    """The task's questions, by id, and {reason: those left out}."""
    meta = corpus / "Foundation" / "Foundation_meta.json"
    if not meta.is_file():
        raise PamError(f"{meta}: missing: download AIR-Bench's Foundation part, or correct db.sh")
    try:
        entries = json.loads(meta.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise PamError(f"{meta}: not JSON ({error}): download it again") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PamError(f"{meta}: not a list of questions: use AIR-Bench's own file")
    found: dict[str, Question] = {}
    faults: dict[str, list[str]] = {NO_AUDIO: [], NO_ANSWER: [], NO_QUESTION: []}
    for entry in entries:
        if entry.get("task_name") == AIR_BENCH_TASK:
            question = _question(meta.parent, entry)
            if isinstance(question, LeftOut):
                faults[question.reason].append(f"{entry.get('uniq_id')}: {question.where}")
            elif found.setdefault(question.id, question) is not question:
                raise PamError(f"{meta}: uniq_id {entry['uniq_id']} occurs twice: download again")
    report_left_out(logger, str(meta), faults)
    if not found:
        raise PamError(f"{meta}: no usable question of {AIR_BENCH_TASK}: download it again")
    report_count(logger, str(meta), len(found), PUBLISHED, "questions that can be used")
    return [found[key] for key in sorted(found)], faults


def open_set(questions: Sequence[Question], name: str) -> DataDir:
    """The answer is the number, the prompts are ours."""
    return DataDir(_files(questions, name, [str(q.number) for q in questions]))


def official_set(questions: Sequence[Question], name: str) -> DataDir:
    """The answer is a letter, the prompt AIR-Bench's with the question's own choices."""
    files = _files(questions, name, [q.letter for q in questions])
    files["prompt"] = {f"{name}-{q.id}": official_prompt(q) for q in questions}
    files["choices"] = {f"{name}-{q.id}": choices_entry(q.choices) for q in questions}
    return DataDir(files)


def official_prompt(question: Question) -> str:
    choices = [f"{letter}. {text}" for letter, text in question.choices.items()]
    return r"\n".join([OFFICIAL, question.question, *choices])


def _files(
    questions: Sequence[Question], name: str, texts: Sequence[str]
) -> dict[str, dict[str, str]]:
    utts = [f"{name}-{q.id}" for q in questions]
    return {
        "wav.scp": {utt: str(q.audio) for utt, q in zip(utts, questions, strict=True)},
        "text": dict(zip(utts, texts, strict=True)),
        "utt2spk": {utt: utt for utt in utts},
        # Questions about one clip are not independent.
        "utt2cluster": {
            utt: cluster_id(f"{q.audio.parent.name} {q.audio.stem}")
            for utt, q in zip(utts, questions, strict=True)
        },
        "utt2task": dict.fromkeys(utts, TASK),
    }


def _question(folder: Path, entry: dict) -> Question | LeftOut:
    """The question, or why it cannot be used."""
    audio = folder / f"{AIR_BENCH_TASK}_{entry.get('dataset_name')}" / str(entry.get("path"))
    given = {letter: entry.get(f"choice_{letter.lower()}") for letter in LETTERS}
    choices = {k: one_line(str(v)) for k, v in given.items() if v is not None and str(v).strip()}
    letter = _letter(one_line(str(entry.get("answer_gt"))), choices)
    number = parse_number(choices[letter]) if letter else None
    if number is None or len(choices) < 2:
        return LeftOut(f"answer {entry.get('answer_gt')!r}, choices {choices}", NO_ANSWER)
    if not audio.is_file():
        return LeftOut(str(audio), NO_AUDIO)
    question = one_line(str(entry.get("question") or ""))
    if not question or _wrong_id(entry.get("uniq_id")):
        return LeftOut(f"question {question!r}", NO_QUESTION)
    return Question(
        str(entry["uniq_id"]).zfill(6), audio.absolute(), question, choices, letter, number
    )


def _wrong_id(given: Any) -> bool:
    return given is None or id_fault(str(given)) is not None


def _letter(answer: str, choices: dict[str, str]) -> str | None:
    """The letter of the choice that says `answer`; a bare letter stands for itself."""
    for letter, text in choices.items():
        if text.casefold() == answer.casefold():
            return letter
    return answer if answer in choices else None
