;; Takes all memory that it may have for a table, and fills all of that at a time, for ever.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (table $t 1 funcref)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (elem declare func $ready)
  (func (export "_start")
    (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1))))
    (call $ready)
    (loop $again (table.fill $t (i32.const 0) (ref.func $ready) (table.size $t)) (br $again))))
