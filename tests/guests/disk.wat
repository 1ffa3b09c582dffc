;; Does to files what its arguments say, one after the other, prints WASI's errno of each on a line, and leaves with the last.
;; The first letter is what, a digit behind it one of ten slots for descriptors, and then comes a path, a number, or two
;; paths with a comma in between.
;;   cSP create  eSP create, not if it exists  tSP truncate  TSP create or truncate  aSP create to append  oSP open to read
;;   wSN write N bytes  WSN write a kilobyte as often as it works, N times at most  pSN write one byte at N  sSN set the size  fSN allocate
;;   xS close  gSS renumber  lP,P link  yP,P symlink  rP,P rename  mP mkdir  dP rmdir  uP unlink  hP set its times, through a link too
;;   nN make files n0000 to N-1, as often as it works  !  trap
;;   @D paths are below descriptor D from here on  >D and only the second of two
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_allocate" (func $allocate (param i32 i64 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_link"
    (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink" (func $symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename" (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_remove_directory" (func $rmdir (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_filestat_set_times"
    (func $set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  ;; 0: a buffer list and its result; 64: slots; 128: text; 1024: pointers to arguments; 8192: arguments; 65536: zeros.
  (memory (export "memory") 32)
  (data (i32.const 256) "n0000")
  (global $dir (mut i32) (i32.const 3))
  (global $dir2 (mut i32) (i32.const 3))

  ;; How far it is to the byte, or to the end.
  (func $until (param $at i32) (param $stop i32) (result i32) (local $n i32) (local $byte i32)
    (loop $next
      (local.set $byte (i32.load8_u (i32.add (local.get $at) (local.get $n))))
      (if (i32.and (i32.ne (local.get $byte) (local.get $stop)) (i32.ne (local.get $byte) (i32.const 0)))
        (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $next))))
    (local.get $n))

  (func $number (param $at i32) (result i64) (local $n i64)
    (loop $next
      (if (i32.load8_u (local.get $at))
        (then
          (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10))
            (i64.extend_i32_u (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    (local.get $n))

  ;; Two digits and the end of a line.
  (func $say (param $n i32)
    (i32.store8 (i32.const 128) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 10))))
    (i32.store8 (i32.const 129) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
    (i32.store8 (i32.const 130) (i32.const 10))
    (i32.store (i32.const 0) (i32.const 128))
    (i32.store (i32.const 4) (i32.const 3))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func $slot (param $digit i32) (result i32)
    (i32.add (i32.const 64) (i32.mul (i32.const 4) (i32.sub (i32.load8_u (local.get $digit)) (i32.const 48)))))

  (func $open (param $at i32) (param $oflags i32) (param $rights i64) (param $fdflags i32) (result i32)
    (call $path_open (global.get $dir) (i32.const 1)
      (i32.add (local.get $at) (i32.const 2))
      (call $until (i32.add (local.get $at) (i32.const 2)) (i32.const 0))
      (local.get $oflags) (local.get $rights) (i64.const 0) (local.get $fdflags)
      (call $slot (i32.add (local.get $at) (i32.const 1)))))

  (func $put (param $fd i32) (param $bytes i32) (result i32)
    (i32.store (i32.const 0) (i32.const 65536))
    (i32.store (i32.const 4) (local.get $bytes))
    (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))

  (func $many (param $n i32) (result i32) (local $i i32) (local $errno i32)
    (loop $next
      (i32.store8 (i32.const 257) (i32.add (i32.const 48) (i32.div_u (local.get $i) (i32.const 1000))))
      (i32.store8 (i32.const 258)
        (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $i) (i32.const 100)) (i32.const 10))))
      (i32.store8 (i32.const 259)
        (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $i) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 260) (i32.add (i32.const 48) (i32.rem_u (local.get $i) (i32.const 10))))
      (local.set $errno (call $path_open (global.get $dir) (i32.const 1) (i32.const 256) (i32.const 5)
        (i32.const 1) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 100)))
      (if (i32.eqz (local.get $errno))
        (then
          (drop (call $close (i32.load (i32.const 100))))
          (br_if $next
            (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))))
    (local.get $errno))

  (func $do (param $at i32) (result i32)
    (local $what i32) (local $fd i32) (local $n i64) (local $one i32) (local $one_len i32) (local $two i32)
    (local $errno i32)
    (local.set $what (i32.load8_u (local.get $at)))
    (local.set $one (i32.add (local.get $at) (i32.const 1)))
    (if (i32.eq (local.get $what) (i32.const 0x63)) (then (return (call $open (local.get $at) (i32.const 1) (i64.const 66) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x65)) (then (return (call $open (local.get $at) (i32.const 5) (i64.const 66) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x74)) (then (return (call $open (local.get $at) (i32.const 8) (i64.const 66) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x54)) (then (return (call $open (local.get $at) (i32.const 9) (i64.const 64) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x61)) (then (return (call $open (local.get $at) (i32.const 1) (i64.const 66) (i32.const 1)))))
    (if (i32.eq (local.get $what) (i32.const 0x6f)) (then (return (call $open (local.get $at) (i32.const 0) (i64.const 2) (i32.const 0)))))
    (if (i32.eq (local.get $what) (i32.const 0x21)) (then (unreachable)))
    (if (i32.eq (local.get $what) (i32.const 0x6e))
      (then (return (call $many (i32.wrap_i64 (call $number (local.get $one)))))))
    (if (i32.or (i32.eq (local.get $what) (i32.const 0x40)) (i32.eq (local.get $what) (i32.const 0x3e)))
      (then
        (global.set $dir2 (i32.sub (i32.load8_u (local.get $one)) (i32.const 48)))
        (if (i32.eq (local.get $what) (i32.const 0x40)) (then (global.set $dir (global.get $dir2))))
        (return (i32.const 0))))
    ;; With one path.
    (local.set $one_len (call $until (local.get $one) (i32.const 0x2c)))
    (if (i32.eq (local.get $what) (i32.const 0x6d)) (then (return (call $mkdir (global.get $dir) (local.get $one) (local.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x64)) (then (return (call $rmdir (global.get $dir) (local.get $one) (local.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x75)) (then (return (call $unlink (global.get $dir) (local.get $one) (local.get $one_len)))))
    (if (i32.eq (local.get $what) (i32.const 0x68))
      (then (return (call $set_times (global.get $dir) (i32.const 1) (local.get $one) (local.get $one_len)
        (i64.const 1000000000) (i64.const 2000000000) (i32.const 5)))))
    ;; With two.
    (local.set $two (i32.add (i32.add (local.get $one) (local.get $one_len)) (i32.const 1)))
    (if (i32.eq (local.get $what) (i32.const 0x6c))
      (then (return (call $link (global.get $dir) (i32.const 0) (local.get $one) (local.get $one_len)
        (global.get $dir2) (local.get $two) (call $until (local.get $two) (i32.const 0))))))
    (if (i32.eq (local.get $what) (i32.const 0x79))
      (then (return (call $symlink (local.get $one) (local.get $one_len)
        (global.get $dir2) (local.get $two) (call $until (local.get $two) (i32.const 0))))))
    (if (i32.eq (local.get $what) (i32.const 0x72))
      (then (return (call $rename (global.get $dir) (local.get $one) (local.get $one_len)
        (global.get $dir2) (local.get $two) (call $until (local.get $two) (i32.const 0))))))
    ;; With a descriptor.
    (local.set $fd (i32.load (call $slot (local.get $one))))
    (if (i32.eq (local.get $what) (i32.const 0x78)) (then (return (call $close (local.get $fd)))))
    (if (i32.eq (local.get $what) (i32.const 0x67))
      (then (return (call $renumber (local.get $fd)
        (i32.load (call $slot (i32.add (local.get $at) (i32.const 2))))))))
    (local.set $n (call $number (i32.add (local.get $at) (i32.const 2))))
    (if (i32.eq (local.get $what) (i32.const 0x77)) (then (return (call $put (local.get $fd) (i32.wrap_i64 (local.get $n))))))
    (if (i32.eq (local.get $what) (i32.const 0x73)) (then (return (call $set_size (local.get $fd) (local.get $n)))))
    (if (i32.eq (local.get $what) (i32.const 0x66)) (then (return (call $allocate (local.get $fd) (i64.const 0) (local.get $n)))))
    (if (i32.eq (local.get $what) (i32.const 0x70))
      (then
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 1))
        (return (call $pwrite (local.get $fd) (i32.const 0) (i32.const 1) (local.get $n) (i32.const 8)))))
    (if (i32.eq (local.get $what) (i32.const 0x57))
      (then
        (loop $again
          (local.set $errno (call $put (local.get $fd) (i32.const 1024)))
          (local.set $n (i64.sub (local.get $n) (i64.const 1)))
          (br_if $again (i32.and (i32.eqz (local.get $errno)) (i64.gt_u (local.get $n) (i64.const 0)))))
        (return (local.get $errno))))
    (unreachable))

  (func (export "_start") (local $i i32) (local $errno i32)
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (i32.store (i32.const 16) (i32.load (i32.const 0)))
    (drop (call $args (i32.const 1024) (i32.const 8192)))
    (local.set $i (i32.const 1))
    (loop $next
      (if (i32.lt_u (local.get $i) (i32.load (i32.const 16)))
        (then
          (local.set $errno (call $do (i32.load (i32.add (i32.const 1024) (i32.mul (i32.const 4) (local.get $i))))))
          (call $say (local.get $errno))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next))))
    (call $exit (local.get $errno))))
