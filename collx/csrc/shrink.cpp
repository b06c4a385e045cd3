#include "shrink.hpp"

#include <algorithm>

namespace collx {

std::uint32_t Shrink::decide(std::atomic<std::uint32_t>& word, std::uint32_t proposed) const {
    std::uint32_t decided = 0;
    if (!word.compare_exchange_strong(decided, proposed, std::memory_order_acq_rel, std::memory_order_acquire))
        return decided;
    verdict_.wake_all();
    return proposed;
}

std::vector<std::uint32_t> Shrink::members(std::uint32_t attempt) {
    verdict_.count(attempt + 1, true);
    const std::uint32_t winner = decide(layout_.attempt(regions_[0], attempt).members, rank_ + 1) - 1;
    const auto gone = verdict_.counted(winner, attempt + 1);
    members_.clear();
    for (std::uint32_t rank = 0; rank < layout_.size; ++rank)
        if (!std::ranges::binary_search(gone, rank)) members_.push_back(rank);
    return members_;
}

bool Shrink::connected(std::uint32_t peer, std::uint32_t attempt) const {
    return Layout::header(regions_[peer]).connected.load(std::memory_order_acquire) > attempt;
}

std::vector<std::uint32_t> Shrink::missing(std::uint32_t attempt) const {
    std::vector<std::uint32_t> ranks;
    std::ranges::copy_if(members_, std::back_inserter(ranks), [&](auto rank) { return !connected(rank, attempt); });
    return ranks;
}

std::uint32_t Shrink::outcome(std::uint32_t attempt) {
    std::atomic<std::uint32_t>& word = layout_.attempt(regions_[0], attempt).outcome;
    if (const std::uint32_t known = word.load(std::memory_order_acquire)) return known;
    const auto absent = missing(attempt);
    if (absent.empty()) return decide(word, kUnited);
    for (const std::uint32_t rank : absent)  // whoever is seen gone has connected before or will never
        if (verdict_.gone(rank) && !connected(rank, attempt)) return decide(word, kFailed);
    return kUndecided;
}

Outcome Shrink::unite(std::uint32_t attempt, Clock::time_point deadline, Interrupted interrupted) {
    Header& own = Layout::header(regions_[rank_]);
    own.connected.store(attempt + 1, std::memory_order_release);
    verdict_.wake_all();
    Patience patience(true);
    Waiter waiter(own, nullptr, patience, interrupted);
    for (;;) {
        if (waiter.looked()) verdict_.ask_kernel();
        if (const std::uint32_t known = outcome(attempt)) return {Status::ok, static_cast<int>(known)};
        if (const Outcome why = waiter.turn(deadline); !why) return why;
    }
}

std::uint32_t Shrink::give_up(std::uint32_t attempt, std::string_view text) {
    Header& own = Layout::header(regions_[rank_]);
    if (own.regret[0] == 0) copy_text(own.regret, text);
    return decide(layout_.attempt(regions_[0], attempt).outcome, kGaveUp + rank_);
}

}  // namespace collx
