"""METEOR 1.5, CIDEr and SPICE: sums by hand, and the jars where there is Java."""

import json
import math
import shutil
import stat
from collections import Counter
from pathlib import Path

import pytest
from processes import is_running, wait_for

from pam.errors import PamError
from pam.score import coco, java, spice
from pam.score.captions import further
from pam.score.items import Item

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="there is no java here")


def ac(hyp, *refs):
    return Item(id=hyp, task="ac", hyp=hyp, ref=refs[0], refs=tuple(refs))


def split(texts):
    """Stands for the tokenizer where there may be no Java."""
    return [text.lower() for text in texts]


@pytest.fixture
def without_tokenizer(monkeypatch):
    monkeypatch.setattr(coco, "tokenize", split)
    monkeypatch.setattr(coco, "require_java", lambda metric: None)


def ngrams(text, n):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def cider_d(hyp, refs, all_refs):
    """CIDEr-D as its paper has it: tf-idf, clipped cosine, Gaussian on the lengths, 1- to 4-grams.

    Lengths are counted in bigrams, as coco-caption does.
    """

    def weigh(counts):
        def idf(gram):
            n = len(gram)
            holding = sum(any(gram in ngrams(r, n) for r in refs_) for refs_ in all_refs)
            return math.log(len(all_refs)) - math.log(max(1, holding))

        return {gram: count * idf(gram) for gram, count in counts.items()}

    def norm(vector):
        return math.sqrt(sum(value**2 for value in vector.values()))

    total = 0.0
    for n in range(1, 5):
        h = weigh(ngrams(hyp, n))
        for ref in refs:
            r = weigh(ngrams(ref, n))
            dot = sum(min(h[g], r.get(g, 0)) * r.get(g, 0) for g in h)
            lengths = len(ngrams(hyp, 2)), len(ngrams(ref, 2))
            penalty = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * 6**2))
            if norm(h) and norm(r):
                total += dot / (norm(h) * norm(r)) * penalty
    return 10 * total / 4 / len(refs)


def test_cider_is_cider_d(without_tokenizer):
    items = [
        ac("a dog barks while rain falls", "a dog barks and rain falls", "rain and a dog"),
        ac("a bell rings", "the bell rings twice"),
        ac("rain falls", "a dog barks", "water runs down"),
    ]
    all_refs = [item.references() for item in items]
    expected = [cider_d(item.hyp, item.references(), all_refs) for item in items]
    statistics, more = coco.cider(items)
    assert statistics.numerators == pytest.approx(expected)
    assert min(expected[:2]) > expected[2] == 0
    assert (statistics.denominators, statistics.scale, more) == (None, 1.0, {})


def test_cider_at_its_limits(without_tokenizer):
    alone, _ = coco.cider([ac("a dog barks", "a dog barks")])
    assert alone.numerators == [0]
    perfect, _ = coco.cider([ac("one dog barks now", "one dog barks now"), ac("x", "rain falls")])
    assert perfect.numerators == pytest.approx([10, 0])


@needs_java
def test_tokens_are_coco_captions():
    texts = ["A dog\nbarks, loudly.", "", "It’s “raining” (a lot);\u2028café", "  ", "a|||b", ""]
    assert java.tokenize(texts) == [
        "a dog barks loudly",
        "",
        "it 's raining -lrb- a lot -rrb- café",  # coco-caption drops them in upper case only
        "",
        "a b",
        "",
    ]


@needs_java
def test_meteor_by_hand():
    items = [
        ac("dog barks loudly", "dog barks loudly"),
        ac("dog barks", "dog barks loudly"),
        ac("", "a dog barks"),
        ac("rain\nfalls", "a dog barks", "rain falls"),
        ac("straße ||| café", "straße café"),
    ]
    statistics, more = coco.meteor(items)
    # α 0.85, β 0.2, γ 0.6: 2 matches in 1 chunk, P = 1, R = 2/3
    f_mean = (2 / 3) / (0.85 + 0.15 * 2 / 3)
    two_of_three = f_mean * (1 - 0.6 * (1 / 2) ** 0.2)
    assert statistics.numerators == pytest.approx([1, two_of_three, 0, 1, 1], abs=1e-4)
    assert statistics.scale == 100
    # Pooled: 3 + 2 + 0 + 2 + 2 matches, of 9 words in the captions and 13 in the references.
    assert 0 < more["corpus"] < 100


@pytest.mark.parametrize("metric", [coco.meteor, coco.cider, spice.measure])
def test_without_java(metric, monkeypatch):
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    with pytest.raises(PamError, match=r"needs Java: install a JRE \(Debian: default-jre"):
        metric([ac("a", "b")])


def program(folder: Path, text: str) -> None:
    """A `java` that is a Python script."""
    file = folder / "java"
    file.write_text(f"#!/usr/bin/env python3\nimport json, sys\nargs = sys.argv[1:]\n{text}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


VERSION = """
if args == ["-version"]:
    sys.exit(print('openjdk version "{}"', file=sys.stderr))
"""


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Puts a script in java's place, and SPICE's jars into the cache."""
    folder = tmp_path / "cache" / "spice"
    folder.mkdir(parents=True)
    for name in (*spice.JARS, "nashorn-core-15.jar"):
        (folder / name).touch()
    monkeypatch.setenv("PAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(coco, "tokenize", split)

    def write(text, version="17.0.1"):
        program(tmp_path, VERSION.format(version) + text)
        return folder

    return write


ANSWERS = """
with open("calls.json", "w") as file:
    json.dump(args, file)
asked = json.load(open(args[args.index("edu.anu.spice.SpiceScorer") + 1]))
scores = [{"All": {"f": len(entry["refs"]) / 4}} for entry in asked]
answers = [{"image_id": e["image_id"], "scores": s} for e, s in zip(asked, scores)]
json.dump(answers[::-1], open(args[args.index("-out") + 1], "w"))
"""


def test_spice_gives_its_jar_the_captions(fake_java, tmp_path):
    folder = fake_java(ANSWERS.replace("calls.json", str(tmp_path / "calls.json")))
    statistics, _ = spice.measure([ac("a dog", "a dog", "dogs", "a cat"), ac("x", "y")])
    assert statistics.numerators == [0.75, 0.25]  # in the order of the items, not of the answers
    calls = json.loads((tmp_path / "calls.json").read_text())
    assert "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED" in calls
    jars = calls[calls.index("-cp") + 1].split(":")
    assert jars[0].endswith("spice-1.0.jar") and Path(jars[0]).is_file()
    assert jars[-1] == f"{folder}/*"


@pytest.mark.parametrize("jar", spice.JARS)
def test_spice_without_a_parser_names_both_jars_and_their_archive(fake_java, jar):
    folder = fake_java("")
    (folder / jar).unlink()
    with pytest.raises(PamError) as caught:
        spice.measure([ac("a", "b")])
    message = str(caught.value)
    assert all(name in message for name in spice.JARS)
    assert f"(missing: {jar})" in message
    assert str(folder) in message and "stanford-corenlp-full-2015-12-09.zip" in message


@pytest.mark.parametrize(("version", "needed"), [("17.0.1", True), ("1.8.0_402", False)])
def test_spice_needs_a_javascript_engine_where_java_has_none(fake_java, version, needed):
    folder = fake_java("", version)
    (folder / "nashorn-core-15.jar").unlink()
    if needed:
        with pytest.raises(PamError, match="Java 17 does not have: put nashorn-core"):
            spice.java_command()
    else:
        assert not any(part.startswith("--add-opens") for part in spice.java_command())


def test_spice_says_why_its_jar_failed(fake_java):
    fake_java("sys.exit('Loading\\njava.lang.OutOfMemoryError: Java heap space\\nmore')")
    with pytest.raises(PamError, match="jar failed: java.lang.OutOfMemoryError: Java heap space$"):
        spice.measure([ac("a", "b")])


def test_a_tokenizer_that_loses_a_line_is_an_error(fake_java):
    fake_java("print('one line')")
    with pytest.raises(PamError, match="2 captions in, 1 out"):
        java.tokenize(["a", "b"])


def test_an_unreadable_version(fake_java):
    fake_java("", version="?")
    with pytest.raises(PamError, match="java -version: no version"):
        java.java_version()


@needs_java
def test_the_real_jar_starts(tmp_path, monkeypatch):
    """It runs up to the parser, which empty jars do not hold."""
    for name in (*spice.JARS, "nashorn-core-15.jar"):
        (tmp_path / "spice").mkdir(exist_ok=True)
        (tmp_path / "spice" / name).touch()
    monkeypatch.setenv("PAM_CACHE", str(tmp_path))
    monkeypatch.setattr(spice, "tokenized", lambda items: ({0: ["a"]}, {0: ["a"]}))
    with pytest.raises(PamError, match="jar failed: .*edu/stanford/nlp"):
        spice.measure([ac("a", "a")])


DIES = """
for line in sys.stdin:
    {first}
{last}
"""
ASKED = [ac("a dog", "a dog barks"), ac("rain", "rain falls")]
STATISTICS = "print('1.0 2.0', flush=True)"
# How a jar fails: what it does with its first line, what after it, and what is said of it
FAILURES = {
    "exception": (
        "break",
        "sys.exit('java.lang.Boom: no\\nException in thread X\\n at')",
        "n thread X",
    ),
    "killed": ("break", "import os; os.kill(os.getpid(), 9)", "killed by SIGKILL: is there enough"),
    "killed in a shell": ("break", "sys.exit(143)", "killed by SIGTERM"),
    "no message": ("break", "sys.exit(3)", "no message"),
    "a wrong end": ("break", "print('Picked up X: Error\\nlast', file=sys.stderr)", "last"),
    "no memory": (
        "break",
        "sys.exit('Error occurred during initialization of VM\\nNo space for the heap')",
        "initialization of VM; No space for the heap",
    ),
    "dies in the middle": (f"{STATISTICS}; break", "sys.exit('late Error')", "late Error"),
    "hangs": ("break", "import time; time.sleep(600)", r"no answer within 1 s"),
    "hangs in the middle": (
        f"{STATISTICS}; break",
        "import time; time.sleep(600)",
        "no answer within 1 s",
    ),
    "closes its output and goes on": (
        "break",
        "import os, time; os.close(1); time.sleep(600)",
        "no answer within 1 s|no message|killed",
    ),
    "does not read": (*["import time; time.sleep(600)"] * 2, "no answer within 1 s"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("metric", ["meteor", "tokenizer", "spice"])
def test_a_jar_that_fails_is_an_error_with_the_cause(metric, name, fake_java, monkeypatch):
    """Whatever ends it: soon, never for ever."""
    first, last, cause = FAILURES[name]
    if "no answer" in cause:
        monkeypatch.setattr(java, "START_SECONDS", 0.9)
        monkeypatch.setattr(spice, "LOAD_SECONDS", -3.1)
    fake_java(DIES.format(first=first, last=last))
    monkeypatch.setattr(spice, "java_command", lambda: ["java"])
    with pytest.raises(PamError, match=cause):
        if metric == "tokenizer":
            java.tokenize(["a", "b"])
        else:
            (coco.meteor if metric == "meteor" else spice.measure)(ASKED)


def test_what_a_jar_started_is_stopped_with_it(fake_java, monkeypatch, tmp_path):
    monkeypatch.setattr(java, "START_SECONDS", 1)
    fake_java(
        f"import subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nchild.wait()\n"
    )
    with pytest.raises(PamError, match="no answer within 1 s"):
        java.tokenize(["a"])
    if (tmp_path / "pid").exists():  # else it ended before it had started the child
        pid = int((tmp_path / "pid").read_text())
        assert wait_for(lambda: not is_running(pid))


def test_a_failing_jar_leaves_the_metric_missing(fake_java):
    fake_java("sys.exit('java.lang.RuntimeException: Error: file not found (paraphrase-en.gz)')")
    results, statistics = further(ASKED, ["meteor_1.5"], 0, "")
    assert "file not found (paraphrase-en.gz)" in results["meteor_1.5"]["missing"]
    assert statistics == {}


METEOR = """
for line in sys.stdin:
    count = line.count(" ||| ")
    asked = line.startswith("SCORE")
    print("1.0 2.0" if asked else "\\n".join(["{}"] * (count + 1)), flush=True)
"""


def test_a_decimal_comma_is_no_number(fake_java):
    fake_java(METEOR.format("0.25"))
    statistics, more = coco.meteor(ASKED)
    assert (statistics.numerators, more) == ([0.25, 0.25], {"corpus": 25})
    fake_java(METEOR.format("0,25"))
    with pytest.raises(PamError, match="'0,25', which is not a number"):
        coco.meteor(ASKED)


def test_java_that_cannot_be_started(fake_java, tmp_path, monkeypatch):
    fake_java("")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "java").write_bytes(b"\x7fELF, of another machine")
    with pytest.raises(PamError, match="java cannot be started"):
        java.tokenize(["a"])


@pytest.mark.parametrize("answer", ["", "[{}]", '[{"image_id": 0, "scores": {"All": {"f": 1}}}]'])
def test_spice_answers_only_in_part(answer, fake_java):
    fake_java(f"open(args[args.index('-out') + 1], 'w').write({answer!r})")
    with pytest.raises(PamError, match="cannot be read|left out 1 of 2 captions"):
        spice.measure(ASKED)


@needs_java
def test_the_locale_of_java_changes_nothing(monkeypatch):
    locale = "-Duser.language=de -Duser.country=DE -Dfile.encoding=ASCII"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", locale)
    statistics, _ = coco.meteor([ac("straße café", "straße café"), ac("rain", "a dog")])
    assert statistics.numerators == pytest.approx([1, 0], abs=1e-4)


@needs_java
def test_a_real_jar_without_memory_says_so(monkeypatch):
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx1k")
    with pytest.raises(PamError, match="Too small maximum heap"):
        java.tokenize(["a"])
