#include "wait.hpp"

#include <sched.h>

#include <algorithm>

namespace collx {

namespace {

constexpr std::int64_t kNap = 50'000'000;  // ns; the longest time until a death or a signal is noticed in sleep
constexpr std::uint32_t kCheckEvery = 256;  // spins
constexpr std::chrono::nanoseconds kSwitch{1500};  // a yield that takes longer ran somebody else

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void ring(Header& header) {
    header.bell.fetch_add(1, std::memory_order_release);
    futex_wake(header.bell);
}

Outcome Waiter::turn(Clock::time_point deadline) {
    looked_ = false;
    const std::uint32_t turn = turns_++;
    if (turn < patience_.spins()) {
        relax();
        return turn % kCheckEvery == kCheckEvery - 1 ? check(deadline) : Outcome{};
    }
    if (turn < patience_.spins() + Patience::yields()) {
        const auto begun = Clock::now();
        sched_yield();
        crowded_ |= Clock::now() - begun > kSwitch;
        return turn % 8 == 7 ? check(deadline) : Outcome{};
    }
    if (!drowsy_) {
        drowsy_ = true;
        bell_ = own_.bell.load(std::memory_order_acquire);
        own_.asleep.store(1, std::memory_order_relaxed);
        before_ringing();
        return check(deadline);
    }
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count();
    futex_wait(own_.bell, bell_, std::clamp<std::int64_t>(left, 1, kNap));
    bell_ = own_.bell.load(std::memory_order_acquire);
    return check(deadline);
}

Outcome Waiter::check(Clock::time_point deadline) {
    looked_ = true;
    for (std::size_t peer = 0; peer < headers_.size(); ++peer) {
        const Header& header = *headers_[peer];
        if (&header == &own_) continue;
        if (died(header)) return {Status::peer_died, static_cast<int>(peer)};
        if (header.state.load(std::memory_order_acquire) == State::failed)
            return {Status::peer_failed, static_cast<int>(peer)};
    }
    if (interrupted_ != nullptr && drowsy_ && interrupted_()) return {Status::interrupted, -1};
    if (Clock::now() >= deadline) return {Status::timed_out, -1};
    return {};
}

}  // namespace collx
