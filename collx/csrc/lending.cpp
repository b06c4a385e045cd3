// Messages that say where in the sender's memory their payload lies: in its heap, which all ranks have mapped, or anywhere,
// for receivers that may read another process's memory, and for the network.
#include <cerrno>

#include "collective.hpp"

namespace collx {

void Collective::choose_loans(const Links& links) {
    lending_[0] = links.in_heap(spaces_[0], plan_.read);
    lending_[1] = links.in_heap(spaces_[1], plan_.written);
    foreign_ = prepared_.ways->goes(Ways::kForeign);
    for (std::size_t peer = 0; foreign_ && peer < plan_.size; ++peer)
        foreign_ = plan_.sends[peer].empty() || links.read_by(peer) || links.wires.to(peer) != nullptr;
    if (!lending_[0] && !lending_[1] && !foreign_ && prepared_.networked.empty()) return;
    std::ranges::fill(prepared_.lent, 0);
    prepared_.loans.clear();
}

// Whether a move's messages are lent: what they say lies where the receivers, or the network, can read it.
bool Collective::lends(const Move& move) const {
    if (move.lendable && move.steps[0] >= kLend &&
        (foreign_ || lending_[static_cast<std::size_t>(move.sources[0].spans[0].space)]))
        return true;
    return !prepared_.networked.empty() && prepared_.networked[static_cast<std::size_t>(&move - plan_.moves.data())];
}

// Publishes what it can, and counts a segment as done when all its receivers have read it: only then may it be
// written again, by a later move or by the caller.
bool Collective::lend(Links& links, std::uint32_t index) {
    const Move& move = plan_.moves[index];
    std::uint64_t& lent = prepared_.lent[index];
    const std::uint64_t before = prepared_.progress[index] + lent;
    for (; lent < plan_.segments && ready(links, index, lent); ++lent) publish_loan(links, move, lent);
    std::uint64_t consumed = lent;
    for (std::size_t target = 0; target < move.targets.size(); ++target) {
        if (!move.targets[target].is_lane()) continue;
        const auto peer = static_cast<std::size_t>(move.targets[target].peer);
        if (!prepared_.loans.settle(peer, links.to[peer]) && blocked_on < 0) blocked_on = move.targets[target].peer;
        consumed = std::min(consumed, prepared_.loans.returned(move.first_target + target));
    }
    prepared_.progress[index] = consumed;
    return consumed + lent != before;
}

void Collective::publish_loan(Links& links, const Move& move, std::uint64_t segment) {
    const std::uint64_t length = move.segment_length(0, segment);
    const Span& span = move.sources[0].spans[0];
    const std::byte* from = place(span) + segment * move.steps[0];
    const std::uint64_t offset = lending_[static_cast<std::size_t>(span.space)]
                                     ? static_cast<std::uint64_t>(from - links.region)
                                     : kForeign | reinterpret_cast<std::uintptr_t>(from);
    for (std::size_t target = 0; target < move.targets.size(); ++target) {
        if (!move.targets[target].is_lane()) continue;
        const auto peer = static_cast<std::size_t>(move.targets[target].peer);
        Writer& lane = links.to[peer];
        if (length <= kInline)
            lane.publish_inline(static_cast<std::uint32_t>(length), fingerprint_, from);
        else
            lane.publish(static_cast<std::uint32_t>(length), fingerprint_, offset);
        prepared_.loans.lend(peer, lane, move.first_target + target);
        links.touch(peer);
        advance(prepared_.sending[peer], plan_.sends[peer]);
    }
    fold_blocks(links, move, segment, nullptr, true);
}

// Brings a payload from its sender's own memory, straight to where the move puts it if that is one place.
bool Collective::fetch(const Links& links, const Move& move, std::uint64_t segment, std::byte* payload, bool keep) {
    prepared_.fetched = nullptr;
    if (!move.sources[0].is_lane()) return true;
    const auto peer = static_cast<std::size_t>(move.sources[0].peer);
    const Reader& lane = links.from[peer];
    if (lane.landed()) prepared_.fetched = place(move.targets[0].spans[0]) + segment * move.steps[0];
    if (!lane.foreign()) return true;
    const bool lands = move.targets.size() == 1 && payload == nullptr && keep && move.lengths.size() == 1;
    if (!lands) prepared_.landing.resize(lane.length());
    prepared_.fetched = lands ? place(move.targets[0].spans[0]) + segment * move.steps[0] : prepared_.landing.data();
    const int error = lane.fetch(prepared_.fetched);
    // A thread id may have become another's: what was read counts if its owner was alive after that.
    if (error == 0 && !died(*links.headers[peer])) return true;
    if (links.verdict->decided()) return fail(Status::decided, -1), false;
    const bool gone = error == 0 || error == ESRCH;
    return fail(gone ? Status::departed : Status::unreadable, move.sources[0].peer), false;
}

}  // namespace collx
