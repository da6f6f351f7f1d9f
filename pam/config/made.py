"""made.json: what a folder was made with, whether it is complete, and how long it took.

A folder has one file, which holds a record for each stage that makes something there:

    {"train": {"complete": true, "settings": {"seed": 0, …}, "inputs": {"train": "1f0c…"},
               "seconds": {"dump raw/ac_train": 3.1, "train exp/pam": 9.0},
               "commit": "…", "machine": "…", "date": "…"}}

`settings` are all that the result depends on, flat: `fusion_conf.rank` is a key. A key in capitals
names a folder of a corpus. `inputs` are digests of what was read. A record is written before the
work, not complete, and after it; so a stage that was killed resumes with the same settings.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pam.config.files import parse_value
from pam.errors import UserError

FILE = "made.json"
STAGES = ("data", "dump", "combine", "train", "average", "decode", "score", "report")
PENDING = 10  # exit status of a verb with --pending that has something to do
EARLIER = (".settings", ".trained", ".scored")  # marks of versions without made.json
FOLDER = re.compile(r"[A-Z][A-Z0-9_]*")

Record = Mapping[str, Any]


@dataclass
class Making:
    """What a stage is to make in `folder`, and with what.

    Attributes:
        settings: what the result depends on; nested mappings become flat keys.
        inputs: name → digest of what is read; None where it is not there any more, or unknown:
            then it is as it was.
        notes: what is recorded, and never compared.
        code: a digest of the code, for a stage that is done again where its code changed.
        products: the stage is complete only while these files are there.
        begun: whether there is something of an attempt that was not finished. Only then its
            settings bind.
        remedy: what to do about other settings than those of the folder; "": it is made anew.
        keeps_inputs: other inputs are like other settings. Otherwise it is made anew.
        after: records of what this is made of, for the seconds that they took.
    """

    folder: Path
    stage: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str | None] = field(default_factory=dict)
    code: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    products: Iterable[Path] = ()
    begun: bool = False
    remedy: str = ""
    keeps_inputs: bool = False
    after: Iterable[Record | None] = ()

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(flatten(self.settings)))
        self._start = time.monotonic()

    def is_complete(self) -> bool:
        """Is it there, and made with this? UserError where it was made with something else that
        must not be replaced: names each difference with both values, and the remedy."""
        record = read_record(self.folder, self.stage)
        if record is None:
            self._refuse_earlier()
            return False
        differences = self.check()
        is_same = not differences and not self._changed_inputs(record) and self.code == record.get(
            "code"
        )  # fmt: skip
        return is_same and record["complete"] and all(path.exists() for path in self.products)

    def check(self) -> list[str]:
        """The differences from what was recorded; UserError where they may not be."""
        record = read_record(self.folder, self.stage)
        differences = self._differences(record)
        if differences and self.remedy and (record["complete"] or self.begun):
            print("\n".join(differences), file=sys.stderr)
            raise UserError(f"{self.folder} was made with other settings; {self.remedy}")
        return differences

    def resumes(self) -> bool:
        """Does an attempt that was not finished, with these settings and inputs, go on?"""
        record = read_record(self.folder, self.stage)
        return (
            record is not None
            and not record["complete"]
            and not self._differences(record)
            and not self._changed_inputs(record)
        )

    def begin(self) -> None:
        """Record, before the work, what it is done with."""
        self._start = time.monotonic()
        if not self.resumes():
            self._write({"complete": False, **self._made_with()})

    def finish(self, complete: bool = True, seconds: float | None = None) -> None:
        """Record, after the work, that it is done, where, and how long it took."""
        from pam.environment import commit, machine, now  # what is complete is said sooner

        own = time.monotonic() - self._start if seconds is None else seconds
        name = f"{self.stage} {self.folder.absolute().parent.name}/{self.folder.name}"
        before = read_record(self.folder, self.stage) if self.resumes() else None
        total = seconds_of(self.after)
        total[name] = round(own + ((before or {}).get("seconds") or {}).get(name, 0.0), 2)
        self._write(
            {
                "complete": complete,
                **self._made_with(),
                "seconds": total,
                "commit": commit(),
                "machine": machine(),
                "date": now(),
            }
        )

    def amend(self) -> None:
        """Record settings that what is complete was not known to be made with."""
        record = read_record(self.folder, self.stage)
        if record["settings"] != self.settings:
            self._write({**record, "settings": self.settings})

    @contextmanager
    def work(self) -> Iterator[None]:
        """`begin`, the work, `finish`; an attempt that fails keeps its seconds."""
        self.begin()
        try:
            yield
        except BaseException:
            self.finish(complete=False)
            raise
        self.finish()

    def _made_with(self) -> dict[str, Any]:
        code = {"code": self.code} if self.code else {}
        notes = {"notes": dict(self.notes)} if self.notes else {}
        return {"settings": self.settings, "inputs": dict(self.inputs), **code, **notes}

    def _write(self, record: Record) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        records = {**read_records(self.folder), self.stage: record}
        part = self.folder / f"{FILE}.{os.getpid()}.part"  # several jobs may begin at once
        part.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(self.folder / FILE)

    def _refuse_earlier(self) -> None:
        marks = [self.folder / mark for mark in EARLIER]
        if self.begun or any(mark.exists() for mark in marks):
            raise UserError(
                f"{self.folder}: an earlier version made it (it has no {FILE} of this stage): "
                f"{self.remedy or 'remove it'}, then the same command makes it anew"
            )

    def _differences(self, record: Record) -> list[str]:
        found = differences(record["settings"], self.settings)
        if self.keeps_inputs:
            changed = self._changed_inputs(record)
            old, new = ({key: side.get(key) for key in changed} for side in (
                record["inputs"], self.inputs))  # fmt: skip
            found += differences(old, new)
        return found

    def _changed_inputs(self, record: Record) -> list[str]:
        old, now = record["inputs"], self.inputs
        return [key for key in now if now[key] is not None and now[key] != old.get(key)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Two lines for each setting that differs. A corpus' folder that is not named any more, or is
    named for further sets, is no difference; another folder is."""
    gone = {key for key in old if key not in new or old[key] != new[key]}
    added = {key for key in new if key not in old or old[key] != new[key]}
    folders = {key for key in gone | added if FOLDER.fullmatch(key)}
    if not (gone & folders and added & folders):
        gone, added = gone - folders, added - folders
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        if key in gone:
            lines.append(f"  it was made with: {key}: {_shown(old[key])}")
        if key in added:
            lines.append(f"  now asked for:    {key}: {_shown(new[key])}")
    return lines


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def flatten(conf: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} becomes {"a.b": 1}; an empty section is left out."""
    flat: dict[str, Any] = {}
    for key, value in conf.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a folder by stage; {} where it has none."""
    file = Path(folder) / FILE
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}): remove {file.parent}") from error
    return records


def read_record(folder: Path, stage: str) -> dict[str, Any] | None:
    """What a stage recorded in a folder; None where it did not."""
    return read_records(folder).get(stage)


def settings_of(*records: Record | None) -> dict[str, Any]:
    """The settings of several folders in one mapping; those that differ are joined to lists."""
    merged: dict[str, list[Any]] = {}
    for record in records:
        for key, value in (record or {"settings": {}})["settings"].items():
            values = merged.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in merged.items()}


def seconds_of(records: Iterable[Record | None]) -> dict[str, float]:
    """{"STAGE FOLDER": seconds} of several records and of what these were made of."""
    found: dict[str, float] = {}
    for record in records:
        found |= (record or {}).get("seconds") or {}
    return found


def stage_seconds(exp: Path) -> dict[str, float]:
    """{stage: seconds} of exp/NAME, of all that it was made of and of all that was made of it."""
    folders = [exp, *(file.parent for file in sorted(exp.glob(f"*/*/{FILE}")))]
    total: dict[str, float] = {}
    records = (record for folder in folders for record in read_records(folder).values())
    for name, seconds in seconds_of(records).items():
        stage = name.partition(" ")[0]
        total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(total[stage], 1) for stage in STAGES if stage in total}


def add_pending(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pending",
        action="store_true",
        help=f"only say what is complete; exit status {PENDING} where something is to be done",
    )


def given(assignments: Iterable[str]) -> dict[str, Any]:
    """Settings of the command line, NAME=VALUE."""
    pairs = [text.partition("=")[::2] for text in assignments]
    return {name: value if FOLDER.fullmatch(name) else parse_value(value) for name, value in pairs}


def digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def file_digest(file: Path) -> str | None:
    """Of a file's content; None where there is no such file."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_digest(record: Record | None) -> str | None:
    """Changes whenever the stage was done again."""
    return record and digest(json.dumps(record, sort_keys=True))


def code_digest(folder: Path) -> str:
    """Of the Python files of a folder."""
    return digest(*(part for file in sorted(folder.glob("*.py")) for part in (
        file.name, file.read_bytes())))  # fmt: skip
