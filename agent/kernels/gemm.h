// Y = X · Wᵀ with bfloat16 inputs and float32 sums.
//
// W (outputs, inputs) is packed into panels of 32 outputs: [output / 32][input / 2][32][2]. One cache line then holds 16
// outputs of one input pair, and a panel is read from beginning to end. Every output is one chain of additions in the
// order of its inputs, however many rows there are: a row's result does not depend on the rows beside it.
#pragma once
#include "vectors.h"

constexpr int kPanel = 32;

// Rows [0, Rows) of X (row stride in pairs) against one panel; `done(row, low, high)` takes the 32 sums.
template <int Rows, class Done>
static inline void panel_rows(const uint32_t* x, long stride, const uint32_t* panel, int pairs, const Done& done) {
    Floats low[Rows], high[Rows];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; r++) low[r] = high[r] = Floats{};
    for (int k = 0; k < pairs; k++) {
        Words w0 = load(panel + (long)k * kPanel), w1 = load(panel + (long)k * kPanel + kLanes);
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
template <class Done>
static inline void panel(const uint32_t* x, int rows, int pairs, const uint32_t* w, const Done& done) {
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
