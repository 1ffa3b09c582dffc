;; Takes all memory that it may have, and fills all of it at a time, for ever: the longest step that there is.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $take
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 128)) (i32.const -1))))
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))))
  (func (export "_start")
    (call $take)
    (call $ready)
    (loop $again
      (memory.fill (i32.const 0) (i32.const 7) (i32.mul (memory.size) (i32.const 65536)))
      (br $again))))
