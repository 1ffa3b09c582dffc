;; Opens its directory once for each argument, and leaves with 0 when all were opened.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) ".")
  (func (export "_start") (local $left i32)
    (drop (call $args_sizes (i32.const 0) (i32.const 4)))
    (local.set $left (i32.sub (i32.load (i32.const 0)) (i32.const 1)))
    (loop $next
      (if (local.get $left)
        (then
          (if (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 1)
                (i32.const 2) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 32))
            (then (unreachable)))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br $next))))))
