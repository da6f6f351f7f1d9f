#!/usr/bin/env bash
# TEMPLATE: describe the corpus and its task here.
#
#   CORPUS=/data/TEMPLATE ./run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../utils/path.sh
. "$PAM_ROOT/utils/cmd.sh"
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

task=asr_clean       # task of all utterances: a name of pam/data/tasks.py
licence=             # of your corpus, for the card of an exported model, such as "CC BY 4.0"
train_sets="TEMPLATE_train"
dev_sets="TEMPLATE_dev"
test_sets="TEMPLATE_test"

. "$PAM_ROOT/utils/parse_options.sh"

sources() { # files that stage 1 reads: if one changes, it prepares the corpus again
    files=(local/*.py "$CORPUS"/*.tsv)
}

prepare() { # stage 1: this corpus' own preparation
    [[ -n $CORPUS ]] || die "CORPUS is not set: name the folder of the corpus in egs/TEMPLATE/db.sh," \
        "or as in: CORPUS=/data/TEMPLATE egs/TEMPLATE/run.sh"
    [[ -d $CORPUS ]] || die "$(realpath -ms "$CORPUS"): no such folder: correct CORPUS"
    launch "$datadir/log/prepare.log" "$python" local/prepare.py --corpus "$(realpath -s "$CORPUS")" \
        --name TEMPLATE --task "$task" --out "$datadir" --size "$size"
}

. "$PAM_ROOT/utils/recipe.sh"
