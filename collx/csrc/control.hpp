// The connections to processes on other hosts over which ranks tell each other everything but data: what ended a
// communicator, who leaves, what they are doing. One for each pair of processes, for the whole job.
//
// One thread per process always reads them, also while the program computes. So a process that does not read is stopped
// or dead, the kernel may be asked to give up one that it cannot reach, and questions are answered by ranks that
// are busy.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "control_frame.hpp"
#include "far.hpp"

namespace collx {

class Control {
  public:
    Control(std::uint32_t rank, std::uint32_t size);
    ~Control();
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;

    // A connection to `peer`, authenticated; the descriptor becomes this object's.
    void add(std::uint32_t peer, int fd);
    // Why the connection to a peer is lost; empty while it is not, and kEnded where the peer has closed it or its process
    // is no more.
    static constexpr const char* kEnded = "has ended";
    [[nodiscard]] std::string lost(std::uint32_t peer) const;

    // Readable while there are data connections for this process to make: (communicator, peer).
    [[nodiscard]] int fileno() const { return wanting_; }
    std::vector<std::pair<std::uint32_t, std::uint32_t>> wants();
    // A data connection, made by whichever side; kept where the communicator is still to come, and closed where it is
    // over, or has one to that peer. The descriptor becomes this object's.
    void attach(std::uint32_t communicator, std::uint32_t peer, int fd);
    // It cannot be made: ends the communicator.
    void fail(std::uint32_t communicator, std::uint32_t peer, const std::string& why);

    // Whether this process is in a communicator of that number, or others may still tell of one that it was in.
    [[nodiscard]] bool holds(std::uint32_t communicator) const;

    // Ends all connections, after the last communicator has left: what was told has gone out then, or cannot.
    void close();

    const std::uint32_t rank;

  private:
    friend class Far;
    friend class Forks;
    using Clock = std::chrono::steady_clock;

    static constexpr std::uint64_t kData = 1ull << 63, kWake = 1ull << 62;  // in what epoll tells, beside peers

    struct Peer {
        int fd = -1;
        std::string lost;
        ControlFrames frames;
        std::vector<std::byte> out;  // what the kernel has not taken yet
        bool waits = false;          // for it to take that
        Clock::time_point heard, told;
        std::uint32_t asked = 0;  // questions that it has not answered
        Clock::time_point asked_at;
    };

    void enter(Far& far);
    void leave(Far& far);
    bool ask(const Far& far, Clock::duration patience);  // whether all have answered
    [[nodiscard]] bool silent(std::uint32_t peer, Clock::duration longer) const;
    void want(std::uint32_t communicator, std::uint32_t peer);

    // With the lock held.
    void post(std::uint32_t peer, ControlHead head, const void* body = nullptr);
    void flush(std::uint32_t peer);
    void lose(std::uint32_t peer, const std::string& why);
    bool take(std::uint32_t peer, const ControlFrame& frame);
    void keep(std::uint32_t peer, const ControlFrame& frame);
    void connect(std::uint32_t communicator, std::uint32_t peer);
    void query(const Far& far, bool again);
    [[nodiscard]] bool answered(const Far& far) const;

    // The thread's.
    void run();
    void read(std::uint32_t peer);
    void beat();

    const int epoll_, wanting_, waking_;
    mutable std::mutex lock_;
    std::condition_variable changed_;  // answers, and connections that end
    std::vector<Peer> peers_;          // by rank
    std::map<std::uint32_t, Far*> entered_;
    std::map<std::uint32_t, std::set<std::uint32_t>> left_;  // by communicator, who may still tell of it
    std::map<std::uint32_t, std::vector<std::pair<std::uint32_t, ControlFrame>>> early_;  // by communicator
    std::map<std::pair<std::uint32_t, std::uint32_t>, int> unclaimed_;                    // data connections
    std::set<std::pair<std::uint32_t, std::uint32_t>> asked_for_, attached_;  // data connections, of communicators not left
    std::vector<std::pair<std::uint32_t, std::uint32_t>> wants_;
    bool closing_ = false, ended_ = false;
    std::unique_ptr<std::thread> thread_;
    const int process_;
};

}  // namespace collx
