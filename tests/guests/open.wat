;; Opens the path in its first argument for reading, below the first preopened directory, and leaves with WASI's errno.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $end i32)
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (drop (call $args (i32.const 16) (i32.const 256)))
    ;; The path's length: up to its zero byte.
    (local.set $end (i32.load (i32.const 20)))
    (loop $next
      (if (i32.load8_u (local.get $end))
        (then (local.set $end (i32.add (local.get $end) (i32.const 1))) (br $next))))
    ;; Follow links; right 2 is fd_read.
    (call $exit (call $open (i32.const 3) (i32.const 1)
      (i32.load (i32.const 20)) (i32.sub (local.get $end) (i32.load (i32.const 20)))
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8)))))
