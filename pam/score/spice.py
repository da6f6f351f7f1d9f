"""SPICE (Anderson et al. 2016), by pycocoevalcap's jar; it parses with jars that are fetched by
hand."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pam.errors import UserError
from pam.paths import cache_dir
from pam.score.coco import tokenized
from pam.score.items import Item
from pam.score.java import java_version, reason, require_java
from pam.score.utterances import Statistics

JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
ARCHIVE = "nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
# CoreNLP and FST look into these packages, which Java 9 and later keep closed.
OPENED = ("lang", "math", "util", "util.concurrent", "net", "text")
LAST_WITH_JAVASCRIPT = 14  # the jar writes its result with a JavaScript engine


def measure(items: Sequence[Item], sbert: str = "") -> tuple[Statistics, dict[str, Any]]:
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
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode or not answered.is_file():
            raise UserError(f"SPICE: its jar failed: {reason(done)}")
        answers = json.loads(answered.read_text(encoding="utf-8"))
    points = {answer["image_id"]: answer["scores"]["All"]["f"] for answer in answers}
    return Statistics([float(points[number]) for number in hypotheses]), {}


def java_command() -> list[str]:
    """The start of SPICE's command line; `UserError` names what must be put where."""
    folder = cache_dir() / "spice"
    if missing := [jar for jar in JARS if not (folder / jar).is_file()]:
        raise UserError(
            f"SPICE needs {' and '.join(JARS)} in {folder} (missing: {', '.join(missing)}): "
            f"take both out of {ARCHIVE}"
        )
    version = java_version()
    if version > LAST_WITH_JAVASCRIPT and not list(folder.glob("nashorn-core-*.jar")):
        raise UserError(
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
        "-Dfile.encoding=UTF-8",
        *(opened if version > 8 else []),
        *("-cp", ":".join(map(str, jars))),
        "edu.anu.spice.SpiceScorer",
    ]
