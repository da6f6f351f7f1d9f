#!/usr/bin/env python3
"""Put WordNet 3.0 where METEOR looks for it: ${PAM_CACHE:-~/.cache/pam}/nltk_data/corpora/wordnet.

The files come out of two Debian packages, downloaded with apt-get and unpacked without root:
    tools/fetch_wordnet.py                  # apt-get download
    tools/fetch_wordnet.py --from FOLDER    # the .deb files, as they are or unpacked, are there
Every file is checked against a sha256; running it again when all is there does nothing.
"""

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pam.atomic import atomic_path
from pam.data.search import find_files
from pam.errors import PamError, run_main
from pam.lock import in_turn
from pam.paths import cache_dir

PACKAGES = ("wordnet-base", "wordnet-sense-index")
SHA256 = {
    "cntlist.rev": "a198580b8f705fa02797bba8b13e5cbe4a9f9f40cb1697e774c7fc6a5865b035",
    "lexnames": "c871b6797d2109f563f7a162b64e8ebf18f6f42d00918572846034c7f393a214",
    "index.sense": "ce997000ec806318ff1dfadf77d314ac527358e127d7bbe3d1f4e83a1c5c1c2b",
    "index.adj": "c9865d7b4d1f805bdef82ccdcea5282436e23083e6f6f1b33e716327c4eda810",
    "index.adv": "6f5465ed5758fe9c8a2f7ec17b1300f3aa875756c70ff7cba162f7e71bcf88ea",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
    "index.verb": "e2ac24816c3a8289dcb72aaa9cf8db81fdf25ec34d792bfc96ac5b7a20c8b4ae",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "adj.exc": "8824cc24bbedd797b9702316b27f07cd4c2b76b629539f0a1276f03926758016",
    "adv.exc": "e7291461b629abfe63301bbe1998cee09fd575ed7107abd7ea9763adb05bf0a8",
    "noun.exc": "2b5d675c380b39ecf595af9fa9d4e7feb1d58c643b0bff08c40ed5bfe41fab7a",
    "verb.exc": "dbbcf9a601b2d77e934e413b91d90e88ec7f933a8b77cfc00602a923b891b42c",
}
# The Debian packages have no lexnames file; the manual page holds its lines.
LEXNAMES_PAGE = "lexnames.5WN.gz"
LEXNAMES_ROW = re.compile(r"^(\d\d)\t((adj|adv|noun|verb)\.\w+)", re.MULTILINE)
CATEGORY = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, help="a folder with the files")
    args = parser.parse_args(argv)
    target = cache_dir() / "nltk_data" / "corpora" / "wordnet"
    if not missing(target):
        print(f"WordNet is at {target}")
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with in_turn(cache_dir()), tempfile.TemporaryDirectory() as scratch:
        if missing(target):  # else another run has made it while this one waited
            source = args.source or download(Path(scratch))
            unpack(source, Path(scratch) / "unpacked")
            install([Path(scratch) / "unpacked", source], target)
    print(f"WordNet is at {target}")


def missing(target: Path) -> list[str]:
    """The names of the files that are not in `target` as they should be."""
    return [name for name, sha in SHA256.items() if digest(target / name) != sha]


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def download(folder: Path) -> Path:
    """Fetch the packages into `folder` with apt-get, which needs no root for this."""
    try:
        subprocess.run(
            ["apt-get", "download", *PACKAGES], cwd=folder, check=True, capture_output=True
        )
    except FileNotFoundError as error:
        raise PamError(f"apt-get is not on this machine: {by_hand()}") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode(errors="replace").strip() or "no reason given").splitlines()
        raise PamError(
            f"apt-get download {' '.join(PACKAGES)} failed ({reason[-1]}): "
            f"run apt-get update first, or {by_hand()}"
        ) from error
    return folder


def by_hand() -> str:
    return (
        f"bring {' and '.join(f'{name}_3.0*.deb' for name in PACKAGES)}, or the files "
        f"{', '.join(SHA256)} of WordNet 3.0, and run tools/fetch_wordnet.py --from FOLDER"
    )


def unpack(source: Path, target: Path) -> None:
    """Unpack the .deb files of `source`, and write the lexnames file from its manual page."""
    target.mkdir()
    for package in sorted(source.glob("wordnet-*.deb")):
        try:
            subprocess.run(["dpkg-deb", "-x", str(package), str(target)], check=True)
        except FileNotFoundError as error:
            raise PamError(
                f"{package}: dpkg-deb is not on this machine: unpack it on another one (dpkg-deb "
                f"-x {package.name} wordnet), and run tools/fetch_wordnet.py --from wordnet"
            ) from error
        except subprocess.CalledProcessError as error:
            raise PamError(f"{package}: dpkg-deb cannot unpack it: download it again") from error
    for page in [*find_files(target, LEXNAMES_PAGE), *find_files(source, LEXNAMES_PAGE)]:
        rows = LEXNAMES_ROW.findall(gzip.decompress(page.read_bytes()).decode())
        lines = [f"{number}\t{name}\t{CATEGORY[kind]}\n" for number, name, kind in rows]
        (target / "lexnames").write_text("".join(lines))


def install(sources: list[Path], target: Path) -> None:
    """Copy each file whose sha256 is right; `PamError` names the first that is not found."""
    found = [path for source in sources for path in find_files(source) if path.name in SHA256]
    by_sha = {digest(path): path for path in found}
    for name, sha in SHA256.items():
        if sha not in by_sha:
            raise PamError(f"{name} of WordNet 3.0 (sha256 {sha}) was not found: {by_hand()}")
    for name, sha in SHA256.items():
        with atomic_path(target / name) as part:
            shutil.copyfile(by_sha[sha], part)
    restrict(target)


def restrict(target: Path) -> None:
    """NLTK reads nothing that other accounts may write to."""
    for path in [*target.iterdir(), target, target.parent, target.parent.parent]:
        path.chmod(path.stat().st_mode & ~0o022)


if __name__ == "__main__":
    run_main(main)
