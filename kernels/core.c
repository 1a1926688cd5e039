// What the trainer in a page needs beside the tensor kernels: sha256, the draws of gridsched/train/draws.py and the rounding of
// gridsched/train/codec.py, bit for bit. They are called one by one and get every address from the caller; nothing is allocated.

#include "module.h"

// SHA-256 (FIPS 180-4).

typedef struct {
    uint32_t hash[8];
    uint64_t bytes;
    uint8_t block[64];
} Sha256;

_Static_assert(sizeof(Sha256) == 104, "browser/src/trainer/kernels.ts keeps the state of a digest in as many bytes");

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turn(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

static uint32_t big_endian(const uint8_t *at) { return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; }

static void digest_block(uint32_t hash[8], const uint8_t *block) {
    uint32_t word[64];
    for (int i = 0; i < 16; i++) word[i] = big_endian(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t low = word[i - 15], high = word[i - 2];
        word[i] = word[i - 16] + word[i - 7] + (turn(low, 7) ^ turn(low, 18) ^ low >> 3) + (turn(high, 17) ^ turn(high, 19) ^ high >> 10);
    }
    uint32_t a = hash[0], b = hash[1], c = hash[2], d = hash[3], e = hash[4], f = hash[5], g = hash[6], h = hash[7];
    for (int i = 0; i < 64; i++) {
        uint32_t one = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[i] + word[i];
        uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    hash[0] += a, hash[1] += b, hash[2] += c, hash[3] += d, hash[4] += e, hash[5] += f, hash[6] += g, hash[7] += h;
}

// A fresh state at `sha` [104 bytes].
void EXPORT(sha256_start)(Sha256 *sha) {
    static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (int i = 0; i < 8; i++) sha->hash[i] = START[i];
    sha->bytes = 0;
}

// `bytes` more of the message.
void EXPORT(sha256_add)(Sha256 *sha, const uint8_t *data, uint32_t bytes) {
    uint32_t held = (uint32_t)(sha->bytes & 63);
    sha->bytes += bytes;
    while (bytes > 0) {
        if (held == 0 && bytes >= 64) {
            digest_block(sha->hash, data);
            data += 64, bytes -= 64;
            continue;
        }
        sha->block[held++] = *data++;
        bytes--;
        if (held == 64) {
            digest_block(sha->hash, sha->block);
            held = 0;
        }
    }
}

// The digest of all that was added, to `out` [32 bytes]; the state is used up.
void EXPORT(sha256_end)(Sha256 *sha, uint8_t *out) {
    uint64_t bits = sha->bytes * 8;
    uint32_t held = (uint32_t)(sha->bytes & 63);
    sha->block[held++] = 0x80;
    if (held > 56) {
        while (held < 64) sha->block[held++] = 0;
        digest_block(sha->hash, sha->block);
        held = 0;
    }
    while (held < 56) sha->block[held++] = 0;
    for (int i = 0; i < 8; i++) sha->block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    digest_block(sha->hash, sha->block);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(sha->hash[i / 4] >> (24 - 8 * (i % 4)));
}

// Draws: SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195) run as a counter.

static uint64_t splitmix64(uint64_t key, uint64_t place) {
    uint64_t z = (place + 1) * 0x9E3779B97F4A7C15u + key;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// The places 0 to `count` in the order of their draws, to `out` [count]; `drawn` [count] and `spare` [count] are written over.
void EXPORT(permutation)(uint64_t key, uint32_t count, uint32_t *out, uint32_t *spare, uint64_t *drawn) {
    for (uint32_t i = 0; i < count; i++) drawn[i] = splitmix64(key, i), out[i] = i;
    uint32_t *from = out, *to = spare;
    for (int shift = 0; shift < 64; shift += 8) { // a stable radix sort; after its eight turns the order is in `out` again
        uint32_t start[257] = {0};
        for (uint32_t i = 0; i < count; i++) start[(drawn[i] >> shift & 255) + 1]++;
        for (int digit = 0; digit < 256; digit++) start[digit + 1] += start[digit];
        for (uint32_t i = 0; i < count; i++) to[start[drawn[from[i]] >> shift & 255]++] = from[i];
        uint32_t *was = from;
        from = to, to = was;
    }
}

// `count` draws from 0 to `count` with replacement, to `out` [count].
void EXPORT(uniform_ints)(uint64_t key, uint32_t count, uint32_t *out) {
    for (uint32_t i = 0; i < count; i++) out[i] = (uint32_t)((splitmix64(key, i) >> 32) * count >> 32);
}

// Draws `start` to `start + count` of multiples of 2**-24 in [0, 1).
static float uniform_float(uint64_t key, uint64_t place) { return (float)(splitmix64(key, place) >> 40) * 0x1p-24f; }

void EXPORT(uniform_floats)(uint64_t key, uint32_t start, uint32_t count, float *out) {
    for (uint32_t i = 0; i < count; i++) out[i] = uniform_float(key, (uint64_t)start + i);
}

// How updates travel.

#define BLOCK 256

static uint32_t bits_of(float x) {
    union { float value; uint32_t bits; } u = {x};
    return u.bits;
}

static float of_bits(uint32_t bits) {
    union { uint32_t bits; float value; } u = {bits};
    return u.value;
}

// The largest magnitude; the one NaN if there is any, so that no payload travels.
static float largest(const float *values, uint32_t count) {
    float top = 0;
    for (uint32_t i = 0; i < count; i++) {
        float size = __builtin_fabsf(values[i]);
        if (size != size) return of_bits(0x7fc00000);
        if (size > top) top = size;
    }
    return top;
}

// A whole number of -top to top; 0 for NaN and infinity, which mean nothing here.
static int8_t level(float x, float top) {
    if (!(__builtin_fabsf(x) < __builtin_inff())) return 0;
    return (int8_t)(x > top ? top : x < -top ? -top : x);
}

// `count` values from place `start` of their tensor on as whole multiples of each block's scale: `levels` [count], `scales` [blocks].
// With `at_random`, rounded up or down by the draws of `key`, so that the mean is exact; otherwise to nearest, ties to even.
void EXPORT(encode_levels)(const float *values, uint32_t count, int32_t top, int8_t *levels, float *scales, int32_t at_random, uint64_t key,
                   uint32_t start) {
    for (uint32_t first = 0; first < count; first += BLOCK) {
        uint32_t last = count - first < BLOCK ? count : first + BLOCK;
        float scale = largest(values + first, last - first) / (float)top;
        float by = scale > 0 ? scale : 1;
        scales[first / BLOCK] = scale;
        for (uint32_t i = first; i < last; i++) {
            float x = values[i] / by;
            x = at_random ? __builtin_floorf(x + uniform_float(key, (uint64_t)start + i)) : __builtin_nearbyintf(x);
            levels[i] = level(x, (float)top);
        }
    }
}

// Levels of -8 to 7, two to a byte, the first one low; what is missing of the last byte is 0. `out` [(count + 1) / 2].
void EXPORT(pack_levels)(const int8_t *levels, uint32_t count, uint8_t *out) {
    for (uint32_t i = 0; i < count; i += 2) {
        uint32_t high = i + 1 < count ? (uint32_t)(levels[i + 1] + 8) : 8;
        out[i / 2] = (uint8_t)((uint32_t)(levels[i] + 8) | high << 4);
    }
}

// The float16 nearest to `x`, ties to even; what is finite stays finite.
static uint16_t half(float x) {
    uint32_t sign = bits_of(x) >> 16 & 0x8000, size = bits_of(x) & 0x7fffffff;
    if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (size == 0x7f800000) return (uint16_t)(sign | 0x7c00);
    if (size >= bits_of(65504.0f)) return (uint16_t)(sign | 0x7bff);
    if (size < 0x38800000) { // below the smallest normal: adding 0.5 leaves the rounded multiple of 2**-24 in the last bits
        return (uint16_t)(sign | (bits_of(of_bits(size) + 0.5f) - bits_of(0.5f)));
    }
    uint32_t odd = size >> 13 & 1;
    return (uint16_t)(sign | (size - 0x38000000 + 0xfff + odd) >> 13);
}

// `count` values as float16, saturating: one large value would have the whole update refused. NaN and infinity stay.
void EXPORT(encode_half)(const float *values, uint32_t count, uint16_t *out) {
    for (uint32_t i = 0; i < count; i++) out[i] = half(values[i]);
}
