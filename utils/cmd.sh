# shellcheck shell=bash disable=SC2034  # read by utils/recipe.sh
# What is put before a command, for a cluster: train_prefix="srun --gres=gpu:1". Empty: this machine.
dump_prefix=
train_prefix=
decode_prefix=
