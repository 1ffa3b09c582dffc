;; clock: prints the time in UTC, once a second, until somebody stops it.
;;
;;     2026-01-31T23:59:58Z
;;     2026-01-31T23:59:59Z
;;     2026-02-01T00:00:00Z
;;
;; The first line comes at once, the others as each second begins. It leaves
;; by itself only when the host refuses a call: with exit code 1.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get
      (param $clock i32) (param $precision_ns i64) (param $time_out i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff
      (param $subscriptions i32) (param $events_out i32) (param $count i32)
      (param $happened_out i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write
      (param $fd i32) (param $iovecs i32) (param $iovec_count i32) (param $written_out i32)
      (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit"
    (func $proc_exit (param $code i32)))

  ;; Addresses:
  ;;    0  the iovec handed to fd_write: address, length
  ;;    8  fd_write's and poll_oneoff's answer: how many
  ;;   16  clock_time_get's answer: nanoseconds, 64 bits
  ;;   64  the subscription handed to poll_oneoff, 48 bytes
  ;;  128  the event it hands back, 32 bytes
  ;;  192  the line
  (memory (export "memory") 1)

  ;; The subscription is all zero (type "clock", timeout relative to now) but
  ;; for the clock's number at +16, which is 1 (monotonic), and the timeout in
  ;; nanoseconds at +24, which is set before each call.
  (data (i32.const 80) "\01")
  (data (i32.const 192) "YYYY-MM-DDTHH:MM:SSZ\n")

  (func (export "_start")
    (local $now_ns i64)  ;; since 1970-01-01T00:00:00Z
    (local $second i64)  ;; the same in whole seconds
    (local $printed i64) ;; the second that was printed last
    (local.set $printed (i64.const -1))
    (loop $forever
      (call $check
        (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 16)))
      (local.set $now_ns (i64.load (i32.const 16)))
      (local.set $second (i64.div_u (local.get $now_ns) (i64.const 1_000_000_000)))

      ;; A sleep that ended a moment early finds the old second once more.
      (if (i64.ne (local.get $second) (local.get $printed))
        (then
          (call $set_date (i32.wrap_i64 (i64.div_u (local.get $second) (i64.const 86_400))))
          (call $set_time (i32.wrap_i64 (i64.rem_u (local.get $second) (i64.const 86_400))))
          (call $print (i32.const 192) (i32.const 21))
          (local.set $printed (local.get $second))))

      ;; Sleep through what is left of this second.
      (i64.store (i32.const 88)
        (i64.sub
          (i64.const 1_000_000_000)
          (i64.rem_u (local.get $now_ns) (i64.const 1_000_000_000))))
      (call $check
        (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))
      ;; The subscription's own error number, at +8 in its event.
      (call $check (i32.load16_u (i32.const 136)))
      (br $forever)))

  ;; Puts the time into the line, given the seconds since midnight.
  (func $set_time (param $seconds i32)
    (call $two_digits (i32.const 203) ;; hours
      (i32.div_u (local.get $seconds) (i32.const 3600)))
    (call $two_digits (i32.const 206) ;; minutes
      (i32.rem_u (i32.div_u (local.get $seconds) (i32.const 60)) (i32.const 60)))
    (call $two_digits (i32.const 209) ;; seconds
      (i32.rem_u (local.get $seconds) (i32.const 60))))

  ;; Puts the date into the line, given the days since 1970-01-01.
  ;;
  ;; Years are counted from 1 March here, so that the leap day is the last of
  ;; its year. Then the calendar repeats every 400 years of 146,097 days, and
  ;; the months' lengths follow one straight line: day 0 of month m (March is
  ;; 0) is (153 * m + 2) / 5. The method is Howard Hinnant's `civil_from_days`.
  (func $set_date (param $days i32)
    (local $era i32)   ;; which 400 years
    (local $day i32)   ;; in the era, then in the year
    (local $year i32)  ;; in the era, then in our calendar
    (local $month i32) ;; 0 is March, then 1 is January

    ;; 719,468 days from 0000-03-01 to 1970-01-01.
    (local.set $days (i32.add (local.get $days) (i32.const 719_468)))
    (local.set $era (i32.div_u (local.get $days) (i32.const 146_097)))
    (local.set $day (i32.rem_u (local.get $days) (i32.const 146_097)))

    ;; year = (day - day / 1460 + day / 36524 - day / 146096) / 365:
    ;; take the leap days out, and all years are 365 days long.
    (local.set $year
      (i32.div_u
        (i32.sub
          (i32.add
            (i32.sub
              (local.get $day)
              (i32.div_u (local.get $day) (i32.const 1460)))
            (i32.div_u (local.get $day) (i32.const 36_524)))
          (i32.div_u (local.get $day) (i32.const 146_096)))
        (i32.const 365)))

    ;; day = day - (365 * year + year / 4 - year / 100)
    (local.set $day
      (i32.sub
        (local.get $day)
        (i32.sub
          (i32.add
            (i32.mul (local.get $year) (i32.const 365))
            (i32.div_u (local.get $year) (i32.const 4)))
          (i32.div_u (local.get $year) (i32.const 100)))))

    ;; month = (5 * day + 2) / 153
    (local.set $month
      (i32.div_u
        (i32.add (i32.mul (local.get $day) (i32.const 5)) (i32.const 2))
        (i32.const 153)))

    ;; The day of the month: day - (153 * month + 2) / 5, counted from 1.
    (call $two_digits (i32.const 200)
      (i32.add
        (i32.sub
          (local.get $day)
          (i32.div_u
            (i32.add (i32.mul (local.get $month) (i32.const 153)) (i32.const 2))
            (i32.const 5)))
        (i32.const 1)))

    ;; Back to years that begin in January: months 10 and 11 of the year that
    ;; began in March are January and February of the next.
    (local.set $year
      (i32.add (local.get $year) (i32.mul (local.get $era) (i32.const 400))))
    (if (i32.lt_u (local.get $month) (i32.const 10))
      (then
        (local.set $month (i32.add (local.get $month) (i32.const 3))))
      (else
        (local.set $month (i32.sub (local.get $month) (i32.const 9)))
        (local.set $year (i32.add (local.get $year) (i32.const 1)))))
    (call $two_digits (i32.const 197) (local.get $month))
    (call $two_digits (i32.const 192) (i32.div_u (local.get $year) (i32.const 100)))
    (call $two_digits (i32.const 194) (i32.rem_u (local.get $year) (i32.const 100))))

  ;; Writes a number below 100 at $address, as two digits.
  (func $two_digits (param $address i32) (param $number i32)
    (i32.store8 (local.get $address)
      (i32.add (i32.const 0x30) (i32.div_u (local.get $number) (i32.const 10))))
    (i32.store8 offset=1 (local.get $address)
      (i32.add (i32.const 0x30) (i32.rem_u (local.get $number) (i32.const 10)))))

  ;; Writes all of the text to stdout: fd_write may take less than it is given.
  (func $print (param $address i32) (param $length i32)
    (local $written i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $address))
      (i32.store (i32.const 4) (local.get $length))
      (call $check
        (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $written (i32.load (i32.const 8)))
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
