// The communicators that this process is in, so that a rank one waits for in one of them is found in another.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "verdict.hpp"

namespace collx {

// What a rank has said of its waiting, in Flight::blocked.
struct Waiting {
    std::uint64_t call = 0;  // low half of the sequence; kInMessage in a send or a receive
    int peer = -1;
    bool arrival = false;  // until that rank begins the call before, not for something that it sends
    bool stuck = false;    // its process makes no call on any communicator before this one ends
    std::int64_t since = 0, looked = 0;  // ns: for how long at least; when the last look in vain began
};
inline constexpr std::uint64_t kInMessage = 0xffffffffu;

[[nodiscard]] Waiting waiting(const Flight& flight);

struct Communicator {
    std::string label;
    std::vector<std::uint32_t> members;  // ranks of the job
    std::uint32_t rank = 0;              // this process's
    std::vector<Header*> headers;
    Verdict* verdict = nullptr;
    const std::atomic<int>* under_way = nullptr;  // asynchronous calls of this process
    Far* far = nullptr;  // where ranks are on several hosts
    int process = 0;
};

// Whether this process has no thread but the calling one that could make calls. Set by the module.
inline bool (*lone_thread)() = nullptr;

void enter(const Communicator& communicator);
void depart(const Communicator& communicator);

// Whether this process, waiting in `here`, makes no other call meanwhile.
[[nodiscard]] bool stuck(const Communicator& here);

// What a member of `here` does in another communicator of this process; empty where it is in none.
[[nodiscard]] std::string elsewhere(const Communicator& here, std::size_t member);

// Why a member that has left `here` raised in another communicator of this process, where that was `crossed`, which it
// may have learnt before it was said here; empty where it was not.
[[nodiscard]] std::string left_for(const Communicator& here, std::size_t member);

// Whether this rank waits in `here` for one that is stuck in another communicator until this one comes there: they call
// on different communicators. Says so in both; what it says, or nothing. A line of more than two is found only among ranks
// of one host: messages between hosts may be on their way for longer than can be known.
[[nodiscard]] std::string crossed(const Communicator& here);

}  // namespace collx
