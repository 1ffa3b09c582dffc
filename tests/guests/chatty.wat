;; Prints lines without an end.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\42\00\00\00")
  (data (i32.const 16) "a line of sixty-six bytes, printed as often as there is time for.\0a")
  (func (export "_start")
    (loop $again (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 128))) (br $again))))
