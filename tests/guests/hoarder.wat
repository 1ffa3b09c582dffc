;; Grows by a megabyte at a time and writes to each page, until it is refused; then keeps what it has for an hour.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start") (local $old i32) (local $page i32)
    (loop $more
      (local.set $old (memory.grow (i32.const 16)))
      (if (i32.ne (local.get $old) (i32.const -1))
        (then
          (local.set $page (i32.const 0))
          (loop $touch
            (i32.store (i32.mul (i32.add (local.get $old) (local.get $page)) (i32.const 65536)) (i32.const 1))
            (br_if $touch
              (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1))) (i32.const 16))))
          (br $more))))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))
