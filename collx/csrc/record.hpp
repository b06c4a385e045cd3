// The flight recorder: what a rank was called for, in shared memory, for its peers to compare with and for people.
//
// All ranks of a communicator make the same calls in the same order. Each keeps a chain, the hash of all its calls
// so far; so one number that two ranks compare tells whether they agreed on everything until then.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace collx {

#ifdef COLLX_UNCHECKED
inline constexpr bool kChecked = false;  // for measuring what the checks cost, and for nothing else
#else
inline constexpr bool kChecked = true;
#endif

// What all ranks must agree on, as words that collx/agreement.py writes: a hash of it all, and texts for people.
struct Traits {
    std::uint64_t fingerprint = 0;
    std::int64_t root = -1;  // -1 where there is none
    char collective[16]{}, dtype[16]{}, op[24]{}, algorithm[40]{}, count[80]{};

    static constexpr std::size_t kWords = 24;
};
static_assert(sizeof(Traits) == Traits::kWords * 8);

enum class Progress : std::uint64_t { under_way = 0, done = 1, failed = 2 };

// One call. Its owner alone writes it; readers look at `sequence` before and after. Lines of a peer, so all is atomic.
struct alignas(64) Record {
    std::atomic<std::uint64_t> sequence;  // 0 while it is being written
    std::atomic<std::uint64_t> chain;
    std::atomic<Progress> progress;
    std::atomic<std::int64_t> started, ended;  // ns of the steady clock; ended 0: it took no time worth measuring
    std::atomic<std::uint64_t> fingerprint;    // of the traits below
    alignas(64) std::array<std::atomic<std::uint64_t>, Traits::kWords> traits;
};

inline constexpr std::uint32_t kRecords = 64;   // a power of two; the last of them are shown
inline constexpr std::uint32_t kHistory = 16;  // a power of two; more calls than one rank is ever ahead of another
// By how many calls more a rank may be ahead of one on another machine that it does not hear: a word of each call costs
// that one as much as a message, so it says some of them at once.
inline constexpr std::uint64_t kFarAhead = 13;
static_assert(kFarAhead + 2 < kHistory);

struct Flight {
    // The newest call: low half of its sequence << 32 | low half of its chain. Zero before the first.
    alignas(128) std::atomic<std::uint64_t> arrival;
    // Whom the owner has waited for long enough to say so: sequence of the call << 32 | flags | peer + 1; or zero.
    alignas(128) std::atomic<std::uint64_t> blocked;
    std::atomic<std::int64_t> since, looked;  // when it first said so, and when it last began a look that found nothing
    alignas(128) std::array<std::atomic<std::uint32_t>, kHistory> chains;
    std::array<Record, kRecords> records;
};

// A record as it was at one moment.
struct Recorded {
    std::uint64_t sequence;
    std::uint64_t chain;
    Progress progress;
    std::int64_t started, ended;
    Traits traits;
};

[[nodiscard]] std::optional<Recorded> recorded(const Flight& flight, std::uint64_t sequence);
[[nodiscard]] std::uint64_t newest(const Flight& flight);  // the sequence of the newest call, or 0

// What is known of a peer's calls: that they are the same for as long as needed at least, or not.
enum class Match { same, different, unknown };
struct Agreement {
    Match match = Match::same;
    int peer = -1;
};

// The owner's side. Used by the driver only.
class Recorder {
  public:
    // `far`: which ranks are on other machines; may be empty.
    Recorder(std::uint32_t rank, std::vector<Flight*> flights, const std::vector<bool>& far);

    // Notes a call that begins. Every message of it carries what `stamp` returns from then on.
    void begin(const Traits& traits, std::uint64_t sequence, std::chrono::steady_clock::time_point begun) {
        if constexpr (!kChecked) return;
        sequence_ = sequence;
        chain_ = mixed(chain_ ^ traits.fingerprint);
        Record& record = current();
        // Each store releases the one before: who sees any of this call sees that the record is not the old one.
        constexpr auto release = std::memory_order_release;
        record.sequence.store(0, std::memory_order_relaxed);
        if (record.fingerprint.load(std::memory_order_relaxed) != traits.fingerprint) write(record, traits);
        record.chain.store(chain_, release);
        record.progress.store(Progress::under_way, release);
        record.started.store(begun.time_since_epoch().count(), release);
        record.ended.store(0, release);
        record.sequence.store(sequence, release);
        own_.chains[sequence % kHistory].store(stamp(), release);
        own_.arrival.store(sequence << 32 | stamp(), release);
    }
    [[nodiscard]] std::uint32_t stamp() const { return static_cast<std::uint32_t>(chain_); }

    // Whether the call may end. Of the `unheard` ranks nothing has come in it, not even by way of others; they must
    // have agreed until the call before. So who makes another call is found by everybody in that call or in the next.
    // Where only the messages themselves tell that counts differ, it is their next call that shows they agreed.
    [[nodiscard]] Agreement agreement(std::span<const std::uint32_t> unheard) {
        if constexpr (!kChecked) return {};
        for (const std::uint32_t peer : unheard) {
            if (suffices(std::max(agreed_[peer], all_agreed_), peer)) continue;
            if (const Match match = compare(peer); match != Match::same) return {match, static_cast<int>(peer)};
        }
        if (unheard.empty()) all_agreed_ = sequence_;
        return {};
    }

    // Notes that it is done. `own_counts`: what the ranks agreed on did not tell how long their messages are.
    void end(bool timed, bool own_counts) {
        if constexpr (!kChecked) return;
        ahead_ = own_counts ? 0 : 1;
        Record& record = current();
        if (timed) record.ended.store(now(), std::memory_order_relaxed);
        record.progress.store(Progress::done, std::memory_order_relaxed);
    }
    void fail();

    // Any peer whose calls are known to differ from this rank's; or -1.
    [[nodiscard]] int differing();

    // Tells the others whom this rank waits for, and when that is over.
    static constexpr std::uint32_t kStuck = 1u << 31, kArrival = 1u << 30;  // what else it says: see Waiting
    void block(std::uint64_t call, int peer, std::uint32_t flags);
    void unblock() {
        if (blocked_) own_.blocked.store(0, std::memory_order_relaxed);
        blocked_ = false;
    }

    [[nodiscard]] std::uint64_t sequence() const { return sequence_; }
    // Whether this call may end before those that it does not hear have begun it.
    [[nodiscard]] bool ahead() const { return ahead_ != 0; }

    // What differs between this rank's calls and the peer's, in one line; empty where the records do not tell.
    [[nodiscard]] std::string difference(std::uint32_t peer) const;

  private:
    [[nodiscard]] static std::uint64_t mixed(std::uint64_t x) {
        x *= 0x9e3779b97f4a7c15ull;
        x ^= x >> 32;
        x *= 0xbf58476d1ce4e5b9ull;
        return x ^ x >> 29;
    }
    [[nodiscard]] Record& current() const { return own_.records[sequence_ % kRecords]; }
    [[nodiscard]] static std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
    static void write(Record& record, const Traits& traits);
    [[nodiscard]] Match compare(std::uint32_t peer);
    [[nodiscard]] bool suffices(std::uint64_t agreed, std::uint32_t peer) const {
        return agreed + ahead_ + further_[peer] >= sequence_;
    }

    const std::uint32_t rank_;
    const std::vector<Flight*> flights_;
    Flight& own_;
    std::uint64_t sequence_ = 0;
    std::uint64_t chain_ = 0;
    std::vector<std::uint64_t> agreed_;  // by peer, the newest call until which it is known to have made the same ones
    std::uint64_t all_agreed_ = 0;       // the newest in which this rank has heard of everybody
    std::uint64_t ahead_ = 1;            // how far this call may end ahead of those that it does not hear,
    std::vector<std::uint64_t> further_;  // and how much further, by peer
    bool blocked_ = false;
    std::int64_t shown_ = 0;  // when it last said whom it waits for
};

}  // namespace collx
