# shellcheck shell=bash disable=SC2034,SC2154  # options; what is set here is read by recipe.sh
# What the stages are written with; sourced by utils/recipe.sh and utils/table.sh.

log() {
    echo "$(date '+%Y-%m-%d %H:%M:%S') (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}) $*"
}

die() {
    echo "error: $*" >&2
    exit 1
}

# What `resolve_options` sets:
exp='' decoded='' combined=''                  # exp/NAME, exp/NAME/TAG, the joined sets
scale_config='' system_config='' llm_config='' # files of conf/
encoders=() models=()                          # of the scale: dumped; to be fetched
sets=() tested=() limited=()                   # all; those of test_sets; those of no test set
train=() dev=() test=()                        # folders of dumped sets
made_with=()                                   # NAME=VALUE: what the data depend on
wanted=()                                      # corpora that have sets of these

# Check the options, and see what they come to (pam/bin/recipe.py).
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

# pending VERB OPTION...: has a verb something to do? It says what is complete, and ends the run
# where a folder was made with other settings. Nothing is queued, and torch is not imported.
pending() {
    local status=0
    "$python" -m "pam.bin.$1" "${@:2}" --pending || status=$?
    ((status == 0 || status == 10)) || exit "$status"
    ((status == 10))
}

# run VERB LOG PREFIX OPTION...: let a verb do what is pending, and set `worked`; PREFIX is one of
# cmd.sh. Several jobs: `jobs` has the options of utils/run.py.
run() {
    local verb=$1 log=$2 prefix=$3
    shift 3
    worked=false
    pending "$verb" "$@" || return 0
    worked=true
    # shellcheck disable=SC2086  # a prefix is a command with its arguments
    launch "${jobs[@]}" "$log" $prefix "$python" -m "pam.bin.$verb" "$@"
}

in_each_corpus() { # in_each_corpus STAGE: the corpora's own recipes do it, into this one's dumpdir
    local corpus list lists
    for corpus in "${wanted[@]}"; do
        lists=()
        for list in train_sets dev_sets test_sets; do
            local asked=${corpus}_$list
            lists+=("--$list" "${!asked}")
        done
        launch - "../$corpus/run.sh" --stage "$1" --stop_stage "$1" --nj "$nj" --size "$size" \
            --datadir "$datadir" --dumpdir "$(realpath -m "$dumpdir")" --python "$python" \
            --scale "$scale" --llm "$llm" --feats "$feats" --max_bad "$max_bad" \
            --min_seconds "$min_seconds" --max_seconds "$max_seconds" \
            --ngpu "$ngpu" --metrics "$metrics" "${lists[@]}"
    done
}

run_stages() { # those that are asked for; however it ends, the stage that failed is named
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
    (($1 == 0)) || echo "error: stage $current (${stage_names[$current]}) of $0 failed;" \
        "the same command resumes when it is mended" >&2
}
