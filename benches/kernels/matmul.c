// 200 by 200 numbers, three times.
#define N 200
static double a[N * N], b[N * N], c[N * N];
__attribute__((export_name("_start"))) void start(void) {
    for (int i = 0; i < N * N; i++) {
        a[i] = i % 7;
        b[i] = i % 5;
    }
    double sum = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double t = 0;
                for (int k = 0; k < N; k++) t += a[i * N + k] * b[k * N + j];
                c[i * N + j] = t;
            }
        for (int i = 0; i < N * N; i++) sum += c[i];
    }
    if (sum != 143994000) __builtin_trap();
}
