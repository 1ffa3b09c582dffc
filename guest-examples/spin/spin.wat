;; spin: an endless loop that never calls the host, and so never pauses by
;; itself. It is the guest that shows whether `stop`, time limits and the fair
;; sharing of the processor work.
(module
  ;; WASI asks every program to export its memory. This one does not use it.
  (memory (export "memory") 1)

  (func (export "_start")
    (loop $forever
      (br $forever))))
