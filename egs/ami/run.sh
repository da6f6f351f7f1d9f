#!/usr/bin/env bash
# AMI meetings, individual headset microphones: the paper's noisy recognition task.
#
#   AMI=/data/ami ./run.sh                        the folder has annotations and recordings
#   AMI=/data/ami ./run.sh --download true        fetch missing files first
#   AMI_PARQUET=/data/hf/ami ./run.sh             a copy of the Hugging Face data set
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
download=false       # true: fetch annotations and the sets' recordings (687 in all) into $AMI before stage 1
licence="CC BY 4.0"
train_sets="ami_train"
dev_sets="ami_dev"
test_sets="ami_test"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    [[ $download == false ]] || launch - "$python" local/download.py "$AMI" --sets "${sets[@]}"
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --corpus "$AMI" \
        --parquet "$AMI_PARQUET" --out "$datadir" --size "$size" --sets "${sets[@]}"
}

. "$PAM_ROOT/utils/recipe.sh"
