// The kernel's wait-on-address, usable across processes and between threads alike.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>

namespace collx {

// Sleeps while `word` holds `seen`, at most `nanoseconds` (negative: no limit). False where a signal came.
inline bool futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, std::int64_t nanoseconds) {
    timespec limit{nanoseconds / 1000000000, nanoseconds % 1000000000};
    const long rc = syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, seen,
                            nanoseconds < 0 ? nullptr : &limit, nullptr, 0);
    return rc == 0 || errno != EINTR;
}

inline void futex_wake(std::atomic<std::uint32_t>& word) {
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace collx
