# shellcheck shell=bash disable=SC2154  # the variables are those of utils/options.sh
# The stages of every recipe; sourced by run.sh after its variables are set and the options read.
#
#   1 data → 2 dump → 3 combine → 4 train → 5 average → 6 decode → 7 score → 8 report
#
# Each stage skips what exists and is complete, so the same command resumes. What a result was
# made with is written beside it (.settings); asking for the same name with other settings is an
# error, never a silent reuse. All checks are in shell: importing torch takes seconds.

. "$PAM_ROOT/utils/functions.sh"

# --- what the options come to ---------------------------------------------------------------------

[[ $python != */* ]] || python=$(realpath -s "$python")
[[ -n $expname ]] || expname=${system}_${scale}${llm:+_$llm}_${budget}_s${seed}
[[ -n $inference_tag ]] || inference_tag=greedy_$prompts
exp=$expdir/$expname
decoded=$exp/$inference_tag
scale_config=$PAM_ROOT/conf/scale/$scale.yaml
system_config=$PAM_ROOT/conf/systems/$system.yaml
llm_config=${llm:+$PAM_ROOT/conf/llm/$llm.yaml}

# shellcheck disable=SC2046  # names without spaces
check_options() {
    check_choice scale "$scale" $(choices_in "$PAM_ROOT/conf/scale")
    check_choice system "$system" $(choices_in "$PAM_ROOT/conf/systems")
    [[ -z $llm ]] || check_choice llm "$llm" $(choices_in "$PAM_ROOT/conf/llm")
    [[ -n $feats ]] || feats=$(sed -n 's/^feats: *\([a-z]*\).*/\1/p' "$scale_config")
    check_choice feats "$feats" dumped online
    check_choice budget "$budget" $(in_scale budgets)
    check_choice prompts "$prompts" unseen plain seen train
    check_choice size "$size" tiny short long
    check_choice html "$html" true false
    check_choice analyse "$analyse" true false
    local option
    for option in ${metrics//,/ }; do
        check_choice metrics "$option" meteor meteor_1.5 cider spice sbert fense
    done
    for option in stage stop_stage nj inference_nj ngpu seed; do
        [[ ${!option} =~ ^[0-9]+$ ]] || die "--$option ${!option}: expected a whole number"
    done
    [[ $max_bad =~ ^[0-9.]+%?$ ]] || die "--max_bad $max_bad: expected a share like 0.5%"
    for option in min_seconds max_seconds; do
        [[ ${!option} =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)?$ ]] ||
            die "--$option ${!option}: expected seconds, as in 20 or 0.5, or nothing"
    done
    awk -v "least=${min_seconds:-0}" -v "most=${max_seconds:-1e9}" 'BEGIN { exit !(least < most) }' ||
        die "--min_seconds ${min_seconds:-0} --max_seconds $max_seconds: the second must be larger"
    [[ -n $train_sets$dev_sets$test_sets$corpora ]] ||
        die "$0: set train_sets, or corpora to take sets from"
}

# The lists of a recipe that joins corpora are those of its corpora, unless they are given.
join_corpora() {
    local corpus list joined
    for corpus in $corpora; do
        [[ -x ../$corpus/run.sh ]] || die "--corpora: there is no recipe egs/$corpus/run.sh"
    done
    for list in train_sets dev_sets test_sets; do
        [[ -z ${!list} ]] || continue
        joined=
        for corpus in $corpora; do
            joined+=" $("../$corpus/run.sh" --print "$list")"
        done
        printf -v "$list" '%s' "${joined# }"
    done
    local twice
    # shellcheck disable=SC2086
    twice=$(printf '%s\n' $train_sets | sort | uniq -d | tr '\n' ' ')
    [[ -z $twice ]] || die "two corpora have sets of the same name: $twice"
}

all_sets() {
    # shellcheck disable=SC2086  # lists of names
    printf '%s\n' $train_sets $dev_sets $test_sets | awk '!seen[$0]++'
}

in_scale() { # in_scale KEY: the names under a key of the scale's file
    sed -n "/^$1:/,/^[^ #]/s/^  \([A-Za-z0-9_]\{1,\}\):.*/\1/p" "$scale_config"
}

models() { # the models of the scale, the LLM and the metrics that tools/fetch_models.py brings
    {
        sed -n '/^encoders:/,/^[^ #]/p' "$scale_config"
        cat "${llm_config:-$scale_config}"
    } | sed 's/#.*//' | { grep -o 'cache:[A-Za-z0-9_.-]*' || true; } | cut -d : -f 2 | sort -u
    [[ ! ,$metrics, =~ ,(sbert|fense), ]] || echo all-minilm-l6-v2
}

# --- settings, one per line, that results depend on -----------------------------------------------

# The options that only this recipe's run.sh has: its data depend on them, but not on who fetched it.
own_options=$(_option_names "$_recipe" |
    grep -vxFf <(_option_names "$PAM_ROOT/utils/options.sh") -e download || true)

data_settings() {
    local name
    echo "size: $size"
    for name in $own_options; do
        echo "$name: ${!name}"
    done
    folders
}

folders() { # that this recipe's corpora are read from
    local corpus
    for corpus in ${corpora:-"${PWD##*/}"}; do
        folders_of "$corpus"
    done
}

limited_sets() { # sets that --min_seconds and --max_seconds are for: those that are not tested
    # shellcheck disable=SC2086  # lists of names
    printf '%s\n' $train_sets $dev_sets | grep -vxFf <(printf '%s\n' $test_sets) || true
}

length_settings() {
    [[ -z $min_seconds ]] || echo "min_seconds: $min_seconds"
    [[ -z $max_seconds ]] || echo "max_seconds: $max_seconds"
}

dump_settings() { # dump_settings SET
    data_settings
    echo "feats: $feats"
    [[ $'\n'$(limited_sets)$'\n' != *$'\n'"$1"$'\n'* ]] || length_settings
    [[ $feats == online ]] || echo "encoders of the scale: $(sed -n '/^encoders:/,/^[^ #]/p' "$scale_config" | checksum -)"
}

combine_settings() {
    dump_settings "of all sets"
    length_settings
    echo "train_sets: $train_sets"
    echo "dev_sets: $dev_sets"
}

prompt_files() { # ended by NUL: the paper's tasks', this recipe's own, those of joined corpora
    local corpus file files=("$PAM_ROOT"/conf/prompts/*.yaml conf/prompts/*.yaml)
    for corpus in $corpora; do
        files+=(../"$corpus"/conf/prompts/*.yaml)
    done
    for file in "${files[@]}"; do
        [[ ! -f $file ]] || printf '%s\0' "$file"
    done
}

train_settings() {
    local files
    mapfile -d '' files < <(prompt_files)
    combine_settings
    echo "system: $system, conf/systems/$system.yaml: $(checksum "$system_config")"
    echo "scale: $scale, conf/scale/$scale.yaml: $(checksum "$scale_config")"
    [[ -z $llm ]] || echo "llm: $llm, conf/llm/$llm.yaml: $(checksum "$llm_config")"
    echo "training prompts: $(checksum "${files[@]}")"
    echo "seed: $seed"
    echo "budget: $budget"
    echo "warmup: $warmup"
    echo "train_args: $train_args"
}

decode_settings() {
    echo "prompts: $prompts"
    echo "decode_args: $decode_args"
}

score_settings() {
    echo "metrics: $metrics"
    echo "score_args: $score_args"
    echo "pam/score: $(checksum "$PAM_ROOT"/pam/score/*.py)"
}

# --- stages ---------------------------------------------------------------------------------------

wanted_of() { # wanted_of CORPUS LIST: the sets of a corpus' own list that this recipe asks for
    "../$1/run.sh" --print "$2" | tr ' ' '\n' | { grep -xFf <(all_sets) || true; } | paste -sd ' '
}

in_each_corpus() { # in_each_corpus STAGE: the corpora's own recipes do it, into this one's dumpdir
    local corpus list wanted sets
    for corpus in $corpora; do
        wanted='' sets=()
        for list in train_sets dev_sets test_sets; do
            sets+=("--$list" "$(wanted_of "$corpus" "$list")")
            wanted+=${sets[-1]}
        done
        [[ -n $wanted ]] || continue
        launch - "../$corpus/run.sh" --stage "$1" --stop_stage "$1" --nj "$nj" --size "$size" \
            --datadir "$datadir" --dumpdir "$(realpath -m "$dumpdir")" --python "$python" \
            --scale "$scale" --llm "$llm" --feats "$feats" --max_bad "$max_bad" \
            --min_seconds "$min_seconds" --max_seconds "$max_seconds" \
            --ngpu "$ngpu" --metrics "$metrics" "${sets[@]}"
    done
}

fetch_models() {
    local model
    for model in $(models); do
        if [[ ! -f ${PAM_CACHE:-$HOME/.cache/pam}/models/$model/config.json ]]; then
            log "fetching the pretrained model $model"
            launch - "$python" "$PAM_ROOT/tools/fetch_models.py" "$model"
        fi
    done
}

missing_sets() {
    local set
    for set in $(all_sets); do
        [[ -f $datadir/$set/wav.scp ]] || printf '%s ' "$set"
    done
}

claim_data() {
    claim "$datadir" '*/wav.scp' "remove it, or prepare into another one with --datadir" data_settings
}

stage_1() { # data: the corpora as Kaldi-style folders, and the pretrained models
    if [[ -n $corpora ]]; then
        in_each_corpus 1
        return
    fi
    claim_data
    if [[ -n $(missing_sets) ]]; then
        prepare
        [[ -z $(missing_sets) ]] || die "$datadir: the preparation left out $(missing_sets)"
    else
        log "complete: $datadir"
    fi
    fetch_models
}

is_dumped() { # is_dumped SET
    local encoder
    [[ -f $dumpdir/raw/$1/wav.scp ]] || return 1
    [[ $feats == dumped ]] || return 0
    for encoder in $(in_scale encoders); do
        [[ -f $dumpdir/$encoder/$1/feats.scp ]] || return 1
    done
}

dump_remedy="remove the folders of its sets, or dump elsewhere with --dumpdir"

check_folders() { # whatever stage begins: what is dumped is of the folders that are named now
    local set recorded wanted
    wanted=$(folders)
    for set in $(all_sets); do
        [[ -f $dumpdir/raw/$set/wav.scp && -f $dumpdir/raw/$set/.settings ]] || continue
        recorded=$(grep -E "$folder_lines" "$dumpdir/raw/$set/.settings" || true)
        ! moved "$recorded" "$wanted" ||
            refuse_other "$dumpdir/raw/$set" "$recorded" "$wanted" \
                "name that folder, or prepare and dump elsewhere with --datadir and --dumpdir"
    done
}

stage_2() { # dump: audio at 16 kHz, and the states of every encoder
    if [[ -n $corpora ]]; then
        in_each_corpus 2
        return
    fi
    local set pending=() made begun
    for set in $(all_sets); do
        made=wav.scp # audio that was looked at binds to nothing, states do
        begun=("$dumpdir"/*/"$set"/.parts)
        [[ ! -e ${begun[0]} ]] || made='*'
        claim "$dumpdir/raw/$set" "$made" "$dump_remedy" dump_settings "$set"
        if is_dumped "$set"; then
            log "complete: $set"
            continue
        fi
        [[ -f $datadir/$set/wav.scp ]] || die "$datadir/$set is missing: run stage 1 first"
        pending+=("$datadir/$set")
    done
    ((${#pending[@]} > 0)) || return 0
    claim_data
    # shellcheck disable=SC2086  # a prefix is a command with its arguments
    # shellcheck disable=SC2046  # names of sets
    launch "$dumpdir/log/dump.log" $dump_prefix "$python" -m pam.bin.dump --data "${pending[@]}" \
        ${min_seconds:+--min_seconds "$min_seconds"} ${max_seconds:+--max_seconds "$max_seconds"} \
        --limited $(limited_sets) \
        --out "$dumpdir/raw" --scale_config "$scale_config" --feats "$feats" \
        --encoder_dir "$dumpdir" --nj "$nj" --max_bad "$max_bad" \
        --ngpu "$ngpu"
}

combined() { # the folder of the joined sets: other lists are other folders
    echo "$dumpdir/combined/$(combine_settings | grep -vE "$folder_lines" | sha256sum | cut -c 1-8)"
}

claim_combined() {
    claim "$(combined)" '*/wav.scp' "remove it" combine_settings
}

stage_3() { # combine: one training and one validation set of all tasks
    local part list set dirs=() names=()
    claim_combined
    [[ $feats == online ]] || mapfile -t names < <(in_scale encoders)
    for part in train dev; do
        if [[ -f $(combined)/$part/wav.scp ]]; then
            log "complete: $(combined)/$part"
            continue
        fi
        list=${part}_sets
        dirs=()
        [[ -n ${!list} ]] || die "--$list is empty: name at least one set"
        for set in ${!list}; do
            is_dumped "$set" || die "$dumpdir/raw/$set is not complete: run stage 2 first"
            dirs+=("$dumpdir/raw/$set")
        done
        launch "$dumpdir/log/combine_$part.log" "$python" -m pam.bin.combine --sets "${dirs[@]}" \
            --out "$(combined)/$part" --encoders "${names[@]}" --encoder_dir "$dumpdir"
    done
    dirs=()
    for set in $dev_sets $test_sets; do # one that is trained on too was asked for
        [[ " $train_sets " == *" $set "* ]] || dirs+=("$dumpdir/raw/$set/text")
    done
    warn_of_leaks "$(combined)/train/text" "${dirs[@]}"
}

claim_exp() { # an attempt without a checkpoint binds to nothing
    claim "$exp" '.trained *.pth */*.pth' \
        "give the new one another name with --expname, or remove the folder" train_settings
}

stage_4() { # train: adapters, mixture and LoRA; encoders and LLM stay frozen
    claim_combined
    claim_exp
    if [[ -f $exp/.trained ]]; then
        log "complete: $exp"
        return
    fi
    [[ -f $(combined)/train/wav.scp ]] || die "$(combined)/train is not complete: run stage 3 first"
    # shellcheck disable=SC2086  # train_prefix and train_args are lists of arguments
    launch "$exp/train.log" $train_prefix "$python" -m pam.bin.train --system_config "$system_config" \
        --scale_config "$scale_config" ${llm:+--llm_config "$llm_config"} --train "$(combined)/train" --dev "$(combined)/dev" \
        --expdir "$exp" --seed "$seed" --budget "$budget" --feats "$feats" \
        --ngpu "$ngpu" ${warmup:+--warmup $warmup} $train_args
    touch "$exp/.trained"
}

needs_training() {
    claim_exp
    [[ -f $exp/.trained ]] || die "$exp is not trained: run stage 4 first"
}

stage_5() { # average: the checkpoint that is used from here on, and the proof that it hears
    needs_training
    if [[ $exp/hearing.json -nt $exp/.trained ]]; then
        log "complete: $exp/model.pth"
        return
    fi
    launch "$exp/average.log" "$python" -m pam.bin.average --exp "$exp" --dev "$(combined)/dev" \
        --ngpu "$ngpu"
}

decode_inputs() { # decode_inputs SET: one checksum of what pam/decode/fingerprint.py reads of it
    local file
    for file in "$dumpdir/raw/$1"/{wav.scp,text,text_ref*,prompt,choices,segments,utt2*}; do
        [[ ! -f $file ]] || { echo "${file##*/}" && cat "$file"; }
    done | sha256sum
}

is_decoded() { # is_decoded SET: by this model, from these tables (a dump that was removed is as it was)
    [[ -f $decoded/$1/hyp.jsonl && $decoded/$1/decode.json -nt $exp/model.pth ]] || return 1
    [[ ! -d $dumpdir/raw/$1 || -f $decoded/$1/.inputs && $(decode_inputs "$1") == "$(<"$decoded/$1/.inputs")" ]]
}

stage_6() { # decode: an answer for every utterance of the test sets
    needs_training
    [[ -f $exp/model.pth ]] || die "$exp/model.pth is missing: run stage 5 first"
    claim "$decoded" '*/hyp.jsonl' "give the new one another name with --inference_tag" decode_settings
    local set pending=() jobs
    for set in $test_sets; do
        if is_decoded "$set"; then
            log "complete: $decoded/$set"
            continue
        fi
        is_dumped "$set" || die "$dumpdir/raw/$set is not complete: run stage 2 first"
        pending+=("$dumpdir/raw/$set")
    done
    ((${#pending[@]} > 0)) || return 0
    jobs=$((inference_nj > ngpu ? inference_nj : ngpu)) # each does a part of every set
    # shellcheck disable=SC2086  # decode_prefix and decode_args are lists of arguments
    launch --gpus "$ngpu" "JOB=1:$jobs" "$decoded/log/decode.{JOB}.log" \
        $decode_prefix "$python" -m pam.bin.decode --exp "$exp" --data "${pending[@]}" \
        --out "$decoded" --job "{JOB}/$jobs" --prompts "$prompts" --feats "$feats" \
        --encoder_dir "$dumpdir" --ngpu "$((ngpu > 0))" $decode_args
    for set in "${pending[@]##*/}"; do
        decode_inputs "$set" >"$decoded/$set/.inputs"
    done
}

stage_7() { # score: WER, accuracy, metrics of captions and the accuracy of the router
    local set fresh=false scored=$decoded/.scored
    [[ ! -f $scored || $(score_settings) != "$(<"$scored")" ]] || fresh=true
    for set in $test_sets; do
        [[ -f $decoded/$set/decode.json ]] || die "$decoded/$set is not decoded: run stage 6 first"
        [[ $decoded/$set/score.json -nt $decoded/$set/decode.json &&
            $decoded/$set/score.json -nt $decoded/$set/hyp.jsonl ]] || fresh=false
    done
    if $fresh; then
        log "complete: $decoded"
        return
    fi
    # shellcheck disable=SC2086  # lists of names and of arguments
    launch "$decoded/log/score.log" "$python" -m pam.bin.score --decode_dir "$decoded" \
        --sets $test_sets --metrics "$metrics" --go_on --ngpu "$((ngpu > 0))" $score_args
    rm -f "$scored"
    if grep -qs '"missing":' "$decoded"/*/score*.json; then
        not_measured=true # the same command tries again
    else
        score_settings >"$scored"
    fi
}

stage_8() { # report: RESULTS.md, report.html and results.json
    if [[ $analyse == true ]]; then # what is there already is not measured again
        launch "$exp/analyse.log" "$python" -m pam.bin.analyse --exp "$exp" \
            --data "$(combined)/dev" --ngpu "$((ngpu > 0))"
    fi
    local set file fresh=true files=("$exp/RESULTS.md") kept=${results:+$results/$scale} extra=()
    if [[ $html == true ]]; then
        files+=("$exp/report.html")
        extra+=(--html --html_data "$dumpdir/raw")
    fi
    if [[ -n $kept ]]; then
        files+=("$kept/$expname.json")
        extra+=(--store "$kept")
    fi
    for set in $test_sets; do
        [[ -f $decoded/$set/score.json ]] || die "$decoded/$set/score.json is missing: run stage 7 first"
        [[ $exp/results.json -nt $decoded/$set/score.json ]] || fresh=false
    done
    [[ ! $exp/analysis.json -nt $exp/results.json ]] || fresh=false
    for file in "${files[@]}"; do
        [[ -f $file ]] || fresh=false
    done
    if $fresh; then
        log "complete: ${files[*]}"
        return
    fi
    launch "$exp/report.log" "$python" -m pam.bin.report --exp "$exp" "${extra[@]}"
    sed -n '/^|/p; /^|/,/^$/{/^$/q}' "$exp/RESULTS.md" # its first table
}

# --- the run --------------------------------------------------------------------------------------

stage_names=([1]=data dump combine train average decode score report)
stage_places=([1]="$datadir" "$dumpdir" "$dumpdir" "$exp" "$exp" "$decoded" "$decoded" "$exp")
current=

finish() { # however the run ends: count the stage's time, name the stage that failed
    local status=$?
    [[ -n $current ]] || return 0
    count_seconds
    ((status == 0)) || echo "error: stage $current (${stage_names[$current]}) of $0 failed;" \
        "the same command resumes when it is mended" >&2
}

# A stage that ran nothing took no time, though the clock may have passed a second meanwhile. The
# corpora of a joined recipe count their own data and dump, in the same folder.
count_seconds() {
    local dumped=$dumpdir/seconds.json seconds=$((SECONDS - started))
    $worked || return 0
    if ((current > 3)); then
        add_seconds "$exp/seconds.json" "${stage_names[$current]}" "$seconds" "$dumped"
    elif [[ -z $corpora ]] || ((current == 3)); then
        add_seconds "$dumped" "${stage_names[$current]}" "$seconds"
    fi
}

run_stage() {
    current=$1 started=$SECONDS worked=false
    log "stage $1: ${stage_names[$1]} → ${stage_places[$1]}"
    "stage_$1"
    log "stage $1: ${stage_names[$1]} took $((SECONDS - started)) s"
    count_seconds
    current=
}

not_measured=false
check_options
join_corpora
((stop_stage < 2)) || check_folders
if [[ $python == python3 ]]; then
    "$PAM_ROOT/tools/install.sh"
fi
trap finish EXIT
for number in "${!stage_names[@]}"; do
    if ((number >= stage && number <= stop_stage)) && [[ " $skip_stages " != *" $number "* ]]; then
        run_stage "$number"
    fi
done
trap - EXIT
if $not_measured && [[ ${unmeasured:-error} == error ]]; then
    die "some of --metrics $metrics are not measured: see stage 7 above; all others are scored and reported"
fi
