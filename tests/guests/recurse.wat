;; Recurses a thousand frames deep, again and again, for ever.
(module
  (func $down (param $n i32) (result i32)
    (if (result i32) (local.get $n)
      (then (i32.add (i32.const 1) (call $down (i32.sub (local.get $n) (i32.const 1)))))
      (else (i32.const 0))))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $again (drop (call $down (i32.const 1000))) (br $again))))
