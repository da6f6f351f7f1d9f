"""Stored results that cannot be, and calls of the program that cannot mean what they say."""

import json
import multiprocessing

import pytest
from stored_results import result, table_1, write

from pam.bin import table
from pam.errors import PamError
from pam.paper.store import read_store

NAME = "pam_mini_short_s0"
NOISY = "sets.asr_noisy_test"
WER = f"{NOISY}.metrics.wer"


def changed(folder, key: str, value):
    """The results folder with one key of one result changed; `-` removes it."""
    made = json.loads(json.dumps(result("pam")))
    *above, last = key.split(".")
    place = made
    for name in above:
        place = place[int(name) if isinstance(place, list) else name]
    if isinstance(place, list):
        last = int(last)
    if value == "-":
        del place[last]
    else:
        place[last] = value
    return write(folder, {NAME: made})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("options", None, "options: None: expected a list of names"),
        ("sets", None, "sets: None: expected a section"),
        (f"{NOISY}.metrics", [], "metrics: []: expected a section"),
        (f"{WER}.scale", float("nan"), "scale: nan: expected a number above 0"),
        (f"{WER}.scale", "-", "no 'scale'"),
        (f"{WER}.numerators", [], "numerators: 0 numbers: expected 40"),
        (f"{WER}.numerators", [1.0] * 39, "numerators: 39 numbers: expected 40"),
        (f"{WER}.numerators.3", -500, "numerators: -500 at place 3: expected a number, at least 0"),
        (f"{WER}.numerators.0", None, "numerators: None at place 0: expected a number"),
        (f"{WER}.denominators", [0] * 40, "denominators: their sum is 0"),
        (f"{WER}.value", 1.5, "value: 1.5: its terms give "),
        (f"{NOISY}.count", 41, "numerators: 40 numbers: expected 41"),
        (f"{NOISY}.clusters.of.7", 40, "clusters.of: 40 at place 7: no such name"),
        (f"{NOISY}.clusters.of", [0], "clusters: expected `names`, and 40 places"),
        ("encoders", {"one": "x"}, "encoders.one: 'x': expected a whole number"),
        ("seconds", {"train": -1}, "seconds.train: -1: expected a number, at least 0"),
        ("weights", {"shared": [0.5, -1]}, "weights.shared: -1 at place 1"),
        ("similarity", "x", "similarity: 'x': expected a list"),
        ("format", 99, "format: 99: expected 1"),
        ("seed", "0", "seed: '0': expected a whole number"),
        ("new_key", 1, "unknown option 'new_key'"),
    ],
)
def test_an_impossible_result_is_one_line(tmp_path, key, value, message):
    results = changed(tmp_path, key, value)
    with pytest.raises(PamError) as caught:
        read_store(results / "mini")
    line = str(caught.value)
    assert line.startswith(f"{results}/mini/{NAME}.json: ") and message in line
    assert "\n" not in line and len(line) < 400


def test_damaged_files(tmp_path):
    file = write(tmp_path, {NAME: result("pam")}) / "mini" / f"{NAME}.json"
    for text in ("{", "[" * 100_000, '{"seed": 0, "seed": 1}', "[]"):
        file.write_text(text)
        with pytest.raises(PamError, match=f"{NAME}.json: "):
            read_store(tmp_path / "mini")
    file.unlink()
    file.mkdir()
    with pytest.raises(PamError, match="not a file"):
        read_store(tmp_path / "mini")


@pytest.mark.parametrize(
    ("key", "value"), [("seed", 7), ("system", "concat"), ("scale", "paper"), ("budget", "long")]
)
@pytest.mark.parametrize("action", [[], ["--dry_run"], ["--plan"]], ids=str)
def test_a_result_is_what_its_name_says(tmp_path, key, value, action):
    """Else a training would replace it, or a table show it as another."""
    results = changed(tmp_path, key, value)
    with pytest.raises(PamError, match=f"{key} .*: its name says .*: rename or remove it"):
        table.main(["--table", "1", "--results", str(results), *action])


def test_a_result_of_other_options_is_not_replaced(tmp_path):
    results = write(tmp_path, {"pam-whisper-wavlm_mini_short_s0": result("pam")})
    with pytest.raises(
        PamError, match=r"made with the options \[\], not with .*remove it to train"
    ):
        table.main(["--table", "13", "--results", str(results), "--dry_run"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{results}/mini/pam_mini_short_s0.json"], "a table is Markdown"),
        (["--budget", ""], "--budget '': known: "),
        (["--budget", ".."], "--budget '..': known: "),
        (["--budget", "shrot"], "did you mean 'short'"),
        (["--results", "{results}/nope"], "there is no folder"),
        (["--results", "{results}/mini"], "there is no folder"),
        (["--results", "/dev/null"], "/dev/null is not a folder"),
        (["--results", "/dev/null", "--plan"], "/dev/null is not a folder"),
    ],
)
def test_calls_that_cannot_be_meant(tmp_path, options, message):
    results = write(tmp_path, {NAME: result("pam")})
    before = sorted(tmp_path.rglob("*"))
    argv = ["--table", "1", "--results", str(results)]
    with pytest.raises(PamError, match="^[^\n]*$") as caught:
        table.main([*argv, *(option.format(results=results) for option in options)])
    assert message in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_several_at_once_make_one_table(tmp_path, monkeypatch):
    """And only one of them writes at a time."""
    results = write(tmp_path, table_1())
    write_tables, busy = table.write_tables, tmp_path / "busy"

    def noted(*args):
        busy.mkdir()  # fails if another process is in here
        write_tables(*args)
        busy.rmdir()

    monkeypatch.setattr(table, "write_tables", noted)
    fork = multiprocessing.get_context("fork")
    argv = ["--table", "1", "--results", str(results)]
    started = [fork.Process(target=table.main, args=[argv]) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert "PaM (Ours)" in (results / "mini/table01.md").read_text()
    assert not list(results.rglob("*.part"))
