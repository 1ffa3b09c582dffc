// 400 by 400 points.
#define N 400
__attribute__((export_name("_start"))) void start(void) {
    int total = 0;
    for (int y = 0; y < N; y++)
        for (int x = 0; x < N; x++) {
            double cr = 2.0 * x / N - 1.5, ci = 2.0 * y / N - 1, zr = 0, zi = 0;
            int k = 0;
            while (k < 100 && zr * zr + zi * zi < 4) {
                double t = zr * zr - zi * zi + cr;
                zi = 2 * zr * zi + ci;
                zr = t;
                k++;
            }
            total += k;
        }
    if (total != 7030556) __builtin_trap();
}
