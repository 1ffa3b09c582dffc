// The primes below a million and a bit, three times.
#define N (1 << 20)
static unsigned char is_prime[N];
__attribute__((export_name("_start"))) void start(void) {
    int count = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 2; i < N; i++) is_prime[i] = 1;
        for (int i = 2; i < N; i++)
            if (is_prime[i]) {
                count++;
                for (int j = i + i; j < N; j += i) is_prime[j] = 0;
            }
    }
    if (count != 246075) __builtin_trap();
}
