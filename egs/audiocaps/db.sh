# shellcheck shell=bash disable=SC2034  # read by run.sh
# AudioCaps: train.csv, val.csv, test.csv and, anywhere below, clips named YOUTUBEID_START.wav (other
# names: README.md); or a copy of a data set of the Hugging Face hub (train-*.parquet …).
AUDIOCAPS=${AUDIOCAPS:-}
# AudioBench: the folder that holds copies of audiocaps_test and audiocaps_qa_test (parquet).
AUDIOBENCH=${AUDIOBENCH:-}
