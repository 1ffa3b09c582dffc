;; Appends to the file "data" in its directory, for ever: nearly always within a host call on a file.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\04\00\00\00\00\01\00")
  (data (i32.const 16) "data")
  (func (export "_start")
    ;; Flag 1 creates; right 64 is fd_write.
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4)
          (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 32))
      (then (unreachable)))
    (loop $again
      (drop (call $pwrite (i32.load (i32.const 32)) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 40)))
      (br $again))))
