// The verdict: what ended a communicator, the same for every rank.
//
// A rank that finds a failure writes a proposal into its own header and puts it to the vote: one compare-and-swap on
// one word in rank 0's region. Everybody acts on the winner's proposal. No step waits for anybody, and it survives
// the death of any rank in the middle of it, because the memory of the dead stays mapped.
//
// Where ranks are on several hosts there is no word that all see. Each has its own and acts on the first proposal that it
// sees, its own or another's; whoever acts on its own tells it the others. So all end within the time of a message, but
// for different true reasons where several are found at once.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "far.hpp"
#include "region.hpp"

namespace collx {

// Copies UTF-8, cut to the room there is.
void copy_text(char (&target)[kText], std::string_view text);

class Verdict {
  public:
    // `pidfds` by rank, -1 where there is none; none at all is fine too. `far` where ranks are on several hosts.
    Verdict(std::uint32_t rank, const Layout& layout, std::vector<std::byte*> regions, std::vector<int> pidfds,
            Far* far = nullptr);

    [[nodiscard]] bool decided() const { return word_.load(std::memory_order_acquire) != 0; }

    // Whether there is a verdict, after a look who has died. A thorough one asks the kernel as well.
    bool look(bool thorough);
    void ask_kernel();

    void propose(Why why, std::string_view text);
    // That ranks have failed: all that have died, and `left`, which has gone without being finished with.
    void propose_failed(int left = -1);

    // Once it is decided.
    [[nodiscard]] std::uint32_t winner() const { return word_.load(std::memory_order_acquire) - 1; }
    [[nodiscard]] const Proposal& proposal() const { return Layout::header(regions_[winner()]).proposal; }
    [[nodiscard]] std::vector<std::uint32_t> failed() const { return counted(winner(), 0); }

    // What `voter` counted as gone up to a vote. The verdict is vote 0, attempt t of a shrink vote t + 1.
    [[nodiscard]] std::vector<std::uint32_t> counted(std::uint32_t voter, std::uint32_t vote) const;
    // Counts for a vote everybody who has died, with `departed` who has left too, and `also`.
    void count(std::uint32_t vote, bool departed, int also = -1);
    [[nodiscard]] bool gone(std::uint32_t peer) const;  // died or left
    void wake_all() const;

  private:
    bool adopt();

    const std::uint32_t rank_;
    const Layout& layout_;
    const std::vector<std::byte*> regions_;
    const std::vector<int> pidfds_;
    Far* const far_;
    std::atomic<std::uint32_t>& word_;
    std::mutex writing_;
};

}  // namespace collx
