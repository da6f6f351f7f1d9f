"""AudioCaps and AudioBench's sets of it, on imitations of their files."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from imitations import (
    CLIPS,
    audio_bench,
    audio_cell,
    audiocaps,
    audiocaps_parquet,
    caption_rows,
    encoded,
    preparation,
    write,
    write_parquet,
)

from pam.data.audio import load_audio
from pam.data.datadir import DataDir, validate
from pam.errors import PamError

module = preparation("audiocaps")

SETS = ("audiocaps_train", "audiocaps_val", "audiocaps_test")
BENCH = ("audiocaps_test_audiobench", "audiocaps_test_qa")


def prepare(out: Path, *sets: str, **options) -> list[DataDir]:
    more = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    module.main(["--out", str(out), "--sets", *sets, *more])
    return [DataDir.read(out / name) for name in sets]


def expected(part: str, clip: str) -> list[str]:
    """Captions of a clip in the order of their audiocap_id, on one line."""
    chosen = [row for row in caption_rows(part) if row["youtube_id"] == clip]
    ordered = sorted(chosen, key=lambda row: row["audiocap_id"])
    return [" ".join(row["caption"].split()) for row in ordered]


def test_tables_and_clips(tmp_path, caplog):
    corpus = audiocaps(tmp_path / "audio caps")
    train, val, test = prepare(tmp_path / "data", *SETS, audiocaps=corpus)
    for name in SETS:
        assert validate(tmp_path / "data" / name) == []
    first = "audiocaps_train--abcDEF1234_30"
    assert train["utt2spk"] == {f"{first}-000090": first} | {
        "audiocaps_train-Y__f0o-bar1_0-000089": "audiocaps_train-Y__f0o-bar1_0"
    }
    assert list(train["text"].values()) == [expected("train", c)[0] for c in list(CLIPS)[:2]]
    assert train["text"][f"{first}-000090"] == (
        'A man says "hi", then a dog barks — train -abcDEF1234 0'
    )
    assert {Path(file).suffix for file in val["wav.scp"].values()} == {".mp3"}
    assert set(val["utt2task"].values()) == {"ac"}

    utt = "audiocaps_test--abcDEF1234_32"  # its five references are kept apart, two are alike
    assert test.references == ["text", *(f"text_ref{n}" for n in (2, 3, 4, 5))]
    assert [test[table][utt] for table in test.references] == expected("test", "-abcDEF1234")
    assert load_audio(test["wav.scp"][utt]).size == 8000


def test_clips_behind_a_link_that_leads_back(tmp_path):
    corpus = audiocaps(tmp_path / "audiocaps")
    (plain,) = prepare(tmp_path / "plain", "audiocaps_train", audiocaps=corpus)
    (corpus / "again").symlink_to(corpus)
    corpus.rename(tmp_path / "disk")
    corpus.mkdir()
    (corpus / "train.csv").symlink_to(tmp_path / "disk/train.csv")
    (corpus / "clips").symlink_to(tmp_path / "disk")
    (train,) = prepare(tmp_path / "data", "audiocaps_train", audiocaps=corpus)
    assert train["text"] == plain["text"]
    within = [Path(file).relative_to(corpus / "clips") for file in train["wav.scp"].values()]
    assert "again" not in {part for file in within for part in file.parts}


def test_missing_clips_are_counted_and_listed(tmp_path, caplog):
    corpus = audiocaps(tmp_path / "audiocaps")
    prepare(tmp_path / "data", *SETS, audiocaps=corpus)
    assert "1 of 3 clips are missing, listed in" in caplog.text
    assert "audiocaps_train: expected 49838 captions, found 3 (-49835)" in caplog.text
    missing = [(tmp_path / "data" / name / "missing_clips.log").read_text() for name in SETS]
    assert missing[0] == "zzzzzzzzzz-_130\tno such clip: its video may be gone\n"
    assert missing[2].startswith("zzzzzzzzzz-_132\tm4a is not read: convert it to flac with ffmpeg")


def test_a_part_of_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setitem(module.SIZES, "tiny", (1, 2))
    corpus = audiocaps(tmp_path / "audiocaps")
    train, test = prepare(tmp_path / "data", SETS[0], SETS[2], audiocaps=corpus, size="tiny")
    assert (len(train), len(test)) == (1, 2)
    assert len(test["text_ref5"]) == 2


def test_a_copy_of_the_hub(tmp_path):
    """The same sets out of Parquet; the audio of five rows is one file."""
    corpus = audiocaps_parquet(tmp_path / "audiocaps")
    train, val = prepare(tmp_path / "data", *SETS[:2], audiocaps=corpus)
    assert len(train) == 3 and len(val) == 3
    assert [val[t]["audiocaps_val--abcDEF1234_31"] for t in val.references] == expected(
        "val", "-abcDEF1234"
    )
    files = sorted((tmp_path / "data/audio/audiocaps_val").iterdir())
    assert [file.name for file in files] == [
        "-abcDEF1234_31.wav", "Y__f0o-bar1_1.wav", "zzzzzzzzzz-_131.wav"
    ]  # fmt: skip
    assert files[0].read_bytes() == audio_cell(0)["bytes"]
    assert sorted(val["wav.scp"].values()) == [str(file) for file in files]


def test_audio_bench(tmp_path, caplog):
    corpus = audio_bench(tmp_path / "bench")
    captions, questions = prepare(tmp_path / "data", *BENCH, audiobench=corpus)
    assert list(captions["text"].values()) == [f"Rain {n}." for n in range(5)]
    assert "prompt" not in captions and captions.references == ["text"]
    assert len(set(captions["wav.scp"].values())) == 3  # rows of the same clip share its file
    assert len(set(captions["utt2cluster"].values())) == 3  # and are not independent
    assert questions["prompt"]["audiocaps_test_qa-00001"] == "What's that, 1?"
    assert questions["text"]["audiocaps_test_qa-00001"] == "A bell’s ring"
    assert soundfile.info(questions["wav.scp"]["audiocaps_test_qa-00001"]).frames == 8000
    assert "audiocaps_test: expected 4400 rows, found 5" in caplog.text


def test_unusable_parquet_is_named(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\n"
    write(tmp_path / "a/audiocaps_qa_test/t.parquet", pointer)
    with pytest.raises(PamError, match="t.parquet: truncated or no Parquet file"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path / "a")
    write_parquet(tmp_path / "b/audiocaps_qa_test/t.parquet", [
        {"context": {"bytes": None, "path": "x.wav"}, "instruction": "a", "answer": "b"}
    ])  # fmt: skip
    with pytest.raises(PamError, match="row 0: no audio in it: copy the data set with its"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audiocap_id,youtube_id,caption\n1,a,b\n", "train.csv: no column 'start_time'"),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,x,b\n", "train.csv:2: .*not a caption"),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,3,\n", "train.csv:2: no caption"),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,3,b\n1,a,3,c\n", "audiocap_id 1 is there"),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,3,b\n", "none of the 1 clips .* a_3: no"),
        ("audiocap_id,youtube_id,start_time,caption\n1,a,inf,b\n", "csv:2: .*not a caption"),
        ("audiocap_id,youtube_id,start_time,caption\n1,../a,3,b\n", "csv:2: .*'../a' cannot be"),
        ("audiocap_id,youtube_id,start_time,caption\n", "train.csv: no captions in it"),
        (
            "audiocap_id,youtube_id,start_time,caption\n1,a,3,caf\xe9\n",
            "csv:2: not UTF-8 .byte 0xe9",
        ),
        (
            'audiocap_id,youtube_id,start_time,caption\n1,a,3,"' + "b\n" * 70000,
            "csv: field larger than field limit .*: check it for an unclosed quotation mark",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text, encoding="latin-1")
    with pytest.raises(PamError, match=message):
        prepare(tmp_path / "data", SETS[0], audiocaps=tmp_path)


def test_a_name_in_a_copy_cannot_lead_out_of_the_folder(tmp_path):
    row = {"youtube_id": "../../../evil", "start_time": 1, "caption": "x", "audio": audio_cell(0)}
    write_parquet(tmp_path / "corpus/train-0.parquet", [row])
    with pytest.raises(PamError, match="train-0.parquet:1: youtube_id .* cannot be a name"):
        prepare(tmp_path / "out/data", SETS[0], audiocaps=tmp_path / "corpus")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("column", ["answer", "instruction"])
@pytest.mark.parametrize("value", [None, " \n"])
def test_a_row_without_question_or_answer_is_named(tmp_path, column, value):
    row = {"context": audio_cell(0), "instruction": "Why?", "answer": "So."}
    write_parquet(tmp_path / "audiocaps_qa_test/t.parquet", [row, row | {column: value}])
    with pytest.raises(PamError, match=f"audiocaps_qa_test, row 1: no {column}"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path)


def test_what_is_not_set_is_named(tmp_path):
    for options, message in (
        ({}, "AUDIOCAPS is not set: in egs/audiocaps/db.sh"),
        ({"audiocaps": "/nowhere"}, "/nowhere: no such folder: correct AUDIOCAPS"),
        ({"audiocaps": tmp_path}, r"train.csv: missing, and no train\*.parquet below"),
    ):
        with pytest.raises(PamError, match=message):
            prepare(tmp_path / "data", SETS[0], **options)
    with pytest.raises(PamError, match="AUDIOBENCH is not set"):
        prepare(tmp_path / "data", BENCH[0])
    with pytest.raises(PamError, match=r"audiocaps_qa_test: no \*.parquet"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path)


HEADER = "audiocap_id,youtube_id,start_time,caption\n"
VIDEOS = {"-bC_dEf_01x": 30, "Y_z0nqfRc_0": 0, "_AbCdEf-0_9": 120}  # - and _ at both ends, a Y


def write_table(folder: Path, part: str, rows: list[tuple[int, str, int]]) -> Path:
    lines = [f"{number},{video},{start},a sound\n" for number, video, start in rows]
    write(folder / f"{part}.csv", HEADER + "".join(lines))
    return folder


def write_clips(corpus: Path, name: str) -> dict[str, Path]:
    """Clips whose names are made by `name`, with {id}, {start} and {number}."""
    rows = [(1001 + n, video, start) for n, (video, start) in enumerate(VIDEOS.items())]
    write_table(corpus, "test", rows)
    files = {}
    for number, video, start in rows:
        file = corpus / name.format(
            id=video,
            start=start,
            end=start + 10,
            number=number,
            ms=1000 * start,
            end_ms=1000 * start + 10000,
        )
        write(file, encoded(0.5, 16000, number, file.suffix[1:].upper()))
        files[f"audiocaps_test-{video}_{start}"] = file
    return files


@pytest.mark.parametrize("end", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize(
    "name",
    [
        "{id}_{start}",
        "Y{id}_{start}",
        "{id}_{start}_{end}",
        "Y{id}_{start}_{end}",
        "{id}_{start:06d}",
        "{id}_{start:06d}_{end:06d}",
        "{id}_{start}.000",
        "Y{id}_{start}.000_{end}.000",
        "{id}_{ms}",
        "{id}_{ms}_{end_ms}",
        "{id}",
        "Y{id}",
        "{number}",
        "{number:08d}",
        "test/{id}",
        "test/Y{id}",
        "audio/test/{number}",
        "train/{id}_{start}",  # no doubt which clip it is
    ],
)
def test_clips_by_all_common_names(tmp_path, caplog, name, end):
    caplog.set_level("INFO")
    corpus = tmp_path / "audio caps"
    files = write_clips(corpus, name + end)
    (test,) = prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    assert test["wav.scp"] == {utt: str(file) for utt, file in files.items()}
    assert "audiocaps_test: 3 utterances, 3 of 3 clips" in caplog.text


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["Ya_5.wav", "a_5.wav", "a.wav"], "a_5.wav"),
        (["a_5.m4a", "Ya.mp3"], "Ya.mp3"),  # what is not read is no choice
        (["a_5.mp3", "a_5.flac"], "a_5.flac"),
        (["a_5_15.wav", "a_000005.mp3"], "a_000005.mp3"),
        (["train/a_5.wav", "z/a_5_15.wav"], "train/a_5.wav"),
        (["a_6.wav", "7.wav"], "7.wav"),  # another part of the video
    ],
)
def test_of_two_files_the_surer_one_is_taken(tmp_path, names, chosen):
    corpus = write_table(tmp_path / "corpus", "test", [(7, "a", 5)])
    for name in names:
        write(
            corpus / name,
            encoded(0.5, 16000, 1, Path(name).suffix[1:].upper().replace("M4A", "WAV")),
        )
    (test,) = prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    assert test["wav.scp"] == {"audiocaps_test-a_5": str(corpus / chosen)}


@pytest.mark.parametrize(
    "names", [["a.wav"], ["Ya.wav"], ["train/7.wav"], ["a_9.wav"], ["a_5_1.wav"]]
)
def test_names_that_say_too_little_are_not_guessed(tmp_path, names):
    """Two clips of one video; a number that is another part's; another time."""
    corpus = write_table(tmp_path / "corpus", "test", [(7, "a", 5), (8, "a", 50)])
    for name in names:
        write(corpus / name, encoded(0.5, 16000, 1))
    with pytest.raises(PamError, match="none of the 2 clips of test.csv: a_5: no such clip: "):
        prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)


def test_a_whole_video_is_no_clip(tmp_path):
    corpus = write_table(tmp_path / "corpus", "test", [(7, "a", 5), (8, "b", 5)])
    write(corpus / "Ya.wav", encoded(40, 8000, 1))
    write(corpus / "Yb.wav", encoded(10, 8000, 1))
    (test,) = prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    assert list(test["text"]) == ["audiocaps_test-b_5"]
    listed = (tmp_path / "data/audiocaps_test/missing_clips.log").read_text()
    assert "Ya.wav has 40 s: is it the whole video? cut ten seconds from START" in listed


def test_clips_whose_download_broke_off_are_missing(tmp_path):
    """By any pattern of names: stage 2 would count them as bad, of which it bears few."""
    corpus = write_table(tmp_path / "corpus", "test", [(7, "a", 5), (8, "b", 5), (9, "c", 5)])
    whole = encoded(10, 8000, 1)
    for name, content in (("a_5", b""), ("Yb", whole[:1000]), ("c_5", whole)):
        write(corpus / f"{name}.wav", content)
    (test,) = prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    assert list(test["text"]) == ["audiocaps_test-c_5"]
    listed = (tmp_path / "data/audiocaps_test/missing_clips.log").read_text()
    assert "a_5.wav: truncated or corrupt audio (it is empty)" in listed
    assert "Yb.wav: truncated or corrupt audio (its header promises" in listed


def test_names_of_another_kind_are_shown_with_those_that_are_known(tmp_path, caplog):
    corpus = write_table(tmp_path / "corpus", "test", [(n, f"v{n}", 5) for n in range(3)])
    for name in ("clip-one", "clip-two"):
        write(corpus / f"wav/{name}.wav", encoded(0.5, 16000, 1))
    with pytest.raises(PamError) as raised:
        prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    message = str(raised.value)
    assert "v0_5" in message and "YOUTUBEID_START.wav (or ID_START_END, YID_START" in message
    assert "2 audio files" in message and "as clip-one.wav" in message and "\n" not in message
    write(corpus / "v1_5.wav", encoded(0.5, 16000, 1))  # hardly any: told, not refused
    prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus)
    assert "test: 1 of 3 clips found: clips are named YOUTUBEID_START.wav" in caplog.text


def test_clips_are_looked_for_before_they_are_drawn(tmp_path, monkeypatch, caplog):
    """Most videos are gone; of those left as many are drawn as the size asks for."""
    caplog.set_level("INFO")
    monkeypatch.setitem(module.SIZES, "tiny", (5, 5))
    corpus = write_table(tmp_path / "corpus", "test", [(n, f"v{n:02d}", 5) for n in range(40)])
    for n in range(0, 40, 4):
        write(corpus / f"v{n:02d}_5.wav", encoded(0.5, 16000, n))
    (test,) = prepare(tmp_path / "data", "audiocaps_test", audiocaps=corpus, size="tiny")
    assert len(test) == 5 and "5 utterances, 5 of 10 clips" in caplog.text
    assert "30 of 40 clips are missing" in caplog.text


def test_a_part_of_audio_bench_is_an_even_sample(tmp_path, monkeypatch):
    monkeypatch.setitem(module.SIZES, "tiny", (4, 4))
    for shard in range(2):
        rows = [
            {"context": audio_cell(n), "instruction": "Why?", "answer": f"{n}"}
            for n in range(20 * shard, 20 * shard + 20)
        ]
        write_parquet(tmp_path / f"audiocaps_qa_test/t-{shard}.parquet", rows)
    (data,) = prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path, size="tiny")
    numbers = [int(text) for text in data["text"].values()]
    assert [number // 10 for number in numbers] == [0, 1, 2, 3]
    assert list(data["text"]) == [f"{BENCH[1]}-{number:05d}" for number in numbers]


def test_a_corpus_in_a_folder_whose_name_is_no_utf8_is_an_error_of_one_line(tmp_path):
    corpus = audiocaps(tmp_path / "audiocaps").rename(tmp_path / "caf\udce9")
    done = subprocess.run(
        [
            sys.executable,
            module.__file__,
            "--audiocaps",
            corpus,
            "--out",
            tmp_path,
            "--sets",
            SETS[2],
        ],
        capture_output=True,
        text=True,
    )
    errors = [line for line in done.stderr.splitlines() if " INFO: " not in line]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert errors[-1].startswith("error: ") and "caf\\udce9" in errors[-1]
    assert "not UTF-8: rename it" in errors[-1]
