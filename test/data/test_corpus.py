"""What the preparations share: a part of a corpus that is like the whole, and tables no UTF-8."""

import csv
from collections import Counter

import pytest

from pam.data.corpus import LEFT_OUT, even_sample, even_sample_of_usable, list_left_out, reading
from pam.errors import PamError


@pytest.mark.parametrize(("total", "count"), [(2520, 1000), (10, 3), (7, 7), (5, 9), (1000, 1)])
def test_an_even_sample_takes_one_of_each_equal_part(total, count):
    drawn = even_sample(range(total), count)
    assert len(drawn) == min(total, count) and list(drawn) == sorted(set(drawn))
    if count < total:
        for n, item in enumerate(drawn):
            assert n * total // count <= item < (n + 1) * total // count
    assert list(drawn) == list(even_sample(range(total), count))
    assert even_sample(range(total), None) == range(total)


@pytest.mark.parametrize("table", ["sorted", "in turn"])
def test_a_part_has_all_kinds_of_the_whole(table):
    """Digits, 200 recordings of each: sorted by the word, or all ten words in turn."""
    lines = [n // 200 if table == "sorted" else n % 10 for n in range(2000)]
    counts = Counter(even_sample(lines, 200))  # at even distances: of the turns one word only
    assert len(counts) == 10 and min(counts.values()) >= 10


def test_more_are_drawn_for_those_that_cannot_be_used():
    def use(items):
        tried.extend(items)
        return {item: str(item) for item in items if item % 3}

    for count, most in ((4, 4), (60, 60), (90, 66), (None, 66)):
        tried = []
        found = even_sample_of_usable(range(100), count, use)
        assert len(found) == most and all(n % 3 for n in found)
        assert len(tried) == len(set(tried)) and (count != 4 or len(tried) < 20)
    assert even_sample_of_usable([], 3, use) == {} == even_sample_of_usable([3, 6], None, use)


@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize(
    ("content", "where", "encoding"),
    [
        (b"a,b\n" * 20000 + b"caf\xe9,b\n", ":20001: not UTF-8 (byte 0xe9)", "LATIN1"),
        ("a,b\nc,d\n".encode("utf-16"), ":1: not UTF-8 (byte 0xff)", "UTF-16"),
    ],
)
def test_a_table_that_is_no_utf8_names_its_line(tmp_path, is_csv, content, where, encoding):
    table = tmp_path / "my table.csv"
    table.write_bytes(content)
    with pytest.raises(PamError) as raised, reading(table):
        if is_csv:  # it is read a block at a time
            with table.open(encoding="utf-8", newline="") as file:
                list(csv.reader(file))
        else:
            table.read_text(encoding="utf-8")
    message = str(raised.value)
    assert message.startswith(f"{table}{where}: ") and "\n" not in message
    assert f"iconv -f {encoding} -t UTF-8 '{table}' > converted" in message


def test_names_that_are_no_utf8_are_listed(tmp_path):
    list_left_out(tmp_path, {"no audio": ["caf\udce9.flac"], "twice": ["é"]})
    assert (tmp_path / LEFT_OUT).read_text() == "no audio\tcaf\\udce9.flac\ntwice\té\n"
