;; scan.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 18)
  (global (;0;) (mut i32) i32.const 1115136)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i32)
    i32.const -1048575
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 1049603
      i32.add
      i32.const 97
      i32.store8
      local.get 0
      i32.const 1049599
      i32.add
      i32.const 1633771873
      i32.store align=1
      local.get 0
      i32.const 5
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const -16777216
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 16778240
      i32.add
      local.set 1
      local.get 0
      i32.const 1
      i32.add
      local.tee 2
      local.set 0
      local.get 1
      i32.load8_u
      br_if 0 (;@1;)
    end
    i32.const 0
    local.get 2
    i32.sub
    local.set 0
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const -1
      i32.add
      local.set 0
      local.get 1
      i32.load8_u
      local.set 2
      local.get 1
      i32.const 1
      i32.add
      local.set 1
      local.get 2
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 0
      i32.eqz
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
