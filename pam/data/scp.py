"""One file of a data directory: a line an entry, `id value`, sorted by id in byte order.

`scan_table` keeps what is good and tells what is not; `read_table` stops at the first fault.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pam.atomic import atomic_path
from pam.data.disk import writing
from pam.errors import UserError

# Characters at which some reader would end a line, and other control characters except the tab.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# Most lines: an id, a value and nothing to complain of. Others are looked at closely, and slowly.
GOOD = re.compile(
    r"([^\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff/]{1,50})[ \t]+"
    r"([^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]"
    r"(?:[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*"
    r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff])?)\n"
)
SEPARATOR = re.compile(r"[ \t]")
BOM = "\ufeff"
MAX_ID_BYTES = 200  # ids become file names
REPEATED = ("utt2spk", "utt2task")  # few different values, kept as one string each
SORT = "sort with LC_ALL=C"
ONE_LINE = "put it on one line: pam.data.scp.one_line(text) replaces such characters by spaces"


@dataclass(frozen=True)
class Problem:
    """A fault of a data directory: where, what, and the remedy; a warning drops nothing."""

    file: str
    line: int | None
    rule: str
    value: str
    remedy: str
    warning: bool = False

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        value = f" {_short(self.value)}" if self.value else ""
        return f"{where}: {self.rule}{value}: {self.remedy}"


def one_line(text: str) -> str:
    """`text` without control characters and with single spaces: fit for a table's value."""
    return " ".join(CONTROL.sub(" ", text).split())


def id_fault(key: str) -> tuple[str, str] | None:
    """(rule, remedy) where `key` cannot be an utterance, speaker or recording id."""
    if not key:
        return "no id in the line", "start each line with an id and a space, remove empty lines"
    if any(c.isspace() for c in key) or CONTROL.search(key) or BOM in key or "/" in key:
        return "bad character in the id", "use no spaces, control characters, slashes or BOM in ids"
    if len(key.encode("utf-8", "replace")) > MAX_ID_BYTES:
        return "too long an id", f"use at most {MAX_ID_BYTES} bytes: ids become file names"
    return _surrogates(key)


def value_fault(value: str) -> tuple[str, str] | None:
    """(rule, remedy) where `value` cannot be written as the rest of one line."""
    if not value.strip():
        return "empty value", "fill it in or remove the line"
    if CONTROL.search(value):
        return "line break or control character in", ONE_LINE
    if value != value.strip():
        return "space around the value", "strip it"
    return _surrogates(value)


def scan_table(path: str | Path) -> tuple[dict[str, str], list[Problem]]:
    """All good lines of a file (the first of duplicates), sorted by id, and what was wrong."""
    path = Path(path)
    table: dict[str, str] = {}
    problems: list[Problem] = []
    previous, is_sorted = "", True
    values: dict[str, str] = {}
    for number, raw in _lines(path):
        key, value, faults = _parse(path, number, raw)
        if key is None:
            problems += faults
        elif key in table:
            rule, remedy = "duplicated id", "keep one of its lines"
            problems.append(Problem(str(path), number, rule, key, remedy))
        else:
            problems += faults
            if key < previous:
                is_sorted = False
                rule = f"not sorted: after {_short(previous)} comes"
                problems.append(Problem(str(path), number, rule, key, SORT))
            previous = key
            if path.name in REPEATED:
                value = values.setdefault(value, value)
            table[sys.intern(key)] = value  # one string for all tables of a directory
    return (table if is_sorted else dict(sorted(table.items()))), problems


def read_table(path: str | Path) -> dict[str, str]:
    """Read a file of `id value` lines; `UserError` at the first fault."""
    table, problems = scan_table(path)
    if problems:
        raise UserError(str(problems[0]))
    return table


def write_table(path: str | Path, table: Mapping[str, str]) -> None:
    """Write sorted `id value` lines atomically; `UserError` for what would not read back."""
    write_tables({Path(path): table}, before_renaming=lambda: None)


def write_tables(
    tables: Mapping[Path, Mapping[str, str]], before_renaming: Callable[[], None]
) -> None:
    """Write several tables, all or none; the files are renamed in the order of `tables`."""
    with ExitStack() as stack:
        for path in reversed(tables):  # the stack renames the last one first
            stack.enter_context(writing(path))
            part = stack.enter_context(atomic_path(path))
            _write_lines(part, path, tables[path])
        before_renaming()


def _write_lines(part: Path, path: Path, table: Mapping[str, str]) -> None:
    with part.open("wb") as out:
        for key in sorted(table):  # code points sort as their UTF-8 bytes do
            value = table[key]
            good = GOOD.fullmatch(f"{key} {value}\n")
            if good is None or good.groups() != (key, value):
                _refuse_entry(path, key, value)
            out.write(f"{key} {value}\n".encode())


def _refuse_entry(path: Path, key: str, value: str) -> None:
    if fault := id_fault(key) or value_fault(value):
        raise UserError(f"{path}: {fault[0]} {_short(f'{key} {value}')}: {fault[1]}")


def line_numbers(path: str | Path) -> dict[str, int]:
    """The first line of each id, for messages."""
    numbers: dict[str, int] = {}
    for number, raw in _lines(Path(path)):
        key, _, _ = _parse(Path(path), number, raw)
        if key is not None:
            numbers.setdefault(key, number)
    return numbers


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): create it") from error


def _parse(path: Path, number: int, raw: bytes) -> tuple[str | None, str, list[Problem]]:
    """id (None: the line is unusable), value, and the faults of a line."""
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        text, remedy = raw.decode("latin-1").strip(), f"convert the file (byte {error.start})"
        return None, "", [Problem(str(path), number, "not UTF-8:", text, remedy)]
    if good := GOOD.fullmatch(line):
        return good[1], good[2], []
    return _parse_closely(path, number, line)


def _parse_closely(path: Path, number: int, line: str) -> tuple[str | None, str, list[Problem]]:
    faults: list[Problem] = []

    def fault(rule: str, value: str, remedy: str) -> None:
        faults.append(Problem(str(path), number, rule, value, remedy))

    if number == 1 and line.startswith(BOM):
        line = line.removeprefix(BOM)
        fault("byte order mark before", line.strip(), "save the file as UTF-8 without BOM")
    if not line.endswith("\n"):
        fault("no newline at the end of", line, "check that the file is complete, add a newline")
    line = line.removesuffix("\n")
    if line.endswith("\r"):
        line = line.removesuffix("\r")
        fault("Windows line end (CRLF) after", line, "convert with: sed -i 's/\\r$//'")
    key, value = SEPARATOR.split(line, maxsplit=1) if SEPARATOR.search(line) else (line, "")
    value = value.strip(" \t")
    if not CONTROL.search(value):  # strip() alone would hide line breaks at the end
        value = value.strip()
    if wrong := id_fault(key) or value_fault(value):
        fault(wrong[0], line, wrong[1])
        return None, "", faults
    return key, value, faults


def _surrogates(text: str) -> tuple[str, str] | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "not encodable as UTF-8:", "read the source with its right encoding"
    return None


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
