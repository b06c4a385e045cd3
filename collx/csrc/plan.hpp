// A plan as the engine runs it: `Move`s decoded from the words that collx/native.py writes (see collx/plan.py).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dtype.hpp"
#include "record.hpp"

namespace collx {

enum class Space : std::uint8_t { input = 0, output = 1, workspace = 2 };

struct Span {
    Space space;
    std::uint64_t offset;
};

struct Operand {
    int peer = -1;            // a lane, or
    std::vector<Span> spans;  // memory, a place for every block
    [[nodiscard]] bool is_lane() const { return peer >= 0; }
};

struct Move {
    std::vector<Operand> sources;
    std::vector<Operand> targets;
    std::vector<std::uint64_t> lengths;
    std::vector<std::uint64_t> steps;  // bytes of every block that a segment takes
    std::vector<std::uint32_t> after;
    int follower = -1;
    bool transient = false;
    bool whole = false;
    bool scale = false;
    bool meets_peers = false;  // has a lane
    bool around = false;       // its payloads go around the ring of slots
    bool lendable = false;     // sends one block of the caller's memory that is kept (see collx/plan.py)
    bool plain = false;        // sends one block of memory that no reduction passes on as it goes: the network may take it
    bool lands = false;        // receives one block that goes to one place in memory
    std::size_t first_target = 0;  // of all moves' targets, numbered through

    [[nodiscard]] std::uint64_t segment_length(std::size_t block, std::uint64_t segment) const {
        const std::uint64_t begin = segment * steps[block];
        return begin >= lengths[block] ? 0 : std::min(steps[block], lengths[block] - begin);
    }
    [[nodiscard]] std::uint64_t segment_bytes(std::uint64_t segment) const {
        std::uint64_t total = 0;
        for (std::size_t block = 0; block < lengths.size(); ++block) total += segment_length(block, segment);
        return total;
    }
};

struct Plan {
    std::uint64_t segments = 1;
    std::uint64_t window = 1;
    DType dtype{};
    Op op{};
    std::uint64_t itemsize = 1;
    std::uint32_t size = 1;
    std::uint64_t workspace = 0;
    std::uint64_t read = 0, written = 0;  // bytes of input and output
    bool large = false;                   // the caches do not hold what all ranks write
    bool fills_slots = false;             // with so much that how it is stored matters
    std::size_t targets = 0;              // of all moves
    Traits traits;
    bool own_counts = false;  // each rank knows the lengths of its own messages only
    std::vector<std::uint32_t> unheard;  // the ranks of which nothing comes to this one, not even by way of others
    std::vector<std::uint32_t> unhearing;  // those to which nothing may come of this one
    std::vector<Move> moves;
    // The moves that use each lane, in order: what both of its ends agree on.
    std::vector<std::vector<std::uint32_t>> sends;     // by receiver
    std::vector<std::vector<std::uint32_t>> receives;  // by sender

    static Plan decode(std::span<const std::int64_t> words);
};

}  // namespace collx
