# shellcheck shell=bash disable=SC2154  # options of the recipe
# Makes a table of the paper (conf/tables). It trains and scores each system whose result is missing
# in --results and (--published) RESULTS, with the stages of utils/recipe.sh, and writes the table again after each
# system, into --results. run.sh sources it instead of recipe.sh if --table is given. The same
# command resumes.

. "$PAM_ROOT/utils/functions.sh"

paper_table() { # paper_table OPTION...
    local folders=("$results")
    [[ $published == false ]] || folders+=(RESULTS)
    "$python" -m pam.bin.table --table "$table" --scale "$scale" --budget "$budget" \
        --results "${folders[@]}" --seeds "${listed_seeds[@]}" --metrics "$metrics" --expdir "$expdir" "$@"
}

running=() names=() # process ids and names of experiments, by their place, a number below --at_once
gpus=()             # of each place, where systems that are trained at the same time share this machine
failures=()         # names of experiments that failed

# divide_gpus: give each place --ngpu GPUs of those that may be seen. A queue does it itself.
divide_gpus() {
    [[ $ngpu != 0 && $at_once != 1 && $train_cmd == run.py* ]] || return 0
    local place seen all names
    seen=$("$python" -c 'from pam.device import gpus_seen; print(gpus_seen())')
    ((seen >= at_once * ngpu)) ||
        die "--at_once $at_once --ngpu $ngpu: $((at_once * ngpu)) GPUs are needed, and $seen can be seen"
    names=${CUDA_VISIBLE_DEVICES-$(seq -s, 0 "$((seen - 1))")}
    IFS=, read -ra all <<<"$names"
    for ((place = 0; place < at_once; place++)); do
        gpus[place]=$(IFS=, && echo "${all[*]:place * ngpu:ngpu}")
    done
}

# experiment NAME SYSTEM SEED ANALYSE [TRAIN_ARG...]: a line of what `pam.bin.table --plan` prints
experiment() {
    # shellcheck disable=SC2034  # the options of `stages`
    local expname=$1 system=$2 seed=$3 analyse=$4 train_args="$train_args ${*:5}"
    leave_running "$((at_once - 1))"
    local place=0
    while [[ -n ${running[place]-} ]]; do
        ((++place))
    done
    log "table $table: $1"
    as="exec ${gpus[place]:+env CUDA_VISIBLE_DEVICES=${gpus[place]}}" stages 4 8 &
    running[place]=$! names[place]=$1
}

# leave_running COUNT: wait until only so many experiments run; write the table again after each
leave_running() {
    local place pid
    while ((${#running[@]} > $1)); do
        sleep 0.5
        for place in "${!running[@]}"; do
            pid=${running[place]}
            if kill -0 "$pid" 2>/dev/null; then
                continue
            fi
            unset "running[place]"
            if wait "$pid"; then # `wait -n` would miss those that ended before it
                paper_table
            else
                failed_with $? "${names[place]}"
            fi
        done
    done
}

# failed_with STATUS NAME: note a failure, since the others go on: a table may take days. If a signal asked the
# training to stop, such as that of a time limit, all stop as it did.
failed_with() {
    if (($1 == 138 || $1 == 143)); then
        kill -"$(($1 - 128))" "${running[@]}" 2>/dev/null || true
        wait
        exit "$1"
    fi
    failures+=("$2")
}

(resolve_options) # checks them, and installs Python
[[ $at_once =~ ^[1-9][0-9]*$ ]] || die "--at_once $at_once: expected the number of systems that run at the same time"
[[ -n $results ]] || die "--table $table: --results is empty, but tables are made from the results there: set it"
read -ra listed_seeds <<<"${seeds:-$seed}"
if [[ $dry_run == true ]]; then
    paper_table --dry_run --train_args="$train_args"
    exit 0
fi
plan=$(paper_table --plan)
if [[ -z $plan ]]; then
    paper_table
else
    divide_gpus
    stages 1 3
    if ((at_once > 1)); then # each experiment has its share of the cores
        train_nj=${train_nj:-1} inference_nj=${inference_nj:-1}
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    fi
    eval "$plan"
    leave_running 0
    if ((${#failures[@]})); then
        die "--table $table: failed (see above): ${failures[*]}: the same command tries again"
    fi
fi
