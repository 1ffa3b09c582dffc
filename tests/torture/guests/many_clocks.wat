;; Waits for fifty clocks at once, the first of which is due in an hour.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start") (local $at i32)
    ;; 48 bytes each, from 1024 on: by turns the clock of the day and the monotonic one.
    (local.set $at (i32.const 1024))
    (loop $next
      (i32.store offset=16 (local.get $at) (i32.and (i32.div_u (local.get $at) (i32.const 48)) (i32.const 1)))
      (i64.store offset=24 (local.get $at)
        (i64.add (i64.const 3600000000000) (i64.extend_i32_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 48)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 3424))))
    (call $ready)
    (if (call $poll (i32.const 1024) (i32.const 8192) (i32.const 50) (i32.const 64)) (then (unreachable)))))
