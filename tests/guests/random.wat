;; Asks for 64 KiB of random bytes, and with an argument for one more.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (if (call $random (i32.const 16) (i32.add (i32.const 65535) (i32.load (i32.const 0)))) (then (unreachable)))))
