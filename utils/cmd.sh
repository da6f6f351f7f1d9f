# shellcheck shell=bash disable=SC2034  # read by utils/functions.sh
# How the stages dump, train and decode. The default is this machine.
#
# *_cmd: the launcher, with its options. Through Slurm's queue, each stage as a batch job (options:
# conf/slurm.conf), for --ngpu 8 --num_nodes 2:
#   dump_cmd="slurm.py --gpu 8 --num_threads 32"
#   train_cmd="slurm.py --gpu 8 --num_nodes 2 --num_threads 32 --time 2-00:00:00"
#   decode_cmd="slurm.py --gpu 1"
dump_cmd=run.py
train_cmd=run.py
decode_cmd=run.py
# *_prefix: what is put before the command, in an allocation that you have already:
#   train_prefix="srun --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=32 --kill-on-bad-exit=1"
dump_prefix=
train_prefix=
decode_prefix=
