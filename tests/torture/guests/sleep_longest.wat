;; Sleeps for as long as can be said: 2^64 - 1 nanoseconds, 584 years.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start")
    (call $ready)
    ;; One subscription: tag 0 is the clock, id 1 the monotonic one.
    (i32.store offset=16 (i32.const 64) (i32.const 1))
    (i64.store offset=24 (i32.const 64) (i64.const -1))
    (loop $again
      (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 192)))
      (br $again))))
