"""What the README shows exists: its tree, its commands, its options, its files."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)
TREE = next(block for block in BLOCKS if "setup.py" in block)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    if block is not TREE
    for line in re.sub(r"\\\n *", "", block).splitlines()
    if line
]
MADE_BY_THE_READER = ["egs/my_corpus"]


def tree() -> list[str]:
    """The paths of the tree; what is indented lies in the folder above."""
    paths, folder = [], ""
    for line in TREE.splitlines():
        name, inner = line.split()[0], line.startswith("      ")
        folder = folder if inner or not name.endswith("/") else name
        paths.append(folder + name if inner else name)
    return paths


@pytest.mark.parametrize("path", tree())
def test_tree_exists(path):
    assert (ROOT / path).exists()


def test_tree_is_complete():
    top = {path.rstrip("/").split("/")[0] for path in tree()}
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    there = {line.split("/")[0] for line in files.splitlines()}
    if there:  # a copy without git has nothing to compare with
        assert {name for name in there if not name.startswith(".")} - top <= {
            "LICENSE",
            "ruff.toml",
        }


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command):
    folder = ROOT / "egs/multitask"
    for part in command.split("&&"):
        words = shlex.split(part.strip(" ()"), comments=True)
        words = [word for word in words if not re.match(r"[A-Z]+=", word)]
        if words[0] in ("git", "cd"):
            continue
        if words[0] == ".":
            assert (folder / words[1]).is_file(), command
            continue
        if words[:2] == ["python", "-m"]:
            known = importlib.import_module(words[2]).get_parser().format_help()
            options = [word for word in words[3:] if word.startswith("--")]
            assert all(f"{option} " in known for option in options), command
            continue
        program = Path(words[0])
        if any(name in words[0] for name in MADE_BY_THE_READER):
            continue
        script = folder / program if words[0].startswith("./") else ROOT / program
        assert script.is_file(), f"{command}: no {script}"
        if program.name == "run.sh" and program.parent.name != "test":
            subprocess.run([script, *words[1:], "--help"], check=True, capture_output=True)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:egs|conf|pam|tools|utils|test)/[\w./]+)`", README)))
)
def test_named_files_exist(path):
    assert (ROOT / path).exists()


def test_first_screen_has_the_proof_and_the_two_commands():
    first = "\n".join(README.splitlines()[:30])
    assert "results: begin" in first and "./run.sh --stage 1)" in first and "test/run.sh" in first


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("egs/*/*.md")]


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    for link in re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert "://" in link or (file.parent / link).exists(), f"{file}: {link}"
