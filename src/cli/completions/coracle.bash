# Completions of coracle for bash; for this shell: source <(coracle completions bash)
# For every one: coracle completions bash > ~/.local/share/bash-completion/completions/coracle

_coracle() {
    local kind='' line word
    COMPREPLY=()
    # The line itself, because bash splits words at = and : too; it asks for the end of the last of them.
    while IFS= read -r line; do
        if [[ -z $kind ]]; then
            kind=${line%%$'\t'*} word=${line#*$'\t'}
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <(command coracle __complete --line="${COMP_LINE:0:COMP_POINT}" --current="$2" 2>/dev/null)
    case $kind in
        files) compopt -o default 2>/dev/null ;;
        directories | modules)
            compopt -o filenames +o default 2>/dev/null
            while IFS= read -r line; do
                COMPREPLY+=("$line")
            done < <(
                compgen -d -- "$word"
                if [[ $kind == modules ]]; then
                    compgen -f -X '!*.wasm' -- "$word"
                    compgen -f -X '!*.wat' -- "$word"
                fi
            )
            ;;
        *) compopt +o default 2>/dev/null ;;
    esac
    if [[ ${COMPREPLY[0]-} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -o default -F _coracle coracle
