// Processes of a job on several hosts, for native tests: here they are objects, and sockets in pairs join them.
#pragma once

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "control.hpp"
#include "wait.hpp"

namespace collx {

inline bool eventually(const std::function<bool()>& so) {
    const auto limit = Clock::now() + std::chrono::seconds(20);
    while (!so()) {
        if (Clock::now() > limit) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

// Says what a data connection is told.
class Wired final : public WireEnd {
  public:
    ~Wired() {
        if (fd >= 0) close(fd);
    }
    void attach(int given) override { fd = given; }
    void farewell(State said, std::uint64_t count) override { frames = count, state = said; }
    void arrived(std::uint64_t word, const Chains& all) override { arrival = word, chain = all[1]; }
    [[nodiscard]] std::uint64_t sent() const override { return 17; }
    std::atomic<int> fd{-1};
    std::atomic<std::uint64_t> frames{0}, arrival{0};
    std::atomic<std::uint32_t> chain{0};
    std::atomic<State> state{State::running};
};

// A rank's region or a replica of one.
class Memory {
  public:
    explicit Memory(const Layout& layout)
        : bytes_(layout.heap_at), at_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
    ~Memory() { munmap(at_, bytes_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    [[nodiscard]] std::byte* begin() const { return static_cast<std::byte*>(at_); }

  private:
    const std::size_t bytes_;
    void* const at_;
};

struct Pair {
    int one = -1, other = -1;
    Pair() {
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0) one = fds[0], other = fds[1];
    }
};

// One process, with its region, those of the processes of its host, and its replicas of the others'.
class Process {
  public:
    // `near`: the regions of its host's processes, by rank, null for the others; its own is made where it is null.
    Process(std::uint32_t rank, std::uint32_t size, std::vector<std::byte*> near = {})
        : layout(size), control(std::make_shared<Control>(rank, size)), rank_(rank), size_(size) {
        near.resize(size);
        for (std::uint32_t peer = 0; peer < size; ++peer) {
            far_.push_back(near[peer] == nullptr && peer != rank);
            if (near[peer] == nullptr) near[peer] = memory_.emplace_back(std::make_unique<Memory>(layout))->begin();
        }
        regions = near;
    }
    ~Process() {
        far.reset();
        control.reset();
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    // Makes the communicator that all of them are in.
    void enter(std::uint32_t number) {
        std::vector<std::uint32_t> members;
        for (std::uint32_t peer = 0; peer < size_; ++peer) members.push_back(peer);
        far = std::make_unique<Far>(control, number, 0, rank_, layout, members, far_);
        wires = std::vector<Wired>(size_);
        for (std::uint32_t peer = 0; peer < size_; ++peer)
            if (far_[peer]) far->wires[peer] = &wires[peer];
        far->enter(regions);
    }
    [[nodiscard]] Header& of(std::uint32_t peer) { return Layout::header(regions[peer]); }

    const Layout layout;
    std::vector<std::byte*> regions;
    std::vector<Wired> wires;
    std::shared_ptr<Control> control;
    std::unique_ptr<Far> far;

  private:
    const std::uint32_t rank_, size_;
    std::vector<bool> far_;
    std::vector<std::unique_ptr<Memory>> memory_;
};

inline void join(Process& one, Process& other) {
    const Pair pair;
    one.control->add(other.control->rank, pair.one);
    other.control->add(one.control->rank, pair.other);
}

}  // namespace collx
