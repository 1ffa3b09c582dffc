;; Fills 192 MiB at a time: one long step that nothing can interrupt, over and over.
(module
  (memory (export "memory") 3072)
  (func (export "_start")
    (loop $again (memory.fill (i32.const 0) (i32.const 7) (i32.const 201326592)) (br $again))))
