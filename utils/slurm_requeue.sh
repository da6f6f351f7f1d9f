#!/usr/bin/env bash
# Run a recipe in a batch job of Slurm, and queue the job again when its time ends before the work:
#
#   sbatch --requeue --open-mode=append --signal=B:USR1@180 --time=8:00:00 … \
#       utils/slurm_requeue.sh egs/multitask/run.sh --stage 4
#
# Slurm sends SIGUSR1 180 s before the time limit. Training then writes a checkpoint and exits with
# 138 (SIGUSR1) or 143 (SIGTERM); for these two the job is queued again, and the same command resumes.
set -uo pipefail

(($#)) || { echo "usage: slurm_requeue.sh COMMAND...  (in a batch job; see this file)" >&2; exit 2; }
[[ -n ${SLURM_JOB_ID:-} ]] || { echo "error: SLURM_JOB_ID is not set: start this with sbatch" >&2; exit 1; }

job=""
early=""
pass_on() {
    early=$1
    [[ -z $job ]] || pkill "-$1" --parent "$job" --full utils/run.py || kill "-$1" "$job"
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
"$@" &
job=$!
[[ -z $early ]] || pass_on "$early" # it came before the command had started
status=0
wait "$job" || status=$?
while kill -0 "$job" 2>/dev/null; do # a signal ended only the waiting
    status=0
    wait "$job" || status=$?
done
if ((status == 138 || status == 143)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
