// CRC-32 with a table over a mebibyte, four times.
#define N (1 << 20)
static unsigned table[256];
static unsigned char bytes[N];
__attribute__((export_name("_start"))) void start(void) {
    for (unsigned i = 0; i < 256; i++) {
        unsigned c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (int i = 0; i < N; i++) bytes[i] = i * 7;
    unsigned c = ~0u;
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < N; i++) c = table[(c ^ bytes[i]) & 255] ^ (c >> 8);
    if (c != 944879708u) __builtin_trap();
}
