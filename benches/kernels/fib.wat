;; fib.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (type (;1;) (func (param i32) (result i32)))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 2)
  (global (;0;) (mut i32) i32.const 66560)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    block ;; label = @1
      i32.const 35
      call 1
      i32.const 9227465
      i32.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
  (func (;1;) (type 1) (param i32) (result i32)
    (local i32 i32 i32)
    block ;; label = @1
      local.get 0
      i32.const 2
      i32.ge_s
      br_if 0 (;@1;)
      local.get 0
      i32.const 0
      i32.add
      return
    end
    i32.const 0
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      call 1
      local.get 1
      i32.add
      local.set 1
      local.get 0
      i32.const 3
      i32.gt_u
      local.set 2
      local.get 0
      i32.const -2
      i32.add
      local.tee 3
      local.set 0
      local.get 2
      br_if 0 (;@1;)
    end
    local.get 3
    local.get 1
    i32.add
  )
)
