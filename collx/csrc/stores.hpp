// How a plan's data are stored: plainly, or past the caches.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

namespace collx {

// Which is faster depends on how far apart the ranks' cores are, on what the caches hold and on who else uses the
// memory, all of which changes while a program runs: so it is tried, a run each way now and then. Ranks count the same
// runs, so all try the same way at once: what one of them stores, another one reads.
class Stores {
  public:
    // Whether the plan writes results, and payload slots, for which this is worth a trial.
    Stores(bool results, bool slots) {
        for (const unsigned way : {0u, kSlots, kResults, kResults | kSlots})
            if ((results || !(way & kResults)) && (slots || !(way & kSlots))) ways_[count_++].way = way;
    }

    void begin() {
        if (count_ == 1) return;
        const std::uint64_t turn = runs_++ % kEvery;  // the first run finds cold memory: it tells nothing
        trial_ = turn > 0 && turn <= count_ ? &ways_[turn - 1] : nullptr;
        if (trial_ != nullptr) begun_ = Clock::now();
    }
    void end() {
        if (trial_ == nullptr) return;
        const double seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
        double& known = trial_->seconds;
        known = known == 0 ? seconds : (known + std::min(seconds, 4 * known)) / 2;  // one rank's pause is no measure
        if (trial_ == &ways_[count_ - 1]) best_ = *std::min_element(ways_.begin(), ways_.begin() + count_,
                                                                   [](const Way& a, const Way& b) { return a.seconds < b.seconds; });
        trial_ = nullptr;
    }

    [[nodiscard]] bool results() const { return (way() & kResults) != 0; }
    [[nodiscard]] bool slots() const { return (way() & kSlots) != 0; }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr unsigned kSlots = 1, kResults = 2;
    static constexpr std::uint64_t kEvery = 64;

    struct Way {
        unsigned way = 0;
        double seconds = 0;  // of a run; 0 where it is not known
    };

    [[nodiscard]] unsigned way() const { return trial_ != nullptr ? trial_->way : best_.way; }

    std::array<Way, 4> ways_{};
    std::uint32_t count_ = 0;
    Way best_;
    Way* trial_ = nullptr;
    std::uint64_t runs_ = 0;
    Clock::time_point begun_;
};

}  // namespace collx
