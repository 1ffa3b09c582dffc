;; matmul.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 16)
  (global (;0;) (mut i32) i32.const 1026560)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i32 i32 i32 i32 i32 i32 f64 f64)
    i32.const 0
    local.set 0
    i32.const 0
    local.set 1
    loop ;; label = @1
      local.get 0
      i32.const 321024
      i32.add
      local.get 1
      i32.const 65535
      i32.and
      local.tee 2
      i32.const 5
      i32.rem_u
      f64.convert_i32_u
      f64.store
      local.get 0
      i32.const 1024
      i32.add
      local.get 2
      i32.const 7
      i32.rem_u
      f64.convert_i32_u
      f64.store
      local.get 0
      i32.const 8
      i32.add
      local.set 0
      local.get 1
      i32.const 1
      i32.add
      local.tee 1
      i32.const 40000
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const 0
    local.set 3
    i32.const 1024
    local.set 4
    loop ;; label = @1
      local.get 3
      i32.const 200
      i32.mul
      local.set 5
      i32.const 321024
      local.set 6
      i32.const 0
      local.set 7
      loop ;; label = @2
        f64.const 0x0p+0 (;=0;)
        local.set 8
        i32.const 0
        local.set 1
        local.get 6
        local.set 0
        loop ;; label = @3
          local.get 4
          local.get 1
          i32.add
          local.tee 2
          i32.const 8
          i32.add
          f64.load
          local.get 0
          i32.const 1600
          i32.add
          f64.load
          f64.mul
          local.get 2
          f64.load
          local.get 0
          f64.load
          f64.mul
          local.get 8
          f64.add
          f64.add
          local.set 8
          local.get 0
          i32.const 3200
          i32.add
          local.set 0
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          i32.const 1600
          i32.ne
          br_if 0 (;@3;)
        end
        local.get 7
        local.get 5
        i32.add
        i32.const 3
        i32.shl
        i32.const 641024
        i32.add
        local.get 8
        f64.store
        local.get 6
        i32.const 8
        i32.add
        local.set 6
        local.get 7
        i32.const 1
        i32.add
        local.tee 7
        i32.const 200
        i32.ne
        br_if 0 (;@2;)
      end
      local.get 4
      i32.const 1600
      i32.add
      local.set 4
      local.get 3
      i32.const 1
      i32.add
      local.tee 3
      i32.const 200
      i32.ne
      br_if 0 (;@1;)
    end
    f64.const 0x0p+0 (;=0;)
    local.set 9
    i32.const -320000
    local.set 0
    loop ;; label = @1
      local.get 9
      local.get 0
      i32.const 961024
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961032
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961040
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961048
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961056
      i32.add
      f64.load
      f64.add
      local.set 9
      local.get 0
      i32.const 40
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const 0
    local.set 3
    i32.const 1024
    local.set 4
    loop ;; label = @1
      local.get 3
      i32.const 200
      i32.mul
      local.set 5
      i32.const 321024
      local.set 6
      i32.const 0
      local.set 7
      loop ;; label = @2
        f64.const 0x0p+0 (;=0;)
        local.set 8
        i32.const 0
        local.set 1
        local.get 6
        local.set 0
        loop ;; label = @3
          local.get 4
          local.get 1
          i32.add
          local.tee 2
          i32.const 8
          i32.add
          f64.load
          local.get 0
          i32.const 1600
          i32.add
          f64.load
          f64.mul
          local.get 2
          f64.load
          local.get 0
          f64.load
          f64.mul
          local.get 8
          f64.add
          f64.add
          local.set 8
          local.get 0
          i32.const 3200
          i32.add
          local.set 0
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          i32.const 1600
          i32.ne
          br_if 0 (;@3;)
        end
        local.get 7
        local.get 5
        i32.add
        i32.const 3
        i32.shl
        i32.const 641024
        i32.add
        local.get 8
        f64.store
        local.get 6
        i32.const 8
        i32.add
        local.set 6
        local.get 7
        i32.const 1
        i32.add
        local.tee 7
        i32.const 200
        i32.ne
        br_if 0 (;@2;)
      end
      local.get 4
      i32.const 1600
      i32.add
      local.set 4
      local.get 3
      i32.const 1
      i32.add
      local.tee 3
      i32.const 200
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const -320000
    local.set 0
    loop ;; label = @1
      local.get 9
      local.get 0
      i32.const 961024
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961032
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961040
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961048
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961056
      i32.add
      f64.load
      f64.add
      local.set 9
      local.get 0
      i32.const 40
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    i32.const 0
    local.set 3
    i32.const 1024
    local.set 4
    loop ;; label = @1
      local.get 3
      i32.const 200
      i32.mul
      local.set 5
      i32.const 321024
      local.set 6
      i32.const 0
      local.set 7
      loop ;; label = @2
        f64.const 0x0p+0 (;=0;)
        local.set 8
        i32.const 0
        local.set 1
        local.get 6
        local.set 0
        loop ;; label = @3
          local.get 4
          local.get 1
          i32.add
          local.tee 2
          i32.const 8
          i32.add
          f64.load
          local.get 0
          i32.const 1600
          i32.add
          f64.load
          f64.mul
          local.get 2
          f64.load
          local.get 0
          f64.load
          f64.mul
          local.get 8
          f64.add
          f64.add
          local.set 8
          local.get 0
          i32.const 3200
          i32.add
          local.set 0
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          i32.const 1600
          i32.ne
          br_if 0 (;@3;)
        end
        local.get 7
        local.get 5
        i32.add
        i32.const 3
        i32.shl
        i32.const 641024
        i32.add
        local.get 8
        f64.store
        local.get 6
        i32.const 8
        i32.add
        local.set 6
        local.get 7
        i32.const 1
        i32.add
        local.tee 7
        i32.const 200
        i32.ne
        br_if 0 (;@2;)
      end
      local.get 4
      i32.const 1600
      i32.add
      local.set 4
      local.get 3
      i32.const 1
      i32.add
      local.tee 3
      i32.const 200
      i32.ne
      br_if 0 (;@1;)
    end
    i32.const -320000
    local.set 0
    loop ;; label = @1
      local.get 9
      local.get 0
      i32.const 961024
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961032
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961040
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961048
      i32.add
      f64.load
      f64.add
      local.get 0
      i32.const 961056
      i32.add
      f64.load
      f64.add
      local.set 9
      local.get 0
      i32.const 40
      i32.add
      local.tee 0
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 9
      f64.const 0x1.12a592p+27 (;=143994000;)
      f64.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
