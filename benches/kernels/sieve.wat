;; sieve.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 18)
  (global (;0;) (mut i32) i32.const 1115136)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i32)
    i32.const -1048574
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 1049600
      i32.add
      i32.const 257
      i32.store16
      local.get 0
      i32.const 2
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const 2
    local.set 1
    i32.const 0
    local.set 2
    loop ;; label = @1
      block ;; label = @2
        local.get 1
        i32.const 1024
        i32.add
        i32.load8_u
        i32.eqz
        br_if 0 (;@2;)
        local.get 2
        i32.const 1
        i32.add
        local.set 2
        local.get 1
        i32.const 524287
        i32.gt_u
        br_if 0 (;@2;)
        local.get 1
        i32.const 1
        i32.shl
        local.set 0
        loop ;; label = @3
          local.get 0
          i32.const 1024
          i32.add
          i32.const 0
          i32.store8
          local.get 0
          local.get 1
          i32.add
          local.tee 0
          i32.const 1048576
          i32.lt_u
          br_if 0 (;@3;)
        end
      end
      local.get 1
      i32.const 1
      i32.add
      local.tee 1
      i32.const 1048576
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const -1048574
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 1049600
      i32.add
      i32.const 257
      i32.store16
      local.get 0
      i32.const 2
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const 2
    local.set 1
    loop ;; label = @1
      block ;; label = @2
        local.get 1
        i32.const 1024
        i32.add
        i32.load8_u
        i32.eqz
        br_if 0 (;@2;)
        local.get 2
        i32.const 1
        i32.add
        local.set 2
        local.get 1
        i32.const 524287
        i32.gt_u
        br_if 0 (;@2;)
        local.get 1
        i32.const 1
        i32.shl
        local.set 0
        loop ;; label = @3
          local.get 0
          i32.const 1024
          i32.add
          i32.const 0
          i32.store8
          local.get 0
          local.get 1
          i32.add
          local.tee 0
          i32.const 1048576
          i32.lt_u
          br_if 0 (;@3;)
        end
      end
      local.get 1
      i32.const 1
      i32.add
      local.tee 1
      i32.const 1048576
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const -1048574
    local.set 0
    loop ;; label = @1
      local.get 0
      i32.const 1049600
      i32.add
      i32.const 257
      i32.store16
      local.get 0
      i32.const 2
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const 2
    local.set 1
    loop ;; label = @1
      block ;; label = @2
        local.get 1
        i32.const 1024
        i32.add
        i32.load8_u
        i32.eqz
        br_if 0 (;@2;)
        local.get 2
        i32.const 1
        i32.add
        local.set 2
        local.get 1
        i32.const 524287
        i32.gt_u
        br_if 0 (;@2;)
        local.get 1
        i32.const 1
        i32.shl
        local.set 0
        loop ;; label = @3
          local.get 0
          i32.const 1024
          i32.add
          i32.const 0
          i32.store8
          local.get 0
          local.get 1
          i32.add
          local.tee 0
          i32.const 1048576
          i32.lt_u
          br_if 0 (;@3;)
        end
      end
      local.get 1
      i32.const 1
      i32.add
      local.tee 1
      i32.const 1048576
      i32.ne
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 2
      i32.const 246075
      i32.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
