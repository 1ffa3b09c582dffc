#compdef coracle
# Completions of coracle for zsh; for this shell: source <(coracle completions zsh)
# For every one: coracle completions zsh > DIRECTORY/_coracle, with a DIRECTORY of $fpath, before compinit.

_coracle() {
    local kind line value
    local -a answer values shown open
    answer=("${(@f)$(command coracle __complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    kind=$answer[1]
    for line in "${(@)answer[2,-1]}"; do
        value=${line%%$'\t'*}
        if [[ $value == *= ]]; then
            open+=("$value")
        else
            values+=("$value")
            shown+=("${line/$'\t'/  -- }")
        fi
    done
    (( $#values )) && compadd -l -V coracle -d shown -a values
    (( $#open )) && compadd -S '' -a open
    if [[ $kind != words && $PREFIX == --*=* ]]; then
        compset -P '*='
    fi
    case $kind in
        files) _files ;;
        directories) _files -/ ;;
        modules) _files -g '*.(wasm|wat)' ;;
    esac
}

if [[ ${funcstack[1]} == _coracle ]]; then
    _coracle "$@"
else
    compdef _coracle coracle
fi
