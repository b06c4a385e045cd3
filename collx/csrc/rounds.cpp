#include "rounds.hpp"

#include "shrink.hpp"

namespace collx {

bool Rounds::silent(std::uint32_t peer, std::uint32_t attempt) const {
    return verdict_.gone(peer) || published(peer, attempt) >= Shrink::kGaveUp;
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
        std::uint32_t word = published(round, attempt);
        if (round == rank_ && word == 0) {
            word = held_ != 0 ? held_ : own;
            if (word == 0) return 0;
            publish(attempt, word);
        } else if (word == 0) {
            if (!verdict_.gone(round)) return 0;
            word = published(round, attempt);
        }
        if (word != 0) held_ = word;
    }
    return held_;
}

void Rounds::publish(std::uint32_t attempt, std::uint32_t outcome) {
    layout_.attempt(regions_[rank_], attempt).outcome.store(outcome, std::memory_order_release);
    far_.tell(Tells::outcome, attempt, outcome);
    verdict_.wake_all();
}

std::uint32_t Rounds::insist(std::uint32_t attempt, std::uint32_t outcome) {
    const bool decided = outcome_.attempt == attempt && outcome_.round == layout_.size;
    if (decided) return held_;
    if (const std::uint32_t said = published(rank_, attempt)) return said;
    publish(attempt, outcome);
    return outcome;
}

std::uint32_t Rounds::regretted(std::uint32_t attempt) const {
    for (std::uint32_t peer = 0; peer < layout_.size; ++peer)
        if (const std::uint32_t word = published(peer, attempt); word >= Shrink::kGaveUp) return word;
    return 0;
}

}  // namespace collx
