;; Prints a mebibyte in lines of a kilobyte, sixty-four at a time at most, and leaves.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\04\00\00\00\00\01\00")
  (func (export "_start") (local $i i32)
    (memory.fill (i32.const 1024) (i32.const 0x2e) (i32.const 65536))
    (loop $next
      (i32.store8 offset=2047 (local.get $i) (i32.const 10))
      (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1024))) (i32.const 65536))))
    ;; What is taken of it may be less, where somebody is slow to read.
    (local.set $i (i32.const 1048576))
    (loop $again
      (i32.store (i32.const 4) (select (local.get $i) (i32.const 65536) (i32.lt_u (local.get $i) (i32.const 65536))))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.load (i32.const 16))))))))
