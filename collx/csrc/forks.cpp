#include "forks.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "control.hpp"

namespace collx {

namespace {

std::mutex watching;
std::vector<Control*> watched;

}  // namespace

void Forks::watch(Control& control) {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(&Forks::before, &Forks::after, &Forks::in_child); });
    const std::lock_guard lock(watching);
    watched.push_back(&control);
}

void Forks::forget(Control& control) {
    const std::lock_guard lock(watching);
    std::erase(watched, &control);
}

// No thread may be in the middle of anything when the child gets its copy.
void Forks::before() {
    watching.lock();
    for (Control* control : watched) control->lock_.lock();
}

void Forks::after() {
    for (Control* control : watched) control->lock_.unlock();
    watching.unlock();
}

void Forks::in_child() {
    for (Control* control : watched) {
        for (Control::Peer& peer : control->peers_)
            if (const int fd = std::exchange(peer.fd, -1); fd >= 0) close(fd);
        for (const auto& [key, fd] : control->unclaimed_) close(fd);
        control->unclaimed_.clear();
        for (const int fd : {control->epoll_, control->wanting_, control->waking_}) close(fd);
    }
    after();
    watched.clear();  // by the time that the child forks, those descriptors may be others
}

}  // namespace collx
