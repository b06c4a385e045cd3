// What an endpoint drives: a call that goes on a step at a time, without blocking.
#pragma once

#include <atomic>
#include <span>
#include <string>
#include <vector>

#include "lane.hpp"
#include "wait.hpp"
#include "ways.hpp"
#include "wires.hpp"

namespace collx {

// One rank's ends of all its lanes, and the peers it must wake for what it did since it last looked.
struct Links {
    std::vector<Writer> to, mail_to;
    std::vector<Reader> from, mail_from;
    std::vector<Header*> headers;
    std::vector<const Acknowledged*> said;  // by peer, what it says of this rank
    Header* own = nullptr;  // this rank's
    std::vector<std::uint32_t> touched;
    std::byte* region = nullptr;        // this rank's own, and its heap: what offsets in lines count from
    std::span<const std::byte> heap;
    std::vector<const void*> mailing;  // by peer, the send whose message is under way: messages go one by one
    Recorder* recorder = nullptr;
    Experience experience;
    Verdict* verdict = nullptr;
    Wires wires;  // to the ranks on other machines

    // Whether the peer may read this rank's own memory.
    [[nodiscard]] bool read_by(std::size_t peer) const {
        return said[peer]->reads.load(std::memory_order_relaxed) != 0;
    }
    // Whether the peers see these bytes in this rank's memory file.
    [[nodiscard]] bool in_heap(const std::byte* at, std::uint64_t bytes) const {
        const auto address = [](const std::byte* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
        const std::uint64_t offset = address(at) - address(heap.data());  // enormous for what lies before it
        return offset < heap.size() && bytes <= heap.size() - offset;
    }

    void touch(std::size_t peer) { touched.push_back(static_cast<std::uint32_t>(peer)); }
    void ring_touched() {
        if (touched.empty() && !arrived) return;
        before_ringing();
        for (const std::uint32_t peer : touched) ring_if_asleep(*headers[peer]);
        touched.clear();
        arrived = false;
        if (own->awaited.load(std::memory_order_relaxed) == 0) return;
        own->awaited.exchange(0);  // before the look who sleeps: who says so later asks again
        for (Header* header : headers) ring_if_asleep(*header);
    }

    // To be called when a call has begun, which others may sleep for.
    void arrive() { arrived = kChecked && headers.size() > 1; }
    // Makes a peer ring when its next call begins; to be followed by a look whether it has begun.
    void await(std::size_t peer) const { headers[peer]->awaited.exchange(1); }
    // Whether this rank has said that it is about to sleep.
    [[nodiscard]] bool drowsy() const { return own->asleep.load(std::memory_order_relaxed) != 0; }

  private:
    static void ring_if_asleep(Header& header) {
        if (header.asleep.load(std::memory_order_relaxed) != 0) ring(header);
    }
    bool arrived = false;
};

// What its caller wants of a call: that it ends, or that it does unless it is too late, which the driver says by `no`.
enum class Cancel : std::uint8_t { no, recall, end };

class Task {
  public:
    explicit Task(Clock::time_point limit) : deadline(limit) {}
    virtual ~Task() = default;
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    // Does what can be done now; true where anything was. Sets `finished` at the end, or on failure `outcome` too.
    virtual bool step(Links& links) = 0;

    // Whether it cannot end without what the peer has yet to do.
    [[nodiscard]] virtual bool needs(Links&, std::size_t peer) const {
        return static_cast<int>(peer) == blocked_on;
    }
    // Whether it sends a message, which a peer that is leaving still takes in.
    [[nodiscard]] virtual bool sends() const { return false; }
    // Whether a peer waits for it that would take this rank's departure for a failure, and nobody here does.
    [[nodiscard]] virtual bool owed() const { return false; }
    // Whether nothing has come of it yet, so that it can be taken back.
    [[nodiscard]] virtual bool recallable() const { return false; }
    // Makes sure that nothing refers to its caller's memory any more, where it ended before its time.
    virtual void let_go(Links&) {}
    // What went wrong, where that is not said by the outcome.
    [[nodiscard]] virtual std::string complaint() const { return {}; }

    // Ends it from outside.
    void give_up(Outcome why) {
        abandon();
        outcome = why;
        finished = true;
    }

    const Clock::time_point deadline;
    bool finished = false;
    Outcome outcome;
    int blocked_on = -1;                  // the peer that the next step needs, for messages
    bool until_arrival = false;           // it needs that peer to begin the call before, and nothing else
    int departed = -1;                    // a peer it needed when that was last seen to have left,
    std::uint64_t departed_at = 0;        // and the endpoint's epoch then
    Clock::time_point begun;
    std::atomic<Cancel> cancelled{Cancel::no};  // by its caller, for the driver
    std::atomic<std::uint32_t> done{0};   // set last, for threads other than the driver

  protected:
    virtual void abandon() {}
    bool fail(Status status, int peer, std::uint64_t bytes = 0, std::uint64_t wanted = 0) {
        outcome = {status, peer, bytes, wanted};
        finished = true;
        return true;
    }
};

}  // namespace collx
