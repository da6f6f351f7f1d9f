#!/usr/bin/env python3
"""Make the data directories of speaker number verification (see ../README.md).

    python local/prepare.py --common_voice DIR --air_bench DIR --out data [--size tiny|short|long]

The same options on the same corpus give the same items on every machine: the sha256 of each set,
which knows no folders of this machine, is printed and kept in data/SET/manifest.json.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # pam, installed or not

from snv_airbench import official_set, open_set, read_questions  # noqa: E402
from snv_commonvoice import read_speakers  # noqa: E402
from snv_items import draw_items, write_items  # noqa: E402

from pam.data.corpus import corpus_folder, even_sample, list_left_out  # noqa: E402
from pam.errors import PamError, run_main  # noqa: E402
from pam.log import get_logger  # noqa: E402

# Items of the training, validation and test sets; None: --num_items, or all that there are.
SIZES = {"tiny": (40, 8, 8), "short": (3000, 200, 200), "long": (None, 1000, None)}
COMMON_VOICE_SETS = {"snv_commonvoice_train": "train", "snv_commonvoice_dev": "dev"}
AIR_BENCH_SETS = {"snv_airbench": open_set, "snv_airbench_official": official_set}
logger = get_logger("prepare")


def make_common_voice(args: argparse.Namespace, name: str) -> None:
    what = "the folder with train.tsv and clips/ of Common Voice (CC0)"
    corpus = corpus_folder(args.common_voice, "COMMON_VOICE", what, "snv")
    part = COMMON_VOICE_SETS[name]
    train, dev, _ = SIZES[args.size]
    count = (train or args.num_items) if part == "train" else dev
    speakers = read_speakers(corpus, part)
    items = draw_items(speakers, name, count, args.segments, args.seed)
    written = write_items(args.out, name, items, corpus / "clips", args.audio == "flac", args.nj)
    logger.info("%s: %d items, sha256 %s", name, len(items), written)


def make_air_bench(args: argparse.Namespace, name: str) -> None:
    what = "the folder with Foundation/Foundation_meta.json of AIR-Bench"
    questions, faults = read_questions(corpus_folder(args.air_bench, "AIR_BENCH", what, "snv"))
    list_left_out(args.out / name, faults)
    chosen = even_sample(questions, SIZES[args.size][2])
    AIR_BENCH_SETS[name](chosen, name).write(args.out / name)
    logger.info("%s: %d of %d items", name, len(chosen), len(questions))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--common_voice", default="", help="folder of train.tsv, dev.tsv, clips/")
    parser.add_argument("--air_bench", default="", help="folder of Foundation/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data directories")
    parser.add_argument("--sets", nargs="+", default=[*COMMON_VOICE_SETS, *AIR_BENCH_SETS])
    parser.add_argument("--size", choices=SIZES, default="long")
    parser.add_argument("--num_items", type=int, default=137041, help="training items of long")
    parser.add_argument("--segments", type=int, default=0, help="clips an item; 0: one a person")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audio", choices=("virtual", "flac"), default="virtual")
    parser.add_argument("--nj", type=int, default=1, help="processes that write FLAC")
    args = parser.parse_args(argv)
    for name in args.sets:
        if name in COMMON_VOICE_SETS:
            make_common_voice(args, name)
        elif name in AIR_BENCH_SETS:
            make_air_bench(args, name)
        else:
            known = ", ".join([*COMMON_VOICE_SETS, *AIR_BENCH_SETS])
            raise PamError(f"--sets {name}: this recipe makes {known}")


if __name__ == "__main__":
    run_main(main)
