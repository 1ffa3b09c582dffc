# Completions of coracle for PowerShell; for this shell: coracle completions powershell | Out-String | Invoke-Expression
# For every one: put that line into $PROFILE.

Register-ArgumentCompleter -Native -CommandName coracle -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $before = $commandAst.CommandElements | Where-Object { $_.Extent.StartOffset -lt $cursorPosition }
    $words = @($before | ForEach-Object { if ($_.Value -is [string]) { $_.Value } else { $_.Extent.Text } })
    # Older ones pass no empty word to a program.
    $next = if ($wordToComplete -eq '') { @('--next') } else { @() }
    $answer = @(& coracle __complete @next -- @words 2>$null)
    if ($answer.Count -eq 0) { return }
    $answer | Select-Object -Skip 1 | ForEach-Object {
        $value, $about = $_ -split "`t", 2
        if (-not $about) { $about = $value }
        [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $about)
    }
    # Without an answer of ours PowerShell completes files by itself; with one it has to be told of them.
    if ($answer[0] -eq 'modules' -and $answer.Count -gt 1) {
        Get-ChildItem -Path "$wordToComplete*" -Include '*.wasm', '*.wat' -ErrorAction SilentlyContinue |
            ForEach-Object { [System.Management.Automation.CompletionResult]::new($_.Name) }
    }
}
