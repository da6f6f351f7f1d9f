# shellcheck shell=bash disable=SC2034  # read by run.sh
# The folder that holds train-clean-100, dev-clean, …: the parts of https://www.openslr.org/12.
LIBRISPEECH=${LIBRISPEECH:-}
