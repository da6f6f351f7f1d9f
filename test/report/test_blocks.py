"""Blocks keep plain text for the page; Markdown of them shows the same text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pam.report.blocks import bullets, code, figure, heading, paragraph, table, to_markdown
from pam.report.markdown import LONGEST

TEXT = st.text(st.sampled_from("ab \\`*_[]<>|~$&#!-()\"'é"), max_size=12)


def spaced(text):
    """On one line."""
    return " ".join(text.split())


def unescaped(markdown):
    """The text that Markdown shows: a backslash stands for the character after it."""
    out, characters = "", iter(markdown)
    for character in characters:
        out += next(characters) if character == "\\" else character
    return out


def split_cells(line):
    """The cells of a table's line, split at the bars that are not escaped."""
    cells, escaped = [""], False
    for character in line:
        if character == "|" and not escaped:
            cells.append("")
        else:
            cells[-1] += character
        escaped = character == "\\" and not escaped
    return [unescaped(cell[1:-1]) for cell in cells[1:-1]]


@settings(deadline=None, max_examples=200)
@given(TEXT)
def test_markdown_shows_the_text_of_a_block(text):
    for block in (paragraph(text), heading(2, text)):
        assert block["text"] == spaced(text)
        assert unescaped(to_markdown([block])).removeprefix("## ") == spaced(text)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_tables_keep_their_cells(rows):
    block = table(["a", "p | q:"], rows)
    assert block == {
        "kind": "table",
        "header": ["a", "p | q"],
        "right": [False, True],
        "rows": [[*map(spaced, row)] for row in rows],
    }
    header, rules, *lines = to_markdown([block]).splitlines()
    assert split_cells(header) == ["a", "p | q"] and rules == "| --- | ---: |"
    assert [split_cells(line) for line in lines] == block["rows"]


def test_every_kind_of_block():
    blocks = [
        heading(3, "a *b* [c](d)"),
        figure("../my figures/curves.png", "Loss | step."),
        bullets(["one: *", "two"]),
        code("# no heading\n```\n| no | table |\n"),
        table(["a"], [[None]]),
        paragraph("x" * 2 * LONGEST),
    ]
    assert [block["kind"] for block in blocks] == (
        ["heading", "figure", "list", "code", "table", "text"]
    )
    assert blocks[1]["name"] == "curves" and blocks[3]["text"].endswith("| no | table |")
    assert to_markdown(blocks).split("\n\n") == [
        "### a \\*b\\* \\[c\\](d)",
        "![curves](../my%20figures/curves.png)",
        "Loss \\| step. ([SVG](../my%20figures/curves.svg))",
        "- one: \\*\n- two",
        "````text\n# no heading\n```\n| no | table |\n````",
        "| a |\n| --- |\n| — |",
        "x" * 2 * LONGEST,
    ]


def test_escaped_text_is_no_figure():
    assert to_markdown([paragraph("![x](/etc/passwd)")]) == "!\\[x\\](/etc/passwd)"


def test_long_cells_are_cut():
    (row,) = table(["a"], [["y" * (LONGEST + 1)]])["rows"]
    assert row == ["y" * (LONGEST - 1) + "…"]
