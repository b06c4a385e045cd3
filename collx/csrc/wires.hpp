// All wires of one endpoint, as its driver moves them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "wire.hpp"

namespace collx {

class Wires {
  public:
    Wires() = default;
    ~Wires();
    Wires(const Wires&) = delete;
    Wires& operator=(const Wires&) = delete;

    Wire& add(Far& far, std::uint32_t peer, const Layout& layout, std::byte* own, std::byte* theirs);
    [[nodiscard]] bool none() const { return all_.empty(); }
    // The wire to a rank, or null where that is near.
    [[nodiscard]] Wire* to(std::size_t peer) const { return peer < by_peer_.size() ? by_peer_[peer] : nullptr; }

    // Sends what was published. Asks for connections where there are none yet.
    void flush(bool waiting = false);
    // Whether the network has taken every message.
    [[nodiscard]] bool delivered() const {
        for (const auto& one : all_)
            if (!one.wire->delivered()) return false;
        return true;
    }
    // Takes in what has come; true where anything has.
    bool pump();
    // Before this rank sleeps: says what was put off, and has its bell rung as soon as any of them can go on.
    void arm();
    // Nothing lands any more, and a message that lies in its caller's memory never goes.
    void forsake() {
        for (const auto& one : all_) one.wire->forsake();
    }
    // A rank whose connection broke although it did not leave, and that has answered what it was asked later: it lives. Or
    // -1.
    [[nodiscard]] int broken();
    void close(bool linger);

  private:
    struct One {
        std::unique_ptr<Wire> wire;
        std::size_t peer;
        bool wanted = false;
        bool polled = false;   // among those of `poll_`
        bool doubted = false;  // its connection broke, and the rank is asked whether it lives
    };
    void poll_too(One& one);

    Far* far_ = nullptr;
    std::vector<One> all_;
    std::vector<Wire*> by_peer_;
    int poll_ = -1;  // an epoll of all sockets
};

}  // namespace collx
