;; Prints lines of a kilobyte, sixty-four at a time, as fast as it can.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\04\00\00\00\00\01\00")
  (func (export "_start") (local $i i32)
    (memory.fill (i32.const 1024) (i32.const 0x2e) (i32.const 65536))
    (loop $next
      (i32.store8 offset=2047 (local.get $i) (i32.const 10))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1024))) (i32.const 65536))))
    (loop $again (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br $again))))
