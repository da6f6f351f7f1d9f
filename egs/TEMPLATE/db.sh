# shellcheck shell=bash disable=SC2034  # read by run.sh
# The folder that holds train.tsv, dev.tsv and test.tsv.
CORPUS=${CORPUS:-}
