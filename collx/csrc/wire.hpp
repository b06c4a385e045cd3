// The data connection to a rank on another machine, for one communicator.
//
// What this rank's lanes publish for that rank goes out in frames, and what comes in fills the replica of its region as
// if it had written there itself. One thread drives a wire, with calls that never block; the control thread brings
// the connection, and the peer's farewell.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "far.hpp"
#include "incoming.hpp"
#include "outgoing.hpp"

namespace collx {

class Wire final : public WireEnd {
  public:
    // `theirs`: the replica of the peer's region.
    Wire(const Stream& stream, const Layout& layout, std::byte* own, std::byte* theirs);
    ~Wire() { close({}); }
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

    // -- from any thread
    // Takes over a connected stream socket.
    void attach(int fd) override;
    // That the peer leaves, or has left, after so many frames: its state is seen once all of them have been taken in.
    void farewell(State state, std::uint64_t frames) override;
    // What the peer has said of leaving, whatever is still to be taken in.
    [[nodiscard]] State said() const { return static_cast<State>(farewell_.load() & 3); }
    // Frames that have gone, or will with a message; once it is closed, those that did.
    [[nodiscard]] std::uint64_t sent() const override { return sent_.load(std::memory_order_acquire); }
    // That the peer has begun the call in the arrival word, with the chains until it. Never goes back.
    void arrived(std::uint64_t word, const Chains& chains) override { in.arrived(word, chains); }

    // -- the driver's
    [[nodiscard]] bool connected();  // takes over what was attached
    // Takes in what has come; true where anything has.
    bool pump();
    // Sends what was published. `waiting`: this rank waits for others, so they may for it.
    void flush(bool waiting = false);
    [[nodiscard]] bool idle() const { return broken() || out.idle(); }
    // Whether all has gone that the peer may wait for; one that has left waits for nothing.
    [[nodiscard]] bool delivered() const { return broken() || out.delivered() || said() == State::departed; }
    [[nodiscard]] int fd() const { return fd_; }
    [[nodiscard]] bool broken() const { return why_ != nullptr; }
    [[nodiscard]] std::string why() const;
    [[nodiscard]] std::chrono::steady_clock::time_point broken_since() const { return since_; }
    // Nothing refers to a caller's memory any more. Hangs up where it was to be sent from there, as half a message is none.
    void forsake();
    // Hangs up, where there is time until `limit` not before what was sent has reached the peer's host.
    void close(std::chrono::steady_clock::time_point limit);

    Incoming in;
    Outgoing out;

  private:
    void fail(const char* why, int error = 0);
    void show_farewell();
    void drain(std::chrono::steady_clock::time_point limit);

    Header& own_;
    Header& theirs_;
    std::atomic<int> attached_{-1};
    std::atomic<std::uint64_t> farewell_{0};  // frames << 2 | state
    std::atomic<std::uint64_t> sent_{0}, received_{0};
    int fd_ = -1;
    const char* why_ = nullptr;
    int error_ = 0;
    std::chrono::steady_clock::time_point since_;
};

}  // namespace collx
