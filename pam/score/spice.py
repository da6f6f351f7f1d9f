"""SPICE (Anderson et al. 2016), by pycocoevalcap's jar. Its parser must be fetched by hand."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pam.errors import PamError
from pam.paths import cache_dir
from pam.score import SBERT
from pam.score.coco import tokenized
from pam.score.items import Item
from pam.score.java import PLAIN, Program, java_version, require_java
from pam.score.metric import Metric
from pam.score.utterances import Statistics

JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
ARCHIVE = "nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
# CoreNLP and FST use these packages by reflection, which Java 9 and later forbid by default.
OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")
LOAD_SECONDS = 600  # its parser's models are large
TEXTS_PER_SECOND = 1  # lower limit of its speed
LAST_WITH_JAVASCRIPT = 14  # the jar writes its result with a JavaScript engine


class Spice(Metric):
    """F-score of propositions, 0 to 1."""

    name = "spice"
    title = "SPICE"
    digits = 3
    needs = ("Java", "Stanford CoreNLP, by hand")

    def measure(
        self, items: Sequence[Item], sbert: str = SBERT
    ) -> tuple[Statistics, dict[str, Any]]:
        return measure(items)


def measure(items: Sequence[Item]) -> tuple[Statistics, dict[str, Any]]:
    """SPICE, 0 to 1: F-score of the propositions of a caption against those of all references."""
    require_java("SPICE")
    command = java_command()
    references, hypotheses = tokenized(items)
    entries = [
        {"image_id": number, "test": hypotheses[number][0], "refs": references[number]}
        for number in hypotheses
    ]
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "captions.json", Path(folder) / "spice.json"
        asked.write_text(json.dumps(entries), encoding="utf-8")
        command += [str(asked), "-out", str(answered), "-silent"]
        with Program("SPICE", command, time_limit(entries), Path(folder)) as jar:
            jar.output()
            if not answered.is_file():
                raise PamError(f"SPICE: its jar failed: {jar.reason()}")
        points = read_answers(answered)
    if missing := hypotheses.keys() - points.keys():
        raise PamError(f"SPICE: its jar left out {len(missing)} of {len(hypotheses)} captions")
    return Statistics([points[number] for number in hypotheses]), {}


def read_answers(file: Path) -> dict[int, float]:
    """{number of the caption: F-score}."""
    try:
        answers = json.loads(file.read_text(encoding="utf-8"))
        return {answer["image_id"]: float(answer["scores"]["All"]["f"]) for answer in answers}
    except (ValueError, KeyError, TypeError) as error:
        raise PamError(f"SPICE: its jar's answer cannot be read ({error})") from error


def time_limit(entries: Sequence[Mapping[str, Any]]) -> float:
    """Time limit in seconds."""
    return LOAD_SECONDS + sum(1 + len(entry["refs"]) for entry in entries) / TEXTS_PER_SECOND


def java_command() -> list[str]:
    """The start of SPICE's command line. `PamError` names missing files and their places."""
    folder = cache_dir() / "spice"
    if missing := [jar for jar in JARS if not (folder / jar).is_file()]:
        raise PamError(
            f"SPICE needs {' and '.join(JARS)} in {folder} (missing: {', '.join(missing)}): "
            f"take both out of {ARCHIVE}"
        )
    version = java_version()
    if version > LAST_WITH_JAVASCRIPT and not list(folder.glob("nashorn-core-*.jar")):
        raise PamError(
            f"SPICE needs a JavaScript engine, which Java {version} does not have: put "
            f"nashorn-core and its asm jars (Maven: org.openjdk.nashorn) into {folder}, or use "
            f"Java 8 to {LAST_WITH_JAVASCRIPT}"
        )
    from pycocoevalcap.spice import spice

    home = Path(spice.__file__).parent
    jars = [home / spice.SPICE_JAR, home / "lib" / "*", folder / "*"]
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPENED]
    return [
        "java",
        "-Xmx8G",
        *PLAIN,
        *(opened if version > 8 else []),
        *("-cp", ":".join(map(str, jars))),
        "edu.anu.spice.SpiceScorer",
    ]
