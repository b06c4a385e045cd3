#include "wait.hpp"

#include <sched.h>

#include <algorithm>

namespace collx {

namespace {

// ns; the longest time until a death or a signal is noticed in sleep. The first naps are short, and then they double: a
// death soon after the wait began, as in a job at work, is noticed soon, and a long wait costs nothing.
constexpr std::int64_t kFirstNap = 1'000'000;
constexpr std::uint32_t kShortNaps = 8;
constexpr std::int64_t kLongestNap = 20'000'000;
constexpr std::uint32_t kThorough = 25;  // naps from one look at the peers' processes to the next
constexpr std::uint32_t kCheckEvery = 256;  // spins
constexpr std::chrono::nanoseconds kSwitch{1500};  // a yield that takes longer ran somebody else
// One that takes longer ran somebody who computes: a sleeper whose bell is rung is run sooner than who yields.
constexpr std::chrono::milliseconds kAway{2};

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
    if (turn < patience_.spins() + patience_.yields()) {
        if (turn == patience_.spins() && seat_ != nullptr) seat_->waits();
        const auto begun = Clock::now();
        sched_yield();
        const auto away = Clock::now() - begun;
        crowded_ |= away > kSwitch;
        if (away > kAway) turns_ = patience_.spins() + patience_.yields();
        return away > kAway || turn % 8 == 7 ? check(deadline) : Outcome{};
    }
    if (!drowsy_) {
        drowsy_ = true;
        bell_ = own_.bell.load(std::memory_order_acquire);
        own_.asleep.store(1, std::memory_order_relaxed);
        before_ringing();
        return check(deadline);
    }
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now()).count();
    const std::uint32_t doublings = naps_ < kShortNaps ? 0 : std::min(naps_ - kShortNaps + 1, 5u);
    const std::int64_t nap = std::min(kFirstNap << doublings, kLongestNap);
    ++naps_;
    futex_wait(own_.bell, bell_, std::clamp<std::int64_t>(left, 1, nap));
    bell_ = own_.bell.load(std::memory_order_acquire);
    return check(deadline);
}

Outcome Waiter::check(Clock::time_point deadline) {
    looked_ = true;
    if (verdict_ != nullptr && verdict_->look(naps_ % kThorough == kThorough - 1)) return {Status::decided, -1};
    if (interrupted_ != nullptr && drowsy_ && interrupted_()) return {Status::interrupted, -1};
    if (Clock::now() >= deadline) return {Status::timed_out, -1};
    return {};
}

}  // namespace collx
