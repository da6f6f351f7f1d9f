# shellcheck shell=bash disable=SC2034,SC2154  # options; what is set here is read by recipe.sh
# Functions of the stages; sourced by recipe.sh, table.sh and early_exit.sh.

log() {
    echo "$(date '+%Y-%m-%d %H:%M:%S') (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}) $*"
}

die() {
    echo "error: $*" >&2
    exit 1
}

# Variables that `resolve_options` sets:
exp='' decoded='' combined=''                  # exp/NAME, exp/NAME/TAG, the combined sets
scale_config='' system_config='' llm_config='' # files of conf/
llm_path=''                                    # of the LLM: a folder, a name, or cache:NAME
encoders=() models=()                          # of the scale: to dump; to fetch
sets=() tested=() limited=()                   # all sets; test sets; the others
train=() dev=() test=()                        # folders of dumped sets
made_with=()                                   # NAME=VALUE: settings of the data
wanted=() unnamed=()                           # corpora of these sets; those without a folder

jobs=() # options of the launcher: see `start`

# Check and resolve the options (pam/bin/recipe.py).
resolve_options() {
    [[ -n $train_sets$dev_sets$test_sets$corpora ]] || die "$0: set train_sets, or corpora to take sets from"
    [[ $python != */* ]] || python=$(realpath -s "$python")
    [[ $python != python3 ]] || "$PAM_ROOT/tools/install.sh"
    local name assigned options=()
    for name in $(_option_names "${_option_files[@]}"); do
        options+=("$name=${!name}")
    done
    assigned=$("$python" -m pam.bin.recipe "${options[@]}") || exit 1
    eval "$assigned"
}

# launch LOG COMMAND... | launch [--parallel N] JOB=a,b LOG COMMAND...: see utils/run.py
launch() {
    python3 "$PAM_ROOT/utils/run.py" "$@"
}

# pending PROGRAM OPTION...: succeeds if pam.bin.PROGRAM has work to do, and prints what is complete.
# It ends the run if a folder was made with other settings. It starts no job and imports no torch.
pending() {
    local status=0
    "$python" -m "pam.bin.$1" "${@:2}" --pending || status=$?
    ((status == 0 || status == 10)) || exit "$status"
    ((status == 10))
}

# start PROGRAM LOG KIND OPTION...: run pam.bin.PROGRAM. KIND (dump, train, decode; here: this machine)
# chooses launcher and prefix of cmd.sh. For several jobs, `jobs` has the options of the launcher.
start() {
    local cmd=$3_cmd prefix=$3_prefix
    # shellcheck disable=SC2086  # both are a command with its arguments
    python3 "$PAM_ROOT/utils/"${!cmd:-run.py} "${jobs[@]}" "$2" ${!prefix-} \
        "$python" -m "pam.bin.$1" "${@:4}"
}

# run PROGRAM LOG KIND OPTION...: as `start`, if the program has work to do; sets `worked`
run() {
    worked=false
    pending "$1" "${@:4}" || return 0
    worked=true
    start "$@"
}

# stages FIRST LAST: a run of these stages of the recipe, with the options that are set now. It ends if this
# shell ends; so `as=exec stages FIRST LAST &` leaves no shell between. A table names what a metric lacks.
stages() {
    local table='' seeds='' at_once=1 published=true dry_run=false stage=$1 stop_stage=$2
    local name options=()
    for name in $(_option_names "${_option_files[@]}"); do
        options+=("--$name=${!name}")
    done
    ${as-} env unmeasured=shown python3 "$PAM_ROOT/utils/run.py" - "$_recipe" "${options[@]}"
}

in_each_corpus() { # in_each_corpus STAGE: run the stage of each corpus' own recipe, with this dumpdir
    (($1 != 1 || ${#unnamed[@]} == 0)) ||
        die "no folder of ${unnamed[*]}: name it in db.sh of egs/${unnamed[0]}, or leave the corpus out of --corpora"
    local corpus list lists
    for corpus in "${wanted[@]}"; do
        lists=()
        for list in train_sets dev_sets test_sets; do
            local asked=${corpus}_$list
            lists+=("--$list" "${!asked}")
        done
        launch - "../$corpus/run.sh" --stage "$1" --stop_stage "$1" --nj "$nj" --size "$size" \
            --datadir "$datadir" --dumpdir "$(realpath -m "$dumpdir")" --python "$python" \
            --scale "$scale" --budget "$budget" --llm "$llm" --feats "$feats" --max_bad "$max_bad" \
            --min_seconds "$min_seconds" --max_seconds "$max_seconds" \
            --ngpu "$ngpu" --metrics "$metrics" "${lists[@]}"
    done
}

run_stages() { # run the requested stages; an error names the stage
    local number name
    trap 'failed $?' EXIT
    for number in "${!stage_names[@]}"; do
        if ((number >= stage && number <= stop_stage)) && [[ " $skip_stages " != *" $number "* ]]; then
            current=$number started=$SECONDS jobs=() name=${stage_names[$number]}
            log "stage $number: $name → ${stage_places[$number]}"
            "stage_$number"
            log "stage $number: $name took $((SECONDS - started)) s"
        fi
    done
    trap - EXIT
}

failed() {
    if (($1 == 138 || $1 == 143)); then
        echo "stage $current (${stage_names[$current]}) was stopped by a signal;" \
            "the same command resumes" >&2
        return
    fi
    (($1 == 0)) || echo "error: stage $current (${stage_names[$current]}) of $0 failed;" \
        "the same command resumes once the error is corrected" >&2
}
