#!/usr/bin/env bash
# One Speech LLM for all tasks: trains on the corpora that it joins, decodes and scores each test set.
#
#   ./run.sh --stage 1                                                everything, on the mini corpora
#   ./run.sh --config conf/paper.conf --ngpu 8                        the paper's corpora and models
#
# A corpus is a folder of egs/: to add one to the mixture, add its name to `corpora`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./path.sh
. ./cmd.sh
. ./db.sh
. "$PAM_ROOT/utils/options.sh"

corpora=mini         # corpora under egs/ whose sets are joined

. "$PAM_ROOT/utils/parse_options.sh"
. "$PAM_ROOT/utils/recipe.sh"
