#include "seat.hpp"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>

namespace collx {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTurn{1};  // who waits longer for a core shares it with a program that computes

// How many threads of all programs run or could; many where nobody can tell.
std::size_t runnable() {
    char text[128];
    const int file = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    std::size_t count = SIZE_MAX;
    if (length > 0) {
        text[length] = '\0';
        if (std::sscanf(text, "%*s %*s %*s %zu/", &count) != 1) count = SIZE_MAX;
    }
    return count;
}

void run_on(std::uint32_t core) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    sched_setaffinity(0, sizeof only, &only);
}

}  // namespace

void Seat::waits() {
    const int core = sched_getcpu();
    if (core < 0 || core >= CPU_SETSIZE) return;
    tell(static_cast<std::uint32_t>(core));
    if (crowded_ < tolerance_) return;
    crowded_ = 0;
    leave(static_cast<std::uint32_t>(core));
}

void Seat::tell(std::uint32_t core) {
    auto& told = headers_[rank_]->core;
    if (told.load(std::memory_order_relaxed) != core + 1) told.store(core + 1, std::memory_order_relaxed);
}

// Moves to a core that has room if lower ranks take up all of this one's: so ranks agree unasked on who stays. Not where
// other programs keep the cores busy: there it would wait for its turn.
void Seat::leave(std::uint32_t core) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    const auto cores = static_cast<std::size_t>(CPU_COUNT(&allowed));
    const std::size_t share = (headers_.size() + cores - 1) / cores;
    std::array<std::size_t, CPU_SETSIZE> ranks{};
    std::size_t ahead = 0;
    for (std::uint32_t peer = 0; peer < headers_.size(); ++peer) {
        const std::uint32_t told = headers_[peer]->core.load(std::memory_order_relaxed);
        if (told > 0 && told <= CPU_SETSIZE) ++ranks[told - 1];
        ahead += peer < rank_ && told == core + 1;
    }
    if (ahead < share) return;
    tolerance_ = std::min(2 * tolerance_, kMostTolerance);
    if (runnable() > std::max(headers_.size(), cores)) return;
    for (std::uint32_t step = 0; step < CPU_SETSIZE; ++step) {
        const std::uint32_t other = (tried_ + step) % CPU_SETSIZE;
        if (!CPU_ISSET(other, &allowed) || ranks[other] >= share) continue;
        tried_ = other + 1;
        run_on(other);
        const auto begun = Clock::now();
        sched_yield();
        const bool busy = Clock::now() - begun > kTurn;
        if (busy) run_on(core);
        sched_setaffinity(0, sizeof allowed, &allowed);
        if (!busy) {
            tell(other);
            tolerance_ = kTolerance;
        }
        return;
    }
}

}  // namespace collx
