"""Every key of conf/**/*.yaml is explained, and every key that is explained is used."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pam.bin import config as command
from pam.config import Experiment, load_yaml
from pam.config.explain import DOCUMENTS, every_key, explain, find_key
from pam.config.keys import ANY, check, keys_of
from pam.errors import PamError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "conf").rglob("*.yaml"))


def document_of(file: Path) -> str:
    if file.stem == "scales":
        return "scales"
    return file.parent.name if file.parent.name in DOCUMENTS else ""


def sections_of(file: Path) -> list[dict]:
    content = load_yaml(file)
    return list(content.values()) if file.stem == "scales" else [content]


def paths(conf: dict, keys) -> Iterator[list[str]]:
    for name, value in conf.items():
        yield [name]
        key = keys.get(name) or keys.get(ANY)
        entries = value if isinstance(value, list) else [value]
        for entry in entries:
            if key.keys is not None and isinstance(entry, dict):
                yield from ([name, *rest] for rest in paths(entry, key.keys()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_key_of_every_file_is_explained(file):
    document = document_of(file)
    keys = keys_of(DOCUMENTS[document][1])
    for section in sections_of(file):
        if document != "scales" and file.stem != "plain":
            check(section, keys, str(file))
        for path in paths(section, keys):
            key = find_key(path, document, str(file))
            assert len(key.help) > 3, path
            name = ".".join([*filter(None, [document]), *path])
            if "." not in "".join(path):  # names like qwen2.5_7b hold what parts a path
                assert explain(name).startswith(f"{name}  ("), name


def test_every_key_of_a_section_is_used():
    """Somewhere outside pam/config code reads it: as an attribute, or by its name."""
    sources = [f for f in (ROOT / "pam").rglob("*.py") if "pam/config/" not in str(f)]
    sources.append(ROOT / "pam/config/experiment.py")
    code = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    used = set(re.findall(r"[\"'](\w+)[\"']|\.(\w+)\b|\b(\w+)=", code))
    used = {name for names in used for name in names if name}
    for word, (_, section) in DOCUMENTS.items():
        for path, _ in every_key(keys_of(section)):
            parent, _, name = path.rpartition(".")
            of_a_part = re.search(r"_conf\b|\.conf\b|^fusions\.|\*", parent)
            if name != "NAME" and not of_a_part:  # parts' keys are arguments: test_source.py
                assert name in used or name in ("max_utts", "max_frames"), f"{word}: {path}"


def test_all_keys_are_printed_once(capsys):
    command.main(["--explain"])
    printed = capsys.readouterr().out
    names = re.findall(r"^([\w.]+)  \(", printed, re.MULTILINE)
    assert len(set(names)) == len(names) > 200
    assert {"batch.max_utts", "prompts.train", "tables.rows.NAME.system", "scales.sets"} < {*names}
    assert "whisper: openai/whisper-tiny 384×5" in printed
    assert max(map(len, printed.splitlines())) < 250


def test_one_key_and_one_section():
    text = explain("batch.max_frames")
    assert text.splitlines() == [
        "batch.max_frames  (a whole number, at least 1; in frames of 40 ms; default: not set)",
        "    Largest batch, in frames, padding included.",
    ]
    assert re.findall(r"^(\S+)  ", explain("batch"), re.MULTILINE) == [
        "batch",
        "batch.max_utts",
        "batch.max_frames",
        "batch.per",
    ]
    assert "default: 0" in explain("dev_utts")
    assert explain("encoders.mine.conf.tail_s").startswith("encoders.mine.conf.tail_s  (a number")
    assert "of: whisper" in explain("encoders.mine.conf.tail_s").lower()
    assert "default: 3" in explain("fusion_conf.num_fused")
    assert explain("fusions.salmonn.queries").count("default") == 1
    assert explain("tables").startswith("# conf/tables")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("bach", "--explain bach: unknown option 'bach': did you mean 'batch'"),
        ("batch.max_uts", "unknown option 'max_uts': did you mean 'max_utts'"),
        ("batch.max_utts.x", "batch.max_utts has no options"),
        ("fusion_conf.adapter.knd", "unknown option 'knd': did you mean 'kind'"),
        ("tables.row", "unknown option 'row': did you mean 'rows'"),
        ("", "unknown option ''"),
    ],
)
def test_an_unknown_key_is_one_clear_line(key, message):
    with pytest.raises(PamError) as error:
        explain(key)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_configurations_are_read_without_torch():
    """The recipe resolves its options with them at every start."""
    code = (
        "import sys; from pam.config import read_experiment;"
        "read_experiment('conf/scale/mini.yaml', 'conf/systems/pam.yaml', None, ['dev_utts=3']);"
        "import pam.config.explain; pam.config.explain.explain();"
        "wrong = {'torch', 'transformers', 'numpy', 'espnet2'} & sys.modules.keys();"
        "sys.exit(', '.join(wrong) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", [*filter(None, DOCUMENTS)])
def test_a_whole_document(name):
    """Every document has a name of its own, which is not one of an experiment's keys."""
    assert explain(name).startswith(f"# {DOCUMENTS[name][0]}\n{name}.")
    assert name not in keys_of(Experiment)
