;; fnv.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 18)
  (global (;0;) (mut i32) i32.const 1115136)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i64)
    i32.const 3
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 1024
      i32.add
      local.get 0
      i32.const 7
      i32.mul
      local.tee 1
      i32.store8
      local.get 0
      i32.const 1023
      i32.add
      local.get 1
      i32.const -7
      i32.add
      i32.store8
      local.get 0
      i32.const 1022
      i32.add
      local.get 1
      i32.const -14
      i32.add
      i32.store8
      local.get 0
      i32.const 1021
      i32.add
      local.get 1
      i32.const -21
      i32.add
      i32.store8
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      i32.const 1048579
      i32.ne
      br_if 0 (;@1;)
    end
    i64.const -3750763034362895579
    local.set 2
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 0
    loop ;; label = @1
      local.get 2
      local.get 0
      i32.const 1049600
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049601
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049602
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.get 0
      i32.const 1049603
      i32.add
      i64.load8_u
      i64.xor
      i64.const 1099511628211
      i64.mul
      local.set 2
      local.get 0
      i32.const 4
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 2
      i64.const 3326991109382611749
      i64.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
