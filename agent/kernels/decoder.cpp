// The forward pass of a Llama decoder for a mixed batch of prompt pieces and single tokens, on a team of threads.
//
// Weights are bfloat16 or int8, packed as gemm.h says; the residual stream is float32; a row is rounded to bfloat16 only where it
// enters a product. Called from Python through `ctypes`: no reference is kept to anything but what `Model` points at.
#include <cmath>
#include <type_traits>
#include <vector>

#include "attention.h"
#include "gemm.h"
#include "head.h"
#include "pool.h"

extern "C" {
struct Layer {
    Matrix qkv, out, gate_up, down;
    const float *norm_in, *norm_post;
    const float *bias, *norm_query, *norm_key;  // null where the model has none
    uint32_t *keys, *values;
};
struct Model {
    int32_t layers, hidden, heads, kv_heads, head_dim, inner, vocab;
    float epsilon;
    const Layer* layer;
    const uint16_t* embedding;       // (vocab, hidden), as it is
    Matrix head;
    const float* norm;
    const float *cosine, *sine;      // (positions, head_dim / 2)
};
// Consecutive rows of the batch that are consecutive tokens of one sequence.
struct Chunk {
    int32_t first_row, num_rows, position;
    const int32_t* blocks;
};
}

constexpr int kWidenedFrom = 12;  // rows beyond which a panel of int8 is widened once for all of them

static int padded(int outputs) { return (outputs + kPanel - 1) / kPanel * kPanel; }

struct Decoder {
    const Model model;
    Team team;
    std::vector<float> residual, qkv;
    std::vector<uint32_t> normed, query, attended, gated;
    struct Tile { int chunk, head, first, count; };
    std::vector<Tile> tiles;
    std::vector<int> chunk_of;  // by row

    Decoder(const Model& m, int threads) : model(m), team(threads) {}

    void make_room(int rows) {
        const Model& m = model;
        residual.resize((long)rows * m.hidden);
        qkv.resize((long)rows * padded((m.heads + 2 * m.kv_heads) * m.head_dim));
        normed.resize((long)rows * m.hidden / 2);
        query.resize((long)rows * m.heads * m.head_dim / 2);
        attended.resize((long)rows * m.heads * m.head_dim / 2);
        gated.resize((long)rows * m.inner / 2);
    }

    // Attention is shared out by sequence, key-value head, and as many query rows as the registers hold.
    void lay_out(const Chunk* chunks, int num_chunks) {
        const int group = model.heads / model.kv_heads;
        tiles.clear();
        chunk_of.clear();
        for (int c = 0; c < num_chunks; c++) chunk_of.insert(chunk_of.end(), chunks[c].num_rows, c);
        for (int c = 0; c < num_chunks; c++)
            for (int head = 0; head < model.kv_heads; head++)
                for (int first = 0, all = chunks[c].num_rows * group; first < all; first += kMaxRows)
                    tiles.push_back({c, head, first, std::min(kMaxRows, all - first)});
    }

    void embed(int row, int32_t id) {
        const uint16_t* from = model.embedding + (long)id * model.hidden;
        float* to = &residual[(long)row * model.hidden];
        for (int i = 0; i < model.hidden; i++) {
            uint32_t bits = (uint32_t)from[i] << 16;
            std::memcpy(to + i, &bits, 4);
        }
    }

    // RMSNorm (Zhang and Sennrich 2019) of one head, in place.
    void norm_head(float* x, const float* weight) {
        Floats squares = {};
        for (int i = 0; i < model.head_dim; i += kLanes) squares += load(x + i) * load(x + i);
        const float scale = 1 / std::sqrt(sum(squares) / model.head_dim + model.epsilon);
        for (int i = 0; i < model.head_dim; i += kLanes) store(x + i, load(x + i) * scale * load(weight + i));
    }

    // RMSNorm, rounded to bfloat16.
    void norm(int row, const float* weight, uint32_t* to) {
        const float* x = &residual[(long)row * model.hidden];
        Floats squares = {};
        for (int i = 0; i < model.hidden; i += kLanes) squares += load(x + i) * load(x + i);
        const float scale = 1 / std::sqrt(sum(squares) / model.hidden + model.epsilon);
        for (int i = 0; i < model.hidden; i += kLanes)
            store_bfloats(to + i / 2, load(x + i) * scale * load(weight + i));
    }

    // Rotary embedding (Su et al. 2021) in the halves-apart form, in place.
    void rotate(float* x, int position) {
        const int half = model.head_dim / 2;
        const float *cosine = model.cosine + (long)position * half, *sine = model.sine + (long)position * half;
        for (int i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * cosine[i] - b * sine[i];
            x[i + half] = b * cosine[i] + a * sine[i];
        }
    }

    void place(int row, int position, const int32_t* blocks, const Layer& layer) {
        const Model& m = model;
        const Cache cache{layer.keys, layer.values, m.kv_heads, m.head_dim};
        const int block = blocks[position / kBlock], slot = position % kBlock, dim = m.head_dim;
        const float scale = 1 / std::sqrt((float)dim);
        const int width = (m.heads + 2 * m.kv_heads) * dim;
        float* x = &qkv[(long)row * padded(width)];
        if (layer.bias)
            for (int i = 0; i < width; i += kLanes) store(x + i, load(x + i) + load(layer.bias + i));
        for (int h = 0; h < m.heads; h++, x += dim) {
            if (layer.norm_query) norm_head(x, layer.norm_query);
            rotate(x, position);
            uint32_t* to = &query[((long)row * m.heads + h) * dim / 2];
            for (int d = 0; d < dim; d += 2) to[d / 2] = pair(x[d] * scale, x[d + 1] * scale);
        }
        for (int h = 0; h < m.kv_heads; h++, x += dim) {
            if (layer.norm_key) norm_head(x, layer.norm_key);
            rotate(x, position);
            write_key(cache, block, slot, h, x);
        }
        for (int h = 0; h < m.kv_heads; h++, x += dim) write_value(cache, block, slot, h, x);
    }

    void attend_tile(const Tile& tile, const Chunk& chunk, const Layer& layer) {
        const Model& m = model;
        const int group = m.heads / m.kv_heads, words = m.head_dim / 2;
        const uint32_t* rows[kMaxRows];
        uint32_t* outs[kMaxRows];
        int positions[kMaxRows];
        for (int i = 0; i < tile.count; i++) {
            const int token = (tile.first + i) / group;
            const long at = ((long)(chunk.first_row + token) * m.heads + tile.head * group + (tile.first + i) % group) * words;
            rows[i] = &query[at];
            outs[i] = &attended[at];
            positions[i] = chunk.position + token;
        }
        const Cache cache{layer.keys, layer.values, m.kv_heads, m.head_dim};
        attend(tile.count, cache, tile.head, chunk.blocks, rows, positions, outs);
    }

    // x · wᵀ by panels of outputs; `done(row, panel, low, high)` has the sums.
    template <class Done>
    void multiply(const uint32_t* x, int rows, int inputs, const Matrix& w, int outputs, const Done& done) {
        const int pairs = inputs / 2;
        const long size = (long)pairs * kPanel;  // of a panel, in pairs
        team.each(padded(outputs) / kPanel, [&](int p) {
            auto plain = [&](int row, Floats low, Floats high) { done(row, p, low, high); };
            if (!w.scales) return panel(x, rows, pairs, Pairs{(const uint32_t*)w.values + p * size}, plain);
            const Floats first = load(w.scales + p * kPanel), second = load(w.scales + p * kPanel + kLanes);
            auto scaled = [&](int row, Floats low, Floats high) { done(row, p, low * first, high * second); };
            const Bytes bytes{(const int8_t*)w.values + p * size * 2};
            if (rows <= kWidenedFrom) return panel(x, rows, pairs, bytes, scaled);
            panel(x, rows, pairs, widen(bytes, pairs), scaled);
        });
    }
    void multiply_to(float* y, const uint32_t* x, int rows, int inputs, const Matrix& w, int outputs) {
        const long width = padded(outputs);
        multiply(x, rows, inputs, w, outputs, [=](int row, int p, Floats low, Floats high) {
            store(y + row * width + p * kPanel, low);
            store(y + row * width + p * kPanel + kLanes, high);
        });
    }
    void multiply_add(const uint32_t* x, int rows, int inputs, const Matrix& w) {
        float* y = residual.data();
        const long width = model.hidden;
        multiply(x, rows, inputs, w, model.hidden, [=](int row, int p, Floats low, Floats high) {
            float* to = y + row * width + p * kPanel;
            store(to, load(to) + low);
            store(to + kLanes, load(to + kLanes) + high);
        });
    }
    // A panel holds 16 gates and the 16 values they gate: silu(gate) * value.
    void multiply_gated(const uint32_t* x, int rows, const Matrix& w) {
        const long width = model.inner;
        uint32_t* y = gated.data();
        multiply(x, rows, model.hidden, w, 2 * model.inner, [=](int row, int p, Floats gate, Floats value) {
            store_bfloats(y + (row * width + p * kLanes) / 2, gate / (1.0f + exponential(-gate)) * value);
        });
    }

    void run_layer(const Layer& layer, int rows, const Chunk* chunks) {
        const Model& m = model;
        const int width = m.heads * m.head_dim;
        team.each(rows, [&](int r) { norm(r, layer.norm_in, &normed[(long)r * m.hidden / 2]); });
        multiply_to(qkv.data(), normed.data(), rows, m.hidden, layer.qkv, width + 2 * m.kv_heads * m.head_dim);
        team.each(rows, [&](int r) {
            const Chunk& chunk = chunks[chunk_of[r]];
            place(r, chunk.position + r - chunk.first_row, chunk.blocks, layer);
        });
        team.each((int)tiles.size(), [&](int t) { attend_tile(tiles[t], chunks[tiles[t].chunk], layer); });
        multiply_add(attended.data(), rows, width, layer.out);
        team.each(rows, [&](int r) { norm(r, layer.norm_post, &normed[(long)r * m.hidden / 2]); });
        multiply_gated(normed.data(), rows, layer.gate_up);
        multiply_add(gated.data(), rows, m.inner, layer.down);
    }
};

extern "C" {
Decoder* decoder_new(const Model* model, int threads) { return new Decoder(*model, threads); }
void decoder_use_threads(Decoder* decoder, int count) { decoder->team.use(count); }
void decoder_delete(Decoder* decoder) { delete decoder; }

// Runs `rows` tokens through all layers; their keys and values are then in the cache, their states in `residual`.
void decoder_forward(Decoder* d, const int32_t* ids, int rows, const Chunk* chunks, int num_chunks) {
    d->make_room(rows);
    d->lay_out(chunks, num_chunks);
    d->team.run([=] {
        d->team.each(rows, [=](int r) { d->embed(r, ids[r]); });
        for (int l = 0; l < d->model.layers; l++) d->run_layer(d->model.layer[l], rows, chunks);
    });
}

// Logits and figures of the tokens after `wanted` rows of the last forward. `logits`: (count, vocab padded to 32).
void decoder_head(Decoder* d, const int32_t* wanted, int count, float* logits, Figures* out) {
    const Model& m = d->model;
    const int width = padded(m.vocab);
    d->team.run([=, &m] {
        d->team.each(count, [=, &m](int i) { d->norm(wanted[i], m.norm, &d->normed[(long)i * m.hidden / 2]); });
        d->multiply_to(logits, d->normed.data(), count, m.hidden, m.head, m.vocab);
        d->team.each(count, [=, &m](int i) {
            float* row = logits + (long)i * width;
            std::fill(row + m.vocab, row + width, -1e30f);
            out[i] = figures(row, width);
        });
    });
}

// One token for each of `count` rows of logits (vocab).
void decoder_choose(Decoder* d, const float* const* logits, const Choice* choices, int count, int32_t* out) {
    const int width = d->model.vocab;
    d->team.run([=] { d->team.each(count, [=](int i) { out[i] = choose(logits[i], width, choices[i]); }); });
}
}
