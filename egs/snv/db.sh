# shellcheck shell=bash disable=SC2034  # read by run.sh
# Common Voice version 4, English: the folder that holds train.tsv, dev.tsv and clips/.
COMMON_VOICE=${COMMON_VOICE:-}
# AIR-Bench: the folder that holds Foundation/Foundation_meta.json.
AIR_BENCH=${AIR_BENCH:-}
