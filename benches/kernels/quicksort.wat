;; quicksort.c: clang 14 --target=wasm32 -O2 -ffreestanding -nostdlib -Wl,--no-entry,--strip-all, printed as text
(module
  (type (;0;) (func))
  (type (;1;) (func (param i32 i32)))
  (table (;0;) 1 1 funcref)
  (memory (;0;) 6)
  (global (;0;) (mut i32) i32.const 328704)
  (export "memory" (memory 0))
  (export "_start" (func 0))
  (func (;0;) (type 0)
    (local i32 i32 i32 i32 i32)
    i32.const 12345
    local.set 0
    i32.const -262144
    local.set 1
    loop ;; label = @1
      local.get 1
      i32.const 263168
      i32.add
      local.get 0
      i32.const 1664525
      i32.mul
      i32.const 1013904223
      i32.add
      local.tee 0
      i32.store
      local.get 1
      i32.const 263172
      i32.add
      local.get 0
      i32.const 1664525
      i32.mul
      i32.const 1013904223
      i32.add
      local.tee 0
      i32.store
      local.get 1
      i32.const 263176
      i32.add
      local.get 0
      i32.const 1664525
      i32.mul
      i32.const 1013904223
      i32.add
      local.tee 0
      i32.store
      local.get 1
      i32.const 263180
      i32.add
      local.get 0
      i32.const 1664525
      i32.mul
      i32.const 1013904223
      i32.add
      local.tee 0
      i32.store
      local.get 1
      i32.const 16
      i32.add
      local.tee 1
      br_if 0 (;@1;)
    end
    i32.const 1024
    i32.const 65536
    call 1
    i32.const 0
    i32.load offset=1024
    local.set 0
    i32.const -262140
    local.set 1
    block ;; label = @1
      block ;; label = @2
        loop ;; label = @3
          local.get 0
          local.get 1
          i32.const 263168
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263172
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 0
          local.get 1
          i32.const 263176
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263180
          i32.add
          i32.load
          local.tee 3
          i32.gt_u
          br_if 1 (;@2;)
          local.get 3
          local.get 1
          i32.const 263184
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 1
          i32.const 20
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 0
        i32.load offset=1332
        local.set 4
        i32.const 12345
        local.set 0
        i32.const -262144
        local.set 1
        loop ;; label = @3
          local.get 1
          i32.const 263168
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263172
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263176
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263180
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 1024
        i32.const 65536
        call 1
        i32.const 0
        i32.load offset=1024
        local.set 0
        i32.const -262140
        local.set 1
        loop ;; label = @3
          local.get 0
          local.get 1
          i32.const 263168
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263172
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 0
          local.get 1
          i32.const 263176
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263180
          i32.add
          i32.load
          local.tee 3
          i32.gt_u
          br_if 1 (;@2;)
          local.get 3
          local.get 1
          i32.const 263184
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 1
          i32.const 20
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 0
        i32.load offset=1332
        local.set 2
        i32.const 12345
        local.set 0
        i32.const -262144
        local.set 1
        loop ;; label = @3
          local.get 1
          i32.const 263168
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263172
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263176
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263180
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 1024
        i32.const 65536
        call 1
        local.get 2
        local.get 4
        i32.add
        local.set 4
        i32.const 0
        i32.load offset=1024
        local.set 0
        i32.const -262140
        local.set 1
        loop ;; label = @3
          local.get 0
          local.get 1
          i32.const 263168
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263172
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 0
          local.get 1
          i32.const 263176
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263180
          i32.add
          i32.load
          local.tee 3
          i32.gt_u
          br_if 1 (;@2;)
          local.get 3
          local.get 1
          i32.const 263184
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 1
          i32.const 20
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 0
        i32.load offset=1332
        local.set 2
        i32.const 12345
        local.set 0
        i32.const -262144
        local.set 1
        loop ;; label = @3
          local.get 1
          i32.const 263168
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263172
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263176
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 263180
          i32.add
          local.get 0
          i32.const 1664525
          i32.mul
          i32.const 1013904223
          i32.add
          local.tee 0
          i32.store
          local.get 1
          i32.const 16
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 1024
        i32.const 65536
        call 1
        local.get 2
        local.get 4
        i32.add
        local.set 4
        i32.const 0
        i32.load offset=1024
        local.set 0
        i32.const -262140
        local.set 1
        loop ;; label = @3
          local.get 0
          local.get 1
          i32.const 263168
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263172
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 0
          local.get 1
          i32.const 263176
          i32.add
          i32.load
          local.tee 2
          i32.gt_u
          br_if 1 (;@2;)
          local.get 2
          local.get 1
          i32.const 263180
          i32.add
          i32.load
          local.tee 3
          i32.gt_u
          br_if 1 (;@2;)
          local.get 3
          local.get 1
          i32.const 263184
          i32.add
          i32.load
          local.tee 0
          i32.gt_u
          br_if 1 (;@2;)
          local.get 1
          i32.const 20
          i32.add
          local.tee 1
          br_if 0 (;@3;)
        end
        i32.const 0
        i32.load offset=1332
        local.get 4
        i32.add
        i32.const 21022836
        i32.eq
        br_if 1 (;@1;)
      end
      unreachable
      unreachable
    end
  )
  (func (;1;) (type 1) (param i32 i32)
    (local i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
    block ;; label = @1
      local.get 1
      i32.const 2
      i32.lt_s
      br_if 0 (;@1;)
      loop ;; label = @2
        local.get 0
        i32.const -4
        i32.add
        local.set 2
        local.get 0
        local.get 1
        i32.const 1
        i32.shl
        i32.const -4
        i32.and
        i32.add
        i32.load
        local.set 3
        i32.const 0
        local.set 4
        local.get 1
        local.set 5
        loop ;; label = @3
          local.get 4
          i32.const -1
          i32.add
          local.set 6
          local.get 2
          local.get 4
          i32.const 2
          i32.shl
          i32.add
          local.set 7
          loop ;; label = @4
            local.get 6
            i32.const 1
            i32.add
            local.set 6
            local.get 7
            i32.const 4
            i32.add
            local.tee 7
            i32.load
            local.tee 8
            local.get 3
            i32.lt_u
            br_if 0 (;@4;)
          end
          local.get 6
          i32.const 1
          i32.add
          local.set 4
          local.get 2
          local.get 5
          i32.const 2
          i32.shl
          i32.add
          local.set 9
          loop ;; label = @4
            local.get 5
            i32.const -1
            i32.add
            local.set 5
            local.get 9
            i32.load
            local.set 10
            local.get 9
            i32.const -4
            i32.add
            local.tee 11
            local.set 9
            local.get 10
            local.get 3
            i32.gt_u
            br_if 0 (;@4;)
          end
          block ;; label = @4
            local.get 6
            local.get 5
            i32.ge_s
            br_if 0 (;@4;)
            local.get 7
            local.get 10
            i32.store
            local.get 11
            i32.const 4
            i32.add
            local.get 8
            i32.store
            br 1 (;@3;)
          end
        end
        local.get 0
        local.get 6
        call 1
        local.get 7
        local.set 0
        local.get 1
        local.get 6
        i32.sub
        local.tee 1
        i32.const 1
        i32.gt_s
        br_if 0 (;@2;)
      end
    end
  )
)
