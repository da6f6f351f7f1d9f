# shellcheck shell=bash
# Turns the command line into the recipe's variables; source it after the last of them is set.
#
#   --max_bad 1%, --max-bad 1%, --max_bad=1%   set a variable of the recipe; unknown names are errors
#   --config FILE                              take variables from a file of NAME=VALUE lines; wherever it
#                                              stands, the command line counts more. What is given for the
#                                              same *_args follows what the file says: it adds arguments
#   --print NAME                               print the value of a variable (or of several) and exit
#   --help                                     print every option with its value and meaning
#
# An option is a variable that utils/options.sh or run.sh sets at the beginning of a line.

_recipe=$PWD/${0##*/}
_option_files=("$PAM_ROOT/utils/options.sh" "$_recipe")

_die() {
    echo "error: $*" >&2
    exit 1
}

_option_names() {
    sed -n 's/^\([a-z][a-z0-9_]*\)=.*/\1/p' "$@" | awk '!seen[$0]++'
}

# The nearest name to $1 among the lines of standard input.
_nearest() {
    python3 -c 'import difflib, sys
near = difflib.get_close_matches(sys.argv[1], sys.stdin.read().split(), n=1)
print(f"did you mean --{near[0]}? " if near else "", end="")' "$1"
}

_check_option() { # _check_option NAME WHERE
    local known
    known=$(_option_names "${_option_files[@]}")
    [[ $'\n'$known$'\n' == *$'\n'"$1"$'\n'* ]] ||
        _die "$2: unknown option --$1; $(_nearest "$1" <<<"$known")--help lists all"
}

declare -A _arguments=() # of options *_args: what files of --config, and the command line, say so far

# _add_arguments NAME: if an option is further arguments of a program (*_args), what was said before stays.
_add_arguments() {
    [[ $1 == *_args ]] || return 0
    printf -v "$1" '%s' "${_arguments[$1]:+${_arguments[$1]} }${!1}"
    _arguments[$1]=${!1}
}

_source_config() {
    [[ -f $1 && -r $1 ]] || _die "--config $1: no such file; it holds NAME=VALUE lines"
    local name names
    names=$(_option_names "$1")
    for name in $names; do
        _check_option "$name" "$1"
    done
    # shellcheck disable=SC1090
    . "$1"
    for name in $names; do
        _add_arguments "$name"
    done
}

_print_help() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$_recipe"
    printf '\nOptions, with their values now:\n'
    local name meaning
    while read -r name; do
        meaning=$(sed -n "s/^$name=[^#]*# *//p" "${_option_files[@]}" | tail -n 1)
        printf '  --%-22s %s\n' "$name ${!name}" "$meaning"
    done < <(_option_names "${_option_files[@]}")
    printf '  --%-22s %s\n' "config FILE" "a file of NAME=VALUE lines that set options" \
        "print NAME" "print the value of an option and exit"
}

# The command line, for the report.
if [[ -z ${PAM_COMMAND-} ]]; then
    PAM_COMMAND="cd egs/${PWD##*/} && ./run.sh$( (($# == 0)) || printf ' %q' "$@")"
    export PAM_COMMAND
fi

_wants_help=false
_print_names=()
_names=() _values=() # of the command line, without --config
while (($# > 0)); do
    case $1 in
        --help | -h) _wants_help=true && shift && continue ;;
        --*=*) _name=${1%%=*} _value=${1#*=} && shift ;;
        --*)
            _name=$1
            (($# > 1)) || {
                [[ $1 == --config || $1 == --print ]] || _check_option "$(tr - _ <<<"${1#--}")" "$_recipe"
                _die "$1: needs a value"
            }
            _value=$2 && shift 2
            ;;
        *) _die "$_recipe: unexpected argument '$1'; options look like --stage 2" ;;
    esac
    _name=${_name#--}
    _name=${_name//-/_}
    case $_name in
        config) _source_config "$_value" ;; # before all others, as in Kaldi and ESPnet
        print)
            read -ra _print_names <<<"${_value//-/_}"
            for _name in "${_print_names[@]}"; do
                _check_option "$_name" "--print"
            done
            ;;
        *)
            _check_option "$_name" "$_recipe"
            _names+=("$_name") _values+=("$_value")
            ;;
    esac
done
for _place in "${!_names[@]}"; do
    printf -v "${_names[_place]}" '%s' "${_values[_place]}"
    _add_arguments "${_names[_place]}"
done

if $_wants_help; then
    _print_help
    exit 0
fi
if ((${#_print_names[@]} > 0)); then
    for _name in "${_print_names[@]}"; do
        echo "${!_name}"
    done
    exit 0
fi
