// Where ranks are when one waits for them in vain.
#pragma once

#include <string>
#include <vector>

#include "region.hpp"

namespace collx {

inline constexpr std::uint64_t kInMessage = 0xffffffffu;  // as the sequence of Flight::blocked: a send or a receive

// Who keeps `rank` waiting, and what each of them does instead: ranks that are stopped or behind; where there is none,
// the one at the end of the line of ranks that wait for each other, which begins with `waited_for`.
[[nodiscard]] std::string laggards(std::uint32_t rank, const std::vector<Header*>& headers, int waited_for);

}  // namespace collx
