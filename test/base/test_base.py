"""The foundation: tables, configuration, errors."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pam.config import check_keys, load_yaml, merge, parse_value, set_option
from pam.errors import PamError, run_main
from pam.paths import resolve_model
from pam.registry import Registry


def test_table_imports_on_demand_and_suggests():
    registry = Registry("colour", {"red": "collections:OrderedDict", "green": "nowhere:Nothing"})
    assert registry.get("red").__name__ == "OrderedDict"
    with pytest.raises(PamError, match=r"unknown colour 'rde': did you mean 'red'\? known: green"):
        registry.get("rde")


@pytest.mark.parametrize(
    "text, value",
    [("1e-4", 1e-4), ("3", 3), ("-2.5", -2.5), ("true", True), ("abc", "abc"), ("[1, 2]", [1, 2])],
)
def test_values_keep_their_types(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def test_a_merged_configuration_shares_nothing_with_its_layers():
    layer = {"a": {"x": 1}, "b": [1]}
    merged = merge(layer)
    set_option(merged, "a.x=2")
    merged["b"].append(2)
    assert layer == {"a": {"x": 1}, "b": [1]}


def test_merge_is_deep_and_later_wins():
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}) == {
        "a": {"x": 1, "y": 3},
        "b": 1,
    }


def test_set_option_needs_an_existing_parent():
    conf = {"fusion_conf": {"num_fused": 3}}
    set_option(conf, "fusion_conf.num_fused=5")
    assert conf == {"fusion_conf": {"num_fused": 5}}
    with pytest.raises(PamError, match="fusoin_conf"):
        set_option(conf, "fusoin_conf.num_fused=5")


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("a.bb.x=1", "--set: a: unknown option 'bb': did you mean 'b'? known: b, n"),
        ("a.n.x=1", "--set a.n.x=1: a.n has no options"),
        ("a.n=[1", "--set a.n=[1: not a YAML value"),
        ("a.n", "expected KEY=VALUE"),
        ("a..n=1", "expected KEY=VALUE"),
        (
            "a.n=2020-13-45",
            "--set a.n=2020-13-45: not a YAML value: '2020-13-45' is not a valid ti",
        ),
        ("a.n=0x_", "'0x_' is not a valid int: correct it, or put a text in quotes"),
        (f"a.n={'9' * 5000}", "9…' is not a valid int: correct it"),
        ("a.n=!!bool maybe", "'maybe' is not a valid bool"),
        ("a.n=!!timestamp soon", "'soon' is not a valid timestamp"),
        ("a.n=!!int ''", "'' is not a valid int"),
        (f"a.n={':'.join('1' * 300)}.5", "is not a valid float"),
        ("a.n=" + "[" * 100_000, "more than 50 nested levels: remove some"),
        ("a.n={x: 1, x: 2}", "'x' is given twice: remove one of them"),
        ("a.n=&x [*x]", "found unconstructable recursive node"),
        ("a.n=\udcff", "--set 'a.n=\\udcff': it is not UTF-8: type it in UTF-8"),
        ("a.n=\n[1", "--set a.n= [1: not a YAML value"),
    ],
)
def test_a_setting_that_cannot_be_made_is_one_clear_line(assignment, message):
    with pytest.raises(PamError) as error:
        set_option({"a": {"b": {}, "n": 1}}, assignment)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_optional_section_is_begun():
    conf = {"a": {"b": None}}
    assert set_option(conf, "a.b.c=1", ["b"]) == (["a", "b", "c"], {"c": 1})
    assert conf == {"a": {"b": {"c": 1}}}


def test_unknown_options_are_errors():
    with pytest.raises(PamError, match="unknown option 'num_fussed': did you mean 'num_fused'"):
        check_keys({"num_fussed": 3}, ["num_fused"], "conf/x.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1,\nb: 2", "not valid YAML: line 2: did not find expected ',' or ']'"),
        (b"a: 1\nb: \xff", "line 2: it is not UTF-8: save it as UTF-8"),
        ("a: 1\nb: 2020-13-45", "line 2: '2020-13-45' is not a valid timestamp: correct it, or"),
        ("a: 1\nb: 0x_", "line 2: '0x_' is not a valid int"),
        (f"a:\n- {'9' * 5000}", "line 2: '9999"),
        ("a:\n b: " + "[" * 500, "line 2: more than 50 nested levels"),
        ("- " * 100_000 + "a", "more than 50 nested levels"),
        ("a: &x\n  b: *x", "line 1: found unconstructable recursive node"),
        ("a: {b: 1,\n  c: 2,\n b: 1}", "line 3: 'b' is given twice: remove one of them"),
        ("1: a\n0x1: b", "line 2: 1 is given twice"),
        ("[1]: a", "found unhashable key"),
        ("a: \0", "control characters are not allowed"),
        ("- a", "expected a mapping of options, found list"),
    ],
)
def test_yaml_errors_name_file_and_line(tmp_path, content, message):
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PamError) as error:
        load_yaml(bad)
    assert str(error.value).startswith(f"{bad}: ") and message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_yaml_file_that_is_not_there(tmp_path):
    with pytest.raises(PamError, match="missing.yaml: cannot be read"):
        load_yaml(tmp_path / "missing.yaml")


def test_a_merged_key_may_be_given_again(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}\nc: *a")
    own = {"x": 1, "y": 1}
    assert load_yaml(file) == {"a": own, "b": {"x": 2, "y": 1}, "c": own}


def test_a_missing_model_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PAM_CACHE", str(tmp_path))
    with pytest.raises(PamError, match="fetch_models.py whisper-tiny-en"):
        resolve_model("cache:whisper-tiny-en")
    assert resolve_model("openai/whisper-small") == "openai/whisper-small"


def test_user_errors_end_a_program_in_one_line(capsys):
    def main():
        raise PamError("data/x/text:3: empty transcript")

    with pytest.raises(SystemExit) as stop:
        run_main(main)
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: data/x/text:3: empty transcript\n"


def test_a_name_that_is_too_long_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: Path("x" * 300).stat())
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {'x' * 300}: the name is too long: shorten it\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "file: the disk is full: free some space"),
        (errno.EROFS, "file: the disk is read-only: choose another folder"),
        (errno.EACCES, "file: Permission denied: choose another folder or change its rights"),
        (errno.EISDIR, "file: Is a directory: choose another name"),
    ],
)
def test_errors_of_the_disk_are_one_line(capsys, number, words):
    def main():
        raise OSError(number, os.strerror(number), "file")

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: {words}") and line.count("\n") == 1


def test_other_errors_keep_their_traceback():
    with pytest.raises(FileNotFoundError):
        run_main(lambda: Path("nothing").read_text())


def without_reader(action: str) -> subprocess.CompletedProcess:
    """Run `action` as a program whose standard output nobody reads, as behind `| head`."""
    reader, writer = os.pipe()
    os.close(reader)
    code = f"import os; from pam.errors import run_main; run_main(lambda: {action} and None)"
    try:
        return subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)


@pytest.mark.parametrize("text", ["one line", "line\\n" * 20_000], ids=["short", "long"])
def test_output_that_nobody_reads_is_no_error(text):
    ended = without_reader(f"print('{text}')")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_another_broken_pipe_stays_an_error():
    def main():
        raise BrokenPipeError(errno.EPIPE, "to a worker")

    with pytest.raises(BrokenPipeError, match="to a worker"):
        run_main(main)
