#!/usr/bin/env bash
# One Speech LLM for all tasks: combines corpora, trains on them, decodes and scores each test set.
#
#   ./run.sh --stage 1                                                all stages, on the mini corpora
#   ./run.sh --config conf/paper.conf --ngpu 8                        the paper's corpora and models
#   ./run.sh --table 1                                                a table of the paper
#   ./run.sh --table early_exit                                       the page of the second paper
#
# A corpus is a folder of egs/: to add one to the mixture, add its name to `corpora`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../../utils/path.sh
. "$PAM_ROOT/utils/cmd.sh"
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

corpora=mini         # corpora under egs/ whose sets are combined
results=exp/results  # folder for a small result of each experiment, for tables; empty: none
table=               # table of the paper to make, such as 1, 13, figure3, beyond, all (conf/tables), or early_exit
seeds=               # with --table: seeds of its systems, such as "0 1"; empty: --seed
at_once=1            # with --table: systems that are trained and scored at the same time, each by one thread, or on --ngpu GPUs of its own
published=true       # with --table: whether published results (RESULTS) count; false: only your own (--results)
dry_run=false        # with --table: true only prints what is missing, and how long it will take

. "$PAM_ROOT/utils/parse_options.sh"
if [[ $table == early_exit ]]; then
    . "$PAM_ROOT/utils/early_exit.sh"
elif [[ -n $table ]]; then
    . "$PAM_ROOT/utils/table.sh"
else
    . "$PAM_ROOT/utils/recipe.sh"
fi
