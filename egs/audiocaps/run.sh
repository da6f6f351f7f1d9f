#!/usr/bin/env bash
# AudioCaps: captions of sounds from YouTube, and AudioBench's two test sets.
#
#   AUDIOCAPS=/data/audiocaps AUDIOBENCH=/data/AudioLLMs ./run.sh
#
# This recipe trains one task; egs/multitask combines it with others.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../utils/path.sh
. "$PAM_ROOT/utils/cmd.sh"
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

scale=paper          # encoders, LLM and schedule: a file of conf/scale
budget=long          # length of training: a name under `budgets` of the scale
size=long            # size of the corpus: long is all, short 3000 clips, tiny is enough to try the stages
licence="for academic use only; clips of YouTube"
train_sets="audiocaps_train"
dev_sets="audiocaps_val"
test_sets="audiocaps_test audiocaps_test_audiobench audiocaps_test_qa"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --out "$datadir" --size "$size" \
        --audiocaps "$AUDIOCAPS" --audiobench "$AUDIOBENCH" --sets "${sets[@]}"
}

. "$PAM_ROOT/utils/recipe.sh"
