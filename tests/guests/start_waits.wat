;; Sleeps for ever in its start function: guest code before the entry point, in a call of the host.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $wait
    (i32.store offset=16 (i32.const 64) (i32.const 1))
    (i64.store offset=24 (i32.const 64) (i64.const -1))
    (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 512))))
  (start $wait)
  (func (export "_start")))
