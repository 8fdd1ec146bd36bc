# shellcheck shell=bash
# Functions that the shell scripts share; they source this file.

# help_or_no_arguments "$@": as help_if_asked; refuse any other argument.
help_or_no_arguments() {
    help_if_asked "$@"
    if [ $# -gt 0 ]; then
        echo "error: $1: unknown argument; settings come from the environment, see bash $0 --help" >&2
        exit 2
    fi
}

# help_if_asked "$@": if the first argument is --help, print the running script's header comment and settings, and exit.
help_if_asked() {
    case ${1:-} in -h | --help) ;; *) return ;; esac
    awk 'NR == 1 || /^#SBATCH/ { next }
        !body && /^#/ { sub(/^# ?/, ""); print; next }
        { body = 1 }
        /^[A-Z_0-9]+=\$\{/ { if (!settings++) print ""; print "  " $0 }' "$0"
    exit
}

# override OPTION ...: set the array `words` to these options without those that the array `extra` has as well, followed
# by `extra`. The Python scripts refuse an option that is given twice.
override() {
    local word names=" " keep=1
    # The + is for bash before 4.4 (macOS has 3.2), which calls an empty array unbound.
    # shellcheck disable=SC2154  # the caller's
    for word in ${extra[@]+"${extra[@]}"}; do
        if [[ $word == --* ]]; then names+="$(option_name "$word") "; fi
    done
    words=()
    for word in "$@"; do
        if [[ $word == --* ]]; then
            keep=1
            if [[ $names == *" $(option_name "$word") "* ]]; then keep=; fi
        fi
        if [ "$keep" ]; then words+=("$word"); fi
    done
    words+=(${extra[@]+"${extra[@]}"})
}

# option_name WORD: print the name of an option, the same for --a_b, --a-b, --a_b=VALUE and --no_a_b.
option_name() {
    local name=${1%%=*}
    name=${name#--}
    name=${name//-/_}
    echo "${name#no_}"
}

# use_environment EXTRAS: activate .venv with this project and some of its extras, e.g. "dev". The environment is created
# if it is missing, and packages are installed again only if the pins have changed.
use_environment() {
    local pins=(pyproject.toml requirements.txt) installed=.venv/$1.installed
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    if ! cmp --silent <(cat "${pins[@]}") "$installed"; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt \
            --editable ".[$1]"
        cat "${pins[@]}" >"$installed"
    fi
    PATH=$PWD/.venv/bin:$PATH
}
