;; Reads its directory through a small buffer and prints each name on a line, with a sign behind it: `=` if the entry has the
;; inode that the path leads to, `!` if not.
(module
  (import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_get"
    (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  ;; 0: a buffer list and its result; 64: a file's status; 1024: a line; 4096: entries, of which one with the longest name fits.
  (memory (export "memory") 1)
  (func $entry (param $at i32) (local $len i32) (local $name i32)
    (local.set $len (i32.load (i32.add (local.get $at) (i32.const 16))))
    (local.set $name (i32.add (local.get $at) (i32.const 24)))
    (if (i32.eq (i32.load8_u (local.get $name)) (i32.const 46)) (then (return)))
    (if (call $stat (i32.const 3) (i32.const 0) (local.get $name) (local.get $len) (i32.const 64)) (then (unreachable)))
    (memory.copy (i32.const 1024) (local.get $name) (local.get $len))
    (i32.store16 (i32.add (i32.const 1024) (local.get $len))
      (select (i32.const 0x0a3d) (i32.const 0x0a21)
        (i64.eq (i64.load (i32.const 72)) (i64.load (i32.add (local.get $at) (i32.const 8))))))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.add (local.get $len) (i32.const 2)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func (export "_start") (local $cookie i64) (local $used i32) (local $at i32) (local $end i32)
    (loop $more
      (if (call $readdir (i32.const 3) (i32.const 4096) (i32.const 300) (local.get $cookie) (i32.const 16))
        (then (unreachable)))
      (local.set $used (i32.load (i32.const 16)))
      (local.set $at (i32.const 4096))
      (block $cut
        (loop $next
          (br_if $cut (i32.gt_u (i32.add (local.get $at) (i32.const 24)) (i32.add (local.get $used) (i32.const 4096))))
          (local.set $end (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load (i32.add (local.get $at) (i32.const 16)))))
          (br_if $cut (i32.gt_u (local.get $end) (i32.add (local.get $used) (i32.const 4096))))
          (call $entry (local.get $at))
          (local.set $cookie (i64.load (local.get $at)))
          (local.set $at (local.get $end))
          (br $next)))
      ;; A full buffer: there is more.
      (br_if $more (i32.eq (local.get $used) (i32.const 300))))))
