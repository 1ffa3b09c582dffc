# Completions of coracle for fish; for this shell: coracle completions fish | source
# For every one: coracle completions fish > ~/.config/fish/completions/coracle.fish

function __coracle_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l answer (command coracle __complete -- $words "$current" 2>/dev/null)
    set -q answer[1]; or return
    set -l kind $answer[1]
    set -e answer[1]
    set -q answer[1]; and printf '%s\n' $answer
    # Of --flag=FILE the file is completed, and the flag put before it again.
    set -l flag (string match --regex '^--[^=]*=' -- $current)
    set -l file (string replace --regex '^--[^=]*=' '' -- $current)
    switch $kind
        case files
            printf '%s\n' "$flag"(__fish_complete_path "$file")
        case directories
            printf '%s\n' "$flag"(__fish_complete_directories "$file")
        case modules
            printf '%s\n' "$flag"(__fish_complete_path "$file" | string match --regex '.*(?:/|\.wasm|\.wat)(?:\t.*)?$')
    end
end

complete --command coracle --no-files --keep-order --arguments '(__coracle_complete)'
