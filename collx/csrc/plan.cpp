#include "plan.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <stdexcept>

namespace collx {

namespace {

constexpr std::uint64_t kGrain = 64;         // GRAIN of collx/plan.py
constexpr std::uint64_t kStreamed = 4 << 10;  // bytes of a message from which the kind of store may matter

// Of the last level, where this machine says it.
std::uint64_t cache_bytes() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
    static const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (bytes > 0) return static_cast<std::uint64_t>(bytes);
#endif
    return 32 << 20;
}

class Words {
  public:
    explicit Words(std::span<const std::int64_t> words) : words_(words) {}

    std::int64_t next() {
        if (at_ == words_.size()) throw std::invalid_argument("the plan ends too early");
        return words_[at_++];
    }
    std::uint64_t count() {
        const std::int64_t value = next();
        if (value < 0) throw std::invalid_argument("negative count in a plan");
        return static_cast<std::uint64_t>(value);
    }

  private:
    std::span<const std::int64_t> words_;
    std::size_t at_ = 0;
};

Traits decode_traits(Words& words) {
    std::array<std::int64_t, Traits::kWords> raw;
    for (auto& word : raw) word = words.next();
    auto result = std::bit_cast<Traits>(raw);
    for (char* last : {std::end(result.collective), std::end(result.dtype), std::end(result.op),
                       std::end(result.algorithm), std::end(result.count)})
        last[-1] = '\0';
    return result;
}

Operand operand(Words& words, std::size_t blocks, std::uint32_t size) {
    Operand result;
    if (const std::int64_t peer = words.next(); peer >= 0) {
        if (peer >= size) throw std::invalid_argument("a plan names a rank outside the communicator");
        result.peer = static_cast<int>(peer);
        return result;
    }
    for (std::size_t block = 0; block < blocks; ++block) {
        const auto space = static_cast<Space>(words.count());
        result.spans.push_back({space, words.count()});
    }
    return result;
}

bool joins(const Operand& operand, std::size_t block, std::uint64_t length) {
    if (operand.is_lane()) return true;
    const Span &left = operand.spans[block], &right = operand.spans[block + 1];
    return left.space == right.space && left.offset + length == right.offset;
}

// Neighbouring blocks that lie side by side everywhere become one. Only for plans of one segment: with more,
// the segments of each block are what both ends of a lane count by.
void merge(Move& move) {
    for (std::size_t block = move.lengths.size(); block-- > 1;) {
        auto adjacent = [&](const Operand& o) { return joins(o, block - 1, move.lengths[block - 1]); };
        if (!std::ranges::all_of(move.sources, adjacent) || !std::ranges::all_of(move.targets, adjacent)) continue;
        move.lengths[block - 1] += move.lengths[block];
        const auto at = static_cast<std::ptrdiff_t>(block);
        move.lengths.erase(move.lengths.begin() + at);
        for (auto* operands : {&move.sources, &move.targets})
            for (Operand& o : *operands)
                if (!o.is_lane()) o.spans.erase(o.spans.begin() + at);
    }
}

std::uint64_t step(std::uint64_t length, std::uint64_t segments) {
    if (segments == 1) return length;
    const std::uint64_t grains = segments * kGrain;
    return (length + grains - 1) / grains * kGrain;
}

Move decode_move(Words& words, const Plan& plan) {
    Move move;
    const std::uint64_t flags = words.count();
    move.transient = (flags & 1) != 0;
    move.whole = (flags & 2) != 0;
    move.scale = (flags & 4) != 0;
    move.follower = static_cast<int>(words.next());
    for (std::uint64_t left = words.count(); left > 0; --left) {
        const std::uint64_t earlier = words.count();
        if (earlier >= plan.moves.size()) throw std::invalid_argument("a move waits for one that is not before it");
        move.after.push_back(static_cast<std::uint32_t>(earlier));
    }
    const std::uint64_t blocks = words.count();
    for (std::uint64_t block = 0; block < blocks; ++block) move.lengths.push_back(words.count());
    for (auto* operands : {&move.sources, &move.targets})
        for (std::uint64_t left = words.count(); left > 0; --left)
            operands->push_back(operand(words, blocks, plan.size));
    if (move.sources.empty() || move.targets.empty()) throw std::invalid_argument("a move needs a source and a target");
    move.meets_peers = std::ranges::any_of(move.sources, &Operand::is_lane) ||
                       std::ranges::any_of(move.targets, &Operand::is_lane);
    // Two ranks gain from a ring larger than the nearest caches: what is written there is not what was just read. With more
    // of them the rings of all pairs would fill the last cache, so only those stay large that all receivers share.
    move.around = plan.size <= 2 || std::ranges::count_if(move.targets, &Operand::is_lane) > 1;
    if (plan.segments == 1) merge(move);
    move.lendable = (flags & 8) != 0 && move.lengths.size() == 1 && move.sources[0].spans[0].space != Space::workspace;
    move.plain = move.lengths.size() == 1 && move.sources.size() == 1 && !move.sources[0].is_lane() && !move.whole &&
                 !move.scale && std::ranges::any_of(move.targets, &Operand::is_lane);
    move.lands = move.lengths.size() == 1 && move.sources.size() == 1 && move.sources[0].is_lane() &&
                 move.targets.size() == 1 && !move.targets[0].is_lane() && !move.whole && !move.scale;
    for (const std::uint64_t length : move.lengths) move.steps.push_back(step(length, plan.segments));
    return move;
}

std::vector<std::uint32_t> decode_ranks(Words& words, const Plan& plan) {
    std::vector<std::uint32_t> ranks;
    for (std::uint64_t left = words.count(); left > 0; --left) {
        const std::uint64_t peer = words.count();
        if (peer >= plan.size) throw std::invalid_argument("a plan names a rank outside the communicator");
        ranks.push_back(static_cast<std::uint32_t>(peer));
    }
    return ranks;
}

}  // namespace

Plan Plan::decode(std::span<const std::int64_t> words_given) {
    Words words(words_given);
    Plan plan;
    plan.segments = words.count();
    plan.window = words.count();
    plan.dtype = static_cast<DType>(words.count());
    plan.op = static_cast<Op>(words.count());
    plan.itemsize = words.count();
    plan.size = static_cast<std::uint32_t>(words.count());
    plan.workspace = words.count();
    plan.read = words.count();
    plan.written = words.count();
    plan.large = plan.written >= plan.read && plan.size * (plan.read + plan.written) > cache_bytes();
    plan.traits = decode_traits(words);
    plan.own_counts = words.count() != 0;
    plan.unheard = decode_ranks(words, plan);
    plan.unhearing = decode_ranks(words, plan);
    plan.sends.resize(plan.size);
    plan.receives.resize(plan.size);
    if (plan.segments == 0 || plan.window == 0) throw std::invalid_argument("a plan without segments");
    for (std::uint64_t left = words.count(); left > 0; --left) {
        const auto index = static_cast<std::uint32_t>(plan.moves.size());
        plan.moves.push_back(decode_move(words, plan));
        plan.moves.back().first_target = plan.targets;
        plan.targets += plan.moves.back().targets.size();
        plan.fills_slots |= plan.moves.back().segment_bytes(0) >= kStreamed &&
                            std::ranges::any_of(plan.moves.back().targets, &Operand::is_lane);
        for (const Operand& o : plan.moves.back().sources)
            if (o.is_lane()) plan.receives[static_cast<std::size_t>(o.peer)].push_back(index);
        for (const Operand& o : plan.moves.back().targets)
            if (o.is_lane()) plan.sends[static_cast<std::size_t>(o.peer)].push_back(index);
    }
    for (std::size_t index = 0; index < plan.moves.size(); ++index) {
        const int follower = plan.moves[index].follower;
        if (follower >= 0 && (static_cast<std::size_t>(follower) <= index ||
                              static_cast<std::size_t>(follower) >= plan.moves.size()))
            throw std::invalid_argument("a follower must come later");
        // What a reduction only passes on goes through a slot, where it is written once.
        if (follower >= 0 && plan.moves[index].transient && plan.moves[index].sources.size() > 1)
            plan.moves[static_cast<std::size_t>(follower)].plain = false;
    }
    return plan;
}

}  // namespace collx
