// How the survivors of a communicator agree on who goes on.
//
// In attempt t everybody proposes as members all whom it does not see gone; the first proposal wins. The members
// connect, and each says so in its own header. When all have, the outcome is `united`; where one is gone that has not,
// the outcome is `failed` and attempt t + 1 goes on without it; a rank that cannot go on ends it for all. Members and
// outcome are decided by one compare-and-swap each, so all ranks go through the same attempts to the same end. Each
// failed attempt has lost a member, so there are fewer of them than ranks.
//
// Where ranks are on several hosts both are decided in rounds instead (rounds.hpp). One thing is less certain then: a rank
// whose deadline passes while the others decide may raise where they go on, in a communicator that it has left.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "rounds.hpp"
#include "verdict.hpp"
#include "wait.hpp"

namespace collx {

class Shrink {
  public:
    // What became of an attempt; from `kGaveUp` on, that the rank so much higher has given up.
    enum : std::uint32_t { kUndecided = 0, kUnited = 1, kFailed = 2, kGaveUp = 3 };

    Shrink(std::uint32_t rank, const Layout& layout, const std::vector<std::byte*>& regions, Verdict& verdict,
           Far* far = nullptr)
        : rank_(rank), layout_(layout), regions_(regions), verdict_(verdict), far_(far) {
        if (far != nullptr) rounds_.emplace(rank, layout, regions, verdict, *far);
    }

    // Decides on the members of an attempt, the same on every rank. Interrupted or timed out only where ranks are on
    // several hosts.
    Outcome meet(std::uint32_t attempt, Clock::time_point deadline, Interrupted interrupted);
    [[nodiscard]] const std::vector<std::uint32_t>& members() const { return members_; }
    // What has become of the attempt whose members were decided on last.
    std::uint32_t outcome(std::uint32_t attempt);
    // Says that this rank has connected, and waits for the others. Interrupted, timed out, or ok with `peer` the outcome.
    Outcome unite(std::uint32_t attempt, Clock::time_point deadline, Interrupted interrupted);
    // Ends the attempt for all ranks, unless its outcome is known: returns what it is.
    std::uint32_t give_up(std::uint32_t attempt, std::string_view text);

    [[nodiscard]] const char* regret(std::uint32_t peer) const { return Layout::header(regions_[peer]).regret; }
    // Those who have not connected for the attempt.
    [[nodiscard]] std::vector<std::uint32_t> missing(std::uint32_t attempt) const;

  private:
    template <typename Look>
    Outcome wait(Clock::time_point deadline, Interrupted interrupted, const Look& look);
    void elect(std::uint32_t attempt);
    [[nodiscard]] std::uint32_t judged(std::uint32_t attempt) const;
    std::uint32_t decide(std::atomic<std::uint32_t>& word, std::uint32_t proposed) const;
    [[nodiscard]] bool connected(std::uint32_t peer, std::uint32_t attempt) const;

    const std::uint32_t rank_;
    const Layout& layout_;
    const std::vector<std::byte*> regions_;
    Verdict& verdict_;
    Far* const far_;
    std::optional<Rounds> rounds_;
    std::vector<std::uint32_t> members_;
};

}  // namespace collx
