"""Speaker number verification on imitations of Common Voice and AIR-Bench."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from imitations import SPEAKERS, air_bench, common_voice, preparation

from pam.data.audio import load_audio
from pam.data.concat import files_of, is_concat
from pam.data.datadir import DataDir, validate
from pam.errors import PamError
from pam.score import accuracy
from pam.score.items import Item

snv = preparation("snv")

import snv_items  # noqa: E402
from snv_commonvoice import read_speakers  # noqa: E402

# Of the imitation, seed 0: the same on every machine, for every order of tables and folders.
SHA256 = "6e0fd5f9ea22937453cbd47f8897b09bafde92af55c4c1feaa5aaef1df02b562"


@pytest.fixture(scope="module")
def voices(tmp_path_factory) -> Path:
    return common_voice(tmp_path_factory.mktemp("common voice"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    return air_bench(tmp_path_factory.mktemp("AIR-Bench"))


def prepare(out: Path, *sets: str, **options) -> list[DataDir]:
    more = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    snv.main(["--out", str(out), "--sets", *sets, *more])
    return [DataDir.read(out / name) for name in sets]


def speakers_of(entry: str) -> list[str]:
    """Of the clips of an entry; their names hold the client id."""
    names = [Path(file).stem for file in files_of(entry)]
    return [next(client for client in SPEAKERS if client in name) for name in names]


TRAIN, DEV = "snv_commonvoice_train", "snv_commonvoice_dev"


def test_every_row_of_the_tables_is_read(voices, caplog):
    """Quotation marks, escaped tabs and line breaks, a BOM and CRLF hide no clip."""
    for part in ("train", "dev"):
        speakers = read_speakers(voices, part)
        there = {f"{part}-{client}": n - (client == "beef") for client, n in SPEAKERS.items()}
        assert {client: len(clips) for client, clips in speakers.items()} == there
    assert "train.tsv (version 4): expected 232975 clips, found 29 (-232946)" in caplog.text
    assert "train.tsv: 1 clips are not in" in caplog.text and "beef4.mp3" in caplog.text


def test_empty_clips_are_not_drawn(tmp_path, caplog):
    """Version 4 has some. An item has several clips, so that a few would spoil many items."""
    corpus = common_voice(tmp_path / "cv")
    for clip in (corpus / "clips").glob("*_trainff00*"):
        clip.write_bytes(b"")
    (data,) = prepare(tmp_path, TRAIN, common_voice=corpus, num_items=40)
    assert not any("ff00" in entry for entry in data["wav.scp"].values())
    lost = 1 + SPEAKERS["ff00"]
    assert f"{lost} clips are not in {corpus}/clips, or are empty there: left out" in caplog.text


@pytest.mark.parametrize("segments", [0, 4, 5])
def test_items_are_what_their_answers_say(voices, tmp_path, segments):
    (data,) = prepare(tmp_path, TRAIN, common_voice=voices, num_items=400, segments=segments)
    assert len(data) == 400 and validate(tmp_path / TRAIN) == []
    for utt, entry in data["wav.scp"].items():
        people = speakers_of(entry)
        assert snv_items.WORDS.index(data["text"][utt]) + 1 == len(set(people))
        assert len(people) == (segments or len(set(people)))
        assert len(set(files_of(entry))) == len(people)  # no clip twice
    assert set(Counter(data["text"].values()).values()) == {100}


def test_with_equal_segments_neither_length_nor_speaker_tells(voices, tmp_path):
    """Everybody is heard equally often for each answer; with a clip a person that is impossible."""
    (data,) = prepare(tmp_path, TRAIN, common_voice=voices, num_items=4000, segments=4)
    heard: dict[str, Counter] = {}
    for utt, entry in data["wav.scp"].items():
        heard.setdefault(data["text"][utt], Counter()).update(speakers_of(entry))
    usable = {"ff00", "0a1b", "c0ffee", "beef", "7e57"}  # four clips or more
    for counts in heard.values():
        assert set(counts) == usable
        assert all(abs(n / 4000 - 1 / 5) < 0.04 for n in counts.values())
    first, last = (Counter(speakers_of(e)[k] for e in data["wav.scp"].values()) for k in (0, -1))
    assert all(abs(first[name] - last[name]) < 200 for name in usable)


def test_answers_are_in_random_order(voices, tmp_path):
    """Every fourth item, or any other regular part, must not have one answer only."""
    (data,) = prepare(tmp_path, TRAIN, common_voice=voices, num_items=200)
    answers = list(data["text"].values())
    for step in (2, 3, 4, 8):
        assert len(set(answers[::step])) == 4


def test_the_draw_is_the_same_on_every_machine(voices, tmp_path):
    """Another folder, another order of the tables, another hash seed: the same sha256."""
    other = common_voice(tmp_path / "elsewhere", backwards=True)
    found = []
    for corpus, seed, hash_seed in ((voices, 0, "1"), (other, 0, "2"), (other, 1, "2")):
        out = tmp_path / f"{corpus.name}-{seed}"
        options = ["--common_voice", corpus, "--seed", seed, "--num_items", 30, "--out", out]
        command = [sys.executable, snv.__file__, "--sets", TRAIN, *options]
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [str(word) for word in command], capture_output=True, env=env, text=True
        )
        assert run.returncode == 0, run.stderr
        manifest = json.loads((out / TRAIN / "manifest.json").read_text())
        assert manifest["items"] == 30 and manifest["sha256"] in run.stderr
        found.append(manifest["sha256"])
    assert found[0] == found[1] == SHA256 != found[2]


def test_nothing_is_copied_unless_asked(voices, tmp_path):
    (data,) = prepare(tmp_path, TRAIN, common_voice=voices, num_items=6)
    assert not list(tmp_path.rglob("*.flac")) and not list(tmp_path.rglob("*.mp3"))
    (copies,) = prepare(tmp_path / "b", TRAIN, common_voice=voices, num_items=6, audio="flac")
    assert data["text"] == copies["text"]
    for utt, entry in data["wav.scp"].items():
        np.testing.assert_allclose(load_audio(copies["wav.scp"][utt]), load_audio(entry), atol=2e-5)


def test_an_item_that_cannot_be_copied_is_left_to_the_dump(tmp_path, caplog):
    """One damaged clip of a million must not end the preparation."""
    corpus = common_voice(tmp_path / "cv")
    for clip in (corpus / "clips").glob("*_trainff00*"):
        clip.write_bytes(b"no MP3")
    (data,) = prepare(tmp_path, TRAIN, common_voice=corpus, num_items=20, audio="flac", nj=2)
    damaged = {utt for utt, entry in data["wav.scp"].items() if is_concat(entry)}
    assert 0 < len(damaged) < 20 and len(list(tmp_path.rglob("*.flac"))) == 20 - len(damaged)
    assert f"{len(damaged)} items are not copied, the first is {min(damaged)}" in caplog.text
    assert all("trainff00" in data["wav.scp"][utt] for utt in damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.replace("ï".encode(), b"\xef"), "train.tsv:5: not UTF-8 .byte 0xef"),
        (lambda raw: raw.replace(b"Unfinished", b"U" * 200_000), "train.tsv: field larger than"),
        (lambda raw: raw + b"someone\n", "train.tsv:.*: no speaker or no clip"),
        (lambda raw: raw.replace(b"client_id", b"client"), "no columns client_id and path"),
    ],
)
def test_tables_that_cannot_be_used_are_named(voices, tmp_path, change, message):
    (tmp_path / "clips").symlink_to(voices / "clips")
    raw = (voices / "train.tsv").read_bytes()
    (tmp_path / "train.tsv").write_bytes(raw.replace(b"\n", b"\r\n") + b"\r\n")
    assert read_speakers(tmp_path, "train") == read_speakers(voices, "train")
    (tmp_path / "train.tsv").write_bytes(change(raw))
    with pytest.raises(PamError, match=message):
        read_speakers(tmp_path, "train")


def test_questions_that_cannot_be_used(tmp_path, caplog):
    meta = air_bench(tmp_path / "bench") / "Foundation/Foundation_meta.json"
    entries = json.loads(meta.read_text())
    for place, change in enumerate(({"uniq_id": None}, {"uniq_id": "a/b"}, {"question": ""})):
        entries[place] |= change
    meta.write_text(json.dumps(entries))
    (data,) = prepare(tmp_path / "data", "snv_airbench", air_bench=tmp_path / "bench")
    assert len(data) == 1 and "3 left out, no question, or no uniq_id that can" in caplog.text
    for content in ({"data": entries}, [*entries, None], "text"):
        meta.write_text(json.dumps(content))
        with pytest.raises(PamError, match="Foundation_meta.json: not a list of questions"):
            prepare(tmp_path / "data", "snv_airbench", air_bench=tmp_path / "bench")


def test_sizes(voices, tmp_path):
    train, dev = prepare(tmp_path, TRAIN, DEV, common_voice=voices, size="tiny")
    assert (len(train), len(dev)) == (40, 8)
    assert all("clips/common_voice_en_dev" in entry for entry in dev["wav.scp"].values())


def test_air_bench_in_two_ways(bench, tmp_path, caplog):
    names = ("snv_airbench", "snv_airbench_official")
    own, official = prepare(tmp_path, *names, air_bench=bench)
    assert list(own["text"].values()) == ["3", "1", "2", "2"] and "prompt" not in own
    assert list(official["text"].values()) == ["C", "B", "A", "B"]
    what = "expected 1000 questions that can be used, found 4 (-996)"
    assert f"Foundation_meta.json: {what}" in caplog.text
    assert "1 left out, no such audio file: 15: " in caplog.text and "missing.wav" in caplog.text
    for name in names:
        listed = (tmp_path / name / "left_out.log").read_text().splitlines()
        assert listed[0].startswith("no such audio file\t15: ")
        assert listed[1].startswith("the answer is no choice with a number\t16: answer 'many'")
    prompts = list(official["prompt"].values())
    assert prompts[1] == (
        "Choose the most suitable answer from options A, B, C, and D to respond the question in "
        "next line, you may only choose A or B or C or D."
        r"\nHow many speakers are there in this audio?\nA. two\nB. One"
    )
    assert prompts[3].endswith(r"\nA. 1\nB. 2\nC. 3")
    assert list(official["choices"].values())[1] == '{"A": "two", "B": "One"}'
    assert list(own["wav.scp"].values()) == list(official["wav.scp"].values())
    for data in (own, official):  # as many clusters as clips
        pairs = {(data["wav.scp"][utt], data["utt2cluster"][utt]) for utt in data.utterances}
        assert len(pairs) == len(set(data["wav.scp"].values()))


def test_official_answers_are_scored_by_their_own_choices(bench, tmp_path):
    (data,) = prepare(tmp_path, "snv_airbench_official", air_bench=bench)
    said = ["three", "B.", "A. One", "D"]  # right; right; right letter, wrong words; no such choice
    items = [
        Item(utt, "snv", hyp, data["text"][utt], choices=json.loads(data["choices"][utt]))
        for utt, hyp in zip(data.utterances, said, strict=True)
    ]
    result = accuracy.score(items)
    assert (result["correct"], result["errors"], result["parse_failures"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("sets", "options", "message"),
    [
        (TRAIN, {}, "COMMON_VOICE is not set: in egs/snv/db.sh"),
        (TRAIN, {"common_voice": "/nowhere"}, "/nowhere: no such folder: correct COMMON_VOICE"),
        (TRAIN, {"common_voice": "/dev"}, "/dev/train.tsv: missing"),
        ("snv_airbench", {}, "AIR_BENCH is not set"),
        ("snv_airbench", {"air_bench": "/nowhere"}, "/nowhere: no such folder: correct AIR_BENCH"),
        ("snv_airbench", {"air_bench": "/dev"}, "Foundation_meta.json: missing"),
        ("snv_test", {}, "--sets snv_test: this recipe makes snv_commonvoice_train"),
    ],
)
def test_what_is_missing_is_named(tmp_path, sets, options, message):
    with pytest.raises(PamError, match=message):
        prepare(tmp_path, sets, **options)


def test_impossible_draws_are_refused(voices, tmp_path):
    with pytest.raises(PamError, match="4 people need at least 4; or give 0"):
        prepare(tmp_path, TRAIN, common_voice=voices, segments=2)
    with pytest.raises(PamError, match="--num_items 0: give 1 or more"):
        prepare(tmp_path, TRAIN, common_voice=voices, num_items=0)
    with pytest.raises(PamError, match="2 people have 6 clips or more, 4 are needed"):
        prepare(tmp_path, TRAIN, common_voice=voices, segments=6)
    (voices / "other.tsv").write_text("a\tb\n")
    with pytest.raises(PamError, match="no columns client_id and path"):
        read_speakers(voices, "other")
