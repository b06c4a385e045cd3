#include "outgoing.hpp"

#include <algorithm>
#include <cstring>

namespace collx {

Outgoing::Outgoing(const Stream& stream, const Layout& layout, std::byte* own)
    : stream_(stream), region_(own), heap_at_(layout.heap_at), flight_(Layout::header(own).flight),
      collective_{FrameKind::collective, layout.collective.slots, Layout::lines(own, layout.collective, stream.peer),
                  layout.acknowledged(own, stream.peer).collective},
      mail_{FrameKind::mail, layout.mail.slots, Layout::lines(own, layout.mail, stream.peer),
            layout.acknowledged(own, stream.peer).mail} {}

Outgoing::Item& Outgoing::add(FrameKind kind, std::uint64_t sequence, std::uint32_t fingerprint, std::uint64_t length) {
    Item& item = items_[last_++ % kItems];
    item.header = {Frame::kMagic,  Frame::kVersion, kind,    stream_.communicator, stream_.epoch, fingerprint,
                   sequence, length};
    item.payload = nullptr;
    item.head = sizeof(Frame) + (length <= kSmall ? length : 0);
    return item;
}

void Outgoing::add_message(Lane& lane) {
    const Line& line = next(lane);
    Item& item = add(lane.kind, ++lane.queued, line.fingerprint, line.length);
    const std::byte* payload = line.inlined;
    if (line.length > kInline)
        payload = (line.offset & kForeign) != 0 ? reinterpret_cast<const std::byte*>(line.offset & ~kForeign) : region_ + line.offset;
    if (line.length <= kSmall)
        std::memcpy(item.small, payload, line.length);
    else
        item.payload = payload;
}

void Outgoing::add_acknowledgement() {
    Consumed counts{};
    for (const auto& [lane, count] : {std::pair{&collective_, &counts.collective}, std::pair{&mail_, &counts.mail}})
        *count = lane->acknowledged = lane->consumed.load(std::memory_order_relaxed);
    std::memcpy(add(FrameKind::acknowledgement, 0, 0, sizeof counts).small, &counts, sizeof counts);
    acknowledging_ = true;
}

void Outgoing::add_arrival() {
    const std::uint64_t word = flight_.arrival.load(std::memory_order_relaxed);
    Chains chains;
    for (std::size_t at = 0; at < kHistory; ++at) chains[at] = flight_.chains[at].load(std::memory_order_relaxed);
    Item& item = add(FrameKind::arrival, word >> 32, static_cast<std::uint32_t>(word), sizeof chains);
    std::memcpy(item.small, &chains, sizeof chains);
    arriving_ = true;
    untold_ = 0;
}

void Outgoing::gather(bool waiting) {
    const std::uint64_t before = last_;
    for (Lane* lane : {&collective_, &mail_})
        while (published(*lane)) add_message(*lane);
    if (!arriving_ && arrival_due()) add_arrival();
    // With what goes anyway a quarter of the credit is worth a word.
    const bool early = last_ != before && (unsaid(collective_, 1) || unsaid(mail_, 1));
    if (!acknowledging_ && (early || overdue() || (waiting && unsaid(collective_, 2)))) add_acknowledgement();
    if (!arriving_ && untold_ > 0 && last_ != before) add_arrival();
}

bool Outgoing::lends() {
    gather();
    for (std::uint64_t at = first_; at != last_; ++at) {
        const auto* payload = items_[at % kItems].payload;
        if (payload != nullptr && (payload < region_ || payload >= region_ + heap_at_)) return true;
    }
    return false;
}

int Outgoing::parts(Parts& parts) const {
    std::size_t used = 0, skip = gone_;
    const auto put = [&](const std::byte* from, std::size_t bytes) {
        const std::size_t skipped = std::min(skip, bytes);
        skip -= skipped;
        if (bytes > skipped) parts[used++] = {const_cast<std::byte*>(from) + skipped, bytes - skipped};
    };
    for (std::uint64_t at = first_; at != last_; ++at) {
        const Item& item = items_[at % kItems];
        put(reinterpret_cast<const std::byte*>(&item), item.head);
        if (item.payload != nullptr) put(item.payload, item.header.length);
    }
    return static_cast<int>(used);
}

void Outgoing::gave(std::size_t bytes) {
    gone_ += bytes;
    while (first_ != last_) {
        const Item& item = items_[first_ % kItems];
        const std::size_t all = sizeof(Frame) + item.header.length;
        if (gone_ < all) return;
        gone_ -= all;
        ++first_;
        ++frames_;
        switch (item.header.kind) {
            case FrameKind::collective: collective_.given = item.header.sequence; break;
            case FrameKind::mail: mail_.given = item.header.sequence; break;
            case FrameKind::acknowledgement: acknowledging_ = false; break;
            case FrameKind::arrival: arriving_ = false; break;
        }
    }
}

}  // namespace collx
