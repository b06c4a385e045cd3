// The frames that come from one peer, put to where its lanes' messages lie in the replica of its region, or straight to
// where they are wanted.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "outgoing.hpp"

namespace collx {

class Incoming {
  public:
    // `out`: the other direction of the same connection, `theirs` the replica.
    Incoming(const Stream& stream, const Layout& layout, std::byte* own, std::byte* theirs, const Outgoing& out);
    Incoming(const Incoming&) = delete;
    Incoming& operator=(const Incoming&) = delete;

    // Where the next bytes of the stream are to be put, one or two parts; how many.
    int room(std::array<iovec, 2>& parts);
    // So many have been put there. What is wrong with them, or null.
    [[nodiscard]] const char* took(std::size_t bytes);
    [[nodiscard]] std::uint64_t frames() const { return frames_; }

    // The payload of message `ticket` of the collective lane goes straight to `place`, if it has this length and fingerprint.
    void land(std::uint64_t ticket, std::byte* place, std::uint64_t length, std::uint32_t fingerprint) {
        landings_[ticket % kMostSlots] = {ticket, place, length, fingerprint};
    }
    // Nothing lands any more: the places are not this engine's any longer.
    void withdraw();

    // See Wire::arrived. From any thread.
    void arrived(std::uint64_t word, const Chains& chains);

  private:
    static constexpr std::size_t kStaged = 16 << 10;  // bytes of payload up to which a copy is cheaper than another call
    static constexpr std::size_t kAhead = 128;        // bytes to read behind a large message: the next ones' headers

    struct Lane {
        const Channel& channel;
        Line* lines;
        std::size_t payload_at;
        const std::atomic<std::uint64_t>& consumed;
        std::uint64_t ticket = 0;  // the newest that is there
    };
    struct Landing {
        std::uint64_t ticket = 0;
        std::byte* place = nullptr;
        std::uint64_t length = 0;
        std::uint32_t fingerprint = 0;
    };

    [[nodiscard]] const char* parse();
    [[nodiscard]] const char* wrong(const Frame& frame) const;
    [[nodiscard]] const char* take_note(const std::byte* payload);
    [[nodiscard]] const char* take_acknowledgement(const Consumed& counts);
    [[nodiscard]] Lane& lane() { return frame_.kind == FrameKind::mail ? mail_ : collective_; }
    [[nodiscard]] std::byte* slot(const Lane& lane) const;
    [[nodiscard]] Line& line(const Lane& lane) const { return lane.lines[lane.ticket & (lane.channel.slots - 1)]; }
    void open();
    void close();

    const Stream stream_;
    std::byte* const region_;  // the replica
    Flight& flight_;
    Acknowledged& said_;  // by the peer, of what this rank sent
    const Outgoing& out_;
    Lane collective_, mail_;
    std::array<Landing, kMostSlots> landings_;

    Frame frame_;              // the one whose payload is coming
    std::byte* to_ = nullptr;  // where the rest of it goes
    std::size_t rest_ = 0;
    bool landing_ = false;
    bool large_ = false;  // the last message was
    std::uint64_t frames_ = 0;
    std::size_t staged_ = 0;
    std::atomic_flag arriving_;  // guards the replica's arrival word and chains
    alignas(64) std::byte staging_[kStaged + 4 * sizeof(Frame)];
};

}  // namespace collx
