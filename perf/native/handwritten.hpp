// A shared-memory all_reduce of float32 by hand, to judge the engine by: no plans, no checks, no other dtype or op.
// Its memory is one anonymous mapping that every rank has inherited at the same address.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

namespace stick {

inline constexpr int kMost = 8;         // ranks
inline constexpr std::size_t kTiny = 14;  // floats that fit into a line beside its number

// What may be tried; the Python side (collx.perf.handwritten) has the same fields in the same order.
struct Choices {
    std::int64_t one_shot;         // bytes up to which everybody reduces everything
    std::int64_t one_shot_chunk;   // bytes of a slot there
    std::int64_t chunk;            // bytes of a slot above
    std::int64_t pieces;           // into how many chunks a smaller block is cut
    std::int64_t bypass_out;       // bytes from which stores into the user's output bypass the caches
    std::int32_t bypass_stage;     // whether stores into slots do: of inputs,
    std::int32_t bypass_gather;    // of results
    std::int32_t twins;            // results go to output and slot: 0 block by block, 1 in one loop
    Copy copy;                     // from slots to the output
    std::int32_t ahead;            // chunks that a rank is ahead of what it waits for
    std::int32_t spins;
    std::int32_t yields;
    std::int32_t fence;            // whether publishing fences, or only who goes to sleep
};

struct alignas(64) Small {
    float payload[kTiny];
    std::atomic<std::uint64_t> number;
};
static_assert(sizeof(Small) == 64);

struct alignas(128) Flag {
    std::atomic<std::uint64_t> number;
};

// One rank's part of the mapping; it alone writes there, but for the bell.
struct Shared {
    static constexpr std::size_t kSlots = 2 << 20;  // bytes of slots of each kind

    alignas(128) Small small[4];
    Flag staged, gathered, here, done;
    alignas(128) const float* input;
    float* output;
    alignas(128) std::atomic<std::uint32_t> asleep;
    std::atomic<std::uint32_t> bell;
    alignas(4096) float shot[kSlots / sizeof(float)];  // of one shot; apart from the rest, as it stays in use after a call
    float stage[kSlots / sizeof(float)];
    float gather[kSlots / sizeof(float)];
};

class Rank {
  public:
    Rank(Shared* all, int rank, int size, const Choices& choices)
        : all_(all), own_(all[rank]), rank_(rank), size_(size), choices_(choices) {}

    void all_reduce(const float* input, float* output, std::size_t count);
    void zero_copy(const float* input, float* output, std::size_t count);
    void choose(const Choices& choices) { choices_ = choices; }

  private:
    void tiny(const float* input, float* output, std::size_t count);
    void one_shot(const float* input, float* output, std::size_t count);
    void two_shot(const float* input, float* output, std::size_t count);
    void reduce(float* output, float* slot, const float* const* sources, std::size_t count, bool bypass);
    void publish(std::atomic<std::uint64_t>& number, std::uint64_t value);
    void wait(const std::atomic<std::uint64_t>& number, std::uint64_t value);

    template <class Number>
    void wait_all(Number number, std::uint64_t value) {
        for (int peer = 0; peer < size_; ++peer)
            if (peer != rank_) wait(number(all_[peer]), value);
    }

    Shared* all_;
    Shared& own_;
    int rank_, size_;
    Choices choices_;
    std::uint64_t small_ = 0, staged_ = 0, gathered_ = 0, met_ = 0;  // so many were published
};

}  // namespace stick
