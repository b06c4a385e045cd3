#include "collective.hpp"

#include <algorithm>

#include "kernels.hpp"

namespace collx {

namespace {

constexpr std::uint64_t kTimed = 64 << 10;  // bytes that a run moves
constexpr std::uint64_t kBusy = 16 << 10;   // bytes of a move that takes longer than to look whether anything is to be sent

unsigned worth(const Plan& plan) {
    unsigned ways = plan.large ? Ways::kResults : 0;
    if (plan.fills_slots) ways |= Ways::kSlots;
    if (plan.fills_slots && plan.traits.op[0] == 0) ways |= Ways::kForeign;
    return ways;
}

}  // namespace

Prepared::Prepared(Plan decoded)
    : plan(std::move(decoded)), progress(plan.moves.size()), lent(plan.moves.size()), loans(plan.size, plan.targets),
      sending(plan.size), receiving(plan.size) {
    for (const Move& move : plan.moves)
        for (const std::uint64_t length : move.lengths) bytes += length;
    timed = bytes >= kTimed;
}

Collective::Collective(Prepared& prepared, std::byte* input, std::byte* output, Workspace& workspace,
                       std::uint64_t sequence, Clock::time_point from, Clock::time_point limit)
    : Task(limit), prepared_(prepared), plan_(prepared.plan), spaces_{input, output, nullptr}, workspace_(workspace),
      sequence_(sequence) {
    begun = from;
}

// Not in the constructor: the same plan may still be running when this run is queued.
void Collective::begin(Links& links) {
    begun_ = true;
    links.recorder->begin(plan_.traits, sequence_, begun);
    fingerprint_ = links.recorder->stamp();
    if (prepared_.ways == nullptr)
        prepared_.ways = &links.experience.of(plan_.traits.collective, prepared_.bytes, worth(plan_));
    prepared_.ways->begin();
    if (!links.wires.none()) begin_far(links);
    choose_loans(links);
    if (plan_.workspace > 0) spaces_[2] = workspace_.reserve(plan_.workspace);
    std::ranges::fill(prepared_.progress, 0);
    std::ranges::fill(prepared_.sending, Cursor{});
    std::ranges::fill(prepared_.receiving, Cursor{});
    links.arrive();
}

void Collective::end(Links& links) {
    Agreement found = links.recorder->agreement(plan_.unheard);
    for (int asked = -1; found.match == Match::unknown && found.peer != asked && links.drowsy();) {
        asked = found.peer;
        links.await(static_cast<std::size_t>(asked));
        found = links.recorder->agreement(plan_.unheard);
    }
    if (found.match == Match::different) return static_cast<void>(fail(Status::mismatched, found.peer));
    blocked_on = found.peer;
    until_arrival = found.match == Match::unknown && links.recorder->ahead();
    if (found.match == Match::unknown) return;
    links.recorder->end(prepared_.timed, plan_.own_counts);
    finished = true;
    // A rank that has given up owns its memory again: what was read there may have changed before.
    if (borrowed_ && links.verdict->decided()) fail(Status::decided, -1);
    prepared_.ways->end(prepared_.bytes);
}

bool Collective::step(Links& links) {
    if (!begun_) {
        // A call behind one that failed must not begin: to the others that would say that this rank agreed until then.
        // One that takes long would move what it can before it waits, and so looks, for the first time.
        if (prepared_.timed ? links.verdict->look(false) : links.verdict->decided()) return fail(Status::decided, -1);
        begin(links);
    }
    bool any = false;
    const auto count = static_cast<std::uint32_t>(plan_.moves.size());
    // In one window of segments the messages of the oldest round are among so many; with more windows, moves at the
    // end of this window stand behind all others that still have a later one before them.
    std::uint32_t patience = plan_.segments <= plan_.window ? 2 * plan_.size + 16 : count;
    blocked_on = -1;
    for (std::uint32_t index = first_; index < count && patience > 0; ++index) {
        std::uint64_t& segment = prepared_.progress[index];
        if (lends(plan_.moves[index])) {
            any |= lend(links, index);
        } else {
            while (segment < plan_.segments && ready(links, index, segment)) {
                if (!execute(links, index, segment)) return true;
                any = true;
            }
        }
        if (segment < plan_.segments)
            patience -= plan_.moves[index].meets_peers;
        else if (index == first_)
            ++first_;
    }
    if (first_ == count)
        end(links);
    else if (!prepared_.landings.empty())
        land(links);
    return any || finished;
}

// A call may wait for many, and each of them for others, but who has not come keeps all of them waiting. Of those that
// are needed `blocked_on` is only the first.
bool Collective::needs(Links& links, std::size_t peer) const {
    if (!begun_) return false;
    const auto open = [&](const std::vector<Cursor>& cursors, const std::vector<std::vector<std::uint32_t>>& moves) {
        return cursors[peer].index < moves[peer].size();
    };
    return static_cast<int>(peer) == blocked_on || prepared_.loans.outstanding(peer) ||
           (open(prepared_.receiving, plan_.receives) && !links.from[peer].arrived()) ||
           (open(prepared_.sending, plan_.sends) && !links.to[peer].room());
}

bool Collective::at(const Cursor& cursor, const std::vector<std::uint32_t>& moves, std::uint32_t index,
                    std::uint64_t segment) const {
    return cursor.index < moves.size() && moves[cursor.index] == index && cursor.segment == segment;
}

void Collective::advance(Cursor& cursor, const std::vector<std::uint32_t>& moves) const {
    const std::uint64_t end = std::min(cursor.begin + plan_.window, plan_.segments);
    if (++cursor.segment < end) return;
    if (++cursor.index == moves.size() && end < plan_.segments) {
        cursor.index = 0;
        cursor.begin = end;
    }
    cursor.segment = cursor.begin;
}

// Whether the moves it must follow have done a segment. `done_leader`: one that is about to do it in the same pass.
bool Collective::follows(const Move& move, std::uint64_t segment, int done_leader) const {
    const std::uint64_t needed = move.whole ? plan_.segments : segment + 1;
    for (const std::uint32_t earlier : move.after)
        if (prepared_.progress[earlier] < needed && static_cast<int>(earlier) != done_leader) return false;
    return true;
}

// Whether a move may do a segment now.
bool Collective::ready(Links& links, std::uint32_t index, std::uint64_t segment, int done_leader) {
    const Move& move = plan_.moves[index];
    if (!follows(move, segment, done_leader)) return false;
    for (const Operand& source : move.sources) {
        if (!source.is_lane()) continue;
        const auto peer = static_cast<std::size_t>(source.peer);
        if (!at(prepared_.receiving[peer], plan_.receives[peer], index, segment)) return false;
        if (!links.from[peer].arrived()) {
            if (blocked_on < 0) blocked_on = source.peer;
            return false;
        }
    }
    bool home = !lends(move);
    for (const Operand& target : move.targets) {
        if (!target.is_lane()) continue;
        const auto peer = static_cast<std::size_t>(target.peer);
        if (!at(prepared_.sending[peer], plan_.sends[peer], index, segment)) return false;
        const int reader = !links.to[peer].room() ? target.peer : home ? links.to[peer].pick_slot(move.around) : -1;
        if (reader >= 0) {
            if (blocked_on < 0) blocked_on = reader;
            return false;
        }
        home = false;
    }
    return true;
}

std::byte* Collective::place(const Span& span) const {
    return spaces_[static_cast<std::size_t>(span.space)] + span.offset;
}

// Does one segment of a move, and of its follower in the same pass where that one is ready as well.
bool Collective::execute(Links& links, std::uint32_t index, std::uint64_t segment) {
    const Move& move = plan_.moves[index];
    if (move.whole) {
        if (!whole(move)) return fail(Status::op_failed, -1), false;
        prepared_.progress[index] = plan_.segments;
        return true;
    }
    const bool fused = move.follower >= 0 && !lends(plan_.moves[static_cast<std::size_t>(move.follower)]) &&
                       prepared_.progress[static_cast<std::size_t>(move.follower)] == segment &&
                       ready(links, static_cast<std::uint32_t>(move.follower), segment, static_cast<int>(index));
    const Move& sender = fused ? plan_.moves[static_cast<std::size_t>(move.follower)] : move;
    const std::uint64_t bytes = move.segment_bytes(segment);
    if (!as_expected(links, move, bytes)) return false;
    // What was published is on its way while this rank is busy.
    if (!move.meets_peers && bytes >= kBusy) links.wires.flush();

    alignas(64) std::byte small[kInline];
    std::byte* payload = nullptr;
    if (const auto lane = std::ranges::find_if(sender.targets, &Operand::is_lane); lane != sender.targets.end())
        payload = bytes <= kInline ? small : links.to[static_cast<std::size_t>(lane->peer)].slot();
    const bool keep = !(fused && move.transient);
    if (!fetch(links, move, segment, payload, keep)) return false;
    fold_blocks(links, move, segment, payload, keep);

    for (const Operand& source : move.sources) {
        if (!source.is_lane()) continue;
        const auto peer = static_cast<std::size_t>(source.peer);
        links.from[peer].release();
        links.touch(peer);
        advance(prepared_.receiving[peer], plan_.receives[peer]);
    }
    if (payload != nullptr) publish(links, sender, bytes, payload);
    ++prepared_.progress[index];
    if (fused) ++prepared_.progress[static_cast<std::size_t>(move.follower)];
    return true;
}

// Whether the messages that have come are those of this call and of the length this rank knows; fails the run if not.
bool Collective::as_expected(const Links& links, const Move& move, std::uint64_t bytes) {
    for (const Operand& source : move.sources) {
        if (!source.is_lane()) continue;
        const Reader& lane = links.from[static_cast<std::size_t>(source.peer)];
        if (kChecked && lane.fingerprint() != fingerprint_) return fail(Status::mismatched, source.peer), false;
        if (lane.length() != bytes || !lane.well_formed() || (lane.foreign() && move.sources.size() > 1))
            return fail(Status::mismatched, source.peer, lane.length(), bytes), false;
        borrowed_ |= lane.lent();
    }
    return true;
}

const std::byte* Collective::arrived(const Links& links, const Operand& source) const {
    return prepared_.fetched != nullptr ? prepared_.fetched : links.from[static_cast<std::size_t>(source.peer)].payload();
}

// Folds a segment of every block into `payload`, where there is one, and into memory if `keep`.
void Collective::fold_blocks(const Links& links, const Move& move, std::uint64_t segment, std::byte* payload,
                             bool keep) {
    auto& sources = prepared_.sources;
    auto& targets = prepared_.targets;
    std::uint64_t done_bytes = 0;
    for (std::size_t block = 0; block < move.lengths.size(); ++block) {
        const std::uint64_t begin = segment * move.steps[block];
        const std::uint64_t length = move.segment_length(block, segment);
        if (length == 0) continue;
        sources.clear();
        targets.clear();
        for (const Operand& source : move.sources)
            sources.push_back(source.is_lane() ? arrived(links, source) + done_bytes
                                               : place(source.spans[block]) + begin);
        for (const Operand& target : move.targets)
            if (keep && !target.is_lane()) targets.push_back(place(target.spans[block]) + begin);
        std::uint32_t streamed = prepared_.ways->goes(Ways::kResults) ? (1u << targets.size()) - 1 : 0;
        if (payload != nullptr) {
            streamed |= prepared_.ways->goes(Ways::kSlots) ? 1u << targets.size() : 0;
            targets.push_back(payload + done_bytes);
        }
        if (move.scale)
            scale(plan_.dtype)(targets[0], sources[0], length / plan_.itemsize, plan_.size);
        else
            fold(plan_.dtype, plan_.op, targets.data(), static_cast<int>(targets.size()), sources.data(),
                 static_cast<int>(sources.size()), length, streamed);
        done_bytes += length;
    }
}

// One payload, however many receivers: it lies in the slot of the first lane, and the others refer to it.
void Collective::publish(Links& links, const Move& move, std::uint64_t bytes, const std::byte* payload) {
    auto& lanes = prepared_.lanes;
    lanes.clear();
    for (const Operand& target : move.targets)
        if (target.is_lane()) lanes.push_back(&links.to[static_cast<std::size_t>(target.peer)]);
    const auto length = static_cast<std::uint32_t>(bytes);
    if (bytes <= kInline) {
        for (Writer* lane : lanes) lane->publish_inline(length, fingerprint_, payload);
    } else {
        const std::uint64_t offset = lanes.front()->slot_offset();
        lanes.front()->occupy_slot(lanes);
        for (Writer* lane : lanes) lane->publish(length, fingerprint_, offset);
    }
    for (const Operand& target : move.targets) {
        if (!target.is_lane()) continue;
        const auto peer = static_cast<std::size_t>(target.peer);
        links.touch(peer);
        advance(prepared_.sending[peer], plan_.sends[peer]);
    }
}

// A user's op on whole blocks; all sources and the target are memory (see plan.py, `whole`).
bool Collective::whole(const Move& move) {
    for (std::size_t block = 0; block < move.lengths.size(); ++block) {
        const std::uint64_t length = move.lengths[block];
        if (length == 0) continue;
        prepared_.accumulator.resize(length);
        std::byte* result = prepared_.accumulator.data();
        const std::byte* left = place(move.sources[0].spans[block]);
        for (std::size_t source = 1; source < move.sources.size(); ++source) {
            const std::byte* right = place(move.sources[source].spans[block]);
            if (!prepared_.custom(prepared_.custom_context, result, left, right, length)) return false;
            left = result;
        }
        collx::copy(place(move.targets[0].spans[block]), result, length);
    }
    return true;
}

}  // namespace collx
