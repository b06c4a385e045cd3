// How the driver of an endpoint moves what is under way, and what it makes of peers that left.
#include <algorithm>
#include <cstdio>
#include <new>
#include <utility>

#include "endpoint.hpp"

namespace collx {

namespace {

constexpr std::chrono::seconds kSoon{5};  // a deadline so near may be what a program waits for: it is left to tell

}  // namespace

// Moves everything under way forward until `goal` ends, or its caller's `deadline` passes.
Outcome Endpoint::drive(Task& goal, Kind kind, Clock::time_point deadline, Grip* grip) {
    Outcome left;
    Waiter waiter(*links_.headers[rank_], &verdict, patience_, interrupted_, &seat_);
    while (!goal.finished && left) {
        if (grip != nullptr && waiter.lasts()) {
            grip->let_go();
            grip = nullptr;
        }
        left = turn(waiter, &goal, kind, deadline);
    }
    // The others wait for what this rank has sent, and nobody else makes it go. It may need a connection first, which
    // another thread makes.
    if (grip != nullptr && unsent()) grip->let_go();
    while (goal.finished && goal.outcome && left && unsent()) left = turn(waiter, nullptr, Kind::queued, deadline);
    recorder_.unblock();
    return goal.finished && (left || !unsent()) ? goal.outcome : left;
}

// One look at everything, and where nothing could be done one turn of waiting. What it returns is why a driver
// must leave a goal that goes on without it.
Outcome Endpoint::turn(Waiter& waiter, Task* goal, Kind kind, Clock::time_point deadline) {
    if (incoming_.load(std::memory_order_acquire)) adopt();
    if (closing_.load(std::memory_order_acquire)) {
        end(goal, {Status::closed, -1});
        return {Status::closed, -1};
    }
    if (pass(goal, kind)) {
        ++epoch_;
        waiter.progressed();
        recorder_.unblock();
        if (far_ != nullptr) far_->restart();
        return {};
    }
    if (!links_.wires.none() && links_.drowsy()) links_.wires.arm();
    const Outcome why = waiter.turn(earliest(goal, deadline));
    switch (why.status) {
        case Status::ok:
            if (waiter.looked()) {
                if (!links_.wires.none()) look_at_wires();
                compare_calls(goal);
                if (show_wait(goal, kind, deadline)) compare_communicators(goal);
                end_departed(goal);
                if (far_ != nullptr && links_.drowsy()) far_->wonder(Clock::now());
            }
            return {};
        case Status::timed_out:
            expire(goal);
            return Clock::now() >= deadline ? why : Outcome{};
        case Status::interrupted:
            return why;
        default:
            end(goal, why);
            return {};
    }
}

// Lets every call do what it can: the oldest collective, all messages, and the caller's own call.
bool Endpoint::pass(Task* goal, Kind kind) {
    bool any = false;
    if (kind == Kind::collective)
        any |= step(*goal);
    else if (!collectives_.empty())
        any |= step(*collectives_.front());
    for (const auto& task : mails_) any |= step(*task);
    if (kind == Kind::mail) any |= step(*goal);
    if (!mailbox_.matched.empty()) any |= acknowledge();
    links_.ring_touched();
    if (!links_.wires.none()) {
        links_.wires.flush(!any);
        if (goal == nullptr || !goal->finished) any |= links_.wires.pump();
        if (leaving_.load(std::memory_order_relaxed)) announce_leaving();
    }
    if (under_way_.load(std::memory_order_relaxed) > 0) settle();
    return any;
}

bool Endpoint::step(Task& task) {
    try {
        return task.step(links_);
    } catch (const std::bad_alloc&) {
        task.give_up({Status::no_memory, -1});
        return true;
    }
}

// Tells ranks that wait for it that a receive was matched with their messages.
bool Endpoint::acknowledge() {
    for (const Mailbox::Matched& matched : std::exchange(mailbox_.matched, {})) {
        auto task = std::make_shared<SendTask>(mailbox_, rank_, matched);
        step(*task);
        if (!task->finished) submit(new_mails_, std::move(task));
    }
    return true;
}

void Endpoint::cancel_as_asked(Task& task) {
    const Cancel asked = task.cancelled.load(std::memory_order_acquire);
    if (asked == Cancel::end) task.give_up({Status::interrupted, -1});
    if (asked != Cancel::recall) return;
    if (task.recallable())
        task.give_up({Status::recalled, -1});
    else
        task.cancelled.store(Cancel::no, std::memory_order_release);
}

// Lets go of what has ended or been cancelled.
void Endpoint::settle() {
    bool any = false;
    const auto ended = [&](const std::shared_ptr<Task>& task) {
        if (!task->finished) cancel_as_asked(*task);
        if (!task->finished) return false;
        if (!task->outcome) task->let_go(links_);
        tell(*task);
        under_way_.fetch_sub(1);
        task->done.store(1, std::memory_order_release);
        return any = true;
    };
    if (incoming_.load(std::memory_order_acquire)) adopt();
    std::erase_if(collectives_, [&](const std::shared_ptr<Task>& task) {
        if (!ended(task)) return false;
        if (!task->outcome) recorder_.fail();
        return true;
    });
    std::erase_if(mails_, ended);
    if (leaving_.load(std::memory_order_relaxed)) announce_leaving();
    if (any && waiting_.load() > 0) announce();
}

void Endpoint::announce_leaving() {
    State running = State::running;
    if (!collectives_.empty() || std::ranges::any_of(mails_, &Task::sends) || incoming_.load()) return;
    links_.wires.flush();
    if (unsent()) return;  // until it has gone; the connection may still have to be made
    if (!links_.headers[rank_]->state.compare_exchange_strong(running, State::leaving)) return;
    verdict.wake_all();
    if (far_ != nullptr) far_->tell_state(State::leaving);
}

// What went wrong on this rank behind its caller's back the others learn at once.
void Endpoint::tell(const Task& task) {
    char seconds[24];
    std::snprintf(seconds, sizeof seconds, "%.3g", std::chrono::duration<double>(task.deadline - task.begun).count());
    switch (task.outcome.status) {
        case Status::timed_out:
            return verdict.propose(Why::gave_up, "TimeoutError: rank " + std::to_string(rank_) + " waited " + seconds +
                                                     " s: " + late(task.outcome.peer));
        case Status::mismatched:
            return verdict.propose(Why::mismatch, explain(task.outcome));
        case Status::no_memory:
            return verdict.propose(Why::gave_up, "it ran out of memory");
        case Status::unreadable:
            return verdict.propose(Why::gave_up, "it can no longer read the memory of rank " + std::to_string(task.outcome.peer));
        case Status::op_failed:
            return verdict.propose(Why::gave_up, "the user's op raised " + task.complaint());
        default:
            return;
    }
}

void Endpoint::for_all(Task* goal, const std::function<void(Task&)>& act) {
    if (incoming_.load(std::memory_order_acquire)) adopt();  // none may begin after what ends them all
    if (goal != nullptr && !goal->finished) act(*goal);
    for (const Tasks* tasks : {&collectives_, &mails_})
        for (const auto& task : *tasks)
            if (task.get() != goal && !task->finished) act(*task);
    settle();
}

// A connection that breaks while both ranks live ends the communicator: what was on its way is lost.
void Endpoint::look_at_wires() {
    const int peer = links_.wires.broken();
    if (peer < 0) return;
    verdict.propose(Why::gave_up, "its connection to rank " + std::to_string(peer) + " broke: " +
                                      links_.wires.to(static_cast<std::size_t>(peer))->why());
}

// Ranks that are in other calls than this one may wait for each other without a message that would tell.
void Endpoint::compare_calls(Task* goal) {
    if (const int peer = recorder_.differing(); peer >= 0) end(goal, {Status::mismatched, peer});
}

// Tells the others whom this rank waits for; true where it makes no call before that wait ends, and no deadline soon.
bool Endpoint::show_wait(const Task* goal, Kind kind, Clock::time_point deadline) {
    const bool queued = goal == nullptr || kind == Kind::queued;
    const Task* collective = kind == Kind::collective ? goal : collectives_.empty() ? nullptr : collectives_.front().get();
    if (collective != nullptr && (queued || collective == goal)) {
        const bool waited_for = kind == Kind::collective || std::ranges::any_of(collectives_, [&](const auto& task) {
                                    return task.get() == goal;
                                });
        const bool lasts = kChecked && waited_for && collective->blocked_on >= 0 && links_.drowsy() &&
                           earliest(goal, deadline) - Clock::now() > kSoon && stuck(place_);
        recorder_.block(recorder_.sequence(), lacked(*collective),
                        (lasts ? Recorder::kStuck : 0) | (collective->until_arrival ? Recorder::kArrival : 0));
        return lasts;
    }
    if (goal != nullptr) recorder_.block(kInMessage, goal->blocked_on, 0);
    return false;
}

// Ranks that are in different communicators may wait for each other for ever.
void Endpoint::compare_communicators(Task* goal) {
    crossing_ = crossed(place_);
    if (!crossing_.empty()) end(goal, {Status::mismatched, -1});
}

std::string Endpoint::explain(const Outcome& mismatch) const {
    if (!crossing_.empty()) return crossing_;
    if (far_ != nullptr) far_->ask();
    const std::string told = recorder_.difference(static_cast<std::uint32_t>(mismatch.peer));
    if (!told.empty()) return told;
    const auto mine = recorded(links_.headers[rank_]->flight, recorder_.sequence());
    const std::string here = "rank " + std::to_string(rank_) + " in " + (mine ? mine->traits.collective : "a call") +
                             " #" + std::to_string(recorder_.sequence());
    const std::string there = "rank " + std::to_string(mismatch.peer);
    if (mismatch.bytes != mismatch.wanted)
        return here + ": count differs: " + there + " sent " + std::to_string(mismatch.bytes) + " bytes where " +
               std::to_string(mismatch.wanted) + " are received; the counts of all ranks must agree";
    return here + ": " + there + " has sent more or less before than was received: a count differs; the counts of " +
           "all ranks must agree";
}

void Endpoint::end(Task* goal, Outcome why) {
    for_all(goal, [&](Task& task) { task.give_up(why); });
}

void Endpoint::expire(Task* goal) {
    for_all(goal, [this, now = Clock::now()](Task& task) {
        if (now >= task.deadline) task.give_up({Status::timed_out, lacked(task)});
    });
}

// Whom to name as what a task waits for: one that it needs and that has not begun the call, or whom its next step needs.
int Endpoint::lacked(const Task& task) {
    for (std::size_t peer = 0; peer < links_.headers.size(); ++peer)
        if (peer != rank_ && newest(links_.headers[peer]->flight) < recorder_.sequence() && task.needs(links_, peer))
            return static_cast<int>(peer);
    return task.blocked_on;
}

// A rank that has left, or is leaving and sends nothing more, and without which the task cannot end; or -1.
int Endpoint::departed(const Task& task) {
    for (std::size_t peer = 0; peer < links_.headers.size(); ++peer) {
        const State state = links_.headers[peer]->state.load(std::memory_order_acquire);
        if (peer == rank_ || state == State::running || (state == State::leaving && task.sends())) continue;
        if (task.needs(links_, peer)) return static_cast<int>(peer);
    }
    return -1;
}

// Ends calls that need a rank that has left. Seen twice of the same rank with nothing done in between: what it sent is
// used up, and what it has read was noticed.
void Endpoint::end_departed(Task* goal) {
    for_all(goal, [this](Task& task) {
        const int peer = departed(task);
        if (peer < 0) return;
        if (task.departed == peer && task.departed_at == epoch_) {
            const std::string why = left_for(place_, static_cast<std::size_t>(peer));
            if (!why.empty()) crossing_ = why;  // another task may have ended for another rank
            return task.give_up({why.empty() ? Status::departed : Status::mismatched, peer});
        }
        task.departed = peer;
        task.departed_at = epoch_;
    });
}

Clock::time_point Endpoint::earliest(const Task* goal, Clock::time_point deadline) const {
    if (goal != nullptr) deadline = std::min(deadline, goal->deadline);
    for (const auto& task : collectives_) deadline = std::min(deadline, task->deadline);
    for (const auto& task : mails_) deadline = std::min(deadline, task->deadline);
    return deadline;
}

void Endpoint::adopt() {
    const std::lock_guard lock(queue_);
    std::ranges::move(new_collectives_, std::back_inserter(collectives_));
    std::ranges::move(new_mails_, std::back_inserter(mails_));
    new_collectives_.clear();
    new_mails_.clear();
    incoming_.store(false, std::memory_order_release);
}

}  // namespace collx
