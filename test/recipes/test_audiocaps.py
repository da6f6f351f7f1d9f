"""AudioCaps and AudioBench's sets of it, on imitations of their files."""

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
    preparation,
    write,
    write_parquet,
)

from pam.data.audio import load_audio
from pam.data.datadir import DataDir, validate
from pam.errors import UserError

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
    with pytest.raises(UserError, match="t.parquet: truncated or no Parquet file"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path / "a")
    write_parquet(tmp_path / "b/audiocaps_qa_test/t.parquet", [
        {"context": {"bytes": None, "path": "x.wav"}, "instruction": "a", "answer": "b"}
    ])  # fmt: skip
    with pytest.raises(UserError, match="row 0: no audio in it: copy the data set with its"):
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
        ("audiocap_id,youtube_id,start_time,caption\n1,a,3,caf\xe9\n", "csv: not UTF-8 .byte 0xe9"),
        (
            'audiocap_id,youtube_id,start_time,caption\n1,a,3,"' + "b\n" * 70000,
            "csv: field larger than field limit .*: is a quotation mark not closed",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "data", SETS[0], audiocaps=tmp_path)


def test_a_name_in_a_copy_cannot_lead_out_of_the_folder(tmp_path):
    row = {"youtube_id": "../../../evil", "start_time": 1, "caption": "x", "audio": audio_cell(0)}
    write_parquet(tmp_path / "corpus/train-0.parquet", [row])
    with pytest.raises(UserError, match="train-0.parquet:1: youtube_id .* cannot be a name"):
        prepare(tmp_path / "out/data", SETS[0], audiocaps=tmp_path / "corpus")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("column", ["answer", "instruction"])
@pytest.mark.parametrize("value", [None, " \n"])
def test_a_row_without_question_or_answer_is_named(tmp_path, column, value):
    row = {"context": audio_cell(0), "instruction": "Why?", "answer": "So."}
    write_parquet(tmp_path / "audiocaps_qa_test/t.parquet", [row, row | {column: value}])
    with pytest.raises(UserError, match=f"audiocaps_qa_test, row 1: no {column}"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path)


def test_what_is_not_set_is_named(tmp_path):
    for options, message in (
        ({}, "AUDIOCAPS is not set: in egs/audiocaps/db.sh"),
        ({"audiocaps": "/nowhere"}, "/nowhere: no such folder: correct AUDIOCAPS"),
        ({"audiocaps": tmp_path}, r"train.csv: missing, and no train\*.parquet below"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(tmp_path / "data", SETS[0], **options)
    with pytest.raises(UserError, match="AUDIOBENCH is not set"):
        prepare(tmp_path / "data", BENCH[0])
    with pytest.raises(UserError, match=r"audiocaps_qa_test: no \*.parquet"):
        prepare(tmp_path / "data", BENCH[1], audiobench=tmp_path)
