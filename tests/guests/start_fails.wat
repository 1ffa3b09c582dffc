;; In its start function: asks for more memory than there is, and then for more random bytes than one call gives, which is a trap.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func $fail
    (drop (memory.grow (i32.const 65000)))
    (drop (call $random (i32.const 0) (i32.const 65537))))
  (start $fail)
  (func (export "_start")))
