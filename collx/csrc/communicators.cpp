#include "communicators.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <mutex>

namespace collx {

namespace {

constexpr const char* kDiffers = "communicator differs";
constexpr std::int64_t kVisible = 1'000'000;  // ns, in which what a rank has written surely reaches the others

std::mutex entering;
std::vector<const Communicator*> entered;

template <typename Act>
void for_others(const Communicator& here, const Act& act) {
    const std::lock_guard lock(entering);
    for (const Communicator* other : entered)
        if (other != &here && other->process == getpid()) act(*other);  // not those of a process it was forked from
}

bool is_far(const Communicator& communicator, int rank) {
    return communicator.far != nullptr && communicator.far->far[static_cast<std::size_t>(rank)];
}

int place(const Communicator& communicator, std::uint32_t member) {
    const auto found = std::ranges::find(communicator.members, member);
    return found == communicator.members.end() ? -1 : static_cast<int>(found - communicator.members.begin());
}

// At the end of the line of ranks that wait for each other, which begins with `wait`: the rank that has not begun the
// call which the one before it waits for, and waits for nobody here; or -1. Every wait in the line is sure to last:
// for a rank that has not begun the call, or for one that was waiting before the look in vain.
int missing(const Communicator& communicator, Waiting wait) {
    for (std::size_t steps = 0; steps < communicator.headers.size(); ++steps) {
        if (wait.peer < 0 || wait.call == kInMessage) return -1;
        const Flight& flight = communicator.headers[static_cast<std::size_t>(wait.peer)]->flight;
        const Waiting next = waiting(flight);
        const bool begun = (newest(flight) & 0xffffffffu) >= wait.call - wait.arrival;
        if (next.peer < 0) return begun ? -1 : wait.peer;
        if (begun && (is_far(communicator, wait.peer) || wait.looked < next.since + kVisible)) return -1;
        wait = next;
    }
    return -1;
}

std::string in_call(const Communicator& communicator, std::size_t member) {
    const Flight& flight = communicator.headers[member]->flight;
    const auto call = recorded(flight, newest(flight));
    if (!call || call->progress != Progress::under_way) return {};
    return std::string(call->traits.collective) + " #" + std::to_string(call->sequence) + " of communicator " +
           communicator.label;
}

}  // namespace

Waiting waiting(const Flight& flight) {
    const std::uint64_t word = flight.blocked.load(std::memory_order_acquire), call = word >> 32;
    if (word == 0 || (call != kInMessage && call != (newest(flight) & 0xffffffffu))) return {};
    return {call, static_cast<int>(word & 0xffffffu) - 1, (word & Recorder::kArrival) != 0,
            (word & Recorder::kStuck) != 0, flight.since.load(std::memory_order_relaxed),
            flight.looked.load(std::memory_order_relaxed)};
}

void enter(const Communicator& communicator) {
    const std::lock_guard lock(entering);
    entered.push_back(&communicator);
}

void depart(const Communicator& communicator) {
    const std::lock_guard lock(entering);
    std::erase(entered, &communicator);
}

bool stuck(const Communicator& here) {
    if (here.members.empty() || lone_thread == nullptr || !lone_thread()) return false;
    bool idle = true;
    for_others(here, [&](const Communicator& other) { idle &= other.under_way->load() == 0; });
    return idle;
}

std::string elsewhere(const Communicator& here, std::size_t member) {
    std::string told;
    if (here.members.empty()) return told;
    for_others(here, [&](const Communicator& other) {
        const int there = place(other, here.members[member]);
        if (there >= 0 && told.empty()) told = in_call(other, static_cast<std::size_t>(there));
    });
    return told.empty() ? told : "is in " + told;
}

std::string left_for(const Communicator& here, std::size_t member) {
    std::string told;
    if (here.members.empty()) return told;
    for_others(here, [&](const Communicator& other) {
        if (place(other, here.members[member]) < 0 || !other.verdict->decided()) return;
        const Proposal& proposal = other.verdict->proposal();
        if (proposal.why == Why::mismatch && std::strstr(proposal.text, kDiffers) != nullptr) told = proposal.text;
    });
    return told;
}

std::string crossed(const Communicator& here) {
    std::string told;
    const Waiting wait = waiting(here.headers[here.rank]->flight);
    const int late = wait.stuck ? missing(here, wait) : -1;
    if (late < 0 || late == static_cast<int>(here.rank)) return told;
    const std::string mine = "rank " + std::to_string(here.rank), theirs = "rank " + std::to_string(late);
    for_others(here, [&](const Communicator& other) {
        const int there = place(other, here.members[static_cast<std::size_t>(late)]);
        if (there < 0 || !told.empty()) return;
        const Waiting their_wait = waiting(other.headers[static_cast<std::size_t>(there)]->flight);
        if (!their_wait.stuck || missing(other, their_wait) != static_cast<int>(other.rank)) return;
        // That it has not begun the call here must be known from after it began to wait there.
        if (is_far(here, late) && here.far->asked(static_cast<std::size_t>(late)) < their_wait.since + kVisible) return;
        const std::string call = in_call(other, static_cast<std::size_t>(there));
        if (call.empty() || other.verdict->decided()) return;  // that wait is over
        told = mine + " in " + in_call(here, here.rank) + ": " + kDiffers + ": " + theirs + " is in " + call +
               ", where it waits for " + mine + "; all ranks must make the same calls in the same order";
        here.verdict->propose(Why::mismatch, told);
        other.verdict->propose(Why::mismatch, told);
    });
    return told;
}

}  // namespace collx
