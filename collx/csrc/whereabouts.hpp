// Where ranks are when one waits for them in vain.
#pragma once

#include <string>
#include <vector>

#include "communicators.hpp"

namespace collx {

// Who keeps `rank` waiting, and what each of them does instead: ranks that are stopped or behind; where there is none,
// the one at the end of the line of ranks that wait for each other, which begins with `waited_for`.
[[nodiscard]] std::string laggards(const Communicator& here, int waited_for);

}  // namespace collx
