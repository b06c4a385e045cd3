#include "control.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include "forks.hpp"

namespace collx {

namespace {

constexpr std::chrono::milliseconds kBeat{500};  // from one sign of life to the next
// How long to send them to a peer that sends none, as it is stopped: what it does not read must not fill its kernel's buffer,
// or the kernel here would take it for lost.
constexpr std::chrono::seconds kMute{60};
constexpr int kUnreachable = 3000;  // ms that the kernel tries to reach a peer's host
constexpr std::chrono::milliseconds kFarewell{500};
constexpr const char* kNonsense = "is lost: it told of what is not in that communicator";

void set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

// Nothing of this on what is no TCP.
void prepare(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnreachable);
    set(fd, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1);  // a lossy network is tried often before that time is up
}

// Whether the other end of a connection has been closed and nothing was sent: by a rank that has left meanwhile, of a
// communicator that this one may have left as well.
bool ended(int fd) {
    std::byte first;
    return recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 0 && ::close(fd) == 0;
}

std::string loss(int error) {
    if (error == 0) return Control::kEnded;
    if (error == ECONNRESET || error == EPIPE) return "is lost: its connection was reset";
    return std::string("cannot be reached any more: ") + std::strerror(error);
}

}  // namespace

Control::Control(std::uint32_t own_rank, std::uint32_t size)
    : rank(own_rank), epoll_(epoll_create1(EPOLL_CLOEXEC)), wanting_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      waking_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), peers_(size), process_(getpid()) {
    if (epoll_ < 0 || wanting_ < 0 || waking_ < 0)
        throw std::runtime_error(std::string("no descriptors for the control connections: ") + std::strerror(errno));
    epoll_event event{EPOLLIN, {.u64 = kWake}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, waking_, &event);
    Forks::watch(*this);
    sigset_t all, before;  // signals are for the program's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::make_unique<std::thread>(&Control::run, this);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Control::~Control() {
    close();
    Forks::forget(*this);
    if (getpid() == process_)
        for (const int fd : {epoll_, wanting_, waking_}) ::close(fd);
    else
        static_cast<void>(thread_.release());  // it is not in this process
}

// -- connections --------------------------------------------------------------------------------------

void Control::add(std::uint32_t peer, int fd) {
    const std::lock_guard lock(lock_);
    Peer& other = peers_.at(peer);
    if (other.fd >= 0 || !other.lost.empty() || closing_) {
        ::close(fd);
        throw std::invalid_argument("there is a control connection to rank " + std::to_string(peer) + " already");
    }
    prepare(fd);
    other.fd = fd;
    other.heard = other.told = Clock::now();
    epoll_event event{EPOLLIN, {.u64 = peer}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
}

std::string Control::lost(std::uint32_t peer) const {
    const std::lock_guard lock(lock_);
    return peers_.at(peer).lost;
}

void Control::lose(std::uint32_t peer, const std::string& why) {
    Peer& other = peers_[peer];
    if (other.fd < 0) return;
    ::close(other.fd);
    other.fd = -1;
    other.lost = why;
    other.asked = 0;
    for (const auto& [communicator, far] : entered_)
        if (const int place = far->rank_of(peer); place >= 0) far->lost(static_cast<std::uint32_t>(place));
    for (auto& [communicator, others] : left_) others.erase(peer);
    std::erase_if(left_, [](const auto& one) { return one.second.empty(); });
    changed_.notify_all();
}

// What has been told goes out before the end of the connection, if the peer reads it and then ends it as well: a process
// that ended with anything unread would reset the connection, and take back what it said last.
void Control::close() {
    if (getpid() != process_) return;
    {
        std::unique_lock lock(lock_);
        if (closing_) return;
        closing_ = true;
        for (const Peer& peer : peers_)
            if (peer.fd >= 0) shutdown(peer.fd, SHUT_WR);
        changed_.wait_for(lock, kFarewell, [&] { return std::ranges::all_of(peers_, [](const Peer& peer) { return peer.fd < 0; }); });
        ended_ = true;
    }
    eventfd_write(waking_, 1);
    thread_->join();
    for (std::uint32_t peer = 0; peer < peers_.size(); ++peer) lose(peer, kEnded);
    for (const auto& [key, fd] : unclaimed_) ::close(fd);
    unclaimed_.clear();
}

// -- communicators ------------------------------------------------------------------------------------

void Control::enter(Far& far) {
    const std::lock_guard lock(lock_);
    entered_[far.communicator] = &far;
    for (const auto& [peer, frame] : early_[far.communicator])
        if (!take(peer, frame)) lose(peer, kNonsense);
    early_.erase(far.communicator);
    for (std::size_t place = 0; place < far.members.size(); ++place) {
        if (!far.far[place]) continue;
        const auto found = unclaimed_.find({far.communicator, far.members[place]});
        if (found != unclaimed_.end()) far.wires[place]->attach(found->second), unclaimed_.erase(found);
        if (!peers_.at(far.members[place]).lost.empty()) far.lost(static_cast<std::uint32_t>(place));
    }
}

// What a rank tells of a communicator ends with its farewell. As long as others have not said theirs the number is kept,
// so that nothing is laid aside for a communicator that does not come.
void Control::leave(Far& far) {
    const std::lock_guard lock(lock_);
    if (entered_.erase(far.communicator) == 0) return;
    std::set<std::uint32_t> others;
    for (std::size_t place = 0; place < far.members.size(); ++place)
        if (far.far[place] && !far.departed(place) && peers_[far.members[place]].lost.empty())
            others.insert(far.members[place]);
    if (!others.empty()) left_.emplace(far.communicator, std::move(others));
    for (auto* made : {&asked_for_, &attached_})
        made->erase(made->lower_bound({far.communicator, 0}), made->upper_bound({far.communicator, UINT32_MAX}));
}

bool Control::holds(std::uint32_t communicator) const {
    const std::lock_guard lock(lock_);
    return entered_.contains(communicator) || left_.contains(communicator);
}

// -- data connections ---------------------------------------------------------------------------------

void Control::want(std::uint32_t communicator, std::uint32_t peer) {
    const std::lock_guard lock(lock_);
    if (rank < peer) return connect(communicator, peer);
    ControlHead head;
    head.kind = Tells::connect;
    head.communicator = communicator;
    post(peer, head);
}

void Control::connect(std::uint32_t communicator, std::uint32_t peer) {
    if (!asked_for_.insert({communicator, peer}).second) return;
    wants_.emplace_back(communicator, peer);
    eventfd_write(wanting_, 1);
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> Control::wants() {
    const std::lock_guard lock(lock_);
    eventfd_t count = 0;
    eventfd_read(wanting_, &count);
    return std::exchange(wants_, {});
}

void Control::attach(std::uint32_t communicator, std::uint32_t peer, int fd) {
    const std::lock_guard lock(lock_);
    const auto found = entered_.find(communicator);
    const int place = found == entered_.end() ? -1 : found->second->rank_of(peer);
    const bool far = place >= 0 && found->second->far[static_cast<std::size_t>(place)];
    const bool awaited = found == entered_.end() && !left_.contains(communicator) && !closing_;
    if ((!far && !awaited) || !attached_.insert({communicator, peer}).second) return static_cast<void>(::close(fd));
    if (far) return found->second->wires[static_cast<std::size_t>(place)]->attach(fd);
    std::erase_if(unclaimed_, [&](const auto& other) { return ended(other.second) && attached_.erase(other.first) > 0; });
    unclaimed_[{communicator, peer}] = fd;
}

void Control::fail(std::uint32_t communicator, std::uint32_t peer, const std::string& why) {
    const std::lock_guard lock(lock_);
    const auto found = entered_.find(communicator);
    if (found != entered_.end()) found->second->fail(peer, why);
}

// -- sending, with the lock held ----------------------------------------------------------------------

void Control::post(std::uint32_t peer, ControlHead head, const void* body) {
    Peer& other = peers_.at(peer);
    if (other.fd < 0 || closing_) return;
    head.length = body_length(head.kind).value();
    const auto* bytes = reinterpret_cast<const std::byte*>(&head);
    other.out.insert(other.out.end(), bytes, bytes + sizeof head);
    const auto* more = static_cast<const std::byte*>(body);
    if (head.length > 0) other.out.insert(other.out.end(), more, more + head.length);
    other.told = Clock::now();
    flush(peer);
}

// A connection that cannot send is left for the thread to read to its end: what the peer said last may be in it.
void Control::flush(std::uint32_t peer) {
    Peer& other = peers_[peer];
    const bool waited = other.waits;
    while (!other.out.empty()) {
        const ssize_t given = send(other.fd, other.out.data(), other.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (given < 0 && errno == EINTR) continue;
        if (given < 0 && errno != EAGAIN) other.out.clear();
        if (given <= 0) break;
        other.out.erase(other.out.begin(), other.out.begin() + given);
    }
    other.waits = !other.out.empty();
    if (other.waits == waited) return;
    epoll_event event{EPOLLIN | (other.waits ? static_cast<std::uint32_t>(EPOLLOUT) : 0u), {.u64 = peer}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, other.fd, &event);
}

// -- asking -------------------------------------------------------------------------------------------

bool Control::ask(const Far& far, Clock::duration patience) {
    std::unique_lock lock(lock_);
    query(far, patience > patience.zero());
    return patience == patience.zero() || changed_.wait_for(lock, patience, [&] { return answered(far); });
}

// About every communicator that this process shares with them, as they may be late in one because of another.
// A peer that has not answered is asked `again` only where somebody waits for the answer: it may be stopped.
void Control::query(const Far& far, bool again) {
    ControlHead head;
    head.kind = Tells::query;
    for (std::size_t place = 0; place < far.members.size(); ++place) {
        Peer& peer = peers_.at(far.members[place]);
        if (!far.far[place] || peer.fd < 0 || (peer.asked > 0 && !again)) continue;
        if (peer.asked == 0) peer.asked_at = Clock::now();
        for (const auto& [communicator, other] : entered_) {
            if (other->rank_of(far.members[place]) < 0) continue;
            ++peer.asked;
            head.communicator = communicator;
            post(far.members[place], head);
        }
    }
}

bool Control::answered(const Far& far) const {
    for (std::size_t place = 0; place < far.members.size(); ++place)
        if (far.far[place] && peers_.at(far.members[place]).asked > 0) return false;
    return true;
}

bool Control::silent(std::uint32_t peer, Clock::duration longer) const {
    const std::lock_guard lock(lock_);
    return peers_.at(peer).asked > 0 && Clock::now() - peers_[peer].asked_at > longer;
}

// -- the thread ---------------------------------------------------------------------------------------

void Control::run() {
    std::array<epoll_event, 32> events;
    for (auto next = Clock::now() + kBeat;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now()).count() + 1;
        const int count = epoll_wait(epoll_, events.data(), events.size(), static_cast<int>(std::max<long>(left, 0)));
        const std::lock_guard lock(lock_);
        if (ended_) return;
        for (const epoll_event& event : std::span(events.data(), static_cast<std::size_t>(std::max(count, 0)))) {
            const std::uint64_t what = event.data.u64;
            if (what == kWake) continue;
            if ((what & kData) != 0) {
                const auto found = entered_.find(static_cast<std::uint32_t>(what));
                if (found != entered_.end()) found->second->wake();
                continue;
            }
            const auto peer = static_cast<std::uint32_t>(what);
            if (peers_[peer].fd >= 0 && (event.events & EPOLLOUT) != 0) flush(peer);
            if (peers_[peer].fd >= 0 && (event.events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) read(peer);
        }
        if (Clock::now() < next) continue;
        beat();
        next = Clock::now() + kBeat;
    }
}

void Control::read(std::uint32_t peer) {
    std::array<std::byte, 16 << 10> bytes;
    const ssize_t got = recv(peers_[peer].fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return lose(peer, loss(got < 0 ? errno : 0));
    peers_[peer].heard = Clock::now();
    const std::string wrong = peers_[peer].frames.feed({bytes.data(), static_cast<std::size_t>(got)},
                                                       [&](const ControlFrame& frame) { return take(peer, frame); });
    if (!wrong.empty()) lose(peer, "is lost: it sent " + wrong);
}

bool Control::take(std::uint32_t peer, const ControlFrame& frame) {
    const auto& [kind, communicator] = std::tie(frame.head.kind, frame.head.communicator);
    Peer& other = peers_[peer];
    if (kind == Tells::beat) return true;
    if (kind == Tells::connect) return left_.contains(communicator) || (connect(communicator, peer), true);
    const auto found = entered_.find(communicator);
    const int place = found == entered_.end() ? -1 : found->second->rank_of(peer);
    const auto asked = other.asked_at.time_since_epoch().count();
    bool sense = true;
    if (place >= 0)
        sense = found->second->far[static_cast<std::size_t>(place)] && found->second->take(static_cast<std::uint32_t>(place), frame, asked);
    else
        keep(peer, frame);
    if (kind == Tells::answer && other.asked > 0 && --other.asked == 0) changed_.notify_all();
    return sense;
}

// For a communicator that this process enters later, or has left.
void Control::keep(std::uint32_t peer, const ControlFrame& frame) {
    switch (frame.head.kind) {
        case Tells::query: {
            ControlHead head;
            head.kind = Tells::answer;
            head.communicator = frame.head.communicator;
            return post(peer, head, frame.body);
        }
        case Tells::record:
        case Tells::answer:
            return;
        default:
            break;
    }
    const auto left = left_.find(frame.head.communicator);
    if (left == left_.end()) return early_[frame.head.communicator].emplace_back(peer, frame), void();
    if (frame.head.kind != Tells::farewell || static_cast<State>(frame.head.subject) != State::departed) return;
    left->second.erase(peer);
    if (left->second.empty()) left_.erase(left);
}

void Control::beat() {
    for (std::uint32_t peer = 0; peer < peers_.size(); ++peer) {
        const auto now = Clock::now();
        const bool mute = now - peers_[peer].heard > kMute;
        if (now - peers_[peer].told >= (mute ? Clock::duration(kMute) : Clock::duration(kBeat) / 2)) post(peer, {});
    }
}

}  // namespace collx
