// How the measuring sticks wait for another core.
#pragma once

#include <sched.h>

#include <cstdint>

namespace stick {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until `done`, and yields in the end: the other side may need this very core.
template <class Done>
inline void until(Done done, std::uint32_t spins = 4096) {
    for (std::uint32_t turn = 0; !done(); ++turn) {
        if (turn < spins) relax();  // also faster: reads in between take the line away from its writer
        else sched_yield();
    }
}

}  // namespace stick
