/* XXH3-128 with seed 0 and the default secret, written from the specification ("XXH3 Algorithm Description",
 * doc/xxhash_spec.md in https://github.com/Cyan4973/xxHash). Names of steps are those of the specification. */

#include "xxh3.h"

#include <stdint.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || !defined(__SIZEOF_INT128__)
#error "The compiled core needs a little-endian processor and 128-bit integers; without it the Python path is used."
#endif

typedef unsigned __int128 u128;

static const uint64_t PRIME32_1 = 0x9E3779B1, PRIME32_2 = 0x85EBCA77, PRIME32_3 = 0xC2B2AE3D;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87, PRIME64_2 = 0xC2B2AE3D27D4EB4F;
static const uint64_t PRIME64_3 = 0x165667B19E3779F9, PRIME64_4 = 0x85EBCA77C2B2AE63;
static const uint64_t PRIME64_5 = 0x27D4EB2F165667C5;
static const uint64_t PRIME_MX1 = 0x165667919E3779F9, PRIME_MX2 = 0x9FB21C651E98DF25;

enum { SECRET_BYTES = 192, STRIPE_BYTES = 64, STRIPES = (SECRET_BYTES - STRIPE_BYTES) / 8 };
enum { BLOCK_BYTES = STRIPES * STRIPE_BYTES };

static const uint64_t SECRET_WORDS[SECRET_BYTES / 8] = {
    0xbe4ba423396cfeb8, 0x1cad21f72c81017c, 0xdb979083e96dd4de, 0x1f67b3b7a4a44072, 0x78e5c0cc4ee679cb,
    0x2172ffcc7dd05a82, 0x8e2443f7744608b8, 0x4c263a81e69035e0, 0xcb00c391bb52283c, 0xa32e531b8b65d088,
    0x4ef90da297486471, 0xd8acdea946ef1938, 0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9, 0x3159b4cd4be0518a,
    0x647378d9c97e9fc8, 0xc3ebd33483acc5ea, 0xeb6313faffa081c5, 0x49daf0b751dd0d17, 0x9e68d429265516d3,
    0xfca1477d58be162b, 0xce31d07ad1b8f88f, 0x280416958f3acb45, 0x7e404bbbcafbd7af,
};
static const unsigned char *const SECRET = (const unsigned char *)SECRET_WORDS;

typedef uint32_t Any32 __attribute__((aligned(1), may_alias)); /* at any address */
typedef uint64_t Any64 __attribute__((aligned(1), may_alias));

static inline uint32_t read32(const unsigned char *bytes) { return *(const Any32 *)bytes; }
static inline uint64_t read64(const unsigned char *bytes) { return *(const Any64 *)bytes; }

/* Two neighbouring words of the secret, combined. */
static inline uint64_t secret_pair(size_t offset) { return read64(SECRET + offset) ^ read64(SECRET + offset + 8); }

static inline uint64_t low(u128 value) { return (uint64_t)value; }
static inline uint64_t high(u128 value) { return (uint64_t)(value >> 64); }
static inline u128 joined(uint64_t low_half, uint64_t high_half) { return (u128)high_half << 64 | low_half; }

static inline uint64_t avalanche(uint64_t x) {
    x = (x ^ x >> 37) * PRIME_MX1;
    return x ^ x >> 32;
}

static inline uint64_t avalanche_xxh64(uint64_t x) {
    x = (x ^ x >> 33) * PRIME64_2;
    x = (x ^ x >> 29) * PRIME64_3;
    return x ^ x >> 32;
}

static u128 hash_1_to_3(const unsigned char *text, size_t size) {
    uint32_t combined = (uint32_t)text[size - 1] | (uint32_t)size << 8 | (uint32_t)text[0] << 16 |
                        (uint32_t)text[size >> 1] << 24;
    uint32_t swapped = __builtin_bswap32(combined);
    uint64_t low_half = (uint64_t)(read32(SECRET) ^ read32(SECRET + 4)) ^ combined;
    uint64_t high_half = (uint64_t)(read32(SECRET + 8) ^ read32(SECRET + 12)) ^ (swapped << 13 | swapped >> 19);
    return joined(avalanche_xxh64(low_half), avalanche_xxh64(high_half));
}

static u128 hash_4_to_8(const unsigned char *text, size_t size) {
    uint64_t combined = read32(text) | (uint64_t)read32(text + size - 4) << 32;
    u128 product = (u128)(secret_pair(16) ^ combined) * (PRIME64_1 + (size << 2));
    uint64_t high_half = high(product) + (low(product) << 1);
    uint64_t low_half = low(product) ^ high_half >> 3;
    low_half = (low_half ^ low_half >> 35) * PRIME_MX2;
    return joined(low_half ^ low_half >> 28, avalanche(high_half));
}

static u128 hash_9_to_16(const unsigned char *text, size_t size) {
    uint64_t first = read64(text), last = read64(text + size - 8);
    uint64_t last_mixed = secret_pair(48) ^ last;
    u128 product = (u128)(secret_pair(32) ^ first ^ last) * PRIME64_1;
    uint64_t low_half = low(product) + ((uint64_t)(size - 1) << 54);
    uint64_t high_half =
        high(product) + (last_mixed & 0xFFFFFFFF00000000) + (uint64_t)(uint32_t)last_mixed * PRIME32_2;
    u128 second = (u128)(low_half ^ __builtin_bswap64(high_half)) * PRIME64_2;
    return joined(avalanche(low(second)), avalanche(high(second) + high_half * PRIME64_2));
}

static inline uint64_t mix_step(const unsigned char *data, size_t secret) {
    u128 product =
        (u128)(read64(data) ^ read64(SECRET + secret)) * (read64(data + 8) ^ read64(SECRET + secret + 8));
    return low(product) ^ high(product);
}

static inline void mix_two_chunks(uint64_t acc[2], const unsigned char *one, const unsigned char *two, size_t secret) {
    acc[0] = (acc[0] + mix_step(one, secret)) ^ (read64(two) + read64(two + 8));
    acc[1] = (acc[1] + mix_step(two, secret + 16)) ^ (read64(one) + read64(one + 8));
}

static u128 hash_17_to_240(const unsigned char *text, size_t size) {
    uint64_t acc[2] = {size * PRIME64_1, 0};
    if (size <= 128) {
        for (size_t round = ((size - 1) >> 5) + 1; round-- > 0;)
            mix_two_chunks(acc, text + round * 16, text + size - round * 16 - 16, round * 32);
    } else {
        for (size_t i = 0; i < 4; i++) mix_two_chunks(acc, text + i * 32, text + i * 32 + 16, i * 32);
        acc[0] = avalanche(acc[0]);
        acc[1] = avalanche(acc[1]);
        for (size_t i = 4; i < size >> 5; i++)
            mix_two_chunks(acc, text + i * 32, text + i * 32 + 16, (i - 4) * 32 + 3);
        mix_two_chunks(acc, text + size - 16, text + size - 32, 103);
    }
    uint64_t high_half = acc[0] * PRIME64_1 + acc[1] * PRIME64_4 + size * PRIME64_2;
    return joined(avalanche(acc[0] + acc[1]), 0 - avalanche(high_half));
}

static inline void accumulate(uint64_t acc[8], const unsigned char *stripe, size_t secret) {
    for (size_t i = 0; i < 8; i++) {
        uint64_t data = read64(stripe + i * 8), value = data ^ read64(SECRET + secret + i * 8);
        acc[i ^ 1] += data;
        acc[i] += (value & 0xFFFFFFFF) * (value >> 32);
    }
}

static inline void scramble(uint64_t acc[8]) {
    for (size_t i = 0; i < 8; i++)
        acc[i] = (acc[i] ^ acc[i] >> 47 ^ read64(SECRET + SECRET_BYTES - STRIPE_BYTES + i * 8)) * PRIME32_1;
}

static uint64_t final_merge(const uint64_t acc[8], uint64_t result, size_t secret) {
    for (size_t i = 0; i < 8; i += 2) result += mix_step((const unsigned char *)(acc + i), secret + i * 8);
    return avalanche(result);
}

static u128 hash_long(const unsigned char *text, size_t size) {
    uint64_t acc[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    size_t position = 0;
    for (; size - position > BLOCK_BYTES; position += BLOCK_BYTES) {
        for (size_t n = 0; n < STRIPES; n++) accumulate(acc, text + position + n * STRIPE_BYTES, n * 8);
        scramble(acc);
    }
    size_t full_stripes = (size - position - 1) / STRIPE_BYTES;
    for (size_t n = 0; n < full_stripes; n++) accumulate(acc, text + position + n * STRIPE_BYTES, n * 8);
    accumulate(acc, text + size - STRIPE_BYTES, SECRET_BYTES - 71);
    return joined(final_merge(acc, size * PRIME64_1, 11), final_merge(acc, ~(size * PRIME64_2), SECRET_BYTES - 75));
}

unsigned __int128 xxh3_128(const unsigned char *text, size_t size) {
    if (size > 240) return hash_long(text, size);
    if (size > 16) return hash_17_to_240(text, size);
    if (size > 8) return hash_9_to_16(text, size);
    if (size > 3) return hash_4_to_8(text, size);
    if (size > 0) return hash_1_to_3(text, size);
    return joined(avalanche_xxh64(secret_pair(64)), avalanche_xxh64(secret_pair(80)));
}
