#include "wire.hpp"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "wait.hpp"

namespace collx {

namespace {

constexpr std::size_t kTurn = 256 << 10;  // bytes to take in before a look at what can be done with them
constexpr int kDrain = 5;  // ms
constexpr std::chrono::microseconds kDial{200};  // from look to look whether a connection was made
// The end of a record goes at once. Without that mark the kernel keeps a short packet until the peer has taken in the long
// one before it (autocorking, TCP_NODELAY notwithstanding).
constexpr int kNow = MSG_NOSIGNAL | MSG_EOR;

}  // namespace

Wire::Wire(const Stream& stream, const Layout& layout, std::byte* own, std::byte* theirs)
    : in(stream, layout, own, theirs, out), out(stream, layout, own), own_(Layout::header(own)),
      theirs_(Layout::header(theirs)) {}

void Wire::attach(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // nothing on what is no TCP
    if (const int unused = attached_.exchange(fd); unused >= 0) ::close(unused);
    ring(own_);
}

bool Wire::connected() {
    if (attached_.load(std::memory_order_relaxed) >= 0) {
        const int fd = attached_.exchange(-1);
        if (fd_ >= 0)
            ::close(fd);
        else
            fd_ = fd;
    }
    return fd_ >= 0;
}

void Wire::farewell(State state, std::uint64_t frames) {
    farewell_.store(frames << 2 | static_cast<std::uint64_t>(state));
    show_farewell();
    ring(own_);
}

// Whoever is later of the control thread with a farewell and the driver with the last frame before it.
void Wire::show_farewell() {
    const std::uint64_t word = farewell_.load();
    if (word == 0 || received_.load() < word >> 2) return;
    const auto state = static_cast<State>(word & 3);
    State shown = theirs_.state.load();
    while (shown < state && !theirs_.state.compare_exchange_weak(shown, state)) {}
}

bool Wire::pump() {
    if (!connected() || broken()) return false;
    std::array<iovec, 2> parts;
    std::size_t total = 0;
    while (total < kTurn) {
        const int used = in.room(parts);
        const std::size_t asked = parts[0].iov_len + (used > 1 ? parts[1].iov_len : 0);
        const ssize_t got = used > 1 ? readv(fd_, parts.data(), used) : recv(fd_, parts[0].iov_base, parts[0].iov_len, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) break;
        if (got <= 0) {
            fail(got < 0 ? "" : "the other end hung up", got < 0 ? errno : 0);
            break;
        }
        total += static_cast<std::size_t>(got);
        if (const char* why = in.took(static_cast<std::size_t>(got))) {
            fail(why);
            break;
        }
        if (static_cast<std::size_t>(got) < asked) break;
    }
    if (total == 0) return false;
    received_.store(in.frames());
    if (farewell_.load() != 0) show_farewell();
    return true;
}

void Wire::flush(bool waiting) {
    if (broken() || (out.idle() && (!waiting || out.said_all())) || !connected()) return;
    Outgoing::Parts parts;
    for (;;) {
        out.gather(waiting);
        const int used = out.parts(parts);
        if (used == 0) break;
        msghdr message{};
        message.msg_iov = parts.data();
        message.msg_iovlen = static_cast<std::size_t>(used);
        const ssize_t gave = used > 1 ? sendmsg(fd_, &message, kNow)
                                      : send(fd_, parts[0].iov_base, parts[0].iov_len, kNow);
        if (gave < 0 && errno == EINTR) continue;
        if (gave < 0) {
            if (errno != EAGAIN) fail("", errno);
            break;
        }
        out.gave(static_cast<std::size_t>(gave));
    }
    sent_.store(out.gone() + (out.delivered() ? 0 : out.waiting()), std::memory_order_release);
}

void Wire::fail(const char* why, int error) {
    why_ = why;
    error_ = error;
    since_ = Clock::now();
}

void Wire::forsake() {
    in.withdraw();
    if (broken() || !out.lends()) return;
    fail("this rank gave up in the middle of a message");
    if (fd_ >= 0) shutdown(fd_, SHUT_RDWR);
}

std::string Wire::why() const { return error_ != 0 ? std::strerror(error_) : why_; }

void Wire::close(Clock::time_point limit) {
    while (!delivered() && !died(theirs_) && Clock::now() < limit) {
        if (!connected()) std::this_thread::sleep_for(kDial);
        flush();
        pump();
    }
    if (connected()) {
        sent_.store(out.gone(), std::memory_order_release);
        shutdown(fd_, SHUT_WR);
        drain(limit);
        ::close(std::exchange(fd_, -1));
    }
    if (const int unused = attached_.exchange(-1); unused >= 0) ::close(unused);
}

// A socket that is closed with something unread is reset, and takes along what has not reached the other machine yet.
void Wire::drain(std::chrono::steady_clock::time_point limit) {
    std::array<std::byte, 4096> unread;
    int waiting = 0;
    while (!broken() && !died(theirs_) && Clock::now() < limit) {
        const ssize_t got = recv(fd_, unread.data(), unread.size(), 0);
        if (got > 0) continue;
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) return;
        if (ioctl(fd_, SIOCOUTQ, &waiting) != 0 || waiting == 0) return;
        pollfd more{fd_, POLLIN, 0};
        poll(&more, 1, kDrain);
    }
}

}  // namespace collx
