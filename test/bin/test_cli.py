"""The command `pam`: what it lists, how it starts a program, what it says of mistakes."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pam.bin import cli, config
from pam.errors import PamError

FOLDER = Path(cli.__file__).parent
VERBS = list(cli.verbs())


def fresh(code: str) -> str:
    """The output of code in a Python without any import."""
    root = FOLDER.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_it_lists_every_program_that_users_type(capsys):
    assert cli.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert listed == cli.verbs()
    assert {"transcribe", "train", "decode", "score", "doctor", "plan", "validate"} < set(listed)
    assert "recipe" in cli.programs() and not set(listed) & {*cli.INNER, "transcripts"}
    assert all(what.endswith((".", ",")) or len(what) > 20 for what in listed.values())
    assert cli.main(["--help"]) == 0 and "transcribe" in capsys.readouterr().out


def test_every_program_of_the_folder_is_found():
    with_main = {file.stem for file in FOLDER.glob("*.py") if "\ndef main(" in file.read_text()}
    assert set(cli.programs()) == with_main


@pytest.mark.parametrize("code", ["import pam", "from pam.bin.cli import main; main([])"])
def test_nothing_is_imported_for_a_list(code):
    heavy = "{'torch', 'numpy', 'yaml', 'transformers', 'espnet2'} & set(sys.modules)"
    assert fresh(f"{code}\nimport sys; print({heavy})").splitlines()[-1] == "set()"


def test_the_package_gives_the_api_when_it_is_asked_for():
    code = "from pam import Answer, PamError; import sys; print('torch' in sys.modules)"
    assert fresh(code) == "False\n"
    import pam
    from pam.decode.api import SpeechLLM

    assert pam.SpeechLLM is SpeechLLM and set(dir(pam)) == set(pam.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pam.Nothing  # noqa: B018


def test_an_unknown_command_names_the_nearest():
    with pytest.raises(PamError, match="pam transcibe: .* did you mean 'transcribe'"):
        cli.main(["transcibe", "a.wav"])


def test_a_program_gets_its_arguments_and_gives_its_status(monkeypatch):
    monkeypatch.setattr(config, "main", lambda argv: len(argv))
    assert cli.main(["config", "--explain", "phases"]) == 2


def test_help_has_the_name_of_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pam"])
    with pytest.raises(SystemExit) as stop:
        cli.main(["config", "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: pam config ")


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example(verb):
    text = importlib.import_module(f"pam.bin.{verb}").get_parser().format_help()
    starts = f"pam {verb}", f"python -m pam.bin.{verb}"
    assert any(line.strip().startswith(starts) for line in text.splitlines()), text


@pytest.mark.parametrize(("name", "is_told"), [("fastapi.responses", True), ("pam.x", False)])
def test_a_library_that_is_missing_is_one_line(monkeypatch, name, is_told):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    kind = PamError if is_told else ModuleNotFoundError
    with pytest.raises(kind) as caught:
        cli.main(["config"])
    if is_told:
        assert str(caught.value).startswith("pam config needs the Python package fastapi")


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pam {importlib.import_module('pam').__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, tmp_path, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) is None
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
    assert "--prompt" in script and "--max_new_tokens" in script
    if shell == "bash":
        file = tmp_path / "pam"
        file.write_text(script)
        subprocess.run(["bash", "-n", file], check=True)
        asked = "COMP_WORDS=(pam transcribe --pro) COMP_CWORD=2 COMP_LINE='pam transcribe --pro'"
        words = f'. {file}; {asked}; _shtab_pam; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
        assert done.stdout == "--prompt\n"
