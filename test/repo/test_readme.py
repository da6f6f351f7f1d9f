"""What the documents show exists: the tree, the commands, the options, the files, the equations."""

import ast
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import soundfile
import yaml
from toys import tone

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "pam/README.md"]
PAGES += [page for where in ("*.md", "egs/*.md", "egs/*/*.md") for page in ROOT.glob(where)]
LOG = ROOT / "egs/multitask/LOG.md"  # its commands are those of old commits
PRESENT = [page for page in PAGES if page != LOG]

MADE_BY_THE_READER = ("egs/my_corpus", "egs/birds")
MADE_BY_A_RUN = re.compile(r"/(exp|dump|data|venv)\b")
PLACEHOLDER = re.compile(r"\b(NAME|SET|TASK|SCALE|RECIPE|CORPUS|FOLDER)\b")
ORDINARY = ("git", "sed", "for", "pip")


def name(value) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def text_of(page: Path) -> str:
    """Without fenced code."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    return re.findall(r"(?:^    .*\n)+", text_of(page), re.MULTILINE)


TREE = next(block for block in blocks(ROOT / "README.md") if "setup.py" in block)


def in_code(page: Path) -> list[str]:
    """What stands between backticks, on one line or two."""
    prose = re.sub(r"^    .*\n", "", text_of(page), flags=re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def commands() -> list[tuple[Path, str]]:
    found = []
    for page in PRESENT:
        lines = [
            line.strip()
            for block in blocks(page)
            if block != TREE
            for line in re.sub(r"\\\n *", "", block).splitlines()
        ]
        inline = re.compile(r"(\./run\.sh|\.\./|python -m|pam |tools/|utils/|test/run\.sh)\S* \S")
        lines += [code for code in in_code(page) if inline.match(code)]
        found += [(page, line) for line in dict.fromkeys(lines)]
    return found


def tree() -> list[str]:
    """The paths of the tree; what is indented lies in the folder above."""
    paths, folder = [], ""
    for line in TREE.splitlines():
        entry, inner = line.split()[0], line.startswith("      ")
        folder = folder if inner or not entry.endswith("/") else entry
        paths.append(folder + entry if inner else entry)
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
            "MANIFEST.in",
            "ruff.toml",
        }


def steps(page: Path, command: str) -> list[tuple[Path, list[str]]]:
    """(folder that it runs in, words) of each step of a command."""
    folder = page.parent if (page.parent / "run.sh").is_file() else ROOT / "egs/multitask"
    found = []
    for part in command.split("&&"):
        words = shlex.split(part.strip(" ()"), comments=True)
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if words[0] == "cd" and (ROOT / words[1] / "run.sh").is_file():
            folder = ROOT / words[1]
        if words[0] not in (*ORDINARY, "cd") and not words[0].startswith(MADE_BY_THE_READER):
            found.append((folder, words))
    return found


def script_of(page: Path, folder: Path, program: str) -> Path:
    relative = program.startswith(("./", "../"))
    places = [folder / program] if relative else [ROOT / program, page.parent / program]
    script = next((place for place in places if place.is_file()), None)
    assert script, f"{page}: no {program}"
    return script.resolve()


@pytest.mark.parametrize("page, command", commands(), ids=name)
def test_commands_exist(page, command):
    for folder, words in steps(page, command):
        if words[0] == ".":
            assert (folder / words[1]).is_file(), command
        elif words[0] == "pam" or words[:2] == ["python", "-m"]:
            module = f"pam.bin.{words[1]}" if words[0] == "pam" else words[2]
            known = importlib.import_module(module).get_parser().format_help()
            options = [word for word in words if word.startswith("--")]
            assert all(f"{option} " in known for option in options), command
        else:
            script_of(page, folder, words[1] if words[0] == "python" else words[0])


def recipe_commands() -> dict[Path, list[str]]:
    """The words of all commands of each recipe's run.sh."""
    found = {}
    for page, command in commands():
        for folder, words in steps(page, command):
            if words[0].endswith("/run.sh") and not words[0].startswith("test/"):
                found.setdefault(script_of(page, folder, words[0]), []).extend(words[1:])
    return found


@pytest.mark.parametrize("script", recipe_commands(), ids=name)
def test_recipes_know_the_options(script):
    """All at once: what a shell costs to start is more than what an option costs to read."""
    words = recipe_commands()[script]
    run = subprocess.run([script, *words, "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def named_paths() -> list[tuple[Path, str]]:
    named = re.compile(r"(egs|conf|pam|tools|utils|test|local|RESULTS|\.\.)/[\w./-]*\w/?$")
    return [
        (page, path)
        for page in PAGES
        for path in dict.fromkeys(filter(named.match, in_code(page)))
        if not PLACEHOLDER.search(path) and not MADE_BY_A_RUN.search(path)
        if not path.startswith(MADE_BY_THE_READER)
    ]


@pytest.mark.parametrize("page, path", named_paths(), ids=name)
def test_named_files_exist(page, path):
    folders = (page.parent, ROOT, ROOT / "egs/TEMPLATE")
    assert any((folder / path).exists() for folder in folders)


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_named_commits_exist(page):
    """A shallow copy has no history to look them up in."""
    git = ["git", "-C", str(ROOT)]
    history = subprocess.run([*git, "log", "--format=%h", "--abbrev=7"], capture_output=True)
    known = set(history.stdout.decode().split())
    named = set(re.findall(r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7}\b", text_of(page)))
    if len(known) > 300:
        assert named <= known


def test_first_screen_has_the_proof_and_the_two_commands():
    first = "\n".join(README.splitlines()[:30])
    assert "results: begin" in first and "./run.sh --stage 1)" in first and "test/run.sh" in first


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_every_recipe_and_every_room_is_listed():
    recipes = {path.parent.name for path in ROOT.glob("egs/*/run.sh")}
    listed = set(re.findall(r"^\| `egs/(\w+)` \|", text_of(ROOT / "egs/README.md"), re.MULTILINE))
    assert {"mini", "multitask", "TEMPLATE"} <= listed and listed <= recipes
    rooms = {path.parent.name for path in ROOT.glob("pam/*/__init__.py")}
    listed = set(re.findall(r"^\| `pam/(\w+)` \|", text_of(ROOT / "pam/README.md"), re.MULTILINE))
    assert rooms == listed


def equations() -> list[tuple[int, str, str]]:
    """(number, file, name in it) of the table in pam/README.md."""
    rows = re.findall(r"^\| (\([\d, ()]+\)).*? \| (.*?) \| ", text_of(ROOT / "pam/README.md"), re.M)
    found = []
    for numbers, where in rows:
        file, *names = re.findall(r"`([^`]+)`", where)
        found += [(int(n), file, each) for n in re.findall(r"\d+", numbers) for each in names]
    return found


@pytest.mark.parametrize("number, file, part", equations())
def test_equations_are_where_the_map_says(number, file, part):
    body = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for each in part.split("."):
        definitions = {node.name: node for node in body.body if hasattr(node, "name")}
        assert each in definitions, f"{file}: no {part}"
        body = definitions[each]


def test_all_equations_are_in_the_map_and_in_the_docstrings():
    assert {number for number, _, _ in equations()} == set(range(1, 13))
    for number, file, _ in equations():
        text = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        ranges = re.findall(r"equations? (\d+)(?: (?:to|and) (\d+))?", text)
        named = {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}
        assert number in named or file == "pam/fusion/adapter.py", f"{file}: equation {number}"


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "preferred-citation"} <= citation.keys()
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'version="{citation["version"]}"' in setup


@pytest.mark.parametrize("file", PAGES, ids=name)
def test_links_lead_somewhere(file):
    for link in re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8")):
        assert "://" in link or (file.parent / link).exists(), f"{file}: {link}"


def test_the_example_runs(speech_llm, tmp_path, monkeypatch, capsys):
    """With a toy model and the files that it names."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert len(code.splitlines()) <= 15
    for file in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / file, tone(16000), 16000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(speech_llm), "from_pretrained", lambda _exp: speech_llm)
    exec(compile(code, "README.md", "exec"), {})
    assert "asr_clean" in capsys.readouterr().out
