# shellcheck shell=bash disable=SC2034  # read by run.sh
# The folder that holds LibriSpeech/, or the parts themselves: train-clean-100, dev-clean, …
# To fetch them (CC BY 4.0): local/download.py FOLDER, or ./run.sh --download true
LIBRISPEECH=${LIBRISPEECH:-}
