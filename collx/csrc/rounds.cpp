#include "rounds.hpp"

namespace collx {

bool Rounds::regrets(std::uint32_t peer, std::uint32_t attempt) const {
    const std::uint32_t when = Layout::header(regions_[peer]).regretted.load(std::memory_order_acquire);
    return when != 0 && when <= attempt + 1;
}

const std::vector<bool>* Rounds::left_out(std::uint32_t attempt) {
    if (members_.attempt != attempt) {
        members_ = {attempt, 0};
        out_.assign(layout_.size, false);
        for (std::uint32_t peer = 0; peer < layout_.size; ++peer) out_[peer] = verdict_.gone(peer);
    }
    for (std::uint32_t& round = members_.round; round < layout_.size; ++round) {
        if (round == rank_) {
            name(attempt);
            continue;
        }
        if (!named(round, attempt)) {
            if (!silent(round, attempt)) return nullptr;
            if (!named(round, attempt)) continue;  // and will never
        }
        for (std::uint32_t peer = 0; peer < layout_.size; ++peer)
            out_[peer] = layout_.acknowledged(regions_[round], peer).left_out.load(std::memory_order_acquire) == attempt + 1;
    }
    return &out_;
}

void Rounds::name(std::uint32_t attempt) {
    for (std::uint32_t peer = 0; peer < layout_.size; ++peer) {
        if (!out_[peer]) continue;
        layout_.acknowledged(regions_[rank_], peer).left_out.store(attempt + 1, std::memory_order_release);
        far_.tell(Tells::left_out, peer, attempt + 1);
    }
    layout_.attempt(regions_[rank_], attempt).members.store(1, std::memory_order_release);
    far_.tell(Tells::members, attempt, 1);
    verdict_.wake_all();
}

std::uint32_t Rounds::outcome(std::uint32_t attempt, std::uint32_t own) {
    if (outcome_.attempt != attempt) {
        outcome_ = {attempt, 0};
        held_ = 0;
    }
    for (std::uint32_t& round = outcome_.round; round < layout_.size; ++round) {
        std::uint32_t said = word(round, attempt);
        if (round == rank_ && said == 0) {
            said = held_ != 0 ? held_ : own;
            if (said == 0) return 0;
            publish(attempt, said);
        } else if (said == 0) {
            if (!silent(round, attempt)) return 0;
            said = word(round, attempt);
        }
        if (said != 0) held_ = said;
    }
    return held_;
}

void Rounds::publish(std::uint32_t attempt, std::uint32_t outcome) {
    layout_.attempt(regions_[rank_], attempt).outcome.store(outcome, std::memory_order_release);
    far_.tell(Tells::outcome, attempt, outcome);
    verdict_.wake_all();
}

std::uint32_t Rounds::published(std::uint32_t attempt) const {
    const bool decided = outcome_.attempt == attempt && outcome_.round == layout_.size;
    return decided ? held_ : word(rank_, attempt);
}

}  // namespace collx
