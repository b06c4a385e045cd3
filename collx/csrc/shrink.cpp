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

Outcome Shrink::meet(std::uint32_t attempt, Clock::time_point deadline, Interrupted interrupted) {
    if (!rounds_) return elect(attempt), Outcome{};
    const std::vector<bool>* out = nullptr;
    const Outcome ended = wait(deadline, interrupted, [&] { return (out = rounds_->left_out(attempt)) != nullptr; });
    members_.clear();
    for (std::uint32_t rank = 0; out != nullptr && rank < layout_.size; ++rank)
        if (!(*out)[rank]) members_.push_back(rank);
    return ended;
}

void Shrink::elect(std::uint32_t attempt) {
    verdict_.count(attempt + 1, true);
    const std::uint32_t winner = decide(layout_.attempt(regions_[0], attempt).members, rank_ + 1) - 1;
    const auto gone = verdict_.counted(winner, attempt + 1);
    members_.clear();
    for (std::uint32_t rank = 0; rank < layout_.size; ++rank)
        if (!std::ranges::binary_search(gone, rank)) members_.push_back(rank);
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
    if (rounds_) return rounds_->outcome(attempt, judged(attempt));
    std::atomic<std::uint32_t>& word = layout_.attempt(regions_[0], attempt).outcome;
    if (const std::uint32_t known = word.load(std::memory_order_acquire)) return known;
    const std::uint32_t found = judged(attempt);
    return found == kUndecided ? found : decide(word, found);
}

std::uint32_t Shrink::judged(std::uint32_t attempt) const {
    const auto absent = missing(attempt);
    if (members_.empty()) return kUndecided;
    for (std::uint32_t rank = 0; rounds_ && rank < layout_.size; ++rank)
        if (rounds_->regrets(rank, attempt)) return kGaveUp + rank;
    if (absent.empty()) return kUnited;
    for (const std::uint32_t rank : absent)  // whoever is seen gone has connected before or will never
        if (verdict_.gone(rank) && !connected(rank, attempt)) return kFailed;
    return kUndecided;
}

template <typename Look>
Outcome Shrink::wait(Clock::time_point deadline, Interrupted interrupted, const Look& look) {
    Patience patience(true);
    Waiter waiter(Layout::header(regions_[rank_]), nullptr, patience, interrupted);
    for (;;) {
        if (waiter.looked()) verdict_.ask_kernel();
        if (look()) return {};
        if (const Outcome why = waiter.turn(deadline); !why) return why;
    }
}

Outcome Shrink::unite(std::uint32_t attempt, Clock::time_point deadline, Interrupted interrupted) {
    Layout::header(regions_[rank_]).connected.store(attempt + 1, std::memory_order_release);
    if (far_ != nullptr) far_->tell(Tells::connected, 0, attempt + 1);
    verdict_.wake_all();
    std::uint32_t known = kUndecided;
    const Outcome ended = wait(deadline, interrupted, [&] { return (known = outcome(attempt)) != kUndecided; });
    return ended ? Outcome{Status::ok, static_cast<int>(known)} : ended;
}

std::uint32_t Shrink::give_up(std::uint32_t attempt, std::string_view text) {
    Header& own = Layout::header(regions_[rank_]);
    if (own.regret[0] == 0) copy_text(own.regret, text);
    if (!rounds_) return decide(layout_.attempt(regions_[0], attempt).outcome, kGaveUp + rank_);
    if (const std::uint32_t known = rounds_->published(attempt); known != 0 && known != kFailed) return known;
    if (own.regretted.load(std::memory_order_relaxed) == 0) {
        own.regretted.store(attempt + 1, std::memory_order_release);
        far_->tell(Tells::regret, 0, attempt + 1, own.regret);
        verdict_.wake_all();
    }
    return kGaveUp + rank_;
}

}  // namespace collx
