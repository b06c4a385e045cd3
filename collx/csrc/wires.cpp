#include "wires.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace collx {

namespace {

constexpr std::size_t kFew = 2;  // sockets, of which to read each takes no longer than to ask for those with data
// A broken connection is most often the end of the peer, or comes of an error there, which is noticed and told elsewhere.
constexpr std::chrono::milliseconds kGrace{300};
constexpr std::chrono::seconds kLinger{5};

}  // namespace

Wires::~Wires() {
    if (poll_ >= 0) ::close(poll_);
}

Wire& Wires::add(Far& far, std::uint32_t peer, const Layout& layout, std::byte* own, std::byte* theirs) {
    far_ = &far;
    const Stream stream{far.rank, peer, far.communicator, far.epoch};
    all_.push_back({std::make_unique<Wire>(stream, layout, own, theirs), peer});
    by_peer_.resize(layout.size);
    Wire& wire = *all_.back().wire;
    far.wires[peer] = by_peer_[peer] = &wire;
    return wire;
}

void Wires::flush(bool waiting) {
    for (One& one : all_) {
        one.wire->flush(waiting);
        if (one.wanted || one.wire->idle() || one.wire->connected()) continue;
        one.wanted = true;
        far_->want(one.peer);
    }
}

bool Wires::pump() {
    bool any = false;
    if (all_.size() <= kFew) {
        for (One& one : all_) any |= one.wire->pump();
        return any;
    }
    for (One& one : all_)
        if (!one.polled && one.wire->connected()) poll_too(one);
    std::array<epoll_event, 64> ready;
    const int count = poll_ < 0 ? 0 : epoll_wait(poll_, ready.data(), ready.size(), 0);
    for (int at = 0; at < count; ++at) {
        Wire& wire = *static_cast<Wire*>(ready[static_cast<std::size_t>(at)].data.ptr);
        any |= wire.pump();
        if (wire.broken()) epoll_ctl(poll_, EPOLL_CTL_DEL, wire.fd(), nullptr);
    }
    return any;
}

void Wires::poll_too(One& one) {
    if (poll_ < 0) poll_ = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = one.wire.get();
    one.polled = epoll_ctl(poll_, EPOLL_CTL_ADD, one.wire->fd(), &event) == 0;
}

void Wires::arm() {
    for (One& one : all_) one.wire->out.hasten();
    flush();
    for (One& one : all_)
        if (one.wire->connected() && !one.wire->broken())
            far_->arm(one.wire->fd(), EPOLLIN | (one.wire->idle() ? 0u : static_cast<std::uint32_t>(EPOLLOUT)));
}

int Wires::broken() {
    for (One& one : all_) {
        if (!one.wire->broken() || one.wire->said() != State::running) continue;
        if (!std::exchange(one.doubted, true)) far_->restart();  // asks soon
        const std::chrono::nanoseconds late = (one.wire->broken_since() + kGrace).time_since_epoch();
        if (far_->asked(one.peer) > late.count()) return static_cast<int>(one.peer);
    }
    return -1;
}

void Wires::close(bool linger) {
    const auto limit = linger ? std::chrono::steady_clock::now() + kLinger : std::chrono::steady_clock::time_point{};
    flush();  // what was published last may want a connection yet
    for (One& one : all_) one.wire->close(limit);
}

}  // namespace collx
