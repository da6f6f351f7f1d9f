"""The options of parts, read from their source, are those of the imported classes."""

import inspect

import pytest

from pam.config.keys import check
from pam.config.schema import ENCODERS, FUSIONS, LLM, MODEL, ROUTER
from pam.config.source import PAM, attribute_of, options_of, registered
from pam.encoders import ENCODERS as ENCODER_CLASSES
from pam.errors import PamError
from pam.fusion import FUSIONS as FUSION_CLASSES
from pam.registry import Registry

PARTS = [*registered(ENCODERS).values(), *registered(FUSIONS).values(), LLM, MODEL, ROUTER]


def imported(part: str) -> type:
    module, _, name = part.rpartition(".")
    return Registry("part", {"it": f"{module}:{name}"}).get("it")


@pytest.mark.parametrize(
    ("name", "registry"), [(ENCODERS, ENCODER_CLASSES), (FUSIONS, FUSION_CLASSES)]
)
def test_a_registry_is_read_as_it_is(name, registry):
    found = {key: part[::-1].replace(".", ":", 1)[::-1] for key, part in registered(name).items()}
    assert found == registry.entries


@pytest.mark.parametrize("part", PARTS)
def test_options_are_the_keyword_arguments_with_defaults(part):
    parameters = inspect.signature(imported(part)).parameters.items()
    expected = {n: p.default for n, p in parameters if p.default is not inspect.Parameter.empty}
    assert list(options_of(part)) == list(expected)
    for name, default in expected.items():
        if default is not None and default != () and isinstance(default, (int, float, bool)):
            assert float(options_of(part)[name].default.replace("true", "1").replace("false", "0"))\
                == float(default), name  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_every_option_is_documented(part):
    undocumented = [name for name, key in options_of(part).items() if not key.help]
    assert undocumented in ([], ["encoders"])


def write_part(monkeypatch, folder, text):
    """A module pam.parts.one with this text; pam.parts.base has a base class."""
    (folder / "parts").mkdir()
    (folder / "parts/base.py").write_text(
        "from typing import Literal\n"
        "Size = Literal['small', 'large']\n"
        "LEAST = 0.5\n"
        "class Inner:\n    '''In it.\n\n    Args:\n        depth: how deep.\n    '''\n"
        "    def __init__(self, width, depth: int = 2): pass\n"
        "class Base:\n    '''A base.\n\n    Args:\n        size, share: of it,\n"
        "            and more.\n    '''\n    models = {'a': (1, 2)}\n"
        "    def __init__(self, size: Size = 'small', share: float = LEAST): pass\n"
    )
    (folder / "parts/one.py").write_text(text)
    monkeypatch.setattr("pam.config.source.PAM", folder)
    for cached in (options_of, registered, attribute_of):
        cached.cache_clear()
    from pam.config.source import _tree

    _tree.cache_clear()


def test_what_a_part_inherits_and_refers_to(tmp_path, monkeypatch):
    write_part(
        monkeypatch,
        tmp_path,
        "from pam.parts.base import Base, Inner, LEAST, Size\n"
        "class Child(Base):\n    pass\n"
        "class Own(Base):\n    '''Its own.\n\n    Args:\n        size: see `Base`.\n"
        "        inner: options of `Inner`.\n        flag, none: a switch.\n    '''\n"
        "    def __init__(self, size: Size = 'large', *, inner: dict | None = None,\n"
        "                 flag: bool = True, none: bool | None = None): pass\n",
    )
    child = options_of("pam.parts.one.Child")
    assert {name: key.default for name, key in child.items()} == {"size": "small", "share": "0.5"}
    assert child["size"].help == child["share"].help == "of it, and more."
    assert child["size"].type == "one of small, large"
    own = options_of("pam.parts.one.Own")
    assert own["size"].help == "of it, and more." and own["size"].default == "large"
    assert own["inner"].keys().keys() == {"depth"}
    assert own["inner"].keys()["depth"].help == "how deep."
    assert attribute_of("pam.parts.one.Own", "models") == {"a": (1, 2)}
    check({"inner": {"depth": 3}, "flag": False, "none": None}, own, "f")
    for wrong, message in [
        ({"inner": {"deptj": 3}}, "f: inner: unknown option 'deptj': did you mean 'depth'"),
        ({"inner": 3}, "f: inner: 3: expected a section"),
        ({"inner": {"depth": 0}}, "f: inner.depth: 0: expected a whole number, at least 1"),
        ({"flag": None}, "f: flag: None: expected true or false"),
        ({"size": "big"}, "f: size: 'big': expected one of small, large"),
    ]:
        with pytest.raises(PamError, match=message):
            check(wrong, own, "f")


@pytest.fixture(autouse=True)
def forget_sources():
    yield
    from pam.config import source

    for cached in (options_of, registered, attribute_of, source._tree):
        cached.cache_clear()


def test_it_reads_this_package():
    assert (PAM / "config/source.py").is_file()
