// What a run says to the wires: which messages are sent from where they lie, and where those that come are wanted.
#include "collective.hpp"

namespace collx {

void Collective::begin_far(const Links& links) {
    for (const std::uint32_t peer : plan_.unhearing)
        if (Wire* wire = links.wires.to(peer)) wire->out.tell_arrival();
    if (prepared_.networked.empty()) {
        for (const Move& move : plan_.moves) {
            const auto near = [&](const Operand& o) { return o.is_lane() && links.wires.to(static_cast<std::size_t>(o.peer)) == nullptr; };
            prepared_.networked.push_back(move.plain && move.steps[0] >= kLend && std::ranges::none_of(move.targets, near));
        }
        prepared_.networked.push_back(false);  // so that it is not empty
        for (std::size_t peer = 0; peer < plan_.size; ++peer)
            if (links.wires.to(peer) != nullptr && !plan_.receives[peer].empty()) prepared_.landings.push_back({peer, {}, 0});
    }
    for (Prepared::Landings& lane : prepared_.landings) lane.ticket = 0;
}

// Tells the wires where the payloads of messages are wanted whose places are free by now, as far ahead as they may come.
void Collective::land(Links& links) {
    for (Prepared::Landings& lane : prepared_.landings) {
        const auto& moves = plan_.receives[lane.peer];
        const Reader& reader = links.from[lane.peer];
        if (lane.ticket <= reader.received()) {
            lane.ticket = reader.received() + 1;
            lane.next = prepared_.receiving[lane.peer];
        }
        for (; lane.next.index < moves.size() && lane.ticket <= reader.received() + reader.slots(); ++lane.ticket) {
            const Move& move = plan_.moves[moves[lane.next.index]];
            const std::uint64_t segment = lane.next.segment;
            if (move.lands) {
                if (!follows(move, segment)) break;
                if (const std::uint64_t length = move.segment_length(0, segment); length > kInline)
                    links.wires.to(lane.peer)->in.land(lane.ticket, place(move.targets[0].spans[0]) + segment * move.steps[0],
                                                       length, fingerprint_);
            }
            advance(lane.next, moves);
        }
    }
}

void Collective::let_go(Links& links) {
    if (begun_) links.wires.forsake();
}

}  // namespace collx
