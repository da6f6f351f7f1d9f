#!/usr/bin/env bash
# Speaker number verification: how many people speak? Common Voice clips of one to four people in a
# row to train on, AIR-Bench's questions to test.
#
#   COMMON_VOICE=/data/cv-corpus-4-2019-12-10/en AIR_BENCH=/data/AIR-Bench-Dataset ./run.sh
#
# Alone it trains one task; egs/multitask joins it with others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../utils/path.sh
. "$PAM_ROOT/utils/cmd.sh"
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

scale=paper          # encoders, LLM and schedule: a file of conf/scale
budget=long          # length of training: a name under `budgets` of the scale
size=long            # size of the corpus: long is all items, short 3000, tiny is enough to try the stages
num_items=${SNV_NUM_ITEMS:-137041} # training items where the size is long; this is the paper's number
segments=${SNV_SEGMENTS:-0}        # clips in each item; 0: as many as people, so that the length tells them too
data_seed=${SNV_DATA_SEED:-0}      # of the draw of clips
audio=${SNV_AUDIO:-virtual}        # virtual: clips are joined when they are read; flac: items are written too
licence="CC0"
train_sets="snv_commonvoice_train"
dev_sets="snv_commonvoice_dev"
test_sets="snv_airbench snv_airbench_official"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --out "$datadir" --size "$size" \
        --common_voice "$COMMON_VOICE" --air_bench "$AIR_BENCH" --sets "${sets[@]}" --nj "$nj" \
        --num_items "$num_items" --segments "$segments" --seed "$data_seed" --audio "$audio"
}

. "$PAM_ROOT/utils/recipe.sh"
