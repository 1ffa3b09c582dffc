;; crc.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 18)
  (global (;0;) (mut i32) i32.const 1116160)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i32 i32)
    i32.const 0
    local.set 0
    i32.const 1024
    local.set 1
    loop ;; label = @1
      local.get 1
      local.get 0
      i32.const 1
      i32.shr_u
      local.tee 2
      i32.const -306674912
      i32.xor
      local.get 2
      local.get 0
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      local.tee 2
      i32.const 1
      i32.shr_u
      local.tee 3
      i32.const -306674912
      i32.xor
      local.get 3
      local.get 2
      i32.const 1
      i32.and
      select
      i32.store
      local.get 1
      i32.const 4
      i32.add
      local.set 1
      local.get 0
      i32.const 1
      i32.add
      local.tee 0
      i32.const 256
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const 3
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 2048
      i32.add
      local.get 0
      i32.const 7
      i32.mul
      local.tee 1
      i32.store8
      local.get 0
      i32.const 2047
      i32.add
      local.get 1
      i32.const -7
      i32.add
      i32.store8
      local.get 0
      i32.const 2046
      i32.add
      local.get 1
      i32.const -14
      i32.add
      i32.store8
      local.get 0
      i32.const 2045
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
    i32.const -1
    local.set 0
    i32.const -1048576
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050624
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.tee 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050625
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.set 0
      local.get 1
      i32.const 2
      i32.add
      local.tee 1
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050624
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.tee 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050625
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.set 0
      local.get 1
      i32.const 2
      i32.add
      local.tee 1
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050624
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.tee 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050625
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.set 0
      local.get 1
      i32.const 2
      i32.add
      local.tee 1
      br_if 0 (;@1;)
    end
    i32.const -1048576
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050624
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.tee 0
      i32.const 255
      i32.and
      local.get 1
      i32.const 1050625
      i32.add
      i32.load8_u
      i32.xor
      i32.const 2
      i32.shl
      i32.const 1024
      i32.add
      i32.load
      local.get 0
      i32.const 8
      i32.shr_u
      i32.xor
      local.set 0
      local.get 1
      i32.const 2
      i32.add
      local.tee 1
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 0
      i32.const 944879708
      i32.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
