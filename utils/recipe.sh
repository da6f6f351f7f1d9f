# shellcheck shell=bash disable=SC2034,SC2154  # options: options.sh; others: pam/bin/recipe.py
# The stages of every recipe; sourced by run.sh after its variables are set and the options read.
#
#   1 data → 2 dump → 3 combine → 4 train → 5 average → 6 decode → 7 score → 8 report
#
# Each folder's made.json records its settings and inputs (pam/config/made.py). Complete work is
# skipped, so the same command resumes. Other settings for the same folder are an error.

. "$PAM_ROOT/utils/functions.sh"
resolve_options

# Options that are lists of arguments, as their words. Nothing in them is expanded: `use_encoders=[a,b]` is
# no pattern of file names.
read -rd '' -a train_words <<<"$train_args" || true
read -rd '' -a decode_words <<<"$decode_args" || true
read -rd '' -a score_words <<<"$score_args" || true

stage_names=([1]=data dump combine train average decode score report)
stage_places=([1]="$datadir" "$dumpdir" "$dumpdir" "$exp" "$exp" "$decoded" "$decoded" "$exp")
not_measured=false trained=false

# One thread for each process: the threads of OpenMP wait for each other in a busy loop, and cost far
# more than they bring where other programs need a core too (tools/bench_busy.py).
one_thread() {
    OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$@"
}

stage_1() { # data: the corpora as Kaldi-style folders, and the pretrained models
    if [[ -n $corpora ]]; then
        in_each_corpus 1
        return
    fi
    local model tool tools lock todo files=() data=(--out "$datadir" --sets "${sets[@]}" --made_with "${made_with[@]}" --licence "$licence")
    ! declare -F sources >/dev/null || sources
    data+=(--sources "${files[@]}")
    if pending data "${data[@]}"; then
        mkdir -p "$datadir"
        exec {lock}>>"$datadir/.lock" # held by this shell, and by what it prepares with
        if pending data "${data[@]}" --lock "$lock"; then
            todo=$("$python" -m pam.bin.data "${data[@]}" --todo)
            prepare_only "$todo"
            "$python" -m pam.bin.data "${data[@]}" --seconds "$((SECONDS - started))"
        fi
        exec {lock}>&-
    fi
    tools=$("$python" -m pam.bin.data "${data[@]}" --needs)
    for tool in $tools; do # now, since stage 7 comes after days of training, where there may be no internet
        launch - "$python" "$PAM_ROOT/$tool"
    done
    for model in "${models[@]}"; do
        log "fetching the pretrained model $model"
        launch - "$python" "$PAM_ROOT/tools/fetch_models.py" "$model"
    done
}

prepare_only() { # SETS: names between spaces
    local sets
    read -ra sets <<<"$1"
    prepare
}

stage_2() { # dump: audio at 16 kHz, and the states of every encoder
    if [[ -n $corpora ]]; then
        in_each_corpus 2
        return
    fi
    one_thread run dump "$dumpdir/log/dump.log" dump --data "${sets[@]/#/$datadir/}" \
        --made_with "${made_with[@]}" --out "$dumpdir/raw" --encoder_dir "$dumpdir" \
        --scale_config "$scale_config" --feats "$feats" --max_bad "$max_bad" \
        --min_seconds "$min_seconds" --max_seconds "$max_seconds" --limited "${limited[@]}" \
        --nj "$nj" --ngpu "$ngpu"
}

stage_3() { # combine: one training and one validation set of all tasks
    run combine "$dumpdir/log/combine.log" here --train "${train[@]}" --dev "${dev[@]}" \
        --test "${test[@]}" --out "$combined" --encoders "${encoders[@]}" --encoder_dir "$dumpdir"
}

machines=(--ngpu "$ngpu" --nj "$train_nj" --num_nodes "$num_nodes" ${master_addr:+--master_addr "$master_addr"})
training=(--system_config "$system_config" --scale_config "$scale_config"
    ${llm:+--llm_config "$llm_config"} --train "$combined/train" --dev "$combined/dev"
    --expdir "$exp" --seed "$seed" --budget "$budget" --feats "$feats"
    ${warmup:+--warmup "$warmup"} "${machines[@]}" "${train_words[@]}")

stage_4() { # train: adapters, mixture and LoRA; encoders and LLM stay frozen
    run train "$exp/train.log" train "${training[@]}"
    trained=true
}

needs_training() {
    $trained || ! pending train "${training[@]}" || die "$exp is not trained: run stage 4 first"
    trained=true
}

stage_5() { # average: the final checkpoint, and a test that the model uses the audio
    needs_training
    one_thread run average "$exp/average.log" train --exp "$exp" --dev "$combined/dev" "${machines[@]}"
}

stage_6() { # decode: an answer for every utterance of the test sets
    needs_training
    jobs=(--gpus "$ngpu" "JOB=1:$inference_nj") # each does a part of every set
    one_thread run decode "$decoded/log/decode.{JOB}.log" decode --exp "$exp" --data "${test[@]}" \
        --out "$decoded" --job "{JOB}/$inference_nj" --prompts "$prompts" --feats "$feats" \
        --encoder_dir "$dumpdir" --ngpu "$((ngpu > 0))" "${decode_words[@]}"
}

stage_7() { # score: WER, accuracy, metrics of captions and the accuracy of the router
    local scoring=(--decode_dir "$decoded" --sets "${tested[@]}" --metrics "$metrics" --go_on
        --ngpu "$((ngpu > 0))" "${score_words[@]}")
    one_thread run score "$decoded/log/score.log" decode "${scoring[@]}"
    ! $worked || ! pending score "${scoring[@]}" || not_measured=true
}

stage_8() { # report: RESULTS.md, report.html and results.json
    [[ $analyse == false ]] || start analyse "$exp/analyse.log" decode \
        --exp "$exp" --data "$combined/dev" --ngpu "$((ngpu > 0))"
    local more=()
    [[ $html == false ]] || more+=(--html --html_data "$dumpdir/raw")
    [[ -z $results ]] || more+=(--store "$results/$scale")
    run report "$exp/report.log" here --exp "$exp" --needs "${tested[@]/#/$decoded/}" "${more[@]}"
}

run_stages
if $not_measured && [[ ${unmeasured:-error} == error ]]; then
    die "some of --metrics $metrics are not measured: see stage 7 above; all others are scored and reported"
fi
