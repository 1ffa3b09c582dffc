// As strlen: the end of a mebibyte of text, sixteen times.
#define N (1 << 20)
static unsigned char text[N];
__attribute__((export_name("_start"))) void start(void) {
    for (int i = 0; i < N - 1; i++) text[i] = 'a';
    unsigned sum = 0;
    for (int round = 0; round < 16; round++) {
        // Or the sixteen would become one.
        __asm__ volatile("" ::: "memory");
        unsigned char *p = text;
        while (*p) p++;
        sum += p - text;
    }
    if (sum != 16777200u) __builtin_trap();
}
