;; Tries one thing with the path in its second argument, and leaves with WASI's errno. The first letter of the first argument is
;; what; where more letters follow, they are the path of a directory that is opened first and that the path begins at. A third
;; argument is a second path, which begins at the preopened directory in any case.
;;   o open to read  w open to write  c create  e create, not if it exists  t truncate  d open as a directory
;;   l hard link of the path, in the second path  r rename to the second path
;;   L hard link of the second path, in the path  R rename the second path to it  y symbolic link with the second path as its text
;;   u unlink  m make a directory  k remove a directory  n read a link
;;   s look at what is behind it  S look at it  i set the times of what is behind it  I set its times
;; What was opened to write, created or truncated is written to, what was opened to read is read and printed.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link"
    (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_readlink" (func $readlink (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_get" (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times"
    (func $times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  ;; 0: a buffer list and its result; 16: descriptors; 64: the number of arguments; 1024: pointers to them; 2048: themselves;
  ;; 32768: what is read.
  (memory (export "memory") 1)
  (data (i32.const 512) "written by the guest")
  (global $at (mut i32) (i32.const 3))
  (global $one (mut i32) (i32.const 0))
  (global $one_len (mut i32) (i32.const 0))
  (global $two (mut i32) (i32.const 0))
  (global $two_len (mut i32) (i32.const 0))

  (func $argument (param $i i32) (result i32)
    (if (i32.ge_u (local.get $i) (i32.load (i32.const 64))) (then (return (i32.const 0))))
    (i32.load (i32.add (i32.const 1024) (i32.mul (i32.const 4) (local.get $i)))))

  (func $length (param $at i32) (result i32) (local $n i32)
    (if (i32.eqz (local.get $at)) (then (return (i32.const 0))))
    (loop $next
      (if (i32.load8_u (i32.add (local.get $at) (local.get $n)))
        (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $next))))
    (local.get $n))

  (func $open (param $oflags i32) (param $rights i64) (result i32)
    (call $path_open (global.get $at) (i32.const 1) (global.get $one) (global.get $one_len)
      (local.get $oflags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 20)))

  (func $open_to_write (param $oflags i32) (result i32) (local $errno i32)
    (if (local.tee $errno (call $open (local.get $oflags) (i64.const 64))) (then (return (local.get $errno))))
    (i32.store (i32.const 0) (i32.const 512))
    (i32.store (i32.const 4) (i32.const 20))
    (call $write (i32.load (i32.const 20)) (i32.const 0) (i32.const 1) (i32.const 8)))

  (func $open_to_read (result i32) (local $errno i32)
    (if (local.tee $errno (call $open (i32.const 0) (i64.const 2))) (then (return (local.get $errno))))
    (i32.store (i32.const 0) (i32.const 32768))
    (i32.store (i32.const 4) (i32.const 4096))
    (if (local.tee $errno (call $read (i32.load (i32.const 20)) (i32.const 0) (i32.const 1) (i32.const 8)))
      (then (return (local.get $errno))))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))

  (func $do (param $what i32) (result i32)
    (if (i32.eq (local.get $what) (i32.const 0x6f)) (then (return (call $open_to_read))))
    (if (i32.eq (local.get $what) (i32.const 0x77)) (then (return (call $open_to_write (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x63)) (then (return (call $open_to_write (i32.const 1)))))
    (if (i32.eq (local.get $what) (i32.const 0x65)) (then (return (call $open_to_write (i32.const 5)))))
    (if (i32.eq (local.get $what) (i32.const 0x74)) (then (return (call $open_to_write (i32.const 8)))))
    (if (i32.eq (local.get $what) (i32.const 0x64)) (then (return (call $open (i32.const 2) (i64.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x6c))
      (then (return (call $link (global.get $at) (i32.const 0) (global.get $one) (global.get $one_len)
        (i32.const 3) (global.get $two) (global.get $two_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x4c))
      (then (return (call $link (i32.const 3) (i32.const 0) (global.get $two) (global.get $two_len)
        (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x72))
      (then (return (call $rename (global.get $at) (global.get $one) (global.get $one_len)
        (i32.const 3) (global.get $two) (global.get $two_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x52))
      (then (return (call $rename (i32.const 3) (global.get $two) (global.get $two_len)
        (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x79))
      (then (return (call $symlink (global.get $two) (global.get $two_len)
        (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x75))
      (then (return (call $unlink (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x6d))
      (then (return (call $mkdir (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x6b))
      (then (return (call $rmdir (global.get $at) (global.get $one) (global.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x6e))
      (then (return (call $readlink (global.get $at) (global.get $one) (global.get $one_len)
        (i32.const 32768) (i32.const 4096) (i32.const 8)))))
    (if (i32.eq (local.get $what) (i32.const 0x73))
      (then (return (call $stat (global.get $at) (i32.const 1) (global.get $one) (global.get $one_len) (i32.const 32768)))))
    (if (i32.eq (local.get $what) (i32.const 0x53))
      (then (return (call $stat (global.get $at) (i32.const 0) (global.get $one) (global.get $one_len) (i32.const 32768)))))
    ;; Both times, to one second after the epoch.
    (if (i32.eq (local.get $what) (i32.const 0x69))
      (then (return (call $times (global.get $at) (i32.const 1) (global.get $one) (global.get $one_len)
        (i64.const 1000000000) (i64.const 1000000000) (i32.const 5)))))
    (if (i32.eq (local.get $what) (i32.const 0x49))
      (then (return (call $times (global.get $at) (i32.const 0) (global.get $one) (global.get $one_len)
        (i64.const 1000000000) (i64.const 1000000000) (i32.const 5)))))
    (unreachable))

  (func (export "_start") (local $directory i32) (local $errno i32)
    (drop (call $args_sizes (i32.const 64) (i32.const 68)))
    (drop (call $args (i32.const 1024) (i32.const 2048)))
    (global.set $one (call $argument (i32.const 2)))
    (global.set $one_len (call $length (global.get $one)))
    (global.set $two (call $argument (i32.const 3)))
    (global.set $two_len (call $length (global.get $two)))
    (local.set $directory (i32.add (call $argument (i32.const 1)) (i32.const 1)))
    (if (call $length (local.get $directory))
      (then
        ;; An error here would pass for one of what is tried.
        (if (call $path_open (i32.const 3) (i32.const 0) (local.get $directory) (call $length (local.get $directory))
              (i32.const 2) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16))
          (then (unreachable)))
        (global.set $at (i32.load (i32.const 16)))))
    (call $exit (call $do (i32.load8_u (call $argument (i32.const 1)))))))
