"""A text file that stays on the disk answers as the dict that `read_text_file` makes of it."""

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_dirs import IDS, VALUES

from pam.data.mapped import MappedText
from pam.data.scp import read_text_file, write_text_file
from pam.errors import PamError


@given(st.dictionaries(IDS, VALUES, max_size=20), st.lists(IDS, max_size=5))
def test_it_equals_the_dict(tmp_path_factory, entries, others):
    file = tmp_path_factory.mktemp("mapped") / "text"
    write_text_file(file, entries)
    mapped, plain = MappedText(file), read_text_file(file)
    assert mapped == plain and list(mapped) == list(plain) and len(mapped) == len(plain)
    for utt in [*entries, *others]:
        assert mapped.get(utt) == plain.get(utt) and (utt in mapped) == (utt in plain)


@pytest.mark.parametrize("name", ["text", "wav.scp"])
@pytest.mark.parametrize("separator", [" ", "\t", " \t  "])
def test_separators_and_long_ids(tmp_path, name, separator):
    lines = {"a" * 200: "x", "é" * 100: "one  two", "é" * 60 + "z": "three\tfour"}
    text = "".join(f"{key}{separator}{value}\n" for key, value in sorted(lines.items()))
    (tmp_path / name).write_text(text)
    assert MappedText(tmp_path / name) == read_text_file(tmp_path / name) == lines


PIECES = st.sampled_from(
    [
        "a",
        "b",
        "c\u0301",
        " ",
        " ",
        "\t",
        "\n",
        "\r",
        "\x0b",
        "\x1c",
        "\x85",
        "\u2028",
        "\u3000",
        "\u00a0",
    ]
    + ["\u200d", "\ufeff", "/", "é", "a x\n", "b y \n", "c z\t\n", "d z\u00a0\n", "é w\n"]
)


def outcome(reader, file):
    """The entries, or the message about the first fault."""
    try:
        return dict(reader(file))
    except PamError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from(["text", "wav.scp"]))
@example("a /b.wav \nb /c.wav\t\n", "wav.scp")
@example("a  x \n", "text")
@example("a /b.wav\u00a0\n", "wav.scp")
def test_any_file_is_read_or_refused_as_the_dict_is(tmp_path_factory, content, name):
    file = tmp_path_factory.mktemp("any") / name
    file.write_bytes(content.encode())
    assert outcome(MappedText, file) == outcome(read_text_file, file)


FAULTS = ["b x\na y\n", "a x\na y\n", "a x", "a\n", "\n", "a \u00a0x\n", "a x\r\n", "\ufeffa x\n",
          "a/b x\n", f"{'a' * 201} x\n", f"{'é' * 101} x\n", "a x\x00\n"]  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_faults_are_those_of_reading(tmp_path, text):
    (tmp_path / "text").write_bytes(text.encode())
    with pytest.raises(PamError) as expected:
        read_text_file(tmp_path / "text")
    with pytest.raises(PamError) as raised:
        MappedText(tmp_path / "text")
    assert str(raised.value) == str(expected.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text").write_bytes(b"a \xff\n")
    for file, message in ((tmp_path / "text", "not UTF-8"), (tmp_path / "gone", "cannot be read")):
        with pytest.raises(PamError, match=message):
            MappedText(file)


def test_a_file_that_is_replaced_is_still_the_old_one(tmp_path):
    write_text_file(tmp_path / "text", {"a": "old"})
    mapped = MappedText(tmp_path / "text")
    write_text_file(tmp_path / "text", {"a": "new", "b": "more"})
    assert dict(mapped) == {"a": "old"}


def test_a_line_costs_a_few_bytes(tmp_path):
    """Measured: 8.4 bytes, with those that the array has in reserve; a dict takes 237."""
    lines = {f"utt-{n:08d}": "words " * 9 + str(n) for n in range(20_000)}
    write_text_file(tmp_path / "text", lines)
    tracemalloc.start()
    mapped = MappedText(tmp_path / "text")
    each = tracemalloc.get_traced_memory()[0] / len(mapped)
    tracemalloc.stop()
    assert each < 12 and mapped["utt-00019999"] == lines["utt-00019999"]
