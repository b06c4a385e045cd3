// The frames on their way to one peer: what the lanes to it have published since, from where it lies.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "frame.hpp"

namespace collx {

// Which stream of frames a connection carries.
struct Stream {
    std::uint32_t rank = 0, peer = 0;  // whose end it is, and whom it leads to
    std::uint32_t communicator = 0;
    std::uint32_t epoch = 0;  // of the job
};

class Outgoing {
  public:
    static constexpr int kMostParts = 64;
    using Parts = std::array<iovec, kMostParts>;

    Outgoing(const Stream& stream, const Layout& layout, std::byte* own);
    Outgoing(const Outgoing&) = delete;
    Outgoing& operator=(const Outgoing&) = delete;

    // The peer is to hear of the newest call, from which nothing else comes to it: with what goes next, or with as many more.
    void tell_arrival() { ++untold_; }
    // This rank waits for long, or does something else: nothing is put off any more.
    void hasten() {
        if (untold_ > 0) untold_ = kPutOff;
    }
    // Whether any of what waits lies outside of this rank's region, in memory of a caller's.
    [[nodiscard]] bool lends();
    // Makes frames of what was published, and of what the peer waits to hear; `waiting`: so does this rank.
    void gather(bool waiting = false);
    // Whether a rank that waits has something to say.
    [[nodiscard]] bool said_all() const { return acknowledging_ || !unsaid(collective_, 2); }
    // What to send next; how many of the parts are used.
    int parts(Parts& parts) const;
    // So many bytes of that have gone.
    void gave(std::size_t bytes);

    // Whether nothing waits to be sent.
    [[nodiscard]] bool idle() const {
        return first_ == last_ && !arrival_due() && !published(collective_) && !published(mail_) && !overdue();
    }
    // Whether all has gone that a peer's call may wait for after this rank's last one. Acknowledgements are not: who waits
    // for room wants to send what this rank has not called for yet.
    [[nodiscard]] bool delivered() const {
        return all_gone(collective_) && all_gone(mail_) && !arrival_due() && !arriving_;
    }
    // The newest message that is not read any more from where it lies.
    [[nodiscard]] const std::uint64_t& given(FrameKind lane) const {
        return lane == FrameKind::mail ? mail_.given : collective_.given;
    }
    // Frames that have gone, to the last byte, and those that have not.
    [[nodiscard]] std::uint64_t gone() const { return frames_; }
    [[nodiscard]] std::uint64_t waiting() const { return last_ - first_; }

  private:
    struct Lane {
        FrameKind kind;
        std::uint64_t slots;
        const Line* lines;
        const std::atomic<std::uint64_t>& consumed;  // of what comes from the peer
        std::uint64_t queued = 0;
        std::uint64_t given = 0;
        std::uint64_t acknowledged = 0;  // said to the peer
    };
    // A frame, with what is small behind its header; `payload` is what is not.
    struct Item {
        Frame header;
        std::byte small[kSmall];
        const std::byte* payload;
        std::size_t head;  // bytes of header and `small`
    };
    static constexpr std::uint64_t kItems = 32;  // more than both lanes have slots, and a frame of each other kind
    static constexpr std::uint32_t kPutOff = 8;  // calls of which the peer may hear late
    static_assert(kPutOff < kFarAhead);
    static_assert(kItems >= kMostSlots + 4 + 2 && kMostParts >= 2 * kItems);

    [[nodiscard]] const Line& next(const Lane& lane) const { return lane.lines[lane.queued & (lane.slots - 1)]; }
    [[nodiscard]] bool published(const Lane& lane) const {
        return next(lane).ticket.load(std::memory_order_relaxed) == lane.queued + 1;
    }
    [[nodiscard]] bool all_gone(const Lane& lane) const { return lane.given == lane.queued && !published(lane); }
    // Whether the consumed messages that the peer does not know of are so many quarters of the slots, or all that it may
    // go without: it needs room for two.
    [[nodiscard]] static bool unsaid(const Lane& lane, std::uint64_t quarters) {
        const std::uint64_t count = lane.consumed.load(std::memory_order_relaxed) - lane.acknowledged;
        return 4 * count >= quarters * lane.slots || count + 1 >= lane.slots;
    }
    // Whether the peer may have to wait although this rank does not: with this much to say it has heard for long.
    [[nodiscard]] bool overdue() const { return !acknowledging_ && (unsaid(collective_, 3) || unsaid(mail_, 2)); }
    [[nodiscard]] bool arrival_due() const { return untold_ >= kPutOff; }
    Item& add(FrameKind kind, std::uint64_t sequence, std::uint32_t fingerprint, std::uint64_t length);
    void add_message(Lane& lane);
    void add_acknowledgement();
    void add_arrival();

    const Stream stream_;
    const std::byte* const region_;
    const std::size_t heap_at_;
    const Flight& flight_;
    Lane collective_, mail_;
    std::array<Item, kItems> items_;  // a ring
    std::uint64_t first_ = 0, last_ = 0;
    std::size_t gone_ = 0;  // bytes of the first one
    std::uint64_t frames_ = 0;
    std::uint32_t untold_ = 0;  // calls
    bool acknowledging_ = false, arriving_ = false;  // such a frame is among the items
};

}  // namespace collx
