// The two ends of a lane: the in-order stream of messages from one rank to another through the writer's region.
#pragma once

#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "region.hpp"

namespace collx {

class Writer {
  public:
    // `given`: where the lane leads to another machine, the newest message that the network has taken.
    Writer(Line* lines, std::byte* region, const Channel& channel, std::uint32_t receiver,
           const std::atomic<std::uint64_t>& acknowledged, const std::uint64_t* given = nullptr)
        : lines_(lines), region_(region), channel_(channel), receiver_(receiver), acknowledged_(&acknowledged),
          given_(given), slots_(channel.slots) {}

    // Whether the lane takes one more message now.
    [[nodiscard]] bool room() { return seen_ + channel_.slots > sent_ || acknowledged(sent_ + 1 - channel_.slots); }

    // Whether nobody reads message number `ticket` any more where it lies in this rank's memory.
    [[nodiscard]] bool consumed(std::uint64_t ticket) {
        return seen_ >= ticket || (given_ != nullptr ? *given_ >= ticket : acknowledged(ticket));
    }
    [[nodiscard]] std::uint64_t sent() const { return sent_; }

    // Picks the slot for the payload of the next message: the next one `around` the ring, or the first that is free of
    // a few. Returns who still reads it, or -1.
    [[nodiscard]] int pick_slot(bool around) {
        slot_ = index();
        if (around) return reader(slots_[slot_]);
        int first = -1;
        for (slot_ = 0; slot_ < channel_.few; ++slot_) {
            const int busy = reader(slots_[slot_]);
            if (busy < 0) return -1;
            if (first < 0) first = busy;
        }
        return first;
    }

    [[nodiscard]] std::uint64_t slot_offset() const { return Layout::payload(channel_, receiver_, slot_); }
    [[nodiscard]] std::byte* slot() const { return region_ + slot_offset(); }

    // Sends what lies at `offset` in this rank's region: in a slot, its own or that of the lane a payload is shared
    // with, or in the heap.
    void publish(std::uint32_t length, std::uint32_t fingerprint, std::uint64_t offset) {
        Line& line = lines_[index()];
        line.offset = offset;
        finish(line, length, fingerprint);
    }

    void publish_inline(std::uint32_t length, std::uint32_t fingerprint, const std::byte* payload) {
        Line& line = lines_[index()];
        std::memcpy(line.inlined, payload, length);
        finish(line, length, fingerprint);
    }

    // To be called before publishing: the next messages of all `lanes`, this one among them, have their payload in the slot.
    void occupy_slot(const std::vector<Writer*>& lanes) {
        Slot& slot = slots_[slot_];
        slot.ticket = sent_ + 1;
        slot.others.clear();
        for (Writer* lane : lanes)
            if (lane != this) slot.others.emplace_back(lane, lane->sent_ + 1);
    }

  private:
    // Whether the receiver has done with it.
    [[nodiscard]] bool acknowledged(std::uint64_t ticket) {
        if (seen_ < ticket) seen_ = acknowledged_->load(std::memory_order_acquire);
        return seen_ >= ticket;
    }
    // The last message that had its payload there, and those of other lanes that had it too.
    struct Slot {
        std::uint64_t ticket = 0;
        std::vector<std::pair<Writer*, std::uint64_t>> others;
    };

    [[nodiscard]] int reader(const Slot& slot) {
        if (!consumed(slot.ticket)) return static_cast<int>(receiver_);
        for (const auto& [lane, ticket] : slot.others)
            if (!lane->consumed(ticket)) return static_cast<int>(lane->receiver_);
        return -1;
    }
    [[nodiscard]] std::uint64_t index() const { return sent_ & (channel_.slots - 1); }

    void finish(Line& line, std::uint32_t length, std::uint32_t fingerprint) {
        line.length = length;
        line.fingerprint = fingerprint;
        line.ticket.store(++sent_, std::memory_order_release);
    }

    Line* lines_;
    std::byte* region_;
    Channel channel_;
    std::uint32_t receiver_;
    const std::atomic<std::uint64_t>* acknowledged_;
    const std::uint64_t* given_;
    std::uint64_t sent_ = 0;
    std::uint64_t seen_ = 0;  // acknowledged, as last looked up
    std::vector<Slot> slots_;
    std::uint64_t slot_ = 0;  // picked
};

class Reader {
  public:
    // `file`: the peer's region with its heap, as mapped here.
    Reader(const Line* lines, std::span<const std::byte> file, const Channel& channel,
           std::atomic<std::uint64_t>& acknowledged, std::size_t heap_at, Foreign peer = {})
        : lines_(lines), file_(file), channel_(channel), acknowledged_(&acknowledged), heap_at_(heap_at), peer_(peer) {}

    [[nodiscard]] bool arrived() const { return line().ticket.load(std::memory_order_acquire) == received_ + 1; }
    [[nodiscard]] std::uint32_t length() const { return line().length; }
    [[nodiscard]] std::uint32_t fingerprint() const { return line().fingerprint; }
    [[nodiscard]] std::uint64_t received() const { return received_; }
    [[nodiscard]] std::uint64_t slots() const { return channel_.slots; }
    // Whether the payload has come straight to the place where this rank wants it.
    [[nodiscard]] bool landed() const { return length() > kInline && line().offset == kLanded; }
    // Whether the payload lies in memory that is the peer's caller's, of its heap or anywhere.
    [[nodiscard]] bool lent() const { return length() > kInline && line().offset >= heap_at_ && line().offset != kLanded; }
    // Whether the payload lies in the peer's own memory, from where it has to be fetched.
    [[nodiscard]] bool foreign() const { return length() > kInline && (line().offset & kForeign) != 0; }
    [[nodiscard]] int fetch(std::byte* to) const { return peer_.read(to, line().offset & ~kForeign, length()); }
    [[nodiscard]] bool well_formed() const {
        const std::uint64_t at = line().offset;
        if (foreign()) return peer_.allowed() && length() <= channel_.bytes;
        return length() <= kInline || landed() || (length() <= channel_.bytes && at >= channel_.payload_at && at <= file_.size() &&
                                       length() <= file_.size() - at);
    }
    [[nodiscard]] const std::byte* payload() const {
        return length() <= kInline ? line().inlined : file_.data() + line().offset;
    }
    void release() { acknowledged_->store(++received_, std::memory_order_release); }

  private:
    [[nodiscard]] const Line& line() const { return lines_[received_ & (channel_.slots - 1)]; }

    const Line* lines_;
    std::span<const std::byte> file_;
    Channel channel_;
    std::atomic<std::uint64_t>* acknowledged_;
    std::size_t heap_at_;
    Foreign peer_;
    std::uint64_t received_ = 0;
};

}  // namespace collx
