;; Writes a megabyte at a time to the file "data", for ever: 64 GiB from its beginning, over 16 MiB, so that the file is
;; huge and takes little of the disk. Ready when the first megabyte is written.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 17)
  (data (i32.const 0) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\0a")
  (func $ready (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (data (i32.const 32) "\00\00\01\00\00\00\10\00")
  (data (i32.const 48) "data")
  (func $megabyte (param $at i64)
    (if (call $pwrite (i32.load (i32.const 64)) (i32.const 32) (i32.const 1)
          (i64.add (i64.const 0x1000000000) (local.get $at)) (i32.const 72))
      (then (unreachable))))
  (func (export "_start") (local $at i64)
    ;; Flag 1 creates; right 64 is fd_write.
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 48) (i32.const 4)
          (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 64))
      (then (unreachable)))
    (call $megabyte (i64.const 0))
    (call $ready)
    (loop $again
      (local.set $at (i64.and (i64.add (local.get $at) (i64.const 0x100000)) (i64.const 0xffffff)))
      (call $megabyte (local.get $at))
      (br $again))))
