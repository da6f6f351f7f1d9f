# shellcheck shell=bash
# What the stages are written with; sourced by utils/recipe.sh.

log() {
    echo "$(date '+%Y-%m-%d %H:%M:%S') (${BASH_SOURCE[1]##*/}:${BASH_LINENO[0]}) $*"
}

die() {
    echo "error: $*" >&2
    exit 1
}

check_choice() { # check_choice OPTION VALUE CHOICE...
    local option=$1 value=$2
    shift 2
    [[ " $* " == *" $value "* ]] || die "--$option $value: choose from $*"
}

choices_in() { # the names of the YAML files of a folder
    local file
    for file in "$1"/*.yaml; do
        file=${file##*/}
        echo "${file%.yaml}"
    done
}

# launch LOG COMMAND... | launch [--parallel N] JOB=a,b LOG COMMAND...: see utils/run.py
# shellcheck disable=SC2034  # read by utils/recipe.sh
launch() {
    worked=true
    python3 "$PAM_ROOT/utils/run.py" "$@"
}

# The content of YAML files without comments, as one checksum: editing a comment changes nothing.
checksum() {
    cat -- "$@" | sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' | sha256sum | cut -c 1-16
}

# folders_of CORPUS: the folders that its db.sh names, as "NAME: /absolute/path" lines; where it
# names none now, those that its data were made of.
# shellcheck disable=SC2154  # an option
folders_of() (
    cd "../$1" || exit
    # shellcheck source=/dev/null
    . ./db.sh
    named=$(while read -r name; do
        [[ -z ${!name} ]] || echo "$name: $(realpath -ms -- "${!name}")"
    done < <(sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' db.sh))
    if [[ -n $named ]]; then
        echo "$named"
    elif [[ -f $datadir/.settings ]]; then
        grep -E "$folder_lines" "$datadir/.settings" || true
    fi
)

folder_lines='^[A-Z][A-Z0-9_]*: ' # of settings; options are in lower case

# differs RECORDED WANTED: whether these settings contradict each other. A folder that is not named
# any more, or now named for further sets, is no contradiction; another folder is.
differs() {
    local gone new
    [[ $(grep -vE "$folder_lines" <<<"$1") == "$(grep -vE "$folder_lines" <<<"$2")" ]] || return 0
    gone=$(comm -23 <(grep -E "$folder_lines" <<<"$1" | sort) <(sort <<<"$2"))
    new=$(comm -13 <(sort <<<"$1") <(grep -E "$folder_lines" <<<"$2" | sort))
    [[ -n $gone && -n $new ]]
}

# moved RECORDED WANTED: whether a folder that both name is another one now.
moved() {
    local line
    while read -r line; do
        [[ ! $line =~ $folder_lines || $'\n'$2$'\n' == *$'\n'"$line"$'\n'* ]] ||
            ! grep -q "^${line%%: *}: " <<<"$2" || return 0
    done <<<"$1"
    return 1
}

# refuse_other DIR RECORDED WANTED REMEDY: end with what DIR was made with, and what is wanted now.
refuse_other() {
    diff <(echo "$2") <(echo "$3") |
        sed -n 's/^</  it was made with:/p; s/^>/  now asked for:   /p' >&2 || true
    die "$1 was made with other settings; $4"
}

# has_any DIR PATTERNS: whether a file of DIR has a name that one of the patterns fits.
has_any() {
    local pattern patterns found
    read -ra patterns <<<"$2"
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2206  # it is a pattern
        found=("$1"/$pattern)
        [[ ! -e ${found[0]} ]] || return 0
    done
    return 1
}

# claim DIR MADE REMEDY SETTINGS...: the command SETTINGS prints what DIR is, or will be, made with.
# It is recorded in DIR. Once there is a file that a pattern of MADE names in DIR, other settings are
# an error that shows both.
claim() {
    local file=$1/.settings wanted recorded=''
    wanted=$("${@:4}")
    # a tolerance is no setting; earlier versions recorded it
    [[ ! -f $file ]] || recorded=$(grep -v '^max_bad: ' "$file")
    if [[ -f $file ]] && has_any "$1" "$2"; then
        ! differs "$recorded" "$wanted" || refuse_other "$1" "$recorded" "$wanted" "$3"
        ((${#wanted} > ${#recorded})) || return 0
    fi
    [[ ! -f $file || $wanted != "$recorded" ]] || return 0
    mkdir -p "$1"
    echo "$wanted" >"$file.part"
    mv "$file.part" "$file"
}

# add_seconds FILE STAGE SECONDS: add to the count of a stage in a JSON file {"stage": seconds, …}.
# Counts of a file DUMPED, if given, replace those of its stages.
add_seconds() {
    local file=$1 dumped=${4:-/dev/null}
    [[ -f $file ]] || { mkdir -p "${file%/*}" && echo "{}" >"$file"; }
    [[ -f $dumped ]] || dumped=/dev/null
    awk -F '[": ,]+' -v stage="$2" -v more="$3" '
        NF >= 3 && !($2 in total) { name[++n] = $2; total[$2] = $3 }
        END {
            if (!(stage in total)) name[++n] = stage
            total[stage] += more
            print "{"
            for (i = 1; i <= n; i++)
                printf "  \"%s\": %d%s\n", name[i], total[name[i]], i < n ? "," : ""
            print "}"
        }' "$dumped" "$file" >"$file.part"
    mv "$file.part" "$file"
}

# warn_of_leaks TABLE OTHER...: say which ids of the table of a training set are in others too.
warn_of_leaks() {
    local file files=()
    for file in "$@"; do
        [[ ! -f $file ]] || files+=("$file")
    done
    [[ ${files[0]-} == "$1" ]] || return 0
    awk 'NR == FNR { train[$1]; next }
        $1 in train { if (!n++) first = $1 " of " FILENAME }
        END { if (n) print "warning: " n " utterances of the training set are in other sets too," \
            " the first is " first }' "${files[@]}"
}
