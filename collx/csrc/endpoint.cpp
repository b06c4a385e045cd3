#include "endpoint.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace collx {

Endpoint::Endpoint(std::uint32_t rank, const Layout& layout, std::vector<std::byte*> regions, bool oversubscribed,
                   Interrupted interrupted)
    : rank_(rank), chunk_(layout.mail.bytes), patience_(oversubscribed),
      interrupted_(interrupted), process_(getpid()) {
    std::byte* own = regions[rank];
    links_.mailing.resize(layout.size);
    for (std::uint32_t peer = 0; peer < layout.size; ++peer) {
        std::byte* theirs = regions[peer];
        Acknowledged& consumed = layout.acknowledged(theirs, rank);  // by the peer, of what this rank sent
        Acknowledged& consuming = layout.acknowledged(own, peer);
        links_.headers.push_back(&Layout::header(theirs));
        links_.to.emplace_back(Layout::lines(own, layout.collective, peer), own, layout.collective, peer,
                               consumed.collective);
        links_.from.emplace_back(Layout::lines(theirs, layout.collective, rank), theirs, layout.collective,
                                 consuming.collective);
        links_.mail_to.emplace_back(Layout::lines(own, layout.mail, peer), own, layout.mail, peer, consumed.mail);
        links_.mail_from.emplace_back(Layout::lines(theirs, layout.mail, rank), theirs, layout.mail, consuming.mail);
        inboxes_.emplace_back(peer);
    }
}

// -- calls in the caller's thread ---------------------------------------------------------------------

Outcome Endpoint::run(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                      Clock::time_point deadline) {
    Call& shown = links_.headers[rank_]->call;
    shown.collective.store(plan.plan.collective, std::memory_order_relaxed);
    shown.sequence.store(sequence, std::memory_order_relaxed);
    Collective task(plan, input, output, workspace_, sequence, deadline);
    return call(task, Kind::collective);
}

Outcome Endpoint::send(std::size_t peer, std::int64_t tag, const std::byte* data, std::uint64_t bytes,
                       Clock::time_point deadline) {
    if (peer == rank_) {
        deliver(tag, data, bytes);
        return {};
    }
    SendTask task(peer, tag, data, bytes, chunk_, deadline);
    return call(task, Kind::mail);
}

Outcome Endpoint::recv(std::size_t peer, std::int64_t tag, std::byte* data, std::uint64_t bytes,
                       Clock::time_point deadline) {
    RecvTask task(inboxes_[peer], peer, tag, data, bytes, deadline);
    return call(task, Kind::mail);
}

Outcome Endpoint::call(Task& task, Kind kind) {
    if (under_way_.load(std::memory_order_acquire) == 0 && driving_.try_lock()) {
        const std::lock_guard driving(driving_, std::adopt_lock);
        return drive(task, kind, task.deadline);
    }
    const auto driving = take_over();
    return drive(task, kind, task.deadline);
}

// A rank's message to itself needs no lane.
void Endpoint::deliver(std::int64_t tag, const std::byte* data, std::uint64_t bytes) {
    const auto driving = take_over();
    inboxes_[rank_].deliver(tag, data, bytes);
}

// -- calls on the progress thread ----------------------------------------------------------------------

std::shared_ptr<Task> Endpoint::start(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                                      Clock::time_point deadline) {
    auto task = std::make_shared<Collective>(plan, input, output, workspace_, sequence, deadline);
    submit(new_collectives_, task);
    return task;
}

std::shared_ptr<Task> Endpoint::start_send(std::size_t peer, std::int64_t tag, const std::byte* data,
                                           std::uint64_t bytes, Clock::time_point deadline) {
    auto task = std::make_shared<SendTask>(peer, tag, data, bytes, chunk_, deadline);
    if (peer == rank_) {
        deliver(tag, data, bytes);
        task->finished = true;
        task->done.store(1, std::memory_order_release);
    } else {
        submit(new_mails_, task);
    }
    return task;
}

std::shared_ptr<Task> Endpoint::start_recv(std::size_t peer, std::int64_t tag, std::byte* data, std::uint64_t bytes,
                                           Clock::time_point deadline) {
    auto task = std::make_shared<RecvTask>(inboxes_[peer], peer, tag, data, bytes, deadline);
    submit(new_mails_, task);
    return task;
}

Outcome Endpoint::wait(Task& task, Clock::time_point deadline) {
    if (task.done.load(std::memory_order_acquire) != 0) return task.outcome;
    const auto driving = take_over();
    return drive(task, Kind::queued, deadline);
}

void Endpoint::submit(Tasks& queue, std::shared_ptr<Task> task) {
    {
        const std::lock_guard lock(queue_);
        if (closing_.load(std::memory_order_acquire)) {
            task->outcome = {Status::closed, -1};
            task->finished = true;
            task->done.store(1, std::memory_order_release);
            return;
        }
        under_way_.fetch_add(1, std::memory_order_acq_rel);
        queue.push_back(std::move(task));
        incoming_.store(true, std::memory_order_release);
        if (!thread_.joinable()) thread_ = std::thread(&Endpoint::progress, this);
    }
    queued_.notify_one();
    nudge();
}

// Gets the right to drive from the progress thread, which gives it up when it sees `wanted_`.
std::unique_lock<std::mutex> Endpoint::take_over() {
    wanted_.fetch_add(1, std::memory_order_acq_rel);
    nudge();
    std::unique_lock driving(driving_);
    wanted_.fetch_sub(1, std::memory_order_acq_rel);
    return driving;
}

void Endpoint::nudge() {
    before_ringing();
    if (links_.headers[rank_]->asleep.load(std::memory_order_relaxed) != 0) ring(*links_.headers[rank_]);
}

void Endpoint::progress() {
    std::unique_lock lock(queue_);
    for (;;) {
        // A driver that leaves calls behind, or a thread that no longer wants to drive, notifies.
        queued_.wait(lock, [&] {
            return closing_.load(std::memory_order_acquire) ||
                   (under_way_.load(std::memory_order_acquire) > 0 && wanted_.load(std::memory_order_acquire) == 0);
        });
        if (closing_.load(std::memory_order_acquire)) return;
        lock.unlock();
        {
            const std::lock_guard driving(driving_);
            Waiter waiter(rank_, links_.headers, patience_, nullptr);
            while (under_way_.load(std::memory_order_acquire) > 0 && wanted_.load(std::memory_order_acquire) == 0 &&
                   !closing_.load(std::memory_order_acquire))
                turn(waiter, nullptr, Kind::queued, Clock::time_point::max());
        }
        lock.lock();
    }
}

// -- driving ------------------------------------------------------------------------------------------

// Moves everything under way forward until `goal` ends, or its caller's `deadline` passes.
Outcome Endpoint::drive(Task& goal, Kind kind, Clock::time_point deadline) {
    Outcome left;
    {
        Waiter waiter(rank_, links_.headers, patience_, interrupted_);
        while (!goal.finished && left) left = turn(waiter, &goal, kind, deadline);
    }
    if (under_way_.load(std::memory_order_acquire) > 0) {  // the rest is the progress thread's again
        { const std::lock_guard lock(queue_); }
        queued_.notify_one();
    }
    return goal.finished ? goal.outcome : left;
}

// One look at everything, and where nothing could be done one turn of waiting. What it returns is why a driver
// must leave a goal that goes on without it.
Outcome Endpoint::turn(Waiter& waiter, Task* goal, Kind kind, Clock::time_point deadline) {
    if (incoming_.load(std::memory_order_acquire)) adopt();
    if (closing_.load(std::memory_order_acquire)) {
        end(goal, {Status::closed, -1}, false);
        return {Status::closed, -1};
    }
    if (pass(goal, kind)) {
        waiter.progressed();
        return {};
    }
    const Task* blocked = goal != nullptr && kind != Kind::queued ? goal
                          : !collectives_.empty()                 ? collectives_.front().get()
                          : !mails_.empty()                       ? mails_.front().get()
                                                                  : nullptr;
    const Outcome why = waiter.turn(blocked != nullptr ? blocked->blocked_on : -1, earliest(goal, deadline));
    switch (why.status) {
        case Status::ok:
            return {};
        case Status::timed_out:
            expire(goal);
            return Clock::now() >= deadline ? why : Outcome{};
        case Status::interrupted:
            return why;
        default:
            end(goal, why, why.status == Status::peer_departed);
            return {};
    }
}

// Lets every call do what it can: the oldest collective, all messages, and the caller's own call.
bool Endpoint::pass(Task* goal, Kind kind) {
    bool any = false;
    if (!collectives_.empty())
        any |= collectives_.front()->step(links_);
    else if (kind == Kind::collective)
        any |= goal->step(links_);
    for (const auto& task : mails_) any |= task->step(links_);
    if (kind == Kind::mail) any |= goal->step(links_);
    links_.ring_touched();
    if (any && under_way_.load(std::memory_order_relaxed) > 0) settle();
    return any;
}

// Lets go of what has ended.
void Endpoint::settle() {
    const auto ended = [this](const std::shared_ptr<Task>& task) {
        if (!task->finished) return false;
        under_way_.fetch_sub(1, std::memory_order_acq_rel);
        task->done.store(1, std::memory_order_release);
        return true;
    };
    std::erase_if(collectives_, ended);
    std::erase_if(mails_, ended);
}

// Ends all calls, or only those that wait for the peer that `why` names.
void Endpoint::end(Task* goal, Outcome why, bool only_blocked) {
    const auto give_up = [&](Task& task) {
        if (!task.finished && (!only_blocked || task.blocked_on == why.peer)) task.give_up(why);
    };
    if (goal != nullptr) give_up(*goal);
    for (const auto& task : collectives_) give_up(*task);
    for (const auto& task : mails_) give_up(*task);
    settle();
}

void Endpoint::expire(Task* goal) {
    const auto now = Clock::now();
    const auto give_up = [&](Task& task) {
        if (!task.finished && now >= task.deadline) task.give_up({Status::timed_out, task.blocked_on});
    };
    if (goal != nullptr) give_up(*goal);
    for (const auto& task : collectives_) give_up(*task);
    for (const auto& task : mails_) give_up(*task);
    settle();
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

// -- leaving ------------------------------------------------------------------------------------------

void Endpoint::fail(const char* reason) {
    Header& own = *links_.headers[rank_];
    std::strncpy(own.reason, reason, sizeof own.reason - 1);
    own.state.store(State::failed, std::memory_order_release);
    wake_all();
}

void Endpoint::close() {
    if (getpid() != process_) return;  // a forked child owns nothing of this
    {
        const std::lock_guard lock(queue_);
        if (closing_.exchange(true)) return;
    }
    nudge();
    {
        const std::lock_guard driving(driving_);
        if (incoming_.load(std::memory_order_acquire)) adopt();
        end(nullptr, {Status::closed, -1}, false);
    }
    {
        const std::lock_guard lock(queue_);
        queued_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    State running = State::running;
    links_.headers[rank_]->state.compare_exchange_strong(running, State::departed);
    wake_all();
}

void Endpoint::wake_all() {
    before_ringing();
    for (Header* header : links_.headers)
        if (header->asleep.load(std::memory_order_relaxed) != 0) ring(*header);
}

}  // namespace collx
