// Sixteen floats at a time, in GCC's and clang's vector extensions: the compiler lowers them to what the machine has.
// bfloat16 travels in pairs, two in one 32-bit word, the lower half first.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

constexpr int kLanes = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

static inline Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
static inline Words load(const uint32_t* from) {
    Words value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
static inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }
static inline void store(uint32_t* to, Words value) { std::memcpy(to, &value, sizeof value); }
static inline Floats all(float value) { return value - Floats{}; }

// acc[i] += w[i].first * x.first + w[i].second * x.second, accumulated in float32.
static inline Floats dot_pair(Floats acc, Words w, uint32_t x) {
#if defined(__AVX512BF16__)
    return (Floats)_mm512_dpbf16_ps((__m512)acc, (__m512bh)(__m512i)w, (__m512bh)_mm512_set1_epi32((int)x));
#else
    uint32_t first_bits = x << 16, second_bits = x & 0xffff0000u;
    float first, second;
    std::memcpy(&first, &first_bits, 4);
    std::memcpy(&second, &second_bits, 4);
    acc += (Floats)(w << 16) * first;
    acc += (Floats)(w & 0xffff0000u) * second;
    return acc;
#endif
}

// float32 to bfloat16 bits, to nearest even. Finite values only: a NaN is found later, in the logits.
static inline uint32_t bfloat(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static inline uint32_t pair(float first, float second) { return bfloat(first) | bfloat(second) << 16; }
static inline Words bfloats(Floats value) {
    Words bits = (Words)value;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static inline void store_bfloats(void* to, Floats value) {
    Halves halves = __builtin_convertvector(bfloats(value), Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// 16 pairs of int8 as pairs of bfloat16: of their float32 the upper halves, which hold all of them.
static inline Words widened(const int8_t* from) {
#if defined(__AVX512BW__)
    static constexpr int16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                         33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    auto floats = [](const int8_t* at) {
        return (__m512i)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)at)));
    };
    return (Words)_mm512_permutex2var_epi16(floats(from), _mm512_loadu_si512(kOdd), floats(from + kLanes));
#else
    Words words;
    for (int i = 0; i < kLanes; i++) {
        float pair[2] = {(float)from[2 * i], (float)from[2 * i + 1]};
        uint32_t bits[2];
        std::memcpy(bits, pair, sizeof bits);
        words[i] = bits[0] >> 16 | (bits[1] & 0xffff0000u);
    }
    return words;
#endif
}

static inline float sum(Floats v) {
    float t[kLanes];
    store(t, v);
    for (int width = kLanes / 2; width; width /= 2)
        for (int i = 0; i < width; i++) t[i] += t[i + width];
    return t[0];
}
static inline float maximum(Floats v) {
    float t[kLanes];
    store(t, v);
    for (int width = kLanes / 2; width; width /= 2)
        for (int i = 0; i < width; i++) t[i] = t[i] > t[i + width] ? t[i] : t[i + width];
    return t[0];
}
static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
static inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

// e^x to two units in the last place; 0 below -87, e^88 above 88, NaN of NaN. Range reduction and polynomial after Cephes' expf.
static inline Floats exponential(Floats x) {
    const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    Floats clamped = smaller(all(88.0f), larger(all(-87.0f), x));  // in this order a NaN comes through
    Floats shifted = clamped * 1.44269504088896341f + magic;
    Floats n = shifted - magic;
    Floats r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Words scale = ((Words)shifted - (Words)magic + 127u) << 23;
    Floats result = p * (Floats)scale;
    return x < -87.0f ? Floats{} : result;
}
