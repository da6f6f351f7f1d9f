#!/usr/bin/env bash
# Four tasks on real audio from package archives, small enough for two cores:
# speech recognition, clean and noisy; counting speakers; captions of sounds.
#
#   ./run.sh                       all stages
#   ./run.sh --stage 4 --seed 1    another experiment on the same dump
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../utils/path.sh
. "$PAM_ROOT/utils/cmd.sh"
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

licence="by source, some not to be sold, some GPL: egs/mini/README.md"
train_sets="asr_clean_train asr_noisy_train snv_train ac_train"
dev_sets="asr_clean_dev asr_noisy_dev snv_dev ac_dev"
test_sets="asr_clean_test asr_clean_test_long asr_clean_test_other asr_noisy_test snv_test snv_test_real ac_test ac_test_unseen"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --out "$datadir" --size "$size" --nj "$nj"
}

. "$PAM_ROOT/utils/recipe.sh"
