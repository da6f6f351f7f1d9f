#!/usr/bin/env bash
# LibriSpeech, 100 hours: read speech, the paper's clean recognition task.
#
#   LIBRISPEECH=/data/LibriSpeech ./run.sh                 the folder has the corpus
#   LIBRISPEECH=/data ./run.sh --download true             fetch missing parts first
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
size=long            # size of the corpus: long is all, short 3000 utterances, tiny is enough to try the stages
download=false       # true: fetch the parts that are missing, 7.7 GB, before stage 1
licence="CC BY 4.0"
train_sets="librispeech_train_clean_100"
dev_sets="librispeech_dev_clean librispeech_dev_other"
test_sets="librispeech_test_clean librispeech_test_other"
# shellcheck disable=SC2034  # pam/bin/recipe.py reads it
more_sets="librispeech_train_clean_360 librispeech_train_other_500"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    local parts=("${sets[@]#librispeech_}")
    parts=("${parts[@]//_/-}")
    [[ $download == false ]] || launch - "$python" local/download.py "$LIBRISPEECH" "${parts[@]}"
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --corpus "$LIBRISPEECH" \
        --out "$datadir" --size "$size" --parts "${parts[@]}"
}

. "$PAM_ROOT/utils/recipe.sh"
