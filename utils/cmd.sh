# shellcheck shell=bash disable=SC2034  # read by utils/recipe.sh
# Prefixes of commands, for a cluster: train_prefix="srun --gres=gpu:1". Empty: run on this machine.
dump_prefix=
train_prefix=
decode_prefix=
