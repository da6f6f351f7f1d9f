# shellcheck shell=bash disable=SC2154  # options of the recipe
# Makes the page of early exit (pam/exits): trains the system without and with joint optimisation, a
# gate on each, measures both, and writes RESULTS/early_exit and EARLY_EXIT.md into --results. The
# same command resumes. run.sh sources it instead of recipe.sh if --table is early_exit.

. "$PAM_ROOT/utils/functions.sh"

joint_args="--set model_conf.exits.share=0.5 --set model_conf.exits.per_batch=4"
gate_args="--set phases.llm.optim_conf.lr=5e-3 --set model_conf.exits.per_batch=8"

refuse_options() {
    [[ -n $results ]] || die "--table early_exit: --results is empty, but the page is made from the results there: set it"
    [[ -z $seeds && $at_once == 1 && $published == true && $dry_run == false ]] ||
        die "--table early_exit: --seeds, --at_once, --published and --dry_run are of other tables: leave them out"
}

# trained NAME LAST [ARG...]: train an experiment, and go on to stage LAST
trained() {
    log "early exit: $1"
    # shellcheck disable=SC2034  # the options of `stages`
    local expname=$1 train_args="$train_args ${*:3}"
    stages 4 "$2"
}

# joint NAME: train NAME-joint with joint optimisation. It starts from the CTC warm-up of NAME, which is
# the same: the losses of the inner layers are not of that phase.
joint() {
    trained "$1-joint" 8 --warm_from "$expdir/$1" "$joint_args" # of python -m pam.bin.train
}

# gate NAME: train a gate, and nothing else, on a trained experiment: NAME-gate
gate() {
    local start=$expdir/$1-no_gate # what python -m pam.bin.train --init starts from
    [[ -f $start/config.yaml ]] || "$python" -m pam.bin.extend --exp "$expdir/$1" --out "$start" --add_exit_gate 1
    trained "$1-gate" 5 --init "$start" "$gate_args"
}

# measured NAME OPTION...: the results of pam.bin.exit_analysis on the test sets
measured() {
    start exit_analysis "$expdir/early_exit_$1.log" decode --name "$1" \
        --results "$results/early_exit" --ngpu "$((ngpu > 0))" "${@:2}"
}

(resolve_options) # checks them, and installs Python
refuse_options
stages 1 8
resolve_options
main=${exp##*/}
joint "$main"
for name in "$main" "$main-joint"; do
    gate "$name"
done
measured without_joint --exp "$exp-gate" --data "${test[@]}" --train "$combined/train"
measured with_joint --exp "$exp-joint-gate" --data "${test[@]}" --train "$combined/train"
measured own_answers --exp "$exp-gate" --data "${test[@]}" --train "$combined/train" \
    --answers "$decoded" --out "$exp-gate/exits_own"
text=$expdir/early_exit_text.txt
cut -d' ' -f2- "${test[0]}/text" >"$text"
measured plain_text --llm "$llm_path" --text "$text" --out "$expdir/early_exit_text"
log "early exit: $results/EARLY_EXIT.md"
"$python" -m pam.bin.exit_analysis --page "$results/EARLY_EXIT.md" --results "$results/early_exit"
