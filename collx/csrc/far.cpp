#include "far.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "control.hpp"
#include "wait.hpp"

namespace collx {

namespace {

constexpr std::chrono::milliseconds kMoment{300};    // to wait for an answer
constexpr std::chrono::milliseconds kFirstAsk{5};    // of waiting until the peers are asked,
constexpr std::chrono::milliseconds kRarestAsk{2000};  // and how rarely in the end

std::int64_t nanoseconds(Clock::time_point time) { return time.time_since_epoch().count(); }

}  // namespace

Far::Far(std::shared_ptr<Control> connections, std::uint32_t number, std::uint32_t job, std::uint32_t own_rank,
         const Layout& layout, std::vector<std::uint32_t> numbers, std::vector<bool> are_far)
    : communicator(number), epoch(job), rank(own_rank), members(std::move(numbers)), far(std::move(are_far)),
      wires(members.size()), control_(std::move(connections)), layout_(layout), heard_(members.size()) {}

void Far::enter(std::vector<std::byte*> regions) {
    regions_ = std::move(regions);
    control_->enter(*this);
}

void Far::leave() {
    if (!regions_.empty()) control_->leave(*this);
}

// -- telling ------------------------------------------------------------------------------------------

void Far::tell(Tells kind, std::uint32_t subject, std::uint64_t value, std::string_view text) {
    ControlHead head;
    head.kind = kind;
    head.communicator = communicator;
    head.subject = subject;
    head.value = value;
    char body[kText]{};
    text.copy(body, kText - 1);
    const std::lock_guard lock(control_->lock_);
    for (std::size_t peer = 0; peer < members.size(); ++peer)
        if (far[peer]) control_->post(members[peer], head, body);
}

void Far::tell_state(State state) {
    ControlHead head;
    head.kind = Tells::farewell;
    head.communicator = communicator;
    head.subject = static_cast<std::uint32_t>(state);
    const std::lock_guard lock(control_->lock_);
    for (std::size_t peer = 0; peer < members.size(); ++peer) {
        if (!far[peer]) continue;
        head.value = wires[peer] != nullptr ? wires[peer]->sent() : 0;
        control_->post(members[peer], head);
    }
}

// -- data connections ---------------------------------------------------------------------------------

void Far::want(std::size_t peer) { control_->want(communicator, members[peer]); }

void Far::arm(int fd, std::uint32_t events) {
    epoll_event event{events | EPOLLONESHOT, {.u64 = Control::kData | communicator}};
    if (epoll_ctl(control_->epoll_, EPOLL_CTL_MOD, fd, &event) != 0)
        epoll_ctl(control_->epoll_, EPOLL_CTL_ADD, fd, &event);
}

void Far::disarm(int fd) { epoll_ctl(control_->epoll_, EPOLL_CTL_DEL, fd, nullptr); }

std::string Far::trouble() const {
    return troubled_.load(std::memory_order_acquire) ? trouble_ : std::string();
}

// -- asking -------------------------------------------------------------------------------------------

void Far::wonder(Clock::time_point now) {
    if (interval_ == interval_.zero()) {
        interval_ = kFirstAsk;
        next_ = now + kFirstAsk;
    }
    if (now < next_) return;
    control_->ask(*this, {});
    interval_ = std::min(interval_ * 2, kRarestAsk);
    next_ = now + interval_;
}

void Far::ask() {
    const std::lock_guard lock(asking_);
    if (Clock::now() - vain_ < kMoment) return;  // many calls may end at once, and each would wait
    if (!control_->ask(*this, kMoment)) vain_ = Clock::now();
}

bool Far::silent(std::size_t peer) const { return far[peer] && control_->silent(members[peer], kMoment / 2); }

bool Far::departed(std::size_t peer) const {
    return heard_[peer].state.load(std::memory_order_acquire) == State::departed;
}

std::string Far::losses() const {
    std::string told;
    for (std::size_t peer = 0; peer < members.size(); ++peer) {
        if (!far[peer] || departed(peer)) continue;
        const std::string why = control_->lost(members[peer]);
        if (!why.empty() && why != Control::kEnded)
            told += (told.empty() ? "rank " : "; rank ") + std::to_string(peer) + " " + why;
    }
    return told;
}

// -- hearing: the control thread ----------------------------------------------------------------------

int Far::rank_of(std::uint32_t member) const {
    const auto found = std::ranges::find(members, member);
    return found == members.end() ? -1 : static_cast<int>(found - members.begin());
}

void Far::wake() const {
    Header& own = header(rank);
    before_ringing();
    if (own.asleep.load(std::memory_order_relaxed) != 0) ring(own);
}

void Far::lost(std::uint32_t peer) {
    if (departed(peer)) return;
    header(peer).life.fetch_or(kDied, std::memory_order_release);
    wake();
}

void Far::fail(std::uint32_t member, const std::string& why) {
    if (troubled_.load(std::memory_order_relaxed)) return;
    trouble_ = "it cannot connect to rank " + std::to_string(rank_of(member)) + ": " + why;
    troubled_.store(true, std::memory_order_release);
    wake();
}

bool Far::take(std::uint32_t peer, const ControlFrame& frame, std::int64_t asked) {
    switch (frame.head.kind) {
        case Tells::query:
            answer(peer);
            return true;
        case Tells::record:
            take_record(peer, frame.words<RecordWords>());
            return true;
        case Tells::answer:
            if (frame.head.subject != 0) take_answer(peer, frame.words<AnswerWords>(), asked);
            return true;
        default:
            return take_word(peer, frame) && (wake(), true);
    }
}

bool Far::take_word(std::uint32_t peer, const ControlFrame& frame) {
    constexpr auto release = std::memory_order_release;
    const auto& [subject, value] = std::tie(frame.head.subject, frame.head.value);
    const auto word = static_cast<std::uint32_t>(value);
    Header& theirs = header(peer);
    if (frame.head.kind == Tells::proposal) {
        if (subject == 0 || subject > static_cast<std::uint32_t>(Why::revoked)) return false;
        if (theirs.proposed.load(std::memory_order_relaxed) != 0) return true;
        theirs.proposal.why = static_cast<Why>(subject);
        copy_text(theirs.proposal.text, frame.text());
        theirs.proposed.store(1, release);
        return true;
    }
    if (frame.head.kind == Tells::farewell) {
        const auto state = static_cast<State>(subject);
        if (state != State::leaving && state != State::departed) return false;
        heard_[peer].state.store(state, release);
        wires[peer]->farewell(state, value);
        return true;
    }
    if (frame.head.kind == Tells::connected) return theirs.connected.store(word, release), true;
    if (frame.head.kind == Tells::regret) {
        if (theirs.regretted.load(std::memory_order_relaxed) != 0) return true;
        copy_text(theirs.regret, frame.text());
        theirs.regretted.store(word, release);
        return true;
    }
    if (subject >= members.size()) return false;
    switch (frame.head.kind) {
        case Tells::gone:
            return layout_.acknowledged(regions_[peer], subject).gone.store(word, release), true;
        case Tells::left_out:
            return layout_.acknowledged(regions_[peer], subject).left_out.store(word, release), true;
        case Tells::members:
            return layout_.attempt(regions_[peer], subject).members.store(word, release), true;
        case Tells::outcome:
            return layout_.attempt(regions_[peer], subject).outcome.store(word, release), true;
        default:
            return false;
    }
}

// This rank's newest calls, from the last one that the peer knows on, as that may have gone on; and what it waits for.
void Far::answer(std::uint32_t peer) {
    const Flight& own = header(rank).flight;
    std::uint64_t& shown = heard_[peer].shown;
    ControlHead head;
    head.communicator = communicator;
    head.kind = Tells::record;
    const std::uint64_t last = newest(own), kept = last < kRecords ? 1 : last - kRecords + 1;
    const std::int64_t now = nanoseconds(Clock::now());
    for (std::uint64_t at = std::max(shown, kept); at <= last; ++at) {
        const auto call = recorded(own, at);
        if (!call) continue;
        RecordWords words{call->sequence, call->chain, static_cast<std::uint64_t>(call->progress), call->started - now,
                          call->ended == 0 ? 0 : call->ended - now, {}};
        std::memcpy(words.traits, &call->traits, sizeof call->traits);
        control_->post(members[peer], head, &words);
    }
    shown = last;
    AnswerWords words{};
    words.blocked = own.blocked.load(std::memory_order_acquire);
    words.since = own.since.load(std::memory_order_relaxed) - now;
    words.looked = own.looked.load(std::memory_order_relaxed) - now;
    words.arrival = own.arrival.load(std::memory_order_acquire);
    for (std::size_t at = 0; at < kHistory; ++at) words.chains[at] = own.chains[at].load(std::memory_order_acquire);
    head.kind = Tells::answer;
    head.subject = 1;
    control_->post(members[peer], head, &words);
}

void Far::take_record(std::uint32_t peer, const RecordWords& words) const {
    constexpr auto release = std::memory_order_release;
    Record& record = header(peer).flight.records[words.sequence % kRecords];
    record.sequence.store(0, std::memory_order_relaxed);
    for (std::size_t at = 0; at < Traits::kWords; ++at) record.traits[at].store(words.traits[at], release);
    record.chain.store(words.chain, release);
    record.progress.store(static_cast<Progress>(words.progress), release);
    const std::int64_t now = nanoseconds(Clock::now());
    record.started.store(now + words.started, release);
    record.ended.store(words.ended == 0 ? 0 : now + words.ended, release);
    record.sequence.store(words.sequence, release);
}

// A wait is taken to have begun as late, and a look in vain as early, as can be: who concludes something from them is
// right then, however long the question and its answer were on the way.
void Far::take_answer(std::uint32_t peer, const AnswerWords& words, std::int64_t asked) {
    Flight& flight = header(peer).flight;
    wires[peer]->arrived(words.arrival, words.chains);
    flight.since.store(words.since + nanoseconds(Clock::now()), std::memory_order_relaxed);
    flight.looked.store(words.looked + asked, std::memory_order_relaxed);
    flight.blocked.store(words.blocked, std::memory_order_release);
    heard_[peer].asked.store(asked, std::memory_order_release);
}

}  // namespace collx
