;; Takes all memory that it may have, and moves all of it by a byte, back and forth, for ever.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $take
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 128)) (i32.const -1))))
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))
  (func (export "_start") (local $bytes i32)
    (call $take)
    (call $ready)
    (local.set $bytes (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))
    (loop $again
      (memory.copy (i32.const 1) (i32.const 0) (local.get $bytes))
      (memory.copy (i32.const 0) (i32.const 1) (local.get $bytes))
      (br $again))))
