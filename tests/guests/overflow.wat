;; Recurses without an end: its stack is exhausted at once.
(module
  (func $down (result i32) (i32.add (i32.const 1) (call $down)))
  (memory (export "memory") 1)
  (func (export "_start") (drop (call $down))))
