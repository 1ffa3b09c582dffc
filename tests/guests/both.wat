;; One line on standard output, one on standard error, and one without an end.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\20\00\00\00\04\00\00\00")
  (data (i32.const 8) "\30\00\00\00\04\00\00\00")
  (data (i32.const 16) "\40\00\00\00\04\00\00\00")
  (data (i32.const 32) "out\0a")
  (data (i32.const 48) "err\0a")
  (data (i32.const 64) "last")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 96)))
    (drop (call $write (i32.const 2) (i32.const 8) (i32.const 1) (i32.const 96)))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 96)))))
