// The one way to wait. Spin, then yield, then sleep on the own doorbell; every turn looks at what may end a
// wait early: the verdict and what may bring it about, the deadline, the owner's closing, pending signals.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "futex.hpp"
#include "seat.hpp"
#include "verdict.hpp"

namespace collx {

enum class Status : std::int32_t {
    ok = 0,
    timed_out,
    decided,   // there is a verdict on the communicator
    departed,  // the peer has left
    mismatched,
    wrong_length,
    interrupted,
    closed,
    op_failed,
    busy,       // this thread is in the middle of another call
    no_memory,
    unreadable,  // the peer's memory can no longer be read
    recalled,    // by its caller, before anything had come
    truncated,   // a message is longer than the room for it
};

// Why a call ended, and whom it names (-1: nobody).
struct Outcome {
    Status status = Status::ok;
    int peer = -1;
    std::uint64_t bytes = 0;   // that the peer sent: of a message, or in a collective where that was the wrong length
    std::uint64_t wanted = 0;  // that it should have been, in a collective; of a message its tag
    [[nodiscard]] explicit operator bool() const { return status == Status::ok; }
};

using Clock = std::chrono::steady_clock;

// True where the calling thread must stop (a Python signal handler raised). Null outside the main thread.
using Interrupted = bool (*)();

// How long to spin and to yield before sleeping. Spinning is worth it while the rank has its core to itself; that
// changes with the machine's load, so it is learnt from every wait: a yield that took long gave the core to others.
class Patience {
  public:
    explicit Patience(bool oversubscribed) : spins_(oversubscribed ? kFewest : kMost) {}

    // Of a thread that works while another one of its process computes, on the same core. To yield would be to wait for
    // all of that one's time slice. Who spins a while finds its peers' threads, which have pushed theirs aside as well.
    static Patience in_background(bool oversubscribed) {
        Patience patience(oversubscribed);
        patience.spins_ = oversubscribed ? kFewest : kMost / 2;
        patience.yields_ = 0;
        return patience;
    }

    [[nodiscard]] std::uint32_t spins() const { return spins_; }
    [[nodiscard]] std::uint32_t yields() const { return yields_; }
    void learn(bool crowded) {
        if (yields_ > 0) spins_ = crowded ? std::max(spins_ / 2, kFewest) : std::min(spins_ * 2, kMost);
    }

  private:
    static constexpr std::uint32_t kFewest = 2;
    static constexpr std::uint32_t kMost = 2048;
    static constexpr std::uint32_t kYields = 50;

    std::uint32_t spins_;
    std::uint32_t yields_ = kYields;
};

class Waiter {
  public:
    // Without a `verdict` nothing that befalls the peers ends the wait.
    Waiter(Header& own, Verdict* verdict, Patience& patience, Interrupted interrupted, Seat* seat = nullptr)
        : own_(own), verdict_(verdict), patience_(patience), interrupted_(interrupted), seat_(seat) {}
    ~Waiter() { progressed(); }
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;

    // To be called whenever something was done: the next wait begins with spinning again.
    void progressed() {
        if (turns_ == 0) return;
        if (drowsy_) own_.asleep.store(0, std::memory_order_relaxed);
        if (turns_ > patience_.spins()) {
            patience_.learn(crowded_);
            if (seat_ != nullptr) seat_->waited(crowded_);
        }
        turns_ = 0;
        naps_ = 0;
        drowsy_ = crowded_ = false;
    }

    // One turn of waiting after a look that found nothing to do.
    // The caller looks again after every turn: the turn before sleep only announces it, so no bell is missed.
    [[nodiscard]] Outcome turn(Clock::time_point deadline);

    // Whether the wait is no longer a short one.
    [[nodiscard]] bool lasts() const { return turns_ >= std::min(patience_.spins(), kShort); }
    // Whether the last turn looked at the peers as well.
    [[nodiscard]] bool looked() const { return looked_; }

  private:
    [[nodiscard]] Outcome check(Clock::time_point deadline);

    static constexpr std::uint32_t kShort = 64;  // turns

    Header& own_;
    Verdict* verdict_;
    Patience& patience_;
    Interrupted interrupted_;
    Seat* seat_;
    std::uint32_t turns_ = 0;
    std::uint32_t naps_ = 0;
    std::uint32_t bell_ = 0;
    bool drowsy_ = false;
    bool crowded_ = false;  // a yield let others run
    bool looked_ = false;
};

void ring(Header& header);

// Orders what was published before this point ahead of the look whether the peer sleeps.
inline void before_ringing() {
#if defined(__SANITIZE_THREAD__)
    static std::atomic<std::uint32_t> order{0};  // ThreadSanitizer does not know fences
    order.fetch_add(1, std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace collx
