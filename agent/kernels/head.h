// From logits to figures and to a token.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "vectors.h"

// Of the model's own distribution, before any setting of the request touches it. Natural logarithms.
struct Figures {
    int32_t best;       // the likeliest token; the first of equals
    float margin;       // by how much its logit is ahead of the second's
    float entropy;
    float log_total;    // log of the sum of exponentials: logprob = logit - log_total
};

// `logits` has `width` entries, a multiple of 16; those past the vocabulary are -1e30.
static inline Figures figures(const float* logits, int width) {
    Floats first = all(-2e30f), second = all(-2e30f);
    Ints where = {}, here = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < width; i += kLanes, here += kLanes) {
        Floats v = load(logits + i);
        second = v > first ? first : larger(second, v);
        where = v > first ? here : where;
        first = larger(first, v);
    }
    float top = -2e30f, next = -2e30f;
    int best = 0;
    for (int i = 0; i < kLanes; i++) {
        float other = first[i];
        if (first[i] > top || (first[i] == top && where[i] < best)) {
            other = top;
            top = first[i];
            best = where[i];
        }
        next = std::max({next, other, second[i]});
    }
    Floats total = {}, weighted = {};
    for (int i = 0; i < width; i += kLanes) {
        Floats shifted = load(logits + i) - top;
        Floats p = exponential(shifted);
        total += p;
        weighted += p * shifted;
    }
    float log_total = std::log(sum(total));
    return {best, top - next, log_total - sum(weighted) / sum(total), top + log_total};
}

struct Choice {
    float temperature, top_p, min_p;
    int32_t top_k;       // 0: all
    double uniform;      // in [0, 1): which of the tokens
};

// One token by temperature, then top-k, then top-p (nucleus, Holtzman et al. 2020), then min-p; temperature > 0.
static inline int32_t choose(const float* logits, int width, const Choice& choice) {
    thread_local std::vector<float> weights;
    weights.resize(width);
    const float temperature = std::max(choice.temperature, 1e-5f);  // a smaller one would divide to infinity
    const float top = *std::max_element(logits, logits + width);
    double total = 0;
    Floats totals = {};
    int i = 0;
    for (; i + kLanes <= width; i += kLanes) {
        Floats w = exponential((load(logits + i) - top) / temperature);
        store(&weights[i], w);
        totals += w;
    }
    for (; i < width; i++) total += weights[i] = exponential(all((logits[i] - top) / temperature))[0];
    total += sum(totals);
    // What is below `floor` is beyond the nucleus in any case: all of it together weighs less than 1 - top_p.
    const bool is_filtered = choice.top_k || choice.top_p < 1;
    float floor = choice.top_k ? 0 : choice.min_p;
    if (!choice.top_k && is_filtered) floor = std::max(floor, (float)((1 - choice.top_p) * total / width));
    thread_local std::vector<std::pair<float, int32_t>> kept;  // (-weight, token): sorting puts the likeliest first
    kept.clear();
    for (i = 0; i < width; i++)
        if (weights[i] > 0 && weights[i] >= floor) kept.emplace_back(-weights[i], i);
    double mass = total;
    if (choice.top_k && choice.top_k < (int)kept.size()) {
        std::nth_element(kept.begin(), kept.begin() + choice.top_k, kept.end());
        kept.resize(choice.top_k);
        mass = 0;
        for (auto& [w, _] : kept) mass -= w;
    }
    if (is_filtered) std::sort(kept.begin(), kept.end());
    if (choice.top_p < 1) {
        double reached = 0;
        size_t size = 0;
        while (size < kept.size() && (size == 0 || reached < choice.top_p * mass)) reached -= kept[size++].first;
        kept.resize(size);
    }
    mass = 0;
    for (auto& [w, _] : kept)
        if (-w >= choice.min_p) mass -= w;
    double left = choice.uniform * mass;
    int32_t last = 0;
    for (auto& [w, id] : kept) {
        if (-w < choice.min_p) continue;
        last = id;
        if ((left += w) < 0) break;
    }
    return last;
}
