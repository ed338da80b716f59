// Attention of query rows over keys and values kept in blocks of 16 tokens (paged attention, Kwon et al. 2023, with the
// running softmax of Milakov and Gimelshein 2018).
//
// Keys of a block: [head][dim / 2][16 tokens][2]; values: [head][token / 2][dim][2], both bfloat16. Blocks are visited in
// order, each row by itself, so that a row's result depends neither on its neighbours nor on how its prompt was cut up.
#pragma once
#include "vectors.h"

constexpr int kBlock = kLanes;
constexpr int kMaxHeadDim = 256;
constexpr int kMaxRows = 6;
constexpr int kSpan = 4;

struct Cache {
    uint32_t *keys, *values;
    int kv_heads, head_dim;
    long offset(int block, int head) const { return ((long)block * kv_heads + head) * head_dim * (kBlock / 2); }
};

static inline void write_key(const Cache& cache, int block, int slot, int head, const float* key) {
    uint32_t* to = cache.keys + cache.offset(block, head) + slot;
    for (int d = 0; d < cache.head_dim; d += 2) to[d / 2 * kBlock] = pair(key[d], key[d + 1]);
}

static inline void write_value(const Cache& cache, int block, int slot, int head, const float* value) {
    char* to = (char*)(cache.values + cache.offset(block, head) + (long)(slot / 2) * cache.head_dim) + slot % 2 * 2;
    for (int d = 0; d < cache.head_dim; d++) {
        uint16_t bits = (uint16_t)bfloat(value[d]);
        std::memcpy(to + 4 * d, &bits, sizeof bits);
    }
}

// `Lines` times 16 of a head's dimensions: what is mixed so far, scaled, and the values of a span by weight.
template <int Rows, int Lines>
static inline void mix(Floats (*mixed)[kMaxHeadDim / kLanes], const Floats* keep, const uint32_t (*weight)[kSpan][kBlock / 2],
                       const uint32_t* const* values, int dim, int first, int blocks) {
    Floats acc[Rows][Lines];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
        for (int l = 0; l < Lines; l++) acc[r][l] = mixed[r][first + l] * keep[r];
    for (int b = 0; b < blocks; b++)
        for (int t = 0; t < kBlock / 2; t++) {
            const uint32_t* line = values[b] + t * dim + first * kLanes;
#pragma GCC unroll 4
            for (int l = 0; l < Lines; l++) {
                Words value = load(line + l * kLanes);
#pragma GCC unroll 8
                for (int r = 0; r < Rows; r++) acc[r][l] = dot_pair(acc[r][l], value, weight[r][b][t]);
            }
        }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
        for (int l = 0; l < Lines; l++) mixed[r][first + l] = acc[r][l];
}

// Rows that share a key-value head. `query[r]`: head_dim / 2 pairs, already scaled; `position[r]`: the last token it may
// see; `out[r]`: head_dim / 2 pairs. Blocks are taken in spans, so that enough sums are under way at once.
template <int Rows>
static void attend_rows(const Cache& cache, int head, const int* blocks, const uint32_t* const* query,
                        const int* position, uint32_t* const* out) {
    const int dim = cache.head_dim, lines = dim / kLanes;
    const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float best[Rows], total[Rows];
    Floats mixed[Rows][kMaxHeadDim / kLanes];
    int last = 0;
    for (int r = 0; r < Rows; r++) {
        best[r] = -1e30f;
        total[r] = 0;
        last = position[r] > last ? position[r] : last;
        for (int l = 0; l < lines; l++) mixed[r][l] = Floats{};
    }
    const int num_blocks = last / kBlock + 1;
    for (int first = 0; first < num_blocks; first += kSpan) {
        const int count = num_blocks - first < kSpan ? num_blocks - first : kSpan;
        const uint32_t *keys[kSpan], *values[kSpan];
        for (int b = 0; b < kSpan; b++) {  // past the end the first once more: masked like all that is behind
            const long at = cache.offset(blocks[first + (b < count ? b : 0)], head);
            keys[b] = cache.keys + at;
            values[b] = cache.values + at;
        }
        for (int b = 0; b < count; b++)  // while the keys are multiplied, the values are fetched
            for (int i = 0; i < dim * kBlock / 2; i += kLanes) __builtin_prefetch(values[b] + i);
        Floats score[Rows][kSpan];
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++)
#pragma GCC unroll 4
            for (int b = 0; b < kSpan; b++) score[r][b] = Floats{};
        for (int d = 0; d < dim / 2; d++)
#pragma GCC unroll 4
            for (int b = 0; b < kSpan; b++) {
                Words line = load(keys[b] + d * kBlock);
#pragma GCC unroll 8
                for (int r = 0; r < Rows; r++) score[r][b] = dot_pair(score[r][b], line, query[r][d]);
            }
        for (int b = 0; b < kSpan && first + kSpan + b < num_blocks; b++) {
            const uint32_t* next = cache.keys + cache.offset(blocks[first + kSpan + b], head);
            for (int i = 0; i < dim * kBlock / 2; i += kLanes) __builtin_prefetch(next + i);
        }
        Floats keep[Rows];
        uint32_t weight[Rows][kSpan][kBlock / 2];
        for (int r = 0; r < Rows; r++) {
            Floats peak = all(best[r]), mass = {};
            Ints is_seen[kSpan];
            for (int b = 0; b < kSpan; b++) {
                const int token = b < count ? (first + b) * kBlock : last + 1;
                is_seen[b] = lane + token <= position[r];
                peak = larger(peak, is_seen[b] ? score[r][b] : all(-1e30f));
            }
            const float top = maximum(peak);
            keep[r] = exponential(all(best[r] - top));
            for (int b = 0; b < kSpan; b++) {  // whatever the score: what is behind weighs nothing
                Floats p = is_seen[b] ? exponential(score[r][b] - top) : Floats{};
                mass += p;
                store_bfloats(weight[r][b], p);
            }
            best[r] = top;
            total[r] = total[r] * keep[r][0] + sum(mass);
        }
        int l = 0;
        for (; l + 4 <= lines; l += 4) mix<Rows, 4>(mixed, keep, weight, values, dim, l, count);
        for (; l < lines; l++) mix<Rows, 1>(mixed, keep, weight, values, dim, l, count);
    }
    for (int r = 0; r < Rows; r++)
        for (int l = 0; l < lines; l++) store_bfloats(out[r] + l * kLanes / 2, mixed[r][l] / total[r]);
}

static inline void attend(int rows, const Cache& cache, int head, const int* blocks, const uint32_t* const* query,
                          const int* position, uint32_t* const* out) {
    switch (rows) {
        case 1: return attend_rows<1>(cache, head, blocks, query, position, out);
        case 2: return attend_rows<2>(cache, head, blocks, query, position, out);
        case 3: return attend_rows<3>(cache, head, blocks, query, position, out);
        case 4: return attend_rows<4>(cache, head, blocks, query, position, out);
        case 5: return attend_rows<5>(cache, head, blocks, query, position, out);
        default: return attend_rows<6>(cache, head, blocks, query, position, out);
    }
}
