#include "verdict.hpp"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "wait.hpp"

namespace collx {

void copy_text(char (&target)[kText], std::string_view text) {
    std::size_t length = std::min(text.size(), kText - 1);
    while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;  // no half characters
    target[text.copy(target, length)] = 0;
}

Verdict::Verdict(std::uint32_t rank, const Layout& layout, std::vector<std::byte*> regions, std::vector<int> pidfds,
                 Far* far)
    : rank_(rank), layout_(layout), regions_(std::move(regions)), pidfds_(std::move(pidfds)), far_(far),
      word_(Layout::header(regions_[far == nullptr ? 0 : rank]).verdict) {}

bool Verdict::look(bool thorough) {
    if (decided() || (far_ != nullptr && adopt())) return true;
    if (thorough) ask_kernel();
    for (std::byte* region : regions_)
        if (died(Layout::header(region))) return propose_failed(), true;
    return false;
}

// Acts on another rank's proposal, where one is there.
bool Verdict::adopt() {
    for (std::uint32_t peer = 0; peer < layout_.size; ++peer) {
        if (Layout::header(regions_[peer]).proposed.load(std::memory_order_acquire) == 0) continue;
        std::uint32_t none = 0;
        word_.compare_exchange_strong(none, peer + 1, std::memory_order_acq_rel);
        return true;
    }
    if (const std::string trouble = far_->trouble(); !trouble.empty()) propose(Why::gave_up, trouble);
    return decided();
}

// The death notice that comes only after the victim's memory is freed, for a rank whose keeper could not tell.
// Nobody writes to a dead rank's header any more, so everybody may be told through it.
void Verdict::ask_kernel() {
    std::vector<pollfd> asked;
    for (const int fd : pidfds_) asked.push_back({fd, POLLIN, 0});
    if (asked.empty() || poll(asked.data(), asked.size(), 0) <= 0) return;
    for (std::size_t peer = 0; peer < asked.size(); ++peer) {
        Header& header = Layout::header(regions_[peer]);
        if ((asked[peer].revents & POLLIN) != 0 && header.state.load(std::memory_order_acquire) != State::departed)
            header.life.fetch_or(kDied, std::memory_order_release);
    }
}

void Verdict::propose(Why why, std::string_view text) {
    {
        const std::lock_guard lock(writing_);
        if (decided()) return;
        Proposal& mine = Layout::header(regions_[rank_]).proposal;
        mine.why = why;
        copy_text(mine.text, text);
        std::uint32_t none = 0;
        if (word_.compare_exchange_strong(none, rank_ + 1, std::memory_order_acq_rel) && far_ != nullptr) {
            Layout::header(regions_[rank_]).proposed.store(1, std::memory_order_release);
            far_->tell(Tells::proposal, static_cast<std::uint32_t>(why), 0, mine.text);
        }
    }
    wake_all();
}

void Verdict::propose_failed(int left) {
    {
        const std::lock_guard lock(writing_);
        if (decided()) return;
        count(0, false, left);
    }
    propose(Why::failed, far_ == nullptr ? "" : far_->losses());
}

void Verdict::count(std::uint32_t vote, bool departed, int also) {
    for (bool any = true; any;) {  // until a look at all of them finds nobody new
        any = false;
        for (std::uint32_t peer = 0; peer < layout_.size; ++peer) {
            std::atomic<std::uint32_t>& counted = layout_.acknowledged(regions_[rank_], peer).gone;
            const bool so = departed ? gone(peer) : died(Layout::header(regions_[peer]));
            if (counted.load(std::memory_order_relaxed) != 0 || !(so || static_cast<int>(peer) == also)) continue;
            counted.store(vote + 1, std::memory_order_release);
            if (far_ != nullptr) far_->tell(Tells::gone, peer, vote + 1);
            any = true;
        }
    }
}

std::vector<std::uint32_t> Verdict::counted(std::uint32_t voter, std::uint32_t vote) const {
    std::vector<std::uint32_t> ranks;
    for (std::uint32_t peer = 0; peer < layout_.size; ++peer) {
        const std::uint32_t when = layout_.acknowledged(regions_[voter], peer).gone.load(std::memory_order_acquire);
        if (when != 0 && when <= vote + 1) ranks.push_back(peer);
    }
    return ranks;
}

bool Verdict::gone(std::uint32_t peer) const {
    const Header& header = Layout::header(regions_[peer]);
    if (died(header) || header.state.load(std::memory_order_acquire) == State::departed) return true;
    return far_ != nullptr && far_->departed(peer);  // whatever it sent before, which nobody takes in any more
}

void Verdict::wake_all() const {
    before_ringing();
    for (std::byte* region : regions_)
        if (Layout::header(region).asleep.load(std::memory_order_relaxed) != 0) ring(Layout::header(region));
}

}  // namespace collx
