;; Prints lines of a kilobyte, sixty-four at a time, until standard input has something; leaves with the first byte of that.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  ;; 0: what is printed; 8: where one byte is read to; 16: how many, or how many events; 32: that byte.
  (data (i32.const 0) "\00\04\00\00\00\00\01\00\20\00\00\00\01\00\00\00")
  ;; 64: subscriptions to the input, and to the monotonic clock, which is there at once; 256: events.
  (data (i32.const 72) "\01")
  (data (i32.const 128) "\01")
  (func (export "_start") (local $i i32)
    (memory.fill (i32.const 1024) (i32.const 0x2e) (i32.const 65536))
    (loop $next
      (i32.store8 offset=2047 (local.get $i) (i32.const 10))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1024))) (i32.const 65536))))
    (loop $again
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (if (call $poll (i32.const 64) (i32.const 256) (i32.const 2) (i32.const 16)) (then (unreachable)))
      ;; Of which kind the first event is.
      (br_if $again (i32.ne (i32.load8_u (i32.const 266)) (i32.const 1)))
      (if (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)) (then (unreachable)))
      (call $exit (i32.load8_u (i32.const 32))))))
