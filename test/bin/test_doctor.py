"""`pam doctor` in a machine that has everything, and in ones that lack something."""

import json
import math
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
import yaml

from pam.bin import doctor, doctor_checks
from pam.bin.doctor_checks import GB, GROUPS, STAGES
from pam.paths import ROOT, conf_file

MINI = ["whisper-tiny-en", "moonshine-base", "resemblyzer", "yamnet", "smollm2-135m-instruct"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Every package, enough disk and memory, no corpus, no model."""
    monkeypatch.setattr(doctor_checks, "version_of", lambda package: "1.0")
    monkeypatch.setattr(doctor_checks, "available", lambda: 9 * GB)
    usage = SimpleNamespace(free=99 * GB)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setenv("PAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(doctor_checks, "named_in_db", lambda recipe: {})
    return monkeypatch


def lacking(monkeypatch, *packages):
    missing = lambda package: None if package in packages else "1.0"  # noqa: E731
    monkeypatch.setattr(doctor_checks, "version_of", missing)


def installed(monkeypatch):
    """As where a wheel is installed, without recipes."""
    monkeypatch.setattr(doctor_checks, "is_clone", lambda: False)
    monkeypatch.setattr(doctor_checks, "recipes", lambda: [])


def report(capsys, *options):
    """The status, and the checks by what they are."""
    status = doctor.main([*options, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] == (status == 0)
    return status, {check["what"]: check for check in found["checks"]}, found["stages"]


def test_a_machine_that_has_what_the_main_job_needs(here, capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "MISSING" not in out
    assert "4 train: ready; (model whisper-tiny-en)" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["ok", "torch"] in [line[:2] for line in lines]


@pytest.mark.parametrize(
    ("package", "stage", "what"),
    [
        ("espnet", "4 train", "ESPnet"),
        ("kaldiio", "2 dump", "packages to store states"),
        ("onnx", "1 data", "packages to prepare corpora and models"),
        ("jiwer", "7 score", "packages of metrics"),
        ("peft", "6 decode", "packages to run a model"),
    ],
)
def test_a_package_that_a_stage_needs(here, capsys, package, stage, what):
    lacking(here, package)
    status, checks, stages = report(capsys)
    assert status == 1 and what in stages[stage]
    assert checks[what]["state"] == "missing" and checks[what]["remedy"] == "tools/install.sh"
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith(f"MISSING   {what}")]
    assert stage in line or "  all  " in line
    assert line.endswith("tools/install.sh")
    assert f"{stage}: {what}" in out


@pytest.mark.parametrize(
    ("package", "remedy"),
    [("fastapi", "pip install fastapi"), ("matplotlib", "tools/install.sh")],
)
def test_what_the_main_job_can_do_without(here, capsys, package, remedy):
    lacking(here, package)
    status, checks, stages = report(capsys)
    (check,) = [check for check in checks.values() if check["state"] == "optional"
                and check["what"].startswith("packages")]  # fmt: skip
    assert status == 0 and check["remedy"] == remedy
    assert check["what"] in stages["serve" if package == "fastapi" else "8 report"]


def test_a_stage_outside_the_main_job_is_not_ready_either(here, capsys):
    lacking(here, "gradio", "matplotlib")
    assert doctor.main([]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "demo: packages of the page" in [line.partition(";")[0] for line in out]
    assert "8 report: ready; (packages of figures)" in out


def test_without_recipes_the_main_job_is_to_ask_a_model(here, capsys):
    installed(here)
    lacking(here, "espnet", "jiwer")
    status, checks, _ = report(capsys)
    assert status == 0
    assert checks["ESPnet"]["state"] == "optional"
    assert checks["packages of metrics"]["remedy"] == "pip install 'jiwer>=4'"
    assert not [what for what in checks if what.startswith("corpus")]
    lacking(here, "soxr")
    status, checks, _ = report(capsys)
    assert status == 1
    assert checks["packages to run a model"]["remedy"] == "pip install soxr"


@pytest.mark.parametrize(
    ("python", "remedy"),
    [((3, 11, 2), "pip install espnet==202511"), ((3, 13, 0), "train with Python 3.11")],
)
def test_espnet_is_for_one_python(here, capsys, python, remedy):
    installed(here)
    lacking(here, "espnet")
    here.setattr(doctor_checks, "sys", SimpleNamespace(version_info=python))
    _, checks, _ = report(capsys)
    assert checks["ESPnet"]["remedy"].startswith(remedy)
    assert checks["Python 3.11 or later"]["found"] == ".".join(map(str, python))


def test_a_broken_torch(here, capsys):
    here.setitem(sys.modules, "torch", None)
    here.setattr(doctor.environment, "machine", lambda: "a machine")
    status, checks, _ = report(capsys)
    assert status == 1 and checks["torch"]["found"] is None
    assert checks["torch"]["remedy"].startswith("tools/install.sh (")
    assert checks["GPU"]["found"].startswith("none (")


def documented(page, pattern):
    """The numbers of the only place of a page that the pattern matches."""
    (found,) = re.findall(pattern, " ".join((ROOT / page).read_text(encoding="utf-8").split()))
    return [float(number) for number in ([found] if isinstance(found, str) else found)]


def test_what_the_main_job_needs_is_what_was_measured():
    results = "egs/multitask/RESULTS.md"
    assert documented(results, r"Memory: at most (\S+) GB") == [doctor_checks.MEMORY_GB]
    pattern = (
        r"Disk: (\S+) GB of .*?, (\S+) GB of experiment, (\S+) GB of env.*?, (\S+) GB of models"
    )
    states, experiment, environment, models = documented(results, pattern)
    assert states + experiment + models == pytest.approx(doctor_checks.DISK_GB)
    assert environment == doctor_checks.ENVIRONMENT_GB
    memory, disk = documented("README.md", r"\| (\S+) GB \| (\S+) GB \|")
    assert memory == doctor_checks.MEMORY_GB
    assert disk == math.ceil(doctor_checks.DISK_GB + doctor_checks.ENVIRONMENT_GB)


@pytest.mark.parametrize(
    ("free", "needs", "status"), [(18, 18.6, 1), (19, 18.6, 0), (19, 24.3, 1), (25, 24.3, 0)]
)
@pytest.mark.parametrize("named", [True, False])
def test_disk(here, capsys, tmp_path, free, needs, status, named):
    """The environment is still to be made if none is named and tools/venv is not complete."""
    here.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * GB))
    here.setattr(doctor_checks, "VENV", tmp_path)
    has = needs == doctor_checks.DISK_GB
    here.setenv("PAM_VENV", "/an/environment" if has and named else "")
    if has and not named:
        (tmp_path / ".complete-abc-train,report").touch()
    found, checks, stages = report(capsys)
    assert found == status
    (what,) = [what for what in checks if "of disk" in what]
    assert what.startswith(f"{needs} GB of disk at ")
    assert what.endswith(", 5.7 of them for tools/venv") == (not has)
    assert (checks[what]["found"] is None) == bool(status)
    assert (what in stages["2 dump"]) == bool(status)


def test_little_memory_is_said(here, capsys):
    here.setattr(doctor_checks, "available", lambda: 2 * GB)
    status, checks, _ = report(capsys)
    assert status == 0 and "only 2.0 GB are free" in checks["7.5 GB of memory"]["remedy"]


def test_another_scale_is_not_measured_against_the_main_job(here, capsys):
    here.setattr(doctor_checks, "available", lambda: 2 * GB)
    here.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * GB))
    status, checks, _ = report(capsys, "--scale", "paper")
    assert status == 0 and checks["memory"]["found"] == "2.0 GB free"
    assert "pam plan --scale paper" in checks["memory"]["note"]


def test_models_of_a_scale(here, tmp_path, capsys):
    _, checks, _ = report(capsys)
    assert {f"model {name}" for name in MINI} <= checks.keys()
    assert checks["model moonshine-base"]["remedy"].startswith("tools/fetch_models.py moonshine-ba")
    folder = tmp_path / "cache/models/moonshine-base"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    _, checks, _ = report(capsys)
    assert checks["model moonshine-base"]["found"] == str(folder)


def test_models_of_the_hub(here, tmp_path, capsys):
    config = yaml.safe_load(conf_file("scale", "paper").read_text())
    path = config["llm_conf"]["path"]
    _, checks, _ = report(capsys, "--scale", "paper")
    assert f"hf download {path}" in checks[f"model {path}"]["remedy"]
    folder = tmp_path / "hub" / f"models--{path.replace('/', '--')}"
    folder.mkdir(parents=True)
    _, checks, _ = report(capsys, "--scale", "paper")
    assert checks[f"model {path}"]["found"] == str(folder)


def test_a_trained_model(here, tmp_path, capsys):
    status, checks, _ = report(capsys, "--exp", str(tmp_path))
    assert status == 1 and "config.yaml: cannot be read" in checks["configuration"]["remedy"]
    llm = tmp_path / "llm"
    llm.mkdir()
    config = {"encoders": {"one": {"path": "cache:one"}}, "llm_conf": {"path": str(llm)}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    status, checks, _ = report(capsys, "--exp", str(tmp_path))
    assert status == 1
    assert checks[f"model of {tmp_path}"]["state"] == checks["model one"]["state"] == "missing"
    assert checks[f"model {llm}"]["state"] == "ok"
    (tmp_path / "model.pth").touch()
    (tmp_path / "cache/models/one").mkdir(parents=True)
    (tmp_path / "cache/models/one/config.json").touch()
    lacking(here, "espnet")  # is not needed to ask it
    assert report(capsys, "--exp", str(tmp_path))[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": None}, "encoders: None: expected a section"),
        ({"encoders": {"a": 1}}, "encoders.a: 1: expected a section"),
        ({"encoders": {"a": {"path": 5}}}, "encoders.a.path: 5: expected a text"),
        ({"encoders": {"a": {}}}, "encoders.a: path is missing"),
        ({"llm_conf": {}}, "llm_conf: path is missing"),
        ({"llm_conf": []}, "llm_conf: []: expected a section"),
    ],
)
def test_a_wrong_scale_is_one_line(here, tmp_path, capsys, changes, message):
    file = tmp_path / "n.yaml"
    file.write_text(yaml.safe_dump({"encoders": {}, "llm_conf": {"path": "x"}} | changes))
    status, checks, _ = report(capsys, "--scale", str(file))
    assert status == 1 and f"{file}: {message}" in checks["configuration"]["remedy"]


def test_an_unknown_scale_is_one_line(here, capsys):
    status, checks, stages = report(capsys, "--scale", "mimi")
    assert "configuration" in stages["serve"] and "configuration" in stages["4 train"]
    assert status == 1 and "did you mean 'mini'" in checks["configuration"]["remedy"]


def test_corpora(here, tmp_path, capsys):
    _, checks, _ = report(capsys)
    remedy = checks["corpus of egs/ami"]["remedy"]
    assert remedy.startswith("set AMI or AMI_PARQUET in egs/ami/db.sh, then egs/ami/run.sh")
    assert checks["corpus of egs/mini"]["needs"] == ["1"]
    assert not {"corpus of egs/TEMPLATE", "corpus of egs/multitask"} & checks.keys()
    here.setattr(doctor_checks, "named_in_db", lambda recipe: {"AMI": str(tmp_path)})
    _, checks, _ = report(capsys)
    assert checks["corpus of egs/ami"]["found"] == f"AMI={tmp_path}"


def test_versions_that_were_not_tested_are_a_note(here, capsys):
    tested = doctor_checks.read_tested()
    named = ["torch", *(name for group in GROUPS for name in group.packages)]
    assert set(named) <= tested.keys()
    here.setattr(doctor_checks, "version_of", lambda name: tested[name] + "+cpu")
    _, checks, _ = report(capsys)
    check = checks["tested versions"]
    assert (check["found"], check["note"]) == (f"{len(named)} of {len(named)} packages", "")
    found = tested | {"peft": "0.1.0", "gradio": None}
    here.setattr(doctor_checks, "version_of", found.get)
    assert doctor.main([]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert note.endswith(f"which may work: peft 0.1.0 (tested: {tested['peft']})")


def test_java(here, capsys):
    here.setattr(shutil, "which", lambda program: None)
    status, checks, _ = report(capsys)
    check = checks["Java, for --metrics meteor_1.5,cider,spice"]
    assert status == 0 and check["found"] is None and "default-jre" in check["remedy"]


def test_stages_are_those_of_the_recipes():
    recipe = (doctor_checks.ROOT / "utils/recipe.sh").read_text()
    names = re.search(r"stage_names=\(\[1\]=([a-z ]+)\)", recipe)[1].split()
    assert list(STAGES.values())[:8] == [f"{n} {name}" for n, name in enumerate(names, 1)]
    assert all(set(group.needs) <= set(STAGES) for group in GROUPS)
