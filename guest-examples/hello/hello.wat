;; hello: a greeting, and the smallest guest that does something.
;;
;; Without arguments it prints "Hello from Coracle!". With arguments it greets
;; them all: `hello Ada Grace` prints "Hello, Ada Grace!".
;;
;; It exits with 0 by returning from `_start`, and with 1 when the host refuses
;; a call or the memory that the arguments need.
;;
;; Memory, from address 0 up (n arguments, s bytes of argument text):
;;
;;       0   args_sizes_get's two answers: n, then s
;;       8   the iovec handed to fd_write: address, length
;;      16   fd_write's answer: how many bytes it took
;;      32   "Hello from Coracle!\n"
;;      64   argv: n pointers of 4 bytes
;;  64+4n    the argument text: n strings, each ended by a zero byte
;;     ...   the greeting, at most s + 9 bytes
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param $count_out i32) (param $bytes_out i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param $argv i32) (param $text i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write
      (param $fd i32) (param $iovecs i32) (param $iovec_count i32) (param $written_out i32)
      (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit"
    (func $proc_exit (param $code i32)))

  (memory (export "memory") 1)

  (data (i32.const 32) "Hello from Coracle!\n")

  (func (export "_start")
    (local $count i32)     ;; arguments, the program's own name among them
    (local $text i32)      ;; where the argument text is
    (local $greeting i32)  ;; where the greeting begins
    (local $end i32)       ;; one past its last byte so far
    (local $i i32)         ;; the argument to copy next

    (call $check (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (local.set $count (i32.load (i32.const 0)))

    ;; Argument 0 is the name this program was started by.
    (if (i32.le_u (local.get $count) (i32.const 1))
      (then
        (call $print (i32.const 32) (i32.const 20))
        (return)))

    (local.set $text
      (i32.add (i32.const 64) (i32.mul (local.get $count) (i32.const 4))))
    (local.set $greeting
      (i32.add (local.get $text) (i32.load (i32.const 4))))
    ;; "Hello, " and "!\n" are 9 bytes. The spaces between the arguments are
    ;; paid for by the zero bytes that ended them.
    (call $reserve
      (i32.add
        (i32.add (local.get $greeting) (i32.load (i32.const 4)))
        (i32.const 9)))
    (call $check (call $args_get (i32.const 64) (local.get $text)))

    ;; "Hello," and then each argument with a space in front.
    (memory.copy (local.get $greeting) (i32.const 32) (i32.const 5))
    (i32.store8 offset=5 (local.get $greeting) (i32.const 0x2c)) ;; ','
    (local.set $end (i32.add (local.get $greeting) (i32.const 6)))
    (local.set $i (i32.const 1))
    (loop $next
      (i32.store8 (local.get $end) (i32.const 0x20)) ;; ' '
      (local.set $end
        (call $append_string
          (i32.add (local.get $end) (i32.const 1))
          (i32.load offset=64 (i32.mul (local.get $i) (i32.const 4)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $count))))

    (i32.store16 (local.get $end) (i32.const 0x0a21)) ;; "!\n", little-endian
    (call $print
      (local.get $greeting)
      (i32.add
        (i32.sub (local.get $end) (local.get $greeting))
        (i32.const 2))))

  ;; Copies the zero-ended string at $from to $to, without its zero, and
  ;; returns the address after the copy.
  (func $append_string (param $to i32) (param $from i32) (result i32)
    (local $byte i32)
    (block $done
      (loop $next
        (local.set $byte (i32.load8_u (local.get $from)))
        (br_if $done (i32.eqz (local.get $byte)))
        (i32.store8 (local.get $to) (local.get $byte))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (br $next)))
    (local.get $to))

  ;; Grows the memory until it holds the addresses below $bytes.
  (func $reserve (param $bytes i32)
    (local $pages i32)
    (local.set $pages ;; of 64 KiB, rounded up
      (i32.shr_u
        (i32.add (local.get $bytes) (i32.const 0xffff))
        (i32.const 16)))
    (if (i32.gt_u (local.get $pages) (memory.size))
      (then
        (if (i32.eq
              (memory.grow (i32.sub (local.get $pages) (memory.size)))
              (i32.const -1))
          (then (call $fail))))))

  ;; Writes all of the text to stdout: fd_write may take less than it is given.
  (func $print (param $address i32) (param $length i32)
    (local $written i32)
    (loop $more
      (i32.store (i32.const 8) (local.get $address))
      (i32.store (i32.const 12) (local.get $length))
      (call $check
        (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
      (local.set $written (i32.load (i32.const 16)))
      ;; A write that took nothing would be repeated for ever.
      (if (i32.eqz (local.get $written))
        (then (call $fail)))
      (local.set $address (i32.add (local.get $address) (local.get $written)))
      (local.set $length (i32.sub (local.get $length) (local.get $written)))
      (br_if $more (local.get $length))))

  ;; Ends the program when a WASI call answered with an error number.
  (func $check (param $errno i32)
    (if (local.get $errno)
      (then (call $fail))))

  (func $fail
    (call $proc_exit (i32.const 1))
    unreachable))
