;; Never comes out of its start function: guest code before the entry point.
(module
  (memory (export "memory") 1)
  (func $for_ever (loop $again (br $again)))
  (start $for_ever)
  (func (export "_start")))
