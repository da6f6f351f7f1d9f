"""made.json: the settings and inputs of a folder, whether it is complete, and its seconds.

A folder has one such file, with a record for each stage that writes to the folder:

    {"train": {"complete": true, "settings": {"seed": 0, …}, "inputs": {"train": "1f0c…"},
               "seconds": {"dump raw/ac_train": 3.1, "train exp/pam": 9.0},
               "licences": {"ac_train": "CC BY 4.0"},
               "commit": "…", "machine": "…", "date": "…"}}

`settings` are all settings that the result depends on, with flat keys such as `fusion_conf.rank`. A
key in capitals is the folder of a corpus. `inputs` are digests of the inputs. `licences` are those
of the sets that it was made from, where recipes state them. A record is written
before the work (not complete) and again after it. So a killed stage resumes with the same settings.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pam.atomic import write_json
from pam.config.files import parse_value
from pam.errors import PamError

FILE = "made.json"
STAGES = ("data", "dump", "combine", "train", "average", "decode", "score", "report")
PENDING = 10  # exit status of a program with --pending that has work to do
EARLIER = (".settings", ".trained", ".scored")  # files of earlier versions, without made.json
FOLDER = re.compile(r"[A-Z][A-Z0-9_]*")

Record = Mapping[str, Any]


@dataclass
class Making:
    """The work of a stage in `folder`, with its settings and inputs.

    Attributes:
        settings: all settings that the result depends on; nested mappings become flat keys.
        inputs: name → digest of an input. None if the input no longer exists or is unknown: it
            counts as unchanged.
        notes: recorded, but never compared.
        code: a digest of the code, for a stage that runs again if its code changed.
        products: the stage is complete only while these files exist.
        begun: whether an unfinished attempt has left results. Only then its settings are binding.
        remedy: the advice if the folder has other settings; "": the folder is made again.
        keeps_inputs: changed inputs are an error, like changed settings. Otherwise they cause the
            stage to run again.
        after: records of the inputs, for the seconds that these took and for their licences.
        licences: set → licence of its audio and text; recorded, but never compared.
        newer: inputs that earlier versions did not record. Where the record lacks one, it counts as
            unchanged, and its digest is recorded when the folder is made again.
        former: the beginning of names of settings that earlier versions recorded here, and that are
            no longer compared.
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
    licences: Mapping[str, str] = field(default_factory=dict)
    newer: Collection[str] = ()
    former: str = ""
    commit: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(flatten(self.settings)))
        self._start = time.monotonic()

    def is_complete(self) -> bool:
        """Whether the folder is complete and was made with these settings and inputs.

        PamError if it was made with others and must not be replaced; it names each difference
        with both values, and the remedy.
        """
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
        """The differences from the record; PamError if they are not allowed."""
        record = read_record(self.folder, self.stage)
        differences = self._differences(record)
        if differences and self.remedy and (record["complete"] or self.begun):
            print("\n".join(differences), file=sys.stderr)
            raise PamError(f"{self.folder} was made with other settings; {self.remedy}")
        return differences

    def resumes(self) -> bool:
        """Whether this continues an unfinished attempt with the same settings and inputs."""
        return self._unfinished() is not None

    def _unfinished(self) -> Record | None:
        record = read_record(self.folder, self.stage)
        is_same = (
            record is not None
            and not record["complete"]
            and not self._differences(record)
            and not self._changed_inputs(record)
        )
        return record if is_same else None

    def changed_inputs(self) -> list[str]:
        """The inputs that have changed since the folder was complete; none if it never was."""
        record = read_record(self.folder, self.stage)
        return self._changed_inputs(record) if record and record["complete"] else []

    def begin(self) -> None:
        """Record settings, inputs and the commit before the work, since it may take hours."""
        from pam.environment import commit  # imported late, to make --pending fast

        self._start, self.commit = time.monotonic(), commit()
        licences = {"licences": found} if (found := self._all_licences()) else {}
        record = self._unfinished() or {"complete": False, **self._made_with(), **licences}
        self._write({**record, "commit": self.commit})

    def finish(self, complete: bool = True, seconds: float | None = None) -> None:
        """Record the end of the work, its machine and its seconds.

        The commit is that of the last `begin`, perhaps in another process.
        """
        from pam.environment import commit, machine, now

        own = time.monotonic() - self._start if seconds is None else seconds
        name = f"{self.stage} {self.folder.absolute().parent.name}/{self.folder.name}"
        before = self._unfinished() or {}
        total = seconds_of(self.after)
        total[name] = round(own + (before.get("seconds") or {}).get(name, 0.0), 2)
        licences = self._all_licences()
        self._write(
            {
                "complete": complete,
                **self._made_with(),
                "seconds": total,
                **({"licences": licences} if licences else {}),
                "commit": self.commit or before.get("commit") or commit(),
                "machine": machine(),
                "date": now(),
            }
        )

    def amend(self) -> None:
        """Add settings to the record of a complete stage that lacks them."""
        record = read_record(self.folder, self.stage)
        if record["settings"] != self.settings:
            self._write({**record, "settings": self.settings})

    def amend_licences(self) -> None:
        """Add licences that were stated, or changed, after the stage was complete."""
        record = read_record(self.folder, self.stage)
        licences = {**licences_of([record]), **self._all_licences()}
        if licences != licences_of([record]):
            self._write({**record, "licences": licences})

    @contextmanager
    def work(self) -> Iterator[None]:
        """Context for the work: `begin`, then `finish`. A failed attempt keeps its seconds."""
        self.begin()
        try:
            yield
        except BaseException:
            with suppress(OSError):  # a full disk must not hide the first error
                self.finish(complete=False)
            raise
        self.finish()

    def _all_licences(self) -> dict[str, str]:
        return {**licences_of(self.after), **self.licences}

    def _made_with(self) -> dict[str, Any]:
        code = {"code": self.code} if self.code else {}
        notes = {"notes": dict(self.notes)} if self.notes else {}
        return {"settings": self.settings, "inputs": dict(self.inputs), **code, **notes}

    def _write(self, record: Record) -> None:
        write_json(self.folder / FILE, {**read_records(self.folder), self.stage: record})

    def _refuse_earlier(self) -> None:
        marks = [self.folder / mark for mark in EARLIER]
        if self.begun or any(mark.exists() for mark in marks):
            raise PamError(
                f"{self.folder}: an earlier version made it (it has no {FILE} of this stage): "
                f"{self.remedy or 'remove it'}, then run the same command again"
            )

    def _differences(self, record: Record) -> list[str]:
        settings = record["settings"]
        if self.former:
            settings = {k: v for k, v in settings.items() if not k.startswith(self.former)}
        found = differences(settings, self.settings)
        if self.keeps_inputs:
            changed = self._changed_inputs(record)
            old, new = ({key: side.get(key) for key in changed} for side in (
                record["inputs"], self.inputs))  # fmt: skip
            found += differences(old, new)
        return found

    def _changed_inputs(self, record: Record) -> list[str]:
        old, now = record["inputs"], self.inputs
        compared = [key for key in now if key in old or key not in self.newer]
        return [key for key in compared if now[key] is not None and now[key] != old.get(key)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Two lines for each setting that differs.

    For the folder of a corpus, only a change counts. A folder that is removed, or added for further
    sets, does not count.
    """
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
    """The records of a folder by stage; {} if it has none."""
    file = Path(folder) / FILE
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PamError(f"{file}: not valid JSON ({error}): remove {file.parent}") from error
    return records


def read_record(folder: Path, stage: str) -> dict[str, Any] | None:
    """The record of a stage in a folder; None if there is none."""
    return read_records(folder).get(stage)


def settings_of(*records: Record | None) -> dict[str, Any]:
    """The settings of several folders in one mapping; different values are joined to lists."""
    merged: dict[str, list[Any]] = {}
    for record in records:
        for key, value in (record or {"settings": {}})["settings"].items():
            values = merged.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in merged.items()}


def seconds_of(records: Iterable[Record | None]) -> dict[str, float]:
    """{"STAGE FOLDER": seconds} of several records and of the records of their inputs."""
    found: dict[str, float] = {}
    for record in records:
        found |= (record or {}).get("seconds") or {}
    return found


def licences_of(records: Iterable[Record | None]) -> dict[str, str]:
    """{set: licence} of several records."""
    found: dict[str, str] = {}
    for record in records:
        found |= (record or {}).get("licences") or {}
    return found


def stage_seconds(exp: Path) -> dict[str, float]:
    """{stage: seconds} of exp/NAME, of all its inputs and of all results made from it."""
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
        help=f"only print what is complete; exit status {PENDING} if there is work to do",
    )


def given(assignments: Iterable[str]) -> dict[str, Any]:
    """Settings of the command line, NAME=VALUE. A value that is not valid YAML is a text."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        found[name] = text
        if not FOLDER.fullmatch(name):
            with suppress(PamError):
                found[name] = parse_value(text)
    return found


def digest(*parts: str | bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def file_digest(file: Path) -> str | None:
    """Digest of a file's content; None if it does not exist."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_digest(record: Record | None) -> str | None:
    """A digest that changes whenever the stage runs again."""
    return record and digest(json.dumps(record, sort_keys=True))


def code_digest(folder: Path) -> str:
    """Digest of the Python files of a folder."""
    return digest(*(part for file in sorted(folder.glob("*.py")) for part in (
        file.name, file.read_bytes())))  # fmt: skip
