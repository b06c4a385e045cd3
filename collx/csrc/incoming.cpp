#include "incoming.hpp"

#include <algorithm>
#include <cstring>

namespace collx {

Incoming::Incoming(const Stream& stream, const Layout& layout, std::byte* own, std::byte* theirs, const Outgoing& out)
    : stream_(stream), region_(theirs), flight_(Layout::header(theirs).flight),
      said_(layout.acknowledged(theirs, stream.rank)), out_(out),
      collective_{layout.collective, Layout::lines(theirs, layout.collective, stream.rank),
                  Layout::payload(layout.collective, stream.rank, 0), layout.acknowledged(own, stream.peer).collective},
      mail_{layout.mail, Layout::lines(theirs, layout.mail, stream.rank), Layout::payload(layout.mail, stream.rank, 0),
            layout.acknowledged(own, stream.peer).mail} {}

int Incoming::room(std::array<iovec, 2>& parts) {
    int used = 0;
    if (rest_ > 0) parts[0] = {to_, rest_}, ++used;
    // Behind a large message comes most likely another one, whose payload is better not copied.
    const std::size_t staged = sizeof staging_ - staged_;
    parts[static_cast<std::size_t>(used++)] = {staging_ + staged_, large_ ? std::min(kAhead, staged) : staged};
    return used;
}

const char* Incoming::took(std::size_t bytes) {
    if (rest_ > 0) {
        const std::size_t placed = std::min(bytes, rest_);
        to_ += placed;
        rest_ -= placed;
        bytes -= placed;
        if (rest_ > 0) return nullptr;
        close();
    }
    staged_ += bytes;
    return parse();
}

// Takes every frame that has begun in the staging memory. What is left there is at most a frame that is too short to
// tell, or one of little payload of which some is missing.
const char* Incoming::parse() {
    std::size_t at = 0;
    while (staged_ - at >= sizeof(Frame)) {
        std::memcpy(&frame_, staging_ + at, sizeof frame_);
        if (const char* why = wrong(frame_)) return why;
        const std::byte* payload = staging_ + at + sizeof(Frame);
        const std::size_t there = staged_ - at - sizeof(Frame);
        if (frame_.length <= kSmall && there < frame_.length) break;
        const std::size_t taken = std::min<std::size_t>(there, frame_.length);
        if (frame_.kind == FrameKind::acknowledgement || frame_.kind == FrameKind::arrival) {
            if (const char* why = take_note(payload)) return why;
            ++frames_;
        } else {
            open();
            if (taken > 0) std::memcpy(to_, payload, taken);
            to_ += taken;
            rest_ = frame_.length - taken;
            if (rest_ == 0) close();
        }
        at += sizeof(Frame) + taken;
    }
    staged_ -= at;
    if (at > 0 && staged_ > 0) std::memmove(staging_, staging_ + at, staged_);
    return nullptr;
}

const char* Incoming::wrong(const Frame& frame) const {
    if (frame.magic != Frame::kMagic) return "what came is no frame";
    if (frame.version != Frame::kVersion) return "a frame of another version came";
    if (frame.communicator != stream_.communicator || frame.epoch != stream_.epoch)
        return "a frame of another communicator or job came";
    switch (frame.kind) {
        case FrameKind::acknowledgement: return frame.length == sizeof(Consumed) ? nullptr : "an acknowledgement of a wrong length came";
        case FrameKind::arrival: return frame.length == sizeof(Chains) ? nullptr : "an arrival of a wrong length came";
        case FrameKind::collective:
        case FrameKind::mail: break;
        default: return "a frame of an unknown kind came";
    }
    const Lane& lane = frame.kind == FrameKind::mail ? mail_ : collective_;
    if (frame.sequence != lane.ticket + 1) return "a message out of order came";
    if (frame.length > lane.channel.bytes) return "a message longer than a slot came";
    if (frame.sequence - lane.consumed.load(std::memory_order_relaxed) > lane.channel.slots)
        return "more messages came than there is room for";
    return nullptr;
}

const char* Incoming::take_note(const std::byte* payload) {
    if (frame_.kind == FrameKind::acknowledgement) {
        Consumed counts;
        std::memcpy(&counts, payload, sizeof counts);
        return take_acknowledgement(counts);
    }
    Chains chains;
    std::memcpy(&chains, payload, sizeof chains);
    arrived(frame_.sequence << 32 | frame_.fingerprint, chains);
    return nullptr;
}

const char* Incoming::take_acknowledgement(const Consumed& counts) {
    const auto take = [](std::atomic<std::uint64_t>& known, std::uint64_t count, std::uint64_t given) {
        if (count > given || count < known.load(std::memory_order_relaxed)) return false;
        known.store(count, std::memory_order_release);
        return true;
    };
    return take(said_.collective, counts.collective, out_.given(FrameKind::collective)) &&
                   take(said_.mail, counts.mail, out_.given(FrameKind::mail))
               ? nullptr
               : "an acknowledgement of what was never sent came";
}

std::byte* Incoming::slot(const Lane& lane) const {
    return region_ + lane.payload_at + (lane.ticket & (lane.channel.slots - 1)) * lane.channel.bytes;
}

// Decides where the payload of the message goes. Behind a message nobody has consumed no other writes to its line or slot.
void Incoming::open() {
    Lane& of = lane();
    landing_ = false;
    large_ = frame_.length > kStaged;
    if (frame_.length <= kInline) {
        to_ = line(of).inlined;
        return;
    }
    to_ = slot(of);
    if (frame_.kind == FrameKind::mail) return;
    const Landing& wanted = landings_[frame_.sequence % kMostSlots];
    landing_ = wanted.ticket == frame_.sequence && wanted.length == frame_.length && wanted.fingerprint == frame_.fingerprint;
    if (landing_) to_ = wanted.place;
}

void Incoming::close() {
    Lane& of = lane();
    Line& there = line(of);
    there.length = static_cast<std::uint32_t>(frame_.length);
    there.fingerprint = frame_.fingerprint;
    if (frame_.length > kInline)
        there.offset = landing_ ? kLanded : static_cast<std::uint64_t>(slot(of) - region_);
    there.ticket.store(++of.ticket, std::memory_order_release);
    ++frames_;
}

void Incoming::withdraw() {
    landings_.fill({});
    if (!landing_ || rest_ == 0) return;
    landing_ = false;
    const std::size_t there = frame_.length - rest_;
    std::byte* const into = slot(collective_);
    std::memcpy(into, to_ - there, there);
    to_ = into + there;
}

void Incoming::arrived(std::uint64_t word, const Chains& chains) {
    while (arriving_.test_and_set(std::memory_order_acquire)) {}
    const std::uint64_t known = flight_.arrival.load(std::memory_order_relaxed);
    if (static_cast<std::int32_t>(static_cast<std::uint32_t>(word >> 32) - static_cast<std::uint32_t>(known >> 32)) > 0) {
        for (std::size_t at = 0; at < kHistory; ++at) flight_.chains[at].store(chains[at], std::memory_order_release);
        flight_.arrival.store(word, std::memory_order_release);
    }
    arriving_.clear(std::memory_order_release);
}

}  // namespace collx
