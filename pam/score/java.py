"""Java, which three metrics of captions run in, and the tokenizer that they share."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pam.errors import UserError
from pam.score.normalize import one_line


def require_java(metric: str) -> None:
    if shutil.which("java") is None:
        raise UserError(f"{metric} needs Java: install a JRE (Debian: default-jre-headless)")


def java_version() -> int:
    """The major version: 8, 11, 17, …"""
    text = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    if not (found := re.search(r'version "(?:1\.)?(\d+)', text)):
        raise UserError(f"java -version: no version in {text.strip()!r}: repair the installation")
    return int(found[1])


def tokenize(texts: Sequence[str]) -> list[str]:
    """coco-caption's tokens, joined by spaces: Penn Treebank's, lower case, no punctuation."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = "".join(f"{one_line(text)}\n" for text in texts)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, encoding="utf-8")
    tokenized = done.stdout.split("\n")[:-1]
    if done.returncode or len(tokenized) != len(texts):
        raise UserError(f"{jar}: {len(texts)} captions in, {len(tokenized)} out: {reason(done)}")
    kept = ([w for w in line.split() if w not in ptbtokenizer.PUNCTUATIONS] for line in tokenized)
    return [" ".join(words) for words in kept]


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """The line of a program's output that names the error, else its last one."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"Exception|Error", line)]
    return (named or lines[-1:] or [f"status {done.returncode}, no output"])[0]
