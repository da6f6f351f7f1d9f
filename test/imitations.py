"""Small imitations of the corpora that users bring: files as they are distributed, quirks too.

Everything is written by the tests; the audio is seeded noise of a second or less.
"""

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

SPEAKERS = {"ff00": 7, "0a1b": 6, "c0ffee": 5, "beef": 5, "7e57": 5, "5eed": 1}  # client_id: clips
SENTENCES = [
    'She said \\"no\\" and left.',
    "It's a quarter past ten.",
    '\\"Unfinished quotation',
    "A tab\\\there, and a naïve façade — “ok”.",
    "A line\\\nbreak",
]


def sound(seconds: float, rate: int, seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def encoded(seconds: float, rate: int, seed: int, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(seconds, rate, seed), rate, format=kind)
    return file.getvalue()


def write(file: Path, content: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def common_voice(folder: Path, backwards: bool = False) -> Path:
    """train.tsv and dev.tsv, clips as MP3 at 48 kHz; one clip of the table is missing, one occurs
    twice, and dev.tsv has a byte order mark and Windows line ends."""
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent"
    for part, mark, end in (("train", "", "\n"), ("dev", "\ufeff", "\r\n")):
        lines = []
        for client, count in SPEAKERS.items():
            for number in range(count):
                clip = f"common_voice_en_{part}{client}{number}.mp3"
                if not (client == "beef" and number == 4):
                    seed = len(lines) + 100 * (part == "dev")
                    write(folder / "clips" / clip, encoded(0.2, 48000, seed, "MP3"))
                sentence = SENTENCES[len(lines) % len(SENTENCES)]
                lines.append(f"{part}-{client}\t{clip}\t{sentence}\t2\t0\t\tfemale\t")
        lines.append(lines[3])
        lines = lines[::-1] if backwards else lines
        write(folder / f"{part}.tsv", mark + end.join([header, *lines, ""]))
    return folder


def air_bench(folder: Path) -> Path:
    """Foundation_meta.json with questions of two tasks: choices missing, null or empty, a letter as
    the answer, an answer that is no number, audio that is missing."""
    question = "How many speakers are there in this audio?"
    common = {"question": question, "dataset_name": "voxceleb1"}
    snv = common | {"task_name": "Speaker_Number_Verification"}
    four = {"choice_a": "1", "choice_b": "2", "choice_c": "3", "choice_d": "4"}
    two = {"choice_a": "two", "choice_b": "One"}
    entries = [
        snv | four | {"uniq_id": 11, "path": "it's 1.wav", "answer_gt": "3"},
        snv | two | {"uniq_id": 12, "path": "b.wav", "answer_gt": "one"},
        snv | two | {"uniq_id": 13, "path": "c.wav", "answer_gt": "two", "choice_c": None},
        snv | four | {"uniq_id": 14, "path": "d.wav", "answer_gt": "B", "choice_d": ""},
        snv | four | {"uniq_id": 15, "path": "missing.wav", "answer_gt": "1"},
        snv | four | {"uniq_id": 16, "path": "b.wav", "answer_gt": "many"},
        common | {"uniq_id": 17, "path": "b.wav", "task_name": "Speaker_Gender_Recognition",
                  "choice_a": "male", "choice_b": "female", "answer_gt": "male"},
    ]  # fmt: skip
    audio = folder / "Foundation" / "Speaker_Number_Verification_voxceleb1"
    for seed, name in enumerate(("it's 1.wav", "b.wav", "c.wav", "d.wav")):
        write(audio / name, encoded(0.5, 16000, seed))
    write(folder / "Foundation/Foundation_meta.json", json.dumps(entries, ensure_ascii=False))
    return folder


CLIPS = {"-abcDEF1234": 30, "Y__f0o-bar1": 0, "zzzzzzzzzz-": 130}
CAPTION = 'A man says "hi", then a dog\nbarks — {}'


def caption_rows(part: str) -> list[dict[str, Any]]:
    """Training clips with one caption, others with five, of which two are the same."""
    rows = []
    for clip, start in CLIPS.items():
        for number in range(1 if part == "train" else 5):
            text = CAPTION.format(f"{part} {clip} {min(number, 3)}")
            start_time = start + ("train", "val", "test").index(part)
            ids = {"audiocap_id": 90 - len(rows), "youtube_id": clip, "start_time": start_time}
            rows.append(ids | {"caption": text})
    return rows


def audiocaps(folder: Path) -> Path:
    """Three tables, one with a byte order mark and Windows line ends; clips as WAV, MP3, FLAC in
    several folders; of each part the last clip is missing, or there as m4a only."""
    for part in ("train", "val", "test"):
        rows = caption_rows(part)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, rows[0], lineterminator="\r\n" if part == "val" else "\n")
        writer.writeheader()
        writer.writerows(rows)
        write(folder / f"{part}.csv", "\ufeff" * (part == "val") + table.getvalue())
    for place, kind in (("train", "WAV"), ("val/more", "MP3"), ("test", "FLAC")):
        part = place.partition("/")[0]
        for row in caption_rows(part):
            stem = f"{row['youtube_id']}_{row['start_time']}"
            if row["youtube_id"] != "zzzzzzzzzz-":
                content = encoded(0.5, 44100, row["audiocap_id"], kind)
                write(folder / "clips" / place / f"{stem}.{kind.lower()}", content)
    write(folder / "clips/test/zzzzzzzzzz-_132.m4a", b"\0\0\0\x20ftypM4A ")
    return folder


def audio_cell(seed: int, name: str | None = "a.wav") -> dict[str, Any]:
    return {"bytes": encoded(0.5, 16000, seed), "path": name}


def audiocaps_parquet(folder: Path) -> Path:
    """As a data set of the hub: two files of training rows, one of validation and of test rows."""
    for part, stems in (
        ("train", ["train-00000-of-00002", "train-00001-of-00002"]),
        ("val", ["validation-00000-of-00001"]),
        ("test", ["test-00000-of-00001"]),
    ):
        rows = [row | {"audio": audio_cell(n // 5)} for n, row in enumerate(caption_rows(part))]
        cut = len(rows) // len(stems)
        for number, stem in enumerate(stems):
            last = number + 1 == len(stems)
            chosen = rows[number * cut :] if last else rows[:cut]
            write_parquet(folder / "data" / f"{stem}.parquet", chosen)
    return folder


def audio_bench(folder: Path) -> Path:
    """audiocaps_test, two captions of each clip, and audiocaps_qa_test, as Parquet."""
    captions = [
        {"context": audio_cell(n // 2, None), "instruction": "Caption it.", "answer": f"Rain {n}."}
        for n in range(5)
    ]
    questions = [
        {"context": audio_cell(n), "instruction": f"What's that,\n{n}?", "answer": "A bell’s ring"}
        for n in range(3)
    ]
    write_parquet(folder / "audiocaps_test/data/test-00000-of-00001.parquet", captions)
    write_parquet(folder / "audiocaps_qa_test/data/test-00000-of-00001.parquet", questions)
    return folder


def level(height: float, form: str = "WAV") -> bytes:
    """A quarter of a second of samples of one height."""
    out = io.BytesIO()
    soundfile.write(out, np.full(4000, height), 16000, format=form)
    return out.getvalue()


def ami_row(
    start: int, end: int, text: str, audio: bytes | None, path: str | None = None
) -> dict[str, Any]:
    utt = f"AMI_EN2001a_H04_MEO069_{start:07d}_{end:07d}"
    return {
        "meeting_id": "EN2001a",
        "audio_id": utt,
        "text": text,
        "audio": {"bytes": audio, "path": path or f"train_{utt.lower()}.wav"},
        "begin_time": float(np.float32(start / 100)),
        "end_time": float(np.float32(end / 100)),
        "microphone_id": "H04",
        "speaker_id": "MEO069",
    }


AMI_GOOD = 3 + 40  # rows of a split of `ami_parquet`


def ami_parquet(folder: Path, form: str = "parquet") -> Path:
    """The data set edinburghcstr/ami as it is downloaded, or as "arrow" streams of a cache; one
    recording lies outside. Every split has 40 plain rows, and others: an <unk>, no words, no time,
    no audio, an id twice. (The ids of one meeting in all of them: the real ones have others.)"""
    outside = folder / "outside.wav"
    write(outside, level(0.4))
    rows = [
        ami_row(330297, 330718, "I'VE GOTTEN <unk> MM-HMM", level(0.1)),
        ami_row(100, 200, "IT'S  A FLAC", level(0.2, "FLAC")),
        ami_row(150, 300, "<unk>", level(0.3)),
        ami_row(400, 400, "NO TIME", level(0.3)),
        ami_row(500, 600, "NO AUDIO", None),
        ami_row(600, 700, "NOT AUDIO", b"????????"),
        ami_row(700, 800, "OUTSIDE", None, str(outside)),
        ami_row(100, 200, "TWICE", level(0.2)),
        *(ami_row(1000 + n, 1100 + n, f"NUMBER {n}", level(0.01 * n)) for n in range(40)),
    ]
    for name in ("train", "validation", "test"):
        if form == "parquet":
            write_parquet(folder / f"{name}-00000-of-00001.parquet", rows, 8)
        else:
            write_arrow(folder / f"ami-{name}.arrow", rows, 8)
    return folder


def librispeech(folder: Path, parts: Sequence[str]) -> Path:
    """Folders of two speakers with FLAC and upper-case transcripts."""
    for place, part in enumerate(parts):
        for speaker in (84 + place, 1272 + place):
            chapter = folder / part / str(speaker) / "7"
            lines = []
            for number in range(2):
                utt = f"{speaker}-7-{number:04d}"
                write(chapter / f"{utt}.flac", encoded(0.5, 16000, speaker + number, "FLAC"))
                lines.append(f"{utt} IT'S NUMBER {number}\n")
            write(chapter / f"{speaker}-7.trans.txt", "".join(lines))
    return folder


def write_parquet(file: Path, rows: Sequence[dict[str, Any]], rows_of_a_group: int = 2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, file, row_group_size=rows_of_a_group)


def write_arrow(file: Path, rows: Sequence[dict[str, Any]], rows_of_a_batch: int = 2) -> None:
    """As the cache of the hub's library holds a data set."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_of_a_batch)


def preparation(recipe: str):
    """The module egs/RECIPE/local/prepare.py."""
    file = Path(__file__).resolve().parents[1] / "egs" / recipe / "local/prepare.py"
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(f"prepare_{recipe}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
