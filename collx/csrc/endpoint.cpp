#include "endpoint.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace collx {

namespace {

constexpr std::chrono::seconds kReceipts{5};  // for which closing waits for peers to make room for what they wait for
constexpr std::chrono::milliseconds kNap{50};  // the longest time until a signal is noticed behind another driver

std::vector<Header*> headers(const std::vector<std::span<std::byte>>& files) {
    std::vector<Header*> all;
    for (const auto& file : files) all.push_back(&Layout::header(file.data()));
    return all;
}

std::vector<Flight*> flights(const std::vector<std::span<std::byte>>& files) {
    std::vector<Flight*> all;
    for (Header* header : headers(files)) all.push_back(&header->flight);
    return all;
}

std::vector<std::byte*> regions(const std::vector<std::span<std::byte>>& files) {
    std::vector<std::byte*> begin;
    for (const auto& file : files) begin.push_back(file.data());
    return begin;
}

Foreign reach(const Header& owner) {
    return Foreign(static_cast<pid_t>(owner.life.load(std::memory_order_acquire) & kThread), owner.sign);
}

}  // namespace

Endpoint::Endpoint(std::uint32_t rank, const Layout& layout, const std::vector<std::span<std::byte>>& files,
                   bool oversubscribed, Interrupted interrupted, std::vector<int> pidfds, std::unique_ptr<Far> far_ranks)
    : far_(std::move(far_ranks)), verdict(rank, layout, regions(files), std::move(pidfds), far_.get()),
      shrink(rank, layout, regions(files), verdict, far_.get()),
      rank_(rank), chunk_(layout.mail.bytes), mailbox_(rank, layout.size), oversubscribed_(oversubscribed), patience_(oversubscribed),
      seat_(rank, headers(files)), interrupted_(interrupted),
      recorder_(rank, flights(files), far_ != nullptr ? far_->far : std::vector<bool>()), process_(getpid()) {
    links_.recorder = &recorder_;
    links_.verdict = &verdict;
    links_.own = &Layout::header(files[rank].data());
    std::byte* own = files[rank].data();
    links_.region = own;
    links_.heap = files[rank].subspan(layout.heap_at);
    links_.mailing.resize(layout.size);
    for (std::uint32_t peer = 0; peer < layout.size; ++peer) {
        std::byte* theirs = files[peer].data();
        Acknowledged& consumed = layout.acknowledged(theirs, rank);  // by the peer, of what this rank sent
        Acknowledged& consuming = layout.acknowledged(own, peer);
        links_.headers.push_back(&Layout::header(theirs));
        links_.said.push_back(&consumed);
        const bool far = far_ != nullptr && far_->far[peer];
        const Wire* wire = far ? &links_.wires.add(*far_, peer, layout, own, theirs) : nullptr;
        const auto given = [&](FrameKind lane) { return far ? &wire->out.given(lane) : nullptr; };
        const Foreign foreign = far ? Foreign() : reach(*links_.headers.back());
        consuming.reads.store(foreign.allowed(), std::memory_order_relaxed);
        links_.to.emplace_back(Layout::lines(own, layout.collective, peer), own, layout.collective, peer,
                               consumed.collective, given(FrameKind::collective));
        links_.from.emplace_back(Layout::lines(theirs, layout.collective, rank), files[peer], layout.collective,
                                 consuming.collective, layout.heap_at, foreign);
        links_.mail_to.emplace_back(Layout::lines(own, layout.mail, peer), own, layout.mail, peer, consumed.mail,
                                    given(FrameKind::mail));
        links_.mail_from.emplace_back(Layout::lines(theirs, layout.mail, rank), files[peer], layout.mail,
                                      consuming.mail, layout.heap_at);
    }
    place_.rank = rank;
    place_.headers = links_.headers;
    place_.verdict = &verdict;
    place_.under_way = &under_way_;
    place_.process = process_;
    place_.far = far_.get();
    if (far_ != nullptr) far_->enter(regions(files));
}

void Endpoint::name(std::string label, std::vector<std::uint32_t> members) {
    place_.label = std::move(label);
    place_.members = std::move(members);
    enter(place_);
}

// -- calls in the caller's thread ---------------------------------------------------------------------

Outcome Endpoint::run(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                      Clock::time_point deadline, Clock::time_point begun, Grip* grip) {
    if (verdict.decided()) return {Status::decided, -1};
    if (driving()) return {Status::busy, -1};
    const bool idle = take_idle();
    if (grip != nullptr && (plan.timed || !idle)) {
        grip->let_go();
        grip = nullptr;
    }
    if (!idle) return finish(start(plan, input, output, sequence, deadline));
    Collective task(plan, input, output, workspace_, sequence, begun, deadline);
    return drive_and_leave(task, Kind::collective, grip);
}

// A message that is sent, received or looked for by the caller.
template <typename Message, typename... Given>
Outcome Endpoint::now(Given&&... given) {
    if (verdict.decided()) return {Status::decided, -1};
    if (driving()) return {Status::busy, -1};
    if (!take_idle()) return finish(submit(new_mails_, std::make_shared<Message>(mailbox_, given...)));
    Message task(mailbox_, given...);
    return drive_and_leave(task, Kind::mail);
}

Outcome Endpoint::send(std::size_t peer, std::int32_t tag, const std::byte* data, std::uint64_t bytes,
                       Clock::time_point deadline, bool synchronous) {
    return now<SendTask>(rank_, peer, tag, data, bytes, synchronous, chunk_, deadline);
}

Outcome Endpoint::recv(const Wanted& wanted, std::byte* data, std::uint64_t bytes, Clock::time_point deadline,
                       bool exactly) {
    return now<RecvTask>(wanted, data, bytes, exactly, deadline);
}

Outcome Endpoint::probe(const Wanted& wanted, bool waits, Clock::time_point deadline) {
    return now<ProbeTask>(wanted, waits, deadline);
}

Outcome Endpoint::drive_and_leave(Task& task, Kind kind, Grip* grip) {
    const Outcome outcome = drive(task, kind, task.deadline, grip);
    if (!task.finished) task.give_up(outcome);  // nothing may refer to it any more
    if (!outcome) task.let_go(links_);
    if (!outcome && kind == Kind::collective) recorder_.fail();
    leave();
    return outcome;
}

// Waits for a call that its caller could not make at once: unlike one that was started, it ends with the wait.
Outcome Endpoint::finish(const std::shared_ptr<Task>& task) {
    const Outcome outcome = wait(*task, task->deadline);
    if (outcome.status != Status::interrupted && task->done.load(std::memory_order_acquire) != 0) return task->outcome;
    task->cancelled.store(Cancel::end, std::memory_order_release);
    while (task->done.load(std::memory_order_acquire) == 0) {
        if (take()) {
            settle();
            leave();
        } else {
            await_turn(*task, Clock::time_point::max());
        }
    }
    return outcome;
}

// -- calls on the progress thread ----------------------------------------------------------------------

std::shared_ptr<Task> Endpoint::start(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                                      Clock::time_point deadline) {
    return submit(new_collectives_, std::make_shared<Collective>(plan, input, output, workspace_, sequence,
                                                                 Clock::now(), deadline));
}

std::shared_ptr<Task> Endpoint::start_send(std::size_t peer, std::int32_t tag, const std::byte* data,
                                           std::uint64_t bytes, Clock::time_point deadline, bool synchronous) {
    return submit(new_mails_, std::make_shared<SendTask>(mailbox_, rank_, peer, tag, data, bytes, synchronous, chunk_,
                                                         deadline));
}

std::shared_ptr<Task> Endpoint::start_recv(const Wanted& wanted, std::byte* data, std::uint64_t bytes,
                                           Clock::time_point deadline, bool exactly) {
    return submit(new_mails_, std::make_shared<RecvTask>(mailbox_, wanted, data, bytes, exactly, deadline));
}

bool Endpoint::recall(Task& task) {
    task.cancelled.store(Cancel::recall, std::memory_order_release);
    nudge();
    const auto open = [&] {
        return task.done.load(std::memory_order_acquire) == 0 && task.cancelled.load(std::memory_order_acquire) == Cancel::recall;
    };
    while (open() && !driving()) {
        if (take()) {
            pass(nullptr, Kind::queued);  // what has come is its
            leave();
        } else {
            await_turn(task, Clock::time_point::max());
        }
    }
    return task.done.load(std::memory_order_acquire) != 0 && task.outcome.status == Status::recalled;
}

std::shared_ptr<Task> Endpoint::submit(Tasks& queue, std::shared_ptr<Task> task) {
    if (task->begun == Clock::time_point{}) task->begun = Clock::now();
    {
        const std::lock_guard lock(queue_);
        const bool closing = closing_.load(std::memory_order_acquire);
        if (closing || verdict.decided()) {
            task->outcome = {closing ? Status::closed : Status::decided, -1};
            task->finished = true;
            task->done.store(1, std::memory_order_release);
            return task;
        }
        under_way_.fetch_add(1);
        queue.push_back(task);
        incoming_.store(true, std::memory_order_release);
        if (!thread_.joinable()) thread_ = std::thread(&Endpoint::progress, this);
    }
    changed_.notify_all();
    nudge();
    return task;
}

Outcome Endpoint::wait(Task& task, Clock::time_point deadline) {
    while (task.done.load(std::memory_order_acquire) == 0) {
        if (driving()) return {Status::busy, -1};
        if (take()) {
            const Outcome left = drive(task, Kind::queued, deadline);
            leave();
            return left;
        }
        await_turn(task, deadline);
        if (interrupted_ != nullptr && interrupted_()) return {Status::interrupted, -1};
        if (Clock::now() >= deadline && task.done.load(std::memory_order_acquire) == 0) return {Status::timed_out, -1};
    }
    return task.outcome;
}

void Endpoint::progress() {
    const auto needed = [this] { return (under_way_.load() > 0 || left_over_.load()) && waiting_.load() == 0; };
    Patience patience = Patience::in_background(oversubscribed_);
    std::unique_lock lock(queue_);
    for (;;) {
        changed_.wait(lock, [&] { return closing_.load() || (needed() && !taken_.load()); });
        if (closing_.load()) return;
        lock.unlock();
        if (take()) {
            {
                Waiter waiter(*links_.headers[rank_], &verdict, patience, nullptr);
                for (bool go = needed(); go && !closing_.load(); go = needed()) {
                    turn(waiter, nullptr, Kind::queued, Clock::time_point::max());
                    left_over_.store(unsent());
                }
            }
            leave();
        }
        lock.lock();
    }
}

// -- who drives ---------------------------------------------------------------------------------------

bool Endpoint::take() {
    if (taken_.exchange(true)) return false;
    driver_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    return true;
}

// Whether this thread drives already, and was called in the middle of it: by a signal handler, or by a user's op.
bool Endpoint::driving() const { return driver_.load(std::memory_order_relaxed) == std::this_thread::get_id(); }

// For a call in the caller's thread, which goes ahead of no other.
bool Endpoint::take_idle() {
    if (under_way_.load() > 0 || !take()) return false;
    if (under_way_.load() == 0) return true;
    leave();
    return false;
}

void Endpoint::leave() {
    const bool rest = unsent();
    if (rest != left_over_.load(std::memory_order_relaxed)) left_over_.store(rest);
    driver_.store(std::thread::id{}, std::memory_order_relaxed);
    taken_.store(false);
    if (waiting_.load() > 0 || under_way_.load() > 0 || rest) announce();
}

// Until `task` is done or nobody drives any more, at most for a nap; the progress thread makes room at once.
void Endpoint::await_turn(const Task& task, Clock::time_point deadline) {
    waiting_.fetch_add(1);
    nudge();
    {
        std::unique_lock lock(queue_);
        changed_.wait_until(lock, std::min(deadline, Clock::now() + kNap),
                            [&] { return task.done.load(std::memory_order_acquire) != 0 || !taken_.load(); });
    }
    if (waiting_.fetch_sub(1) == 1 && (under_way_.load() > 0 || left_over_.load())) announce();
}

void Endpoint::announce() {
    { const std::lock_guard lock(queue_); }
    changed_.notify_all();
}

void Endpoint::nudge() {
    before_ringing();
    if (links_.headers[rank_]->asleep.load(std::memory_order_relaxed) != 0) ring(*links_.headers[rank_]);
}

// -- leaving ------------------------------------------------------------------------------------------

void Endpoint::leaving() {
    leaving_.store(true);
    nudge();
    if (!take()) return;  // the driver will
    announce_leaving();
    leave();
}

// Who waits for a receipt would take it for lost with this rank: it goes, if its reader makes room for it in time.
void Endpoint::send_receipts() {
    if (incoming_.load(std::memory_order_acquire)) adopt();
    Waiter waiter(*links_.headers[rank_], &verdict, patience_, nullptr);
    const auto owed = [&](const std::shared_ptr<Task>& task) {
        return !task->finished && task->owed() &&
               links_.headers[static_cast<std::size_t>(task->blocked_on)]->state.load() == State::running;
    };
    for (const auto deadline = Clock::now() + kReceipts; std::ranges::any_of(mails_, owed);)
        if (pass(nullptr, Kind::queued))
            waiter.progressed();
        else if (!waiter.turn(deadline))
            return;
}

// From a signal handler in the middle of a call it only ends that call; the next close, or the destructor, ends it all.
bool Endpoint::close() {
    if (getpid() != process_) return false;  // a forked child owns nothing of this
    {
        const std::lock_guard lock(queue_);
        closing_.store(true);
    }
    changed_.notify_all();
    nudge();
    if (driving()) return false;
    if (closed_.exchange(true)) return true;
    depart(place_);
    while (!take()) {
        std::unique_lock lock(queue_);
        waiting_.fetch_add(1);
        changed_.wait_for(lock, kNap, [&] { return !taken_.load(); });
        waiting_.fetch_sub(1);
    }
    send_receipts();
    end(nullptr, {Status::closed, -1});
    leave();
    if (thread_.joinable()) thread_.join();
    links_.wires.close(!verdict.decided());
    links_.headers[rank_]->state.store(State::departed, std::memory_order_release);
    verdict.wake_all();
    if (far_ != nullptr) {
        far_->tell_state(State::departed);
        far_->leave();
    }
    return true;
}

}  // namespace collx
