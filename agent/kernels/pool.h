// A team of threads that runs one function together, with barriers between its phases.
// Waiting spins for some microseconds and then sleeps, so that a busy neighbour on the same cores costs little.
#pragma once
#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

constexpr int kSpins = 10000;
constexpr int kMost = 255;  // members

static inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Returns when `value` is no longer `old`.
static inline void await_change(std::atomic<uint32_t>& value, uint32_t old) {
    for (int i = 0; i < kSpins; i++) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
    }
    value.wait(old, std::memory_order_acquire);
}

class Team {
  public:
    explicit Team(int size) : active_(std::clamp(size, 1, kMost)) {
        size = active_;
        for (int rank = 1; rank < size; rank++) workers_.emplace_back([this, rank] { work(rank); });
    }
    ~Team() {
        start(0);
        for (auto& worker : workers_) worker.join();
    }
    // How many take part from the next run on, the caller among them; the others sleep. Not during a run.
    void use(int count) { active_ = std::clamp(count, 1, std::min((int)workers_.size() + 1, kMost)); }
    // Every active member, the caller among them, runs `function`; returns when all have.
    void run(const std::function<void()>& function) {
        function_ = &function;
        start(active_);
        function();
        barrier();
    }
    // Waits for the whole team, and makes the next `claim` begin at 0.
    void barrier() {
        // Both are read before arriving: once all have arrived, the run can be over and `use` can change `active_`.
        const uint32_t generation = generation_.load(std::memory_order_acquire);
        const int last = active_ - 1;
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == last) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            generation_.fetch_add(1, std::memory_order_acq_rel);
            generation_.notify_all();
        } else {
            await_change(generation_, generation);
        }
    }
    // Calls `task(i)` for every i below `count`, each on whichever member is free; ends with a barrier.
    template <class Task>
    void each(int count, const Task& task) {
        for (int i = next_.fetch_add(1, std::memory_order_relaxed); i < count;
             i = next_.fetch_add(1, std::memory_order_relaxed))
            task(i);
        barrier();
    }

  private:
    // A round's word is its number and how many take part, 0 to end: a member that wakes late cannot mix up two rounds.
    void start(int active) {
        uint32_t number = round_.load(std::memory_order_relaxed) / (kMost + 1) + 1;
        round_.store(number * (kMost + 1) + active, std::memory_order_release);
        round_.notify_all();
    }
    void work(int rank) {
        for (uint32_t seen = 0;;) {
            await_change(round_, seen);
            seen = round_.load(std::memory_order_acquire);
            const int active = seen % (kMost + 1);
            if (active == 0) return;
            if (rank >= active) continue;
            (*function_)();
            barrier();
        }
    }
    int active_;
    const std::function<void()>* function_ = nullptr;
    std::vector<std::thread> workers_;
    alignas(64) std::atomic<uint32_t> round_{0};
    alignas(64) std::atomic<uint32_t> generation_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> next_{0};
};
