// Y = X · Wᵀ with bfloat16 inputs and float32 sums.
//
// W (outputs, inputs) is packed into panels of 32 outputs: [output / 32][input / 2][32][2]. One cache line then holds 16
// outputs of one input pair, and a panel is read from beginning to end. Every output is one chain of additions in the
// order of its inputs, however many rows there are: a row's result does not depend on the rows beside it.
//
// int8 weights lie in the same order with a scale for each output. They are widened to bfloat16, which holds every int8
// exactly, and the scale comes last.
#pragma once
#include <vector>

#include "vectors.h"

constexpr int kPanel = 32;

struct Matrix {
    const void* values;
    const float* scales;  // null: the values are bfloat16
};

// The two cache lines of one input pair: outputs 0 to 15, and 16 to 31.
struct Pairs {
    const uint32_t* words;
    Words low(int k) const { return load(words + (long)k * kPanel); }
    Words high(int k) const { return load(words + (long)k * kPanel + kLanes); }
};
struct Bytes {
    const int8_t* values;
    Words low(int k) const { return widened(values + (long)k * 2 * kPanel); }
    Words high(int k) const { return widened(values + (long)k * 2 * kPanel + kPanel); }
};

// A panel of int8 as pairs of bfloat16, for so many rows that it pays; valid until the thread's next.
static inline Pairs widen(const Bytes& from, int pairs) {
    thread_local std::vector<uint32_t> wide;
    wide.resize((size_t)pairs * kPanel);
    for (int k = 0; k < pairs; k++) {
        store(&wide[(size_t)k * kPanel], from.low(k));
        store(&wide[(size_t)k * kPanel + kLanes], from.high(k));
    }
    return {wide.data()};
}

// Rows [0, Rows) of X (row stride in pairs) against one panel; `done(row, low, high)` takes the 32 sums.
template <int Rows, class Panel, class Done>
static inline void panel_rows(const uint32_t* x, long stride, const Panel& panel, int pairs, const Done& done) {
    Floats low[Rows], high[Rows];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) low[r] = high[r] = Floats{};
    for (int k = 0; k < pairs; k++) {
        Words w0 = panel.low(k), w1 = panel.high(k);
#pragma GCC unroll 16
        for (int r = 0; r < Rows; r++) {
            uint32_t pair = x[r * stride + k];
            low[r] = dot_pair(low[r], w0, pair);
            high[r] = dot_pair(high[r], w1, pair);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) done(r, low[r], high[r]);
}

// All rows of X against one panel, in tiles that fit the registers.
template <class Panel, class Done>
static inline void panel(const uint32_t* x, int rows, int pairs, const Panel& w, const Done& done) {
    int first = 0;
    auto tile = [&](auto size) {
        constexpr int kRows = decltype(size)::value;
        while (rows - first >= kRows) {
            int offset = first;
            panel_rows<kRows>(x + (long)offset * pairs, pairs, w, pairs,
                              [&](int r, Floats low, Floats high) { done(offset + r, low, high); });
            first += kRows;
        }
    };
    tile(std::integral_constant<int, 12>());
    tile(std::integral_constant<int, 8>());
    tile(std::integral_constant<int, 4>());
    tile(std::integral_constant<int, 2>());
    tile(std::integral_constant<int, 1>());
}
