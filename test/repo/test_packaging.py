"""What `pip install` gives: the wheel's content, the extras, and the versions that were tested."""

import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pam.bin.doctor_checks import GROUPS

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("pam", "conf", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "tools/constraints.txt")


def options(monkeypatch) -> dict:
    """What setup.py says."""
    found: dict = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: found.update(given))
    runpy.run_path(str(ROOT / "setup.py"))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what is packed, because building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for part in PARTS:
        (folder / part).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def wheel(source) -> zipfile.ZipFile:
    pytest.importorskip("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "made", "."]
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=source, check=True)
    (file,) = (source / "made").iterdir()
    return zipfile.ZipFile(file)


def test_a_wheel_has_the_package_and_conf(wheel):
    names = set(wheel.namelist())
    conf = {f"pam/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.*")}
    assert len(conf) > 40 and conf <= names
    tested = (ROOT / "tools/constraints.txt").read_bytes()
    assert wheel.read("pam/conf/constraints.txt") == tested
    assert {
        "pam/py.typed",
        "pam/bin/cli.py",
        "pam/model/architectures/wavlm-base-plus.json",
    } < names
    files = [file for file in (ROOT / "pam").rglob("*.*") if file.parent.name != "__pycache__"]
    assert {str(file.relative_to(ROOT)) for file in files} - names == {"pam/README.md"}
    others = {name for name in names if not name.startswith("pam/")}
    assert {name.split("/")[0] for name in others} == {"pam_speech_llm-0.1.0.dist-info"}
    assert "pam = pam.bin.cli:run" in read(wheel, "entry_points.txt")


def test_the_base_needs_no_espnet(wheel):
    needs = re.findall(r"^Requires-Dist: (.*)$", read(wheel, "METADATA"), re.MULTILINE)
    base = {need for need in needs if "extra ==" not in need}
    assert {"torch", "transformers", "soundfile"} <= {re.match(r"[\w.-]+", n)[0] for n in base}
    (espnet,) = [need for need in needs if need.startswith("espnet")]
    assert 'python_version < "3.12"' in espnet and re.search("extra == .train.", espnet)


def read(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"pam_speech_llm-0.1.0.dist-info/{name}").decode()


def test_an_installed_package_finds_its_files(wheel, tmp_path):
    """Unpacked in a folder without recipes; the command lists its verbs there."""
    wheel.extractall(tmp_path / "site")
    code = """
from pam.paths import CONF, ROOT, conf_names
from pam.config import load_yaml, read_experiment
from pam.data.tasks import task_names
from pam.data.prompts import load_all_prompts
from pam.data.datadir import fix_command
from pam.bin.doctor_checks import is_clone, tested_versions
assert CONF.parent.name == "pam" and ROOT == CONF.parent and "site" in str(CONF)
assert "mini" in conf_names("scale") and task_names()[:1] == ["asr_clean"]
assert load_all_prompts(task_names())["ac"].plain
read_experiment(CONF / "scale/mini.yaml", CONF / "systems/pam.yaml")
assert fix_command("/d") == "pam validate --fix /d" and not is_clone()
assert tested_versions().found
"""
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    command = [sys.executable, "-m", "pam.bin.cli"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "  transcribe  " in done.stdout


def test_a_source_distribution_can_be_built(source):
    build = [sys.executable, "setup.py", "-q", "sdist", "--formats", "zip", "--dist-dir", "sdist"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (file,) = (source / "sdist").iterdir()
    names = {name.partition("/")[2] for name in zipfile.ZipFile(file).namelist()}
    conf = {str(file.relative_to(ROOT)) for file in (ROOT / "conf").rglob("*.*")}
    assert conf <= names
    assert {"setup.py", "README.md", "LICENSE", "pam/py.typed", "pam/report/page.css"} <= names


def test_doctor_knows_every_package_of_an_extra(monkeypatch):
    """In the same extras; torch has a line of its own."""
    found = options(monkeypatch)
    lists = {"": found["install_requires"]} | found["extras_require"]
    for extra in ("", "train", "report", "serve", "demo"):
        named = {re.match(r"[\w.-]+", requirement)[0] for requirement in lists[extra]}
        known = [name for group in GROUPS if group.extra == extra for name in group.packages]
        assert sorted(known) == sorted(named - {"torch"}), extra


def test_the_recipes_install_their_extras(monkeypatch):
    extras = options(monkeypatch)["extras_require"].keys()
    script = (ROOT / "tools/install.sh").read_text(encoding="utf-8")
    assert re.search(r'""\) extras=train,report ;;', script)
    more = re.search(r"^more=([\w,]+)", script, re.MULTILINE)[1].split(",")
    assert {"train", "report", *more} <= extras and "test" in more


def test_the_table_of_tested_versions_is_that_of_the_constraints():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("\n## Tested versions\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.]+) \|", table, re.MULTILINE))
    pins = (ROOT / "tools/constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower(): v for name, v in re.findall(r"^([\w.-]+)==(\S+)$", pins, re.MULTILINE)}
    assert {"torch", "torchaudio", "transformers", "peft", "espnet", "numpy"} <= rows.keys()
    del rows["package"]
    assert rows == {name: pinned[name] for name in rows}
