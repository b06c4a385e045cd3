// How the survivors of a communicator decide something alike where no word is seen by all of them: in rounds.
//
// In round r rank r publishes what it holds, and everybody waits to see that, or rank r gone; who has seen it holds the
// same from then on. After the round of a rank that survives all hold the same, and later rounds change nothing. It is
// the rotating coordinator of Chandra and Toueg (1996), for failures that are never suspected wrongly; a network that is cut
// in parts can make it end differently in each. A rank that gives up is passed over as one that is gone.
#pragma once

#include <cstdint>
#include <vector>

#include "verdict.hpp"

namespace collx {

class Rounds {
  public:
    Rounds(std::uint32_t rank, const Layout& layout, const std::vector<std::byte*>& regions, Verdict& verdict, Far& far)
        : rank_(rank), layout_(layout), regions_(regions), verdict_(verdict), far_(far) {}

    // Who is left out in an attempt of a shrink, by rank; null while that is not decided.
    [[nodiscard]] const std::vector<bool>* left_out(std::uint32_t attempt);
    // What becomes of it; 0 while that is not decided. `own`: what this rank holds; 0: it does not know yet, and whom
    // it holds up will wait.
    [[nodiscard]] std::uint32_t outcome(std::uint32_t attempt, std::uint32_t own);
    // What this rank has published as the outcome, or 0; or the outcome, where that is decided.
    [[nodiscard]] std::uint32_t published(std::uint32_t attempt) const;
    // Whether the rank has given up in this attempt, or before.
    [[nodiscard]] bool regrets(std::uint32_t peer, std::uint32_t attempt) const;

  private:
    struct Question {
        std::uint32_t attempt = ~0u;
        std::uint32_t round = 0;
    };

    // Whether the rank publishes nothing any more.
    [[nodiscard]] bool silent(std::uint32_t peer, std::uint32_t attempt) const {
        return verdict_.gone(peer) || regrets(peer, attempt);
    }
    [[nodiscard]] std::uint32_t word(std::uint32_t peer, std::uint32_t attempt) const {
        return layout_.attempt(regions_[peer], attempt).outcome.load(std::memory_order_acquire);
    }
    [[nodiscard]] bool named(std::uint32_t peer, std::uint32_t attempt) const {
        return layout_.attempt(regions_[peer], attempt).members.load(std::memory_order_acquire) != 0;
    }
    void name(std::uint32_t attempt);
    void publish(std::uint32_t attempt, std::uint32_t outcome);

    const std::uint32_t rank_;
    const Layout& layout_;
    const std::vector<std::byte*> regions_;
    Verdict& verdict_;
    Far& far_;
    Question members_, outcome_;
    std::vector<bool> out_;  // by rank, as this one holds it
    std::uint32_t held_ = 0;
};

}  // namespace collx
