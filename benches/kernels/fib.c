// Nothing but calls.
__attribute__((noinline)) static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
__attribute__((export_name("_start"))) void start(void) {
    if (fib(35) != 9227465) __builtin_trap();
}
