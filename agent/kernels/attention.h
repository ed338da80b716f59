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

// Rows that share a key-value head. `query[r]`: head_dim / 2 pairs, already scaled; `position[r]`: the last token it may
// see; `out[r]`: head_dim / 2 pairs.
template <int Rows>
static void attend_rows(const Cache& cache, int head, const int* blocks, const uint32_t* const* query,
                        const int* position, uint32_t* const* out) {
    const int dim = cache.head_dim;
    const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float best[Rows], total[Rows];
    Floats mixed[Rows][kMaxHeadDim / kLanes];
    int last = 0;
    for (int r = 0; r < Rows; r++) {
        best[r] = -1e30f;
        total[r] = 0;
        last = position[r] > last ? position[r] : last;
        for (int d = 0; d < dim / kLanes; d++) mixed[r][d] = Floats{};
    }
    for (int b = 0; b <= last / kBlock; b++) {
        const uint32_t* keys = cache.keys + cache.offset(blocks[b], head);
        const uint32_t* values = cache.values + cache.offset(blocks[b], head);
        Floats score[Rows];
#pragma GCC unroll 8
        for (int r = 0; r < Rows; r++) score[r] = Floats{};
        for (int d = 0; d < dim / 2; d++) {
            Words line = load(keys + d * kBlock);
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) score[r] = dot_pair(score[r], line, query[r][d]);
        }
        Floats keep[Rows];
        uint32_t weight[Rows][kBlock / 2];
        for (int r = 0; r < Rows; r++) {
            const Ints is_seen = lane + b * kBlock <= position[r];
            Floats seen = is_seen ? score[r] : all(-1e30f);
            float top = maximum(seen);
            top = top > best[r] ? top : best[r];
            keep[r] = exponential(all(best[r] - top));
            Floats p = is_seen ? exponential(seen - top) : Floats{};  // whatever the score: what is behind is not ours
            best[r] = top;
            total[r] = total[r] * keep[r][0] + sum(p);
            store_bfloats(weight[r], p);
        }
        for (int d = 0; d < dim / kLanes; d++) {
            Floats acc[Rows];
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) acc[r] = mixed[r][d] * keep[r];
#pragma GCC unroll 8
            for (int t = 0; t < kBlock / 2; t++) {
                Words line = load(values + t * dim + d * kLanes);
#pragma GCC unroll 8
                for (int r = 0; r < Rows; r++) acc[r] = dot_pair(acc[r], line, weight[r][t]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < Rows; r++) mixed[r][d] = acc[r];
        }
    }
    for (int r = 0; r < Rows; r++)
        for (int d = 0; d < dim / kLanes; d++) store_bfloats(out[r] + d * kLanes / 2, mixed[r][d] / total[r]);
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
