;; Compiles, and cannot be instantiated: its data does not fit its memory.
(module
  (memory (export "memory") 1)
  (data (i32.const 65535) "two")
  (func (export "_start")))
