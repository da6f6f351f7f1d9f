#!/usr/bin/env bash
# TEMPLATE: say here what the corpus is and which task it teaches.
#
#   CORPUS=/data/TEMPLATE ./run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./path.sh
. ./cmd.sh
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

task=asr_clean       # of all its utterances: a name of pam/data/tasks.py
train_sets="TEMPLATE_train"
dev_sets="TEMPLATE_dev"
test_sets="TEMPLATE_test"

. "$PAM_ROOT/utils/parse_options.sh"

prepare() { # stage 1: this corpus' own preparation
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --corpus "$CORPUS" \
        --name TEMPLATE --task "$task" --out "$datadir" --size "$size"
}

. "$PAM_ROOT/utils/recipe.sh"
