// The shared memory of one rank in one communicator: its state, its acknowledgements, and the lanes it writes. The
// heap that follows it in the same file is heap.hpp's.
//
// Every rank maps every region and writes to its own only; the doorbell is the one exception. Each cache
// line that is polled has a single writer, and lines of different writers lie 128 bytes apart, because
// processors fetch lines in pairs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "foreign.hpp"
#include "record.hpp"

namespace collx {

inline constexpr std::size_t kApart = 128;
inline constexpr std::uint32_t kMostSlots = 16;
inline constexpr std::size_t kInline = 48;  // payload bytes that ride in the line itself
inline constexpr std::size_t kText = 500;   // bytes of what a rank may tell the others, zero-terminated

// One message of a lane. `ticket` is its number in the lane, from 1, and is written last.
struct alignas(64) Line {
    std::atomic<std::uint64_t> ticket;
    std::uint32_t length;
    std::uint32_t fingerprint;
    union {
        // Of the payload in the writer's file; or kForeign and its address in the writer's memory; or kLanded.
        std::uint64_t offset;
        std::byte inlined[kInline];
    };
};
static_assert(sizeof(Line) == 64);
inline constexpr std::uint64_t kForeign = 1ull << 63;
inline constexpr std::uint64_t kLanded = 1ull << 62;  // in a replica: the payload lies where its receiver wants it

// `leaving`: starts nothing more, and all it was to send is sent.
enum class State : std::uint32_t { running = 0, leaving = 1, departed = 2 };

// What may end a communicator: ranks died or left, calls did not agree, a rank gave up, a rank revoked it.
enum class Why : std::uint32_t { none = 0, failed = 1, mismatch = 2, gave_up = 3, revoked = 4 };

// What a rank proposes as the verdict. Written before it is put to the vote, and never again.
struct Proposal {
    Why why;
    char text[kText];
};

struct Header {
    // A robust futex word: the keeper thread's id while the process lives; the kernel adds 0x40000000 when it dies.
    alignas(kApart) std::atomic<std::uint32_t> life;
    void* robust_next;  // the keeper's list entry; the kernel follows it in the owner's address space only
    Sign sign;
    alignas(kApart) std::atomic<std::uint32_t> verdict;  // in rank 0's: 0, or 1 + the rank whose proposal won
    alignas(kApart) std::atomic<State> state;
    std::atomic<std::uint32_t> connected;  // 1 + the attempt of a shrink for which the owner is ready
    std::atomic<std::uint32_t> core;       // 1 + where the owner last waited; 0: it has not yet
    std::atomic<std::uint32_t> proposed;   // 1 where ranks are on several hosts and the owner acts on its own proposal
    Proposal proposal;
    char regret[kText];  // why the owner gave up on a shrink
    std::atomic<std::uint32_t> regretted;  // 1 + the attempt in which it did, where ranks are on several hosts
    alignas(kApart) std::atomic<std::uint32_t> asleep;  // the owner is about to wait on `bell`
    std::atomic<std::uint32_t> bell;                    // rung by others
    std::atomic<std::uint32_t> awaited;  // set by others: they sleep until the owner begins another call
    Flight flight;
};

// What the owner says of one peer: how many of its messages it has consumed, by channel, and whether it counts it
// as gone: 0, or 1 + the number of the vote in which it first did.
struct alignas(kApart) Acknowledged {
    std::atomic<std::uint64_t> collective;
    std::atomic<std::uint64_t> mail;
    std::atomic<std::uint32_t> gone;
    std::atomic<std::uint32_t> reads;  // 1 where it may read that peer's own memory
    std::atomic<std::uint32_t> left_out;  // 1 + the newest attempt of a shrink that would go on without it, see rounds.hpp
};

// One attempt of a shrink, in rank 0's region. Each word is decided by one compare-and-swap; see shrink.hpp.
struct Attempt {
    std::atomic<std::uint32_t> members;
    std::atomic<std::uint32_t> outcome;
};

// Lanes of one kind: for every receiver `slots` lines and as many payload slots of `bytes` each.
struct Channel {
    std::uint32_t slots = 0;  // a power of two
    std::uint32_t few = 0;    // of them, enough for payloads that have one receiver
    std::uint64_t bytes = 0;
    std::size_t lines_at = 0;
    std::size_t payload_at = 0;
};

// Where everything lies in a region; the same for every rank of a communicator, a function of its size alone.
struct Layout {
    std::uint32_t size = 0;
    Channel collective;
    Channel mail;  // point-to-point messages
    std::size_t attempts_at = 0;
    std::size_t heap_at = 0;  // the region ends here, and the heap of its memory file begins (heap.hpp)

    explicit Layout(std::uint32_t size);

    [[nodiscard]] static Header& header(std::byte* region) { return *reinterpret_cast<Header*>(region); }
    [[nodiscard]] Acknowledged& acknowledged(std::byte* region, std::uint32_t sender) const {
        return reinterpret_cast<Acknowledged*>(region + sizeof(Header))[sender];
    }
    [[nodiscard]] Attempt& attempt(std::byte* region, std::uint32_t number) const {
        return reinterpret_cast<Attempt*>(region + attempts_at)[number];
    }
    [[nodiscard]] static Line* lines(std::byte* region, const Channel& channel, std::uint32_t receiver) {
        return reinterpret_cast<Line*>(region + channel.lines_at) + std::size_t{receiver} * channel.slots;
    }
    [[nodiscard]] static std::size_t payload(const Channel& channel, std::uint32_t receiver, std::uint64_t slot) {
        return channel.payload_at + (std::size_t{receiver} * channel.slots + slot) * channel.bytes;
    }
};

// Holds the robust futex word of a region from a thread of its own, which lives as long as the process or
// until `release`: the only kind of death notice that does not wait for the victim's memory to be freed.
class Keeper {
  public:
    explicit Keeper(Header& header);
    ~Keeper() { release(); }
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;

    void release();
    void forget() { thread_ = 0; }  // in a forked child

  private:
    static void* main(void* self);

    Header& header_;
    std::uint64_t secret_[2];
    unsigned long thread_ = 0;
    std::atomic<std::uint32_t> phase_{0};  // 0 starting, 1 holding, 2 told to end
};

inline constexpr std::uint32_t kDied = 0x40000000u;    // FUTEX_OWNER_DIED
inline constexpr std::uint32_t kThread = 0x3fffffffu;  // FUTEX_TID_MASK

[[nodiscard]] inline bool died(const Header& header) {
    return (header.life.load(std::memory_order_relaxed) & kDied) != 0;
}

}  // namespace collx
