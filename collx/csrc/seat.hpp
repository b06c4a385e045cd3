// The core that a rank runs on, among those of the other ranks.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "region.hpp"

namespace collx {

// Keeps ranks from sharing a core while another has room. Two that wait for each other on one core look busy to the
// kernel, which may leave them there for good, with the next core idle: a small message then takes ten times as long.
// So ranks say where they are when they wait, and where a core has more than its share of them the last ones move.
class Seat {
  public:
    Seat(std::uint32_t rank, std::vector<Header*> headers) : rank_(rank), headers_(std::move(headers)) {}

    // To be called in a wait that is not a short one.
    void waits();
    // After such a wait: whether others ran on this core meanwhile.
    void waited(bool crowded) { crowded_ = crowded ? crowded_ + 1 : 0; }

  private:
    static constexpr std::uint32_t kTolerance = 16;
    static constexpr std::uint32_t kMostTolerance = 4096;

    void tell(std::uint32_t core);
    void leave(std::uint32_t core);

    const std::uint32_t rank_;
    const std::vector<Header*> headers_;
    std::uint32_t tried_ = 0;    // after the core that was tried last
    std::uint32_t crowded_ = 0;  // waits in a row
    std::uint32_t tolerance_ = kTolerance;
};

}  // namespace collx
