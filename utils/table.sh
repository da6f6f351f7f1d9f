# shellcheck shell=bash disable=SC2030,SC2031,SC2154  # variables of the recipe, set in subshells
# Makes a table of the paper (conf/tables): trains and scores what --results and RESULTS lack of it,
# each system through the stages of utils/recipe.sh, and writes the table anew after each, beside
# --results. Sourced by run.sh in their place where --table is given; the same command resumes.

. "$PAM_ROOT/utils/functions.sh"

paper_table() { # paper_table OPTION...
    # shellcheck disable=SC2086  # seeds are a list
    "$python" -m pam.bin.table --table "$table" --scale "$scale" --budget "$budget" \
        --results "$results" RESULTS --seeds ${seeds:-$seed} --metrics "$metrics" --expdir "$expdir" "$@"
}

stages() { # stages FIRST LAST, with the options that are set now
    stage=$1 stop_stage=$2
    unmeasured=shown                # a table names what a metric lacks
    table='' seeds='' dry_run=false # what an experiment is made with does not depend on who asks
    . "$PAM_ROOT/utils/recipe.sh"
}

[[ -n $results ]] || die "--table $table: --results is empty, and a table is made of what is kept there"
[[ $prompts == unseen && -z $inference_tag ]] ||
    die "--table $table: tables show what is decoded with unseen prompts: leave out --prompts and --inference_tag"
[[ $dry_run == true || $dry_run == false ]] || die "--dry_run $dry_run: choose from true false"
(stages 1 0) # runs nothing: options are checked, Python is installed
if $dry_run; then
    paper_table --dry_run
    exit 0
fi
plan=$(paper_table --plan)
runs=()
[[ -z $plan ]] || mapfile -t runs <<<"$plan"
((${#runs[@]} == 0)) || (stages 1 3)
for run in "${runs[@]}"; do
    read -r name wanted number looked_into more <<<"$run"
    log "table $table: $name"
    (
        expname=$name system=$wanted seed=$number train_args="$train_args${more:+ $more}"
        analyse=$looked_into
        stages 4 8
    )
    paper_table
done
((${#runs[@]} > 0)) || paper_table
