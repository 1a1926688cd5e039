// Dropout by counting: an element's draw is a function of (the step's seed, the place in the program, the element's number), so
// that nothing is kept between forward and backward, and no draw depends on another.
#include "lanes.h"

// Steele, Lea and Flood: Fast splittable pseudorandom number generators (OOPSLA 2014), the finaliser of SplitMix64.
static inline uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15ull;

// The 24 bits of draw u = bits / 2^24: the upper bits of the lower (even element) or upper half of a 64-bit word.
static inline float kept(uint32_t half, float x, float share, float scale) {
    return (float)(half >> 8) * 0x1p-24f >= share ? x * scale : 0.0f;
}

// y = x / (1 - share) where u >= share, else 0. The backward pass is the same of dy.
void dropout(const float *x, float *y, const uint64_t *seed, int32_t stream, int32_t n, float share) {
    uint64_t key = mixed(*seed + GOLDEN * (uint64_t)(uint32_t)stream);
    float scale = 1.0f / (1.0f - share);
    for (int32_t i = 0; i < n; i += 2) {
        key += GOLDEN;
        uint64_t word = mixed(key);
        y[i] = kept((uint32_t)word, x[i], share, scale);
        if (i + 1 < n) y[i + 1] = kept((uint32_t)(word >> 32), x[i + 1], share, scale);
    }
}
