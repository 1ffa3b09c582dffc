;; mandelbrot.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 2)
  (global (;0;) (mut i32) i32.const 66560)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local f64 i32 i32 f64 f64 i32 f64 f64 i32 f64 f64 f64 i32 f64)
    f64.const 0x0p+0 (;=0;)
    local.set 0
    i32.const 0
    local.set 1
    i32.const 0
    local.set 2
    loop ;; label = @1
      local.get 0
      local.get 0
      f64.add
      f64.const 0x1.9p+8 (;=400;)
      f64.div
      f64.const -0x1p+0 (;=-1;)
      f64.add
      local.set 3
      f64.const 0x0p+0 (;=0;)
      local.set 4
      i32.const 0
      local.set 5
      loop ;; label = @2
        local.get 4
        local.get 4
        f64.add
        f64.const 0x1.9p+8 (;=400;)
        f64.div
        f64.const -0x1.8p+0 (;=-1.5;)
        f64.add
        local.set 6
        f64.const 0x0p+0 (;=0;)
        local.set 7
        i32.const 0
        local.set 8
        f64.const 0x0p+0 (;=0;)
        local.set 9
        block ;; label = @3
          loop ;; label = @4
            block ;; label = @5
              local.get 9
              local.get 9
              f64.mul
              local.tee 10
              local.get 7
              local.get 7
              f64.mul
              local.tee 11
              f64.add
              f64.const 0x1p+2 (;=4;)
              f64.lt
              br_if 0 (;@5;)
              local.get 8
              local.set 12
              br 2 (;@3;)
            end
            block ;; label = @5
              local.get 6
              local.get 10
              local.get 11
              f64.sub
              f64.add
              local.tee 10
              local.get 10
              f64.mul
              local.tee 11
              local.get 9
              local.get 9
              f64.add
              local.get 7
              f64.mul
              local.get 3
              f64.add
              local.tee 9
              local.get 9
              f64.mul
              local.tee 13
              f64.add
              f64.const 0x1p+2 (;=4;)
              f64.lt
              i32.eqz
              br_if 0 (;@5;)
              local.get 10
              local.get 10
              f64.add
              local.get 9
              f64.mul
              local.get 3
              f64.add
              local.set 7
              local.get 6
              local.get 11
              local.get 13
              f64.sub
              f64.add
              local.set 9
              i32.const 100
              local.set 12
              local.get 8
              i32.const 2
              i32.add
              local.tee 8
              i32.const 100
              i32.ne
              br_if 1 (;@4;)
              br 2 (;@3;)
            end
          end
          local.get 8
          i32.const 1
          i32.add
          local.set 12
        end
        local.get 4
        f64.const 0x1p+0 (;=1;)
        f64.add
        local.set 4
        local.get 12
        local.get 1
        i32.add
        local.set 1
        local.get 5
        i32.const 1
        i32.add
        local.tee 5
        i32.const 400
        i32.ne
        br_if 0 (;@2;)
      end
      local.get 0
      f64.const 0x1p+0 (;=1;)
      f64.add
      local.set 0
      local.get 2
      i32.const 1
      i32.add
      local.tee 2
      i32.const 400
      i32.ne
      br_if 0 (;@1;)
    end
    block ;; label = @1
      local.get 1
      i32.const 7030556
      i32.eq
      br_if 0 (;@1;)
      unreachable
      unreachable
    end
  )
)
