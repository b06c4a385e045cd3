// How a plan's large results are stored: plainly, or past the caches.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>

namespace collx {

// Which of the two is faster depends on the machine and on what else uses its memory: it is measured now and then. All
// ranks try the same way in the same call, as each waits for the others.
class Stores {
  public:
    void begin() {
        const std::uint64_t turn = runs_++ % kEvery;
        trial_ = turn < 2;
        streamed_ = trial_ ? turn == 0 : seconds_[1] < seconds_[0];
        if (trial_) begun_ = Clock::now();
    }
    void end() {
        if (!trial_) return;
        double& known = seconds_[streamed_];
        const double seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
        known = known < kUnknown ? (known + seconds) / 2 : seconds;
    }
    [[nodiscard]] bool streamed() const { return streamed_; }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::uint64_t kEvery = 16;  // runs, two of which are trials
    static constexpr double kUnknown = std::numeric_limits<double>::max();

    double seconds_[2] = {kUnknown, kUnknown};  // of a call: plain, streamed
    std::uint64_t runs_ = 0;
    bool trial_ = false;
    bool streamed_ = false;
    Clock::time_point begun_;
};

}  // namespace collx
