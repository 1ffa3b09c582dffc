// 65,536 numbers, sorted four times.
#define N (1 << 16)
static unsigned numbers[N];
static void sort(unsigned *a, int n) {
    while (n > 1) {
        unsigned pivot = a[n / 2];
        int i = 0, j = n - 1;
        for (;;) {
            while (a[i] < pivot) i++;
            while (a[j] > pivot) j--;
            if (i >= j) break;
            unsigned t = a[i];
            a[i++] = a[j];
            a[j--] = t;
        }
        sort(a, i);
        a += i;
        n -= i;
    }
}
__attribute__((export_name("_start"))) void start(void) {
    unsigned sum = 0;
    for (int round = 0; round < 4; round++) {
        unsigned seed = 12345;
        for (int i = 0; i < N; i++) numbers[i] = seed = seed * 1664525u + 1013904223u;
        sort(numbers, N);
        for (int i = 1; i < N; i++)
            if (numbers[i - 1] > numbers[i]) __builtin_trap();
        sum += numbers[77];
    }
    if (sum != 21022836u) __builtin_trap();
}
