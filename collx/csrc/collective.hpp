// One run of a plan. Moves are done segment by segment, whenever what they wait for is there; nothing blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loans.hpp"
#include "plan.hpp"
#include "task.hpp"
#include "ways.hpp"

namespace collx {

// A user's op: writes `a op b` of `bytes` bytes to `target`; false where it raised.
using CustomOp = bool (*)(void* context, void* target, const void* a, const void* b, std::uint64_t bytes);

// Memory for values that are neither input nor output. Collectives run one at a time and share it.
class Workspace {
  public:
    std::byte* reserve(std::uint64_t bytes) {
        if (bytes > held_) {
            memory_.reset();
            held_ = 0;  // should there be no memory
            memory_.reset(new std::byte[bytes + 64]);
            held_ = bytes;
        }
        const auto at = reinterpret_cast<std::uintptr_t>(memory_.get());
        return memory_.get() + (64 - at % 64) % 64;
    }

  private:
    std::unique_ptr<std::byte[]> memory_;
    std::uint64_t held_ = 0;
};

// What a plan keeps between its runs, so that a run allocates nothing.
struct Prepared {
    explicit Prepared(Plan decoded);

    // Where a lane is in its order of (move, segment): windows of segments, in each all moves, in each its segments.
    struct Cursor {
        std::uint32_t index = 0;
        std::uint64_t segment = 0;
        std::uint64_t begin = 0;  // of the window
    };

    // Up to which message of a lane it was said where they are wanted.
    struct Landings {
        std::size_t peer = 0;
        Cursor next;
        std::uint64_t ticket = 0;
    };

    Plan plan;
    CustomOp custom = nullptr;
    void* custom_context = nullptr;
    std::string complaint;  // what the user's op raised
    std::vector<std::uint64_t> progress;  // segments done, by move
    std::vector<std::uint64_t> lent;      // segments lent, by move
    Loans loans;
    std::uint64_t bytes = 0;  // that a run moves
    Ways* ways = nullptr;     // from its first run on
    std::vector<Cursor> sending, receiving;
    std::vector<Landings> landings;  // by peer on another machine
    std::vector<bool> networked;     // by move, whether the network takes it from where it lies; empty where no rank is far
    std::vector<void*> targets;
    std::vector<const void*> sources;
    std::vector<Writer*> lanes;
    std::vector<std::byte> landing;  // of a payload from a sender's own memory that goes on to several places
    std::byte* fetched = nullptr;     // where that payload is, during a move
    std::vector<std::byte> accumulator;  // of a user's op
    bool timed = false;                  // it takes so long that a look at the clock is nothing
};

class Collective final : public Task {
  public:
    Collective(Prepared& prepared, std::byte* input, std::byte* output, Workspace& workspace, std::uint64_t sequence,
               Clock::time_point begun, Clock::time_point deadline);
    bool step(Links& links) override;
    [[nodiscard]] bool needs(Links& links, std::size_t peer) const override;
    [[nodiscard]] std::string complaint() const override { return prepared_.complaint; }
    void let_go(Links& links) override;

  private:
    using Cursor = Prepared::Cursor;
    static constexpr std::uint64_t kLend = 4 << 10;  // bytes of a message from which lending it is cheaper than a copy

    void begin(Links& links);
    void end(Links& links);
    [[nodiscard]] bool ready(Links& links, std::uint32_t index, std::uint64_t segment, int done_leader = -1);
    [[nodiscard]] bool at(const Cursor& cursor, const std::vector<std::uint32_t>& moves, std::uint32_t index,
                          std::uint64_t segment) const;
    void advance(Cursor& cursor, const std::vector<std::uint32_t>& moves) const;
    bool execute(Links& links, std::uint32_t index, std::uint64_t segment);
    void choose_loans(const Links& links);
    [[nodiscard]] bool lends(const Move& move) const;
    bool lend(Links& links, std::uint32_t index);
    void publish_loan(Links& links, const Move& move, std::uint64_t segment);
    void begin_far(const Links& links);
    void land(Links& links);
    [[nodiscard]] bool follows(const Move& move, std::uint64_t segment, int done_leader = -1) const;
    bool fetch(const Links& links, const Move& move, std::uint64_t segment, std::byte* payload, bool keep);
    [[nodiscard]] const std::byte* arrived(const Links& links, const Operand& source) const;
    [[nodiscard]] bool as_expected(const Links& links, const Move& move, std::uint64_t bytes);
    void fold_blocks(const Links& links, const Move& move, std::uint64_t segment, std::byte* payload, bool keep);
    bool whole(const Move& move);
    [[nodiscard]] std::byte* place(const Span& span) const;
    void publish(Links& links, const Move& move, std::uint64_t segment_bytes, const std::byte* payload);

    Prepared& prepared_;
    const Plan& plan_;
    std::byte* spaces_[3];  // by Space
    Workspace& workspace_;
    std::uint64_t sequence_;
    std::uint32_t fingerprint_ = 0;  // what its messages carry: the chain of calls until this one
    bool begun_ = false;
    bool lending_[3] = {};  // by Space: it lies in this rank's heap
    bool borrowed_ = false;  // it has read what others lent
    bool foreign_ = false;  // receivers read whatever is sent from where it lies
    std::uint32_t first_ = 0;  // the first move that is not finished
};

}  // namespace collx
