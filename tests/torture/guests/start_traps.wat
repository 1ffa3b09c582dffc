;; Traps in its start function, before the entry point.
(module
  (memory (export "memory") 1)
  (func $at_once (unreachable))
  (start $at_once)
  (func (export "_start")))
