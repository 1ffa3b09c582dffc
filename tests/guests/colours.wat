;; Prints what would move a terminal's cursor and change its colours, a byte that is no text, and a line that is a dot; with an
;; argument on standard error too.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\0e\00\00\00")
  (data (i32.const 16) "\1b[2J\ff\1b]0;x\07\0a.\0a")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))
    (drop (call $args (i32.const 72) (i32.const 76)))
    (if (i32.gt_u (i32.load (i32.const 72)) (i32.const 1))
      (then (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 64)))))))
