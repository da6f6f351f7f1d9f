# shellcheck shell=bash disable=SC2034  # read by run.sh
# Name one of the two (README.md says how they differ; both are CC BY 4.0).
# AMI: the folder with the NXT annotations (words/, segments/, corpusResources/) and the headset
# recordings, at any depth. To fetch it: local/download.py FOLDER, or ./run.sh --download true
AMI=${AMI:-}
# AMI_PARQUET: a local copy of the Hugging Face data set edinburghcstr/ami, config ihm.
AMI_PARQUET=${AMI_PARQUET:-}
