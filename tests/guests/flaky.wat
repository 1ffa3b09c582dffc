;; Fails twice: each run leaves a file in its directory, and the third one finds both.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "ab")
  ;; Flags 1 and 4: make it, and fail if it is there.
  (func $make (param $name i32) (result i32)
    (call $open (i32.const 3) (i32.const 0) (local.get $name) (i32.const 1)
      (i32.const 5) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32)))
  (func (export "_start")
    (if (i32.eqz (call $make (i32.const 16))) (then (call $exit (i32.const 1))))
    (if (i32.eqz (call $make (i32.const 17))) (then (call $exit (i32.const 2))))))
