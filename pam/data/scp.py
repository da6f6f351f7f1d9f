"""One file of a data directory: one entry per line, `id value`, sorted by id in byte order.

`scan_text_file` keeps what is good and tells what is not; `read_text_file` stops at the first
fault.
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pam.atomic import atomic_path
from pam.disk import writing
from pam.errors import PamError, is_utf8

# Control characters except the tab, and other characters that some readers treat as a line end.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# These show that a line is several lines, or not UTF-8: it cannot be repaired.
BROKEN = re.compile(r"[\x00\r]")
# Special spaces; each is replaced by a plain one.
SPACES = r"\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# Characters without width that change no word: soft hyphens, zero-width spaces, direction marks,
# byte order marks. They are removed. So are joiners between letters of scripts without joiners.
INVISIBLE = r"\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
JOINERS = "\u200c\u200d"
JOINED = r"[^\x00-\u02ff\u2000-\u206f\u3000\ufeff]"
LOST_JOINER = rf"(?<!{JOINED})[{JOINERS}]|[{JOINERS}](?!{JOINED})"
ODD = re.compile(rf"{CONTROL.pattern}|[{SPACES}{INVISIBLE}]|{LOST_JOINER}")
REMOVED = re.compile(rf"[{INVISIBLE}]|{LOST_JOINER}")
# Matches lines without faults, which are most. Other lines take the slow path.
ID = rf"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff{INVISIBLE}/]{{1,200}}"
NO_CONTROL = r"\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
NO_END = r"\s\x00-\x1f\x7f-\x9f\ud800-\udfff"


def _good_line(odd: str) -> re.Pattern:
    return re.compile(
        rf"({ID})[ \t]+([^{NO_END}{odd}](?:[^{NO_CONTROL}{odd}]*[^{NO_END}{odd}])?)\n"
    )


GOOD = _good_line(SPACES + INVISIBLE + JOINERS)
GOOD_PATH = _good_line("")  # the name of a file may have any character
PATHS = re.compile(r"wav\.scp|feats.*\.scp")
SEPARATOR = re.compile(rf"[ \t{SPACES}]")
HIDDEN = re.compile(f"[{INVISIBLE}]")
BOM = "\ufeff"
MAX_ID_BYTES = 200  # ids become file names
SURELY_SHORT = MAX_ID_BYTES // 4  # characters; UTF-8 has at most four bytes for each
REPEATED = ("utt2spk", "utt2task")  # few different values: equal ones share one string
SORT = "sort with LC_ALL=C"
MENDED = "write a plain space or nothing, or run utils/fix_data_dir.sh"
ONE_LINE = "put it on one line: pam.data.scp.one_line(text) replaces such characters by spaces"


@dataclass(frozen=True)
class Problem:
    """A fault of a data directory: place, rule, value and remedy. A warning drops no entry."""

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
    """`text` with only visible characters and single spaces, valid as a value in a text file."""
    text = " ".join(CONTROL.sub(" ", text).split())
    while text != (text := " ".join(REMOVED.sub("", text).split())):
        pass  # a removal may leave another joiner without its neighbour
    return text


def is_of_paths(path: Path) -> bool:
    """Whether the values of a text file are paths, which may have any kind of space."""
    return bool(PATHS.fullmatch(path.name))


def id_fault(key: str) -> tuple[str, str] | None:
    """(rule, remedy) if `key` is not a valid utterance, speaker or recording id."""
    if not key:
        return "no id in the line", "start each line with an id and a space, remove empty lines"
    if any(c.isspace() for c in key) or CONTROL.search(key) or HIDDEN.search(key) or "/" in key:
        return "bad character in the id", "use no spaces, control characters, slashes or BOM in ids"
    if len(key.encode("utf-8", "replace")) > MAX_ID_BYTES:
        return "too long an id", f"use at most {MAX_ID_BYTES} bytes: ids become file names"
    return _surrogates(key)


def value_fault(value: str, is_path: bool = False) -> tuple[str, str] | None:
    """(rule, remedy) if `value` cannot be written as the rest of one line."""
    if not value.strip():
        return "empty value", "fill it in or remove the line"
    if CONTROL.search(value):
        return "line break or control character in", ONE_LINE
    if not is_path and (odd := ODD.search(value)):
        return _odd_rule(odd[0]), ONE_LINE
    if value != value.strip():
        return "space around the value", "strip it"
    return _surrogates(value)


def scan_text_file(path: str | Path) -> tuple[dict[str, str], list[Problem]]:
    """All good lines of a file (the first of duplicates), sorted by id, and the problems."""
    path = Path(path)
    entries: dict[str, str] = {}
    problems: list[Problem] = []
    previous, is_sorted = "", True
    values: dict[str, str] = {}
    for number, raw in _lines(path):
        key, value, faults = parse_line(path, number, raw)
        if key is None:
            problems += faults
        elif key in entries:
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
            entries[sys.intern(key)] = value  # one string for all files of a directory
    return (entries if is_sorted else dict(sorted(entries.items()))), problems


def read_text_file(path: str | Path) -> dict[str, str]:
    """Read a file of `id value` lines; `PamError` at the first fault."""
    entries, problems = scan_text_file(path)
    if problems:
        raise PamError(str(problems[0]))
    return entries


def write_text_file(path: str | Path, entries: Mapping[str, str]) -> None:
    """Write sorted `id value` lines atomically. `PamError` for invalid entries."""
    write_text_files({Path(path): entries}, before_renaming=lambda: None)


def write_text_files(
    files: Mapping[Path, Mapping[str, str]], before_renaming: Callable[[], None]
) -> None:
    """Write several files, all or none; they are renamed in the order of `files`."""
    with ExitStack() as stack:
        for path in reversed(files):  # ExitStack leaves the last context first
            stack.enter_context(writing(path))
            part = stack.enter_context(atomic_path(path))
            _write_lines(part, path, files[path])
        before_renaming()


def _write_lines(part: Path, path: Path, entries: Mapping[str, str]) -> None:
    pattern = GOOD_PATH if is_of_paths(path) else GOOD
    with part.open("wb") as out:
        for key in sorted(entries):  # code points sort as their UTF-8 bytes do
            value = entries[key]
            if _good(pattern, f"{key} {value}\n") != (key, value):
                _refuse_entry(path, key, value)
            out.write(f"{key} {value}\n".encode())


def _refuse_entry(path: Path, key: str, value: str) -> None:
    if fault := id_fault(key) or value_fault(value, is_of_paths(path)):
        raise PamError(f"{path}: {fault[0]} {_short(f'{key} {value}', 200)}: {fault[1]}")


def line_numbers(path: str | Path) -> dict[str, int]:
    """The first line of each id, for messages."""
    numbers: dict[str, int] = {}
    for number, raw in _lines(Path(path)):
        key, _, _ = parse_line(Path(path), number, raw)
        if key is not None:
            numbers.setdefault(key, number)
    return numbers


def good_line(path: Path, raw: bytes) -> tuple[str, str] | None:
    """The id and the value of a line without faults; None for any other line."""
    try:
        return _good(GOOD_PATH if is_of_paths(path) else GOOD, raw.decode())
    except UnicodeDecodeError:
        return None


def _good(pattern: re.Pattern, line: str) -> tuple[str, str] | None:
    if found := pattern.fullmatch(line):
        key, value = found.groups()
        if len(key) <= SURELY_SHORT or len(key.encode()) <= MAX_ID_BYTES:
            return key, value
    return None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise PamError(f"{path}: cannot be read ({error.strerror}): create it") from error


def parse_line(path: Path, number: int, raw: bytes) -> tuple[str | None, str, list[Problem]]:
    """The id (None if the line is unusable), the value, and the problems of a line."""
    if good := good_line(path, raw):
        return *good, []
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        text = raw.decode("latin-1").strip()
        remedy = f"convert the file (byte {error.start}), e.g. with: iconv -f LATIN1 -t UTF-8"
        if is_of_paths(path):
            remedy = "rename the file, e.g. with: convmv -f LATIN1 -t UTF-8, and correct the line"
        return None, "", [Problem(str(path), number, "not UTF-8:", text, remedy)]
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
    key, space, value = _split(line)
    if space.strip(" \t") or HIDDEN.search(key):
        odd = space.strip(" \t") or HIDDEN.search(key)[0]
        fault(_odd_rule(odd[0], "in or after the id of"), line, MENDED)
        key = HIDDEN.sub("", key)
    value = value.strip(" \t")
    if not is_of_paths(path) and not BROKEN.search(value) and (odd := ODD.search(value)):
        value = one_line(value)
        if value:
            fault(_odd_rule(odd[0]), line, MENDED)
    if not CONTROL.search(value):  # strip() alone would hide line breaks at the end
        value = value.strip()
    if wrong := id_fault(key) or value_fault(value, is_of_paths(path)):
        fault(wrong[0], line, wrong[1])
        return None, "", faults
    return key, value, faults


def _split(line: str) -> tuple[str, str, str]:
    """The id, the separator and the value: an id ends at the first space of any kind."""
    if not (found := SEPARATOR.search(line)):
        return line, "", ""
    return line[: found.start()], found[0], line[found.end() :]


def _odd_rule(character: str, where: str = "in") -> str:
    name = unicodedata.name(character, "control character").lower()
    return f"character U+{ord(character):04X} ({name}) {where}"


def _surrogates(text: str) -> tuple[str, str] | None:
    if is_utf8(text):
        return None
    remedy = "rename the file, or read the source with the right encoding"
    return "not encodable as UTF-8:", remedy


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
