"""Files of one line for each entry: what reads back, and how each bad line is told."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pam.atomic import part_of
from pam.data import scp
from pam.errors import PamError

NO_ID = {"exclude_categories": ["Cc", "Cf", "Cs", "Z"], "exclude_characters": "/"}
IDS = st.text(st.characters(**NO_ID), min_size=1, max_size=20)
NO_VALUE = {"exclude_categories": ["Cc", "Cf", "Cs", "Z"], "include_characters": " "}
VALUES = st.text(st.characters(**NO_VALUE), min_size=1)


def scan(tmp_path, raw):
    path = tmp_path / "text"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    entries, problems = scp.scan_text_file(path)
    return entries, [str(problem).removeprefix(str(path)) for problem in problems]


@given(st.dictionaries(IDS, VALUES.map(lambda value: value.strip() or "-")))
@example({"a": "x\ty z", "a-b": "x  y", "ab": "می\u200cخواهم", "b": "👩\u200d🚀"})
def test_round_trip(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("scp") / "text"
    scp.write_text_file(path, entries)
    back = scp.read_text_file(path)
    assert back == entries and list(back) == sorted(entries)


@given(st.dictionaries(st.text(), st.text()))
def test_what_would_not_read_back_is_not_written(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("scp") / "text"
    try:
        scp.write_text_file(path, entries)
    except PamError:
        assert not list(path.parent.iterdir())
    else:
        assert scp.read_text_file(path) == entries


@given(st.text())
def test_one_line_makes_any_text_fit(text):
    line = scp.one_line(text)
    if line and "\\ud" not in ascii(line):  # lone surrogates are refused, not lost
        assert scp.value_fault(line) is None
    assert scp.one_line(line) == line


def test_byte_order(tmp_path):
    keys = ["a", "B", "é", "a-b", "aB", "\U0001f600", "\uff5e"]
    scp.write_text_file(tmp_path / "text", dict.fromkeys(keys, "x"))
    lines = (tmp_path / "text").read_bytes().splitlines()
    assert lines == sorted(lines) and lines[0] == b"B x"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a x\nb\nc z\n", ":2: empty value 'b': fill it in or remove the line"),
        ("a x\nb  \nc z\n", ":2: empty value 'b  ': fill it in or remove the line"),
        ("a x\nb \u3000\nc z\n", ":2: empty value 'b \\u3000': fill it in or remove the line"),
        ("a x\n\nc z\n", ":2: no id in the line: start each line with an id and a space"),
        ("a x\n b y\nc z\n", ":2: no id in the line ' b y': start each line"),
        (
            "a x\nb y\rq\nc z\n",
            ":2: line break or control character in 'b y\\rq': put it on one line",
        ),
        ("a x\nb y\x00q\nc z\n", ":2: line break or control character in"),
        (
            b"a x\nb \xff\xfe\nc z\n",
            ":2: not UTF-8: 'b ÿþ': convert the file (byte 2), e.g. with: iconv",
        ),
        ("a x\nb/../c y\nc z\n", ":2: bad character in the id 'b/../c y': use no spaces"),
        (f"a x\nb{'b' * 200} y\nc z\n", ":2: too long an id"),
    ],
)
def test_bad_line_is_told_and_left_out(tmp_path, raw, message):
    entries, problems = scan(tmp_path, raw)
    assert entries == {"a": "x", "c": "z"}
    assert len(problems) == 1 and problems[0].startswith(message), problems
    with pytest.raises(PamError, match="text:2: "):
        scp.read_text_file(tmp_path / "text")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("b y\na x\n", ":2: not sorted: after 'b' comes 'a': sort with LC_ALL=C"),
        (
            "\ufeffa x\nb y\n",
            ":1: byte order mark before 'a x': save the file as UTF-8 without BOM",
        ),
        ("a x\nb y", ":2: no newline at the end of 'b y': check that the file is complete"),
        ("a x\nb\u00a0y\n", ":2: character U+00A0 (no-break space) in or after the id of"),
        ("a x\nb\u3000y\n", ":2: character U+3000 (ideographic space) in or after the id of"),
        ("a x\n\ufeffb y\n", ":2: character U+FEFF (zero width no-break space) in or after the id"),
        ("a x\nb y\u00a0\n", ":2: character U+00A0 (no-break space) in 'b y\\xa0': write a plain"),
        ("a x\nb \u3000y\n", ":2: character U+3000 (ideographic space) in"),
        ("a x\nb y\u200b\n", ":2: character U+200B (zero width space) in"),
        ("a x\nb \u00ady\n", ":2: character U+00AD (soft hyphen) in"),
        ("a x\nb \u202ay\u202c\n", ":2: character U+202A (left-to-right embedding) in"),
        ("a x\nb y\u200d\n", ":2: character U+200D (zero width joiner) in"),
        ("a x\nb y\x0b\n", ":2: character U+000B (control character) in 'b y\\x0b'"),
        ("a x\nb y\x85\n", ":2: character U+0085 (control character) in"),
        ("a x\nb \u2028y\n", ":2: character U+2028 (line separator) in"),
        ("a x\nb y\r\n", ":2: Windows line end (CRLF) after 'b y': convert with: sed"),
        ("a x\na z\nb y\n", ":2: duplicated id 'a': keep one of its lines"),
        ("a x\nb y\na z\n", ":3: duplicated id 'a': keep one of its lines"),
    ],
)
def test_bad_line_is_told_and_mended(tmp_path, raw, message):
    entries, problems = scan(tmp_path, raw)
    assert list(entries.items()) == [("a", "x"), ("b", "y")]
    assert len(problems) == 1 and problems[0].startswith(message), problems


@pytest.mark.parametrize(
    ("value", "mended"),
    [
        ("ten\u00a0000\u202fpeople", "ten 000 people"),
        ("a \u00a0b", "a b"),
        ("今日\u3000は", "今日 は"),
        ("co\u00adoperate \u200bnow\ufeff", "cooperate now"),
        ("one\x0btwo\u2028three\x85four\x7f", "one two three four"),
        ("a\u200d\u200cb", "ab"),
        ("می\u200cخواهم\u00a0x", "می\u200cخواهم x"),  # Persian is spelt with joiners
        ("x\u00a0👩\u200d🚀", "x 👩\u200d🚀"),
    ],
)
def test_values_of_odd_characters_are_mended(tmp_path, value, mended):
    entries, problems = scan(tmp_path, f"a {value}\n")
    assert entries == {"a": mended} and len(problems) == 1
    assert "or run utils/fix_data_dir.sh" in problems[0]
    assert scp.one_line(value) == mended and scp.value_fault(mended) is None
    with pytest.raises(PamError, match="text: (character|line break)"):
        scp.write_text_file(tmp_path / "text", {"a": value})


def test_files_keep_their_names(tmp_path):
    """A screenshot of macOS has U+202F in its name, and two spaces are two."""
    entries = {"a": "/my  clips/at\u202f10.00\u00a0a\u200bb.wav"}
    for name in ("wav.scp", "feats_x.scp"):
        scp.write_text_file(tmp_path / name, entries)
        assert scp.scan_text_file(tmp_path / name) == (entries, [])
    (tmp_path / "wav.scp").write_bytes(b"a /caf\xe9.wav\n")
    _, problems = scp.scan_text_file(tmp_path / "wav.scp")
    assert "not UTF-8: 'a /café.wav': rename the file, e.g. with: convmv" in str(problems[0])


LINES = st.lists(
    st.sampled_from(
        ["a", "é", "b" * 49, "/", " ", "\t", "\n", "\r", "\x0b", "\u2028", "\u3000", "\ufeff"]
        + ["\u00a0", "\u200b", "\u200d"]
    )
).map("".join)


@settings(max_examples=300)
@given(st.one_of(LINES, st.text()), st.integers(1, 2))
def test_the_quick_look_agrees_with_the_close_one(line, number):
    line = line.encode("utf-8", "ignore").decode() + "\n"
    close = scp._parse_closely(Path("f"), number, line)
    good = scp.GOOD.fullmatch(line)
    if good:
        assert close == (good[1], good[2], [])
    elif close[0] is not None and not close[2]:  # the quick look may leave good lines to the other
        plain = line != f"{close[0]} {close[1]}\n"
        assert len(close[0]) > 50 or plain or {*line} & {*scp.JOINERS}


def test_tabs_and_several_spaces_separate(tmp_path):
    assert scan(tmp_path, "a\tx  y \nb   z\n") == ({"a": "x  y", "b": "z"}, [])


def test_missing_file(tmp_path):
    with pytest.raises(PamError, match=r"none: cannot be read \(No such file"):
        scp.read_text_file(tmp_path / "none")


def test_long_values_are_shortened_in_messages(tmp_path):
    _, problems = scan(tmp_path, f"a {'word ' * 100}\x0b\n")
    assert len(problems[0]) < 250


def test_full_disk(tmp_path):
    part_of(tmp_path / "text").symlink_to("/dev/full")
    with pytest.raises(PamError, match="text: cannot be written: the disk is full"):
        scp.write_text_file(tmp_path / "text", {"a": "x"})
    assert not list(tmp_path.iterdir())
