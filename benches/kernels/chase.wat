;; chase.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 3)
  (global (;0;) (mut i32) i32.const 132096)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32)
    i32.const 1024
    local.set 0
    i32.const 16
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 12
      i32.add
      local.get 1
      i32.const 16380
      i32.and
      i32.store
      local.get 0
      i32.const 4
      i32.add
      local.get 1
      i32.const -10
      i32.add
      i32.const 16382
      i32.and
      i32.store
      local.get 0
      i32.const 8
      i32.add
      local.get 1
      i32.const -6
      i32.add
      i32.const 16382
      i32.and
      i32.const 1
      i32.or
      i32.store
      local.get 0
      local.get 1
      i32.const -16
      i32.add
      i32.const 16380
      i32.and
      i32.const 1
      i32.or
      i32.store
      local.get 0
      i32.const 16
      i32.add
      local.set 0
      local.get 1
      i32.const 20
      i32.add
      local.tee 1
      i32.const 81936
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const 0
    local.set 1
    i32.const 4194400
    local.set 0
    block ;; label = @1
      loop ;; label = @2
        local.get 1
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        local.set 1
        local.get 0
        i32.eqz
        br_if 1 (;@1;)
        local.get 0
        i32.const -8
        i32.add
        local.set 0
        local.get 1
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        i32.const 2
        i32.shl
        i32.const 1024
        i32.add
        i32.load
        local.set 1
        br 0 (;@2;)
      end
    end
    block ;; label = @1
      local.get 1
      i32.const 9535
      i32.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
