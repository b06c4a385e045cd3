// Messages that were lent: published by reference to the sender's own memory, which stays theirs until they are
// consumed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "lane.hpp"

namespace collx {

// The loans of one run, and how many segments of each lent move every receiver has given back.
class Loans {
  public:
    Loans(std::size_t lanes, std::size_t targets) : lanes_(lanes), returned_(targets) {}

    void clear() {
        for (Lane& lane : lanes_) lane.lent = lane.back = 0;
        std::ranges::fill(returned_, 0);
    }

    // The message that `lane`, to `peer`, has just published is a loan of the move's target number `target`.
    void lend(std::size_t peer, Writer& lane, std::size_t target) {
        Lane& mine = lanes_[peer];
        // There was room for it, so the oldest is consumed by now, although nobody has noted that yet.
        if (mine.lent - mine.back == mine.loans.size()) settle(peer, lane);
        mine.loans[mine.lent++ % mine.loans.size()] = {lane.sent(), target};
    }

    // Notes what the receiver at the other end of `lane` has consumed; false where it still reads something.
    bool settle(std::size_t peer, Writer& lane) {
        Lane& mine = lanes_[peer];
        while (mine.back < mine.lent) {
            const Loan& oldest = mine.loans[mine.back % mine.loans.size()];
            if (!lane.consumed(oldest.ticket)) return false;
            ++returned_[oldest.target];
            ++mine.back;
        }
        return true;
    }

    // Whether the peer still reads something, as far as that is settled.
    [[nodiscard]] bool outstanding(std::size_t peer) const { return lanes_[peer].back < lanes_[peer].lent; }
    [[nodiscard]] std::uint64_t returned(std::size_t target) const { return returned_[target]; }

  private:
    struct Loan {
        std::uint64_t ticket = 0;
        std::size_t target = 0;
    };
    struct Lane {
        std::array<Loan, kMostSlots> loans;  // a ring: no lane has more messages under way
        std::uint64_t lent = 0;
        std::uint64_t back = 0;
    };

    std::vector<Lane> lanes_;
    std::vector<std::uint64_t> returned_;  // by target
};

}  // namespace collx
