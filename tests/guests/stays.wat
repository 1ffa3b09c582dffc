;; Grows to three pages, writes five bytes into a file and as many to standard output, and sleeps for an hour.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (data (i32.const 16) "\20\00\00\00\05\00\00\00")
  (data (i32.const 32) "1234\n")
  (func (export "_start")
    (drop (memory.grow (i32.const 2)))
    ;; In the directory 3: to be made, with the right to be written.
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 8))
      (then (unreachable)))
    (if (call $write (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 12)) (then (unreachable)))
    (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 12)) (then (unreachable)))
    ;; As sleep.wat.
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 3600000000000))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 256)))))
