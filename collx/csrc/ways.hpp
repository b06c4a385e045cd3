// The ways in which a plan's data can go, and which of them is the fastest.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>

namespace collx {

// That depends on how far apart the ranks' cores are, on what the caches hold and on who else uses the memory, all of
// which changes while a program runs: so each way is tried now and then. Ranks count the same runs, so all try the same
// way at once: what one of them stores, another one reads. They need not come to the same conclusion.
class Ways {
  public:
    static constexpr unsigned kSlots = 1;    // slots are filled past the caches,
    static constexpr unsigned kResults = 2;  // results written past them,
    static constexpr unsigned kForeign = 4;  // or receivers read from the sender's own memory

    // Those of the ways that can make a difference to the plan.
    explicit Ways(unsigned worth) {
        for (const unsigned way : {0u, kSlots, kResults, kSlots | kResults, kForeign})
            if ((way & ~worth) == 0) ways_[count_++] = way;
    }

    void begin() {
        if (count_ == 1) return;
        now_ = due(runs_);
        timed_ = now_ < count_;
        if (!timed_) now_ = best_;
        ++runs_;
        if (timed_) begun_ = Clock::now();
    }
    // `bytes`: what the run has moved.
    void end(std::uint64_t bytes) {
        if (!timed_) return;
        const double taken = std::chrono::duration<double>(Clock::now() - begun_).count() / static_cast<double>(bytes);
        double& known = seconds_[now_];
        known = known == 0 ? taken : (known + std::min(taken, 4 * known)) / 2;  // one rank's pause is no measure
        timed_ = false;
        if (runs_ > count_) best_ = static_cast<std::size_t>(std::min_element(seconds_.begin(), seconds_.begin() + count_) - seconds_.begin());
    }

    // Whether the run under way goes such a way.
    [[nodiscard]] bool goes(unsigned way) const { return (ways_[now_] & way) != 0; }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t kMost = 5;
    static constexpr std::uint64_t kEvery = 64;

    // The way to measure in a run, if any: each once at first, though the very first run finds cold memory and tells
    // nothing; then, now and then, the best and one other, by turns.
    [[nodiscard]] std::size_t due(std::uint64_t run) const {
        if (run == 0) return kMost;
        if (run <= count_) return run - 1;
        if (run % kEvery == 0) return best_;
        return run % kEvery == 1 ? run / kEvery % count_ : kMost;
    }

    std::array<unsigned, kMost> ways_{};
    std::array<double, kMost> seconds_{};  // per byte; 0 where that is not known
    std::size_t count_ = 0;
    std::size_t best_ = 0;
    std::size_t now_ = 0;
    bool timed_ = false;
    std::uint64_t runs_ = 0;
    Clock::time_point begun_;
};

// The ways by what is like in them: the collective, the ways that are worth a trial, and the sizes to a factor of 16. So a
// large call of a new size does not begin with all that is slow.
class Experience {
  public:
    Ways& of(const char* collective, std::uint64_t bytes, unsigned worth) {
        const int size = (64 - std::countl_zero(bytes)) / 4;
        return ways_.try_emplace({collective, size, worth}, worth).first->second;
    }

  private:
    std::map<std::tuple<std::string, int, unsigned>, Ways> ways_;
};

}  // namespace collx
