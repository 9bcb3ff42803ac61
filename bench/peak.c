/* As many multiply-adds as a core can do: independent chains of them in registers, on vectors as wide as the processor
 * has. Compiled by peak.py with -march=native; no part of nnfast. */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12   /* at least latency (4 cycles) times multiply-adds a cycle (2), and they fit into 16 registers */

typedef float vector __attribute__((vector_size(BYTES)));

/* Floating-point operations of one turn. */
int operations(void) { return CHAINS * (int)(BYTES / sizeof(float)) * 2; }

float multiply_adds(long turns, float factor)
{
    vector sums[CHAINS], x, y;
    float total = 0;
    for (int lane = 0; lane < (int)(BYTES / sizeof(float)); lane++) {
        x[lane] = factor;
        y[lane] = 1 - factor;
    }
    for (int i = 0; i < CHAINS; i++)
        sums[i] = y * (float)i;
    for (long turn = 0; turn < turns; turn++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = sums[i] * x + y;
    for (int i = 0; i < CHAINS; i++)
        for (int lane = 0; lane < (int)(BYTES / sizeof(float)); lane++)
            total += sums[i][lane];
    return total;
}
