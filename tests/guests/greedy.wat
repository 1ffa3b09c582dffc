;; Makes one call that would take much of the host's memory, and leaves with WASI's errno. The first argument says which, the
;; second and the third are numbers.
;;   p N    poll N clocks at once
;;   r N    N random bytes
;;   i N L  read a file into N buffers of L bytes  I N L  the same at an offset
;;   w N L  write a file from N buffers of L bytes  W N L  the same at an offset  o N L  write to standard output
;;   d N    read its directory with a buffer of N bytes
;;   l N    open a path of N bytes
;;   D      call the host, and itself, and so on
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pread" (func $pread (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_readdir" (func $readdir (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  ;; Most of it is never touched, and so takes nothing. 0: results; 64: the number of arguments; 128: pointers to them;
  ;; 256: themselves; 1 MiB: what is passed; 64 MiB: what is filled, or written.
  (memory (export "memory") 2048)
  (data (i32.const 48) "file")

  (func $argument (param $i i32) (result i32)
    (i32.load (i32.add (i32.const 128) (i32.mul (i32.const 4) (local.get $i)))))

  (func $number (param $i i32) (result i32) (local $at i32) (local $n i32)
    (if (i32.ge_u (local.get $i) (i32.load (i32.const 64))) (then (return (i32.const 0))))
    (local.set $at (call $argument (local.get $i)))
    (loop $next
      (if (i32.load8_u (local.get $at))
        (then
          (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10))
            (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    (local.get $n))

  ;; Buffers one behind the other in the list, all at the same place; of a longer list only the first million.
  (func $buffers (param $n i32) (param $bytes i32) (local $at i32)
    (if (i32.gt_u (local.get $n) (i32.const 1000000)) (then (local.set $n (i32.const 1000000))))
    (local.set $at (i32.const 1048576))
    (loop $next
      (if (local.get $n)
        (then
          (i32.store (local.get $at) (i32.const 67108864))
          (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $bytes))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br $next)))))

  ;; A file to read and write.
  (func $file (result i32)
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 48) (i32.const 4)
          (i32.const 1) (i64.const 70) (i64.const 0) (i32.const 0) (i32.const 16))
      (then (unreachable)))
    (i32.load (i32.const 16)))

  (func $deep (param $n i32) (result i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 48) (i32.const 4)
      (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))
    (i32.add (local.get $n) (call $deep (i32.add (local.get $n) (i32.const 1)))))

  (func $do (param $what i32) (param $n i32) (param $bytes i32) (result i32)
    (if (i32.eq (local.get $what) (i32.const 0x70))
      (then (return (call $poll (i32.const 1048576) (i32.const 67108864) (local.get $n) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x72)) (then (return (call $random (i32.const 1048576) (local.get $n)))))
    (if (i32.eq (local.get $what) (i32.const 0x64))
      (then (return (call $readdir (i32.const 3) (i32.const 1048576) (local.get $n) (i64.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x6c))
      (then
        (memory.fill (i32.const 1048576) (i32.const 97) (local.get $n))
        (return (call $open (i32.const 3) (i32.const 0) (i32.const 1048576) (local.get $n)
          (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)))))
    (if (i32.eq (local.get $what) (i32.const 0x44)) (then (return (call $deep (i32.const 0)))))
    (call $buffers (local.get $n) (local.get $bytes))
    (if (i32.eq (local.get $what) (i32.const 0x69))
      (then (return (call $read (call $file) (i32.const 1048576) (local.get $n) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x49))
      (then (return (call $pread (call $file) (i32.const 1048576) (local.get $n) (i64.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x77))
      (then (return (call $write (call $file) (i32.const 1048576) (local.get $n) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x57))
      (then (return (call $pwrite (call $file) (i32.const 1048576) (local.get $n) (i64.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x6f))
      (then (return (call $write (i32.const 1) (i32.const 1048576) (local.get $n) (i32.const 0)))))
    (unreachable))

  (func (export "_start")
    (drop (call $args_sizes (i32.const 64) (i32.const 68)))
    (drop (call $args (i32.const 128) (i32.const 256)))
    (call $exit (call $do (i32.load8_u (call $argument (i32.const 1))) (call $number (i32.const 2)) (call $number (i32.const 3))))))
