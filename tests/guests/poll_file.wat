;; Polls an empty file to read and to write, a clock of an hour, standard output and standard input at once, a thousand times.
;; Leaves with 0 if all but the clock were ready each time, and with the number of what was not as expected otherwise.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  ;; 0: the file's name; 16: its descriptor; 24: how many events; 64: subscriptions; 1024: events.
  (memory (export "memory") 1)
  (data (i32.const 0) "file")

  (func $subscribe (param $i i32) (param $tag i32) (param $fd i32) (local $at i32)
    (local.set $at (i32.add (i32.const 64) (i32.mul (local.get $i) (i32.const 48))))
    (i64.store (local.get $at) (i64.extend_i32_u (i32.add (i32.const 10) (local.get $i))))
    (i32.store8 (i32.add (local.get $at) (i32.const 8)) (local.get $tag))
    (i32.store (i32.add (local.get $at) (i32.const 16)) (local.get $fd)))

  (func $expect (param $i i32) (param $userdata i64) (param $type i32) (local $at i32)
    (local.set $at (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 32))))
    (if (i64.ne (i64.load (local.get $at)) (local.get $userdata))
      (then (call $exit (i32.add (i32.const 10) (local.get $i)))))
    (if (i32.load16_u (i32.add (local.get $at) (i32.const 8))) (then (call $exit (i32.add (i32.const 20) (local.get $i)))))
    (if (i32.ne (i32.load8_u (i32.add (local.get $at) (i32.const 10))) (local.get $type))
      (then (call $exit (i32.add (i32.const 30) (local.get $i))))))

  (func (export "_start") (local $round i32)
    (loop $again
      (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4)
            (i32.const 1) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 16))
        (then (call $exit (i32.const 1))))
      (call $subscribe (i32.const 0) (i32.const 1) (i32.load (i32.const 16)))
      (call $subscribe (i32.const 1) (i32.const 2) (i32.load (i32.const 16)))
      ;; The monotonic clock.
      (call $subscribe (i32.const 2) (i32.const 0) (i32.const 1))
      (i64.store (i32.const 184) (i64.const 3600000000000))
      (call $subscribe (i32.const 3) (i32.const 2) (i32.const 1))
      (call $subscribe (i32.const 4) (i32.const 1) (i32.const 0))
      (if (call $poll (i32.const 64) (i32.const 1024) (i32.const 5) (i32.const 24)) (then (call $exit (i32.const 2))))
      (if (i32.ne (i32.load (i32.const 24)) (i32.const 4)) (then (call $exit (i32.add (i32.const 3) (i32.load (i32.const 24))))))
      (call $expect (i32.const 0) (i64.const 10) (i32.const 1))
      ;; At its end.
      (if (i32.ne (i32.load16_u (i32.const 1048)) (i32.const 1)) (then (call $exit (i32.const 40))))
      (call $expect (i32.const 1) (i64.const 11) (i32.const 2))
      (call $expect (i32.const 2) (i64.const 13) (i32.const 2))
      (call $expect (i32.const 3) (i64.const 14) (i32.const 1))
      (if (call $close (i32.load (i32.const 16))) (then (call $exit (i32.const 3))))
      (br_if $again (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const 1000))))))
