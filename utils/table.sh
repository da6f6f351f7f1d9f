# shellcheck shell=bash disable=SC2030,SC2031,SC2034,SC2154  # variables of the recipe, in subshells
# Makes a table of the paper (conf/tables). It trains and scores each system whose result is missing
# in --results and RESULTS, with the stages of utils/recipe.sh, and writes the table again after each
# system, into --results. run.sh sources it instead of recipe.sh if --table is given. The same
# command resumes.

. "$PAM_ROOT/utils/functions.sh"

paper_table() { # paper_table OPTION...
    # shellcheck disable=SC2086  # seeds are a list
    "$python" -m pam.bin.table --table "$table" --scale "$scale" --budget "$budget" \
        --results "$results" RESULTS --seeds ${seeds:-$seed} --metrics "$metrics" --expdir "$expdir" "$@"
}

# experiment NAME SYSTEM SEED ANALYSE [TRAIN_ARG...]: a line of what `pam.bin.table --plan` prints
experiment() {
    if ((at_once == 1)); then
        make_row "$@"
        return
    fi
    while (($(jobs -pr | wc -l) >= at_once)); do
        wait -n || stopped=true
    done
    if ! $stopped; then
        make_row "$@" &
    fi
}

make_row() {
    log "table $table: $1"
    (
        expname=$1 system=$2 seed=$3 analyse=$4 train_args="$train_args ${*:5}"
        stages 4 8
    )
    (
        flock 9 # one table at a time, so that the last one has all results
        paper_table
    ) 9>"$results/.lock"
}

[[ $at_once =~ ^[1-9][0-9]*$ ]] || die "--at_once $at_once: expected the number of systems that run at the same time"
[[ -n $results ]] || die "--table $table: --results is empty, but tables are made from the results there: set it"
[[ $prompts == unseen && -z $inference_tag ]] ||
    die "--table $table: tables use decoding with unseen prompts: leave out --prompts and --inference_tag"
(stages 1 0) # runs nothing: options are checked, Python is installed
if $dry_run; then
    paper_table --dry_run
    exit 0
fi
plan=$(paper_table --plan)
if [[ -z $plan ]]; then
    paper_table
else
    (stages 1 3)
    stopped=false
    if ((at_once > 1)); then # each experiment has its share of the cores
        train_nj=${train_nj:-1} inference_nj=${inference_nj:-1}
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    fi
    eval "$plan"
    while [[ -n $(jobs -p) ]]; do
        wait -n || stopped=true
    done
    if $stopped; then
        die "--table $table: an experiment failed (see above): the same command goes on"
    fi
fi
