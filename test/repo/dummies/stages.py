"""What stages 2 to 7 run, in one process: the dummies from audio to score.json.

python stages.py DATA WORK SCALE SYSTEM
"""

import sys
from pathlib import Path

from pam.bin import average, combine, decode, dump, score, train
from pam.config.explain import explain


def main() -> None:
    data, work, scale, system = map(Path, sys.argv[1:])
    sets = [data / f"notes_{part}" for part in ("train", "dev", "test")]
    raw, exp = work / "dump/raw", work / "exp/dummy"
    places = ["--encoder_dir", str(work / "dump")]
    dump.main(["--data", *map(str, sets), "--out", str(raw), "--scale_config", str(scale), *places])
    lists = ["--train", str(raw / "notes_train"), "--dev", str(raw / "notes_dev")]
    combine.main([*lists, "--out", str(work), "--encoders", "dummy", *places])
    configs = ["--scale_config", str(scale), "--system_config", str(system)]
    folders = ["--train", str(work / "train"), "--dev", str(work / "dev"), "--expdir", str(exp)]
    train.main([*configs, *folders])
    average.main(["--exp", str(exp), "--dev", str(work / "dev")])
    test = ["--data", str(raw / "notes_test"), "--out", str(exp / "tag")]
    decode.main(["--exp", str(exp), *test, "--max_new_tokens", "4"])
    drafted = [*test[:3], str(exp / "drafted"), "--max_new_tokens", "4", "--drafter", "dummy"]
    decode.main(["--exp", str(exp), *drafted])
    score.main(["--decode_dir", str(exp / "tag")])
    print(explain("encoders.dummy"))
    print(explain("fusion_conf.size"))


if __name__ == "__main__":
    main()
