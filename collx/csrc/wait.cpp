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

Outcome Waiter::turn(int blocked_on, Clock::time_point deadline) {
    const std::uint32_t turn = turns_++;
    if (turn < patience_.spins()) {
        relax();
        return turn % kCheckEvery == kCheckEvery - 1 ? check(blocked_on, deadline) : Outcome{};
    }
    if (turn < patience_.spins() + Patience::yields()) {
        const auto begun = Clock::now();
        sched_yield();
        crowded_ |= Clock::now() - begun > kSwitch;
        return turn % 8 == 7 ? check(blocked_on, deadline) : Outcome{};
    }
    if (!drowsy_) {
        drowsy_ = true;
        bell_ = own_.bell.load(std::memory_order_acquire);
        own_.asleep.store(1, std::memory_order_relaxed);
        before_ringing();
        return check(blocked_on, deadline);
    }
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count();
    futex_wait(own_.bell, bell_, std::clamp<std::int64_t>(left, 1, kNap));
    bell_ = own_.bell.load(std::memory_order_acquire);
    return check(blocked_on, deadline);
}

Outcome Waiter::check(int blocked_on, Clock::time_point deadline) {
    for (std::size_t peer = 0; peer < headers_.size(); ++peer) {
        const Header& header = *headers_[peer];
        if (&header == &own_) continue;
        if (died(header)) return {Status::peer_died, static_cast<int>(peer)};
        if (header.state.load(std::memory_order_acquire) == State::failed)
            return {Status::peer_failed, static_cast<int>(peer)};
    }
    if (interrupted_ != nullptr && drowsy_ && interrupted_()) return {Status::interrupted, -1};
    const bool gone = blocked_on >= 0 && headers_[static_cast<std::size_t>(blocked_on)]->state.load(
                                             std::memory_order_acquire) == State::departed;
    if (gone && gone_ == blocked_on) return {Status::peer_departed, blocked_on};
    gone_ = gone ? blocked_on : -1;
    if (Clock::now() >= deadline) return {Status::timed_out, blocked_on};
    return {};
}

}  // namespace collx
