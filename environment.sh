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

# use_environment requirements.txt ...: activate .venv with the packages of the given files. The environment is created
# if it is missing, and its packages are installed again only if a requirements file has changed.
use_environment() {
    local installed file files=()
    installed=.venv/$(basename "${!#}").installed
    for file in "$@"; do files+=(--requirement "$file"); done
    if [ ! -x .venv/bin/python ]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    if ! cmp --silent <(cat requirements*.txt) "$installed"; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "${files[@]}"
        cat requirements*.txt >"$installed"
    fi
    PATH=$PWD/.venv/bin:$PATH
}
