#include "mail.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels.hpp"

namespace collx {

namespace {

struct Opening {
    std::uint64_t total;
    std::int32_t tag;
    std::uint32_t receipt;
};
constexpr std::uint64_t kShort = kInline - sizeof(Opening);  // payload that fits behind the opening

std::int32_t tag_of(std::uint32_t receipt) { return kReceiptTag - static_cast<std::int32_t>(receipt); }

Opening opening_of(const Reader& lane) {
    Opening opening{};
    std::memcpy(&opening, lane.payload(), sizeof opening);
    return opening;
}

Envelope envelope_of(const Opening& opening, std::size_t peer) {
    return {static_cast<int>(peer), opening.tag, opening.total};
}

// How a call ends that a message was found for.
Outcome found(const Envelope& message) {
    return {Status::ok, message.source, message.bytes, static_cast<std::uint64_t>(message.tag)};
}

// Whether all other ranks have left, so that nothing can come.
bool alone(const Links& links) {
    return std::ranges::all_of(links.headers, [&](const Header* header) {
        return header == links.own || header->state.load(std::memory_order_acquire) != State::running;
    });
}

}  // namespace

// -- sends --------------------------------------------------------------------------------------------

SendTask::SendTask(Mailbox& mailbox, std::size_t rank, std::size_t peer, std::int32_t tag, const std::byte* data,
                   std::uint64_t bytes, bool synchronous, std::size_t chunk, Clock::time_point limit)
    : Task(limit), mailbox_(mailbox), rank_(rank), peer_(peer), tag_(tag), data_(data), bytes_(bytes), chunk_(chunk) {
    if (!synchronous) return;
    receipt_ = mailbox.next_receipt();
    awaited_.emplace(mailbox, Wanted{static_cast<int>(peer), tag_of(receipt_)}, nullptr, 0, true, limit);
}

SendTask::SendTask(Mailbox& mailbox, std::size_t rank, const Mailbox::Matched& matched)
    : SendTask(mailbox, rank, matched.sender, tag_of(matched.receipt), nullptr, 0, false, 0, Clock::time_point::max()) {}

bool SendTask::step(Links& links) {
    blocked_on = static_cast<int>(peer_);
    bool any = !written_ && write(links);
    if (written_ && awaited_) any |= awaited_->step(links);
    finished = written_ && (!awaited_ || awaited_->finished);
    return any;
}

bool SendTask::write(Links& links) {
    if (peer_ == rank_) {  // a rank's message to itself needs no lane
        mailbox_.deliver(tag_, data_, bytes_, receipt_);
        return written_ = true;
    }
    Writer& lane = links.mail_to[peer_];
    bool any = false;
    const void*& turn = links.mailing[peer_];
    if (turn != nullptr && turn != this) return false;
    turn = this;
    turn_ = &turn;
    if (!opened_ && lane.room()) {
        std::byte line[kInline];
        const Opening opening{bytes_, tag_, receipt_};
        std::memcpy(line, &opening, sizeof opening);
        if (bytes_ <= kShort) {
            if (bytes_ > 0) std::memcpy(line + sizeof opening, data_, bytes_);
            sent_ = bytes_;
        }
        lane.publish_inline(static_cast<std::uint32_t>(sizeof opening + sent_), 0, line);
        opened_ = any = true;
    }
    while (opened_ && sent_ < bytes_ && lane.room()) {
        const std::uint64_t length = std::min<std::uint64_t>(chunk_, bytes_ - sent_);
        if (length <= kInline) {
            lane.publish_inline(static_cast<std::uint32_t>(length), 0, data_ + sent_);
        } else {
            if (lane.pick_slot(true) >= 0) break;
            collx::copy(lane.slot(), data_ + sent_, length);
            lane.publish(static_cast<std::uint32_t>(length), 0, lane.slot_offset());
        }
        sent_ += length;
        any = true;
    }
    if (any) links.touch(peer_);
    written_ = opened_ && sent_ == bytes_;
    if (written_) turn = nullptr;
    return any;
}

void SendTask::abandon() {
    if (awaited_) mailbox_.withdraw(*awaited_);
    if (turn_ != nullptr && *turn_ == this) *turn_ = opened_ ? static_cast<const void*>(&kHalf) : nullptr;
}

// -- receives and probes ------------------------------------------------------------------------------

bool RecvTask::step(Links& links) {
    blocked_on = wanted_.source;
    if (!posted_) {
        posted_ = true;
        mailbox_.post(*this);
        if (finished) return true;
    }
    return mailbox_.pull(links, wanted_.source);
}

bool RecvTask::needs(Links& links, std::size_t peer) const {
    return wanted_.source == kAnySource ? alone(links) : Task::needs(links, peer);
}

void RecvTask::complete(const Envelope& message) {
    if (!fits(message.bytes)) {
        fail(exactly_ ? Status::wrong_length : Status::truncated, message.source, message.bytes, static_cast<std::uint64_t>(message.tag));
        return;
    }
    outcome = found(message);
    finished = true;
}

bool ProbeTask::step(Links& links) {
    blocked_on = wanted_.source;
    const std::optional<Envelope> message = mailbox_.find(links, wanted_);
    if (message) outcome = found(*message);
    // Between the first look and the second the network is asked.
    finished = message || (!waits_ && std::exchange(looked_, true));
    return finished;
}

bool ProbeTask::needs(Links& links, std::size_t peer) const {
    return wanted_.source == kAnySource ? alone(links) : Task::needs(links, peer);
}

// -- what matches them --------------------------------------------------------------------------------

void Mailbox::post(RecvTask& task) {
    if (!take_kept(task)) waiting_.push_back(&task);
}

void Mailbox::withdraw(const RecvTask& task) {
    std::erase(waiting_, &task);
    for (Message& message : coming_) {
        if (!message.under_way || message.receiver != &task) continue;
        message.receiver = nullptr;
        message.unwanted = true;  // the rest is dropped as it comes
    }
}

// The receive that gets a message: from now on it is nobody else's.
RecvTask* Mailbox::match(const Message& message) {
    const auto takes = [&](const RecvTask* task) { return task->wanted_.takes(message.envelope); };
    const auto first = std::ranges::find_if(waiting_, takes);
    if (first == waiting_.end()) return nullptr;
    RecvTask* const task = *first;
    waiting_.erase(first);
    settle(*task, message);
    return task;
}

void Mailbox::settle(RecvTask& task, const Message& message) {
    const auto sender = static_cast<std::size_t>(message.envelope.source);
    if (task.wanted_.source == kAnySource) turn_ = (sender + 1) % coming_.size();
    task.wanted_.source = message.envelope.source;
    task.matched_ = true;
    if (message.receipt != 0) matched.push_back({sender, message.receipt});
}

bool Mailbox::take_kept(RecvTask& task) {
    const auto found = std::ranges::find_if(kept_, [&](const Message& message) { return task.wanted_.takes(message.envelope); });
    if (found == kept_.end()) return false;
    settle(task, *found);
    hand_over(task, *found);
    kept_.erase(found);
    return true;
}

void Mailbox::hand_over(RecvTask& task, const Message& kept) {
    const auto& [source, tag, bytes] = kept.envelope;
    if (task.fits(bytes)) collx::copy(task.data_, kept.kept.data(), bytes);
    task.complete(kept.envelope);
}

bool Mailbox::claimed(const Envelope& message) const {
    return std::ranges::any_of(waiting_, [&](const RecvTask* task) { return task->wanted_.takes(message); });
}

bool Mailbox::awaited(std::size_t peer) const {
    return std::ranges::any_of(waiting_, [&](const RecvTask* task) { return task->wanted_.from(peer); });
}

bool Mailbox::pull(Links& links, int source) {
    if (source != kAnySource) return pull_from(links, static_cast<std::size_t>(source));
    bool any = false;
    for (std::size_t i = 0, first = turn_; i < coming_.size(); ++i) any |= pull_from(links, (first + i) % coming_.size());
    return any;
}

bool Mailbox::pull_from(Links& links, std::size_t peer) {
    bool any = false;
    while (links.mail_from[peer].arrived() && (coming_[peer].under_way || awaited(peer))) {
        take(links.mail_from[peer], peer);
        any = true;
    }
    if (any) links.touch(peer);
    return any;
}

std::optional<Envelope> Mailbox::find(Links& links, const Wanted& wanted) {
    for (const Message& message : kept_)
        if (wanted.takes(message.envelope)) return message.envelope;
    for (std::size_t i = 0; i < coming_.size(); ++i) {
        const std::size_t peer = (turn_ + i) % coming_.size();
        if (!wanted.from(peer)) continue;
        if (const auto message = look(links, peer, wanted)) return message;
    }
    return {};
}

std::optional<Envelope> Mailbox::look(Links& links, std::size_t peer, const Wanted& wanted) {
    const Message& coming = coming_[peer];
    Reader& lane = links.mail_from[peer];
    for (;;) {
        const bool free = coming.receiver == nullptr && !coming.unwanted && !claimed(coming.envelope);
        if (coming.under_way && free && wanted.takes(coming.envelope)) return coming.envelope;
        if (!lane.arrived()) return {};
        if (!coming.under_way) {
            const Envelope next = envelope_of(opening_of(lane), peer);
            if (wanted.takes(next) && !claimed(next)) return next;
        }
        take(lane, peer);
        links.touch(peer);
    }
}

void Mailbox::take(Reader& lane, std::size_t peer) {
    Message& message = coming_[peer];
    if (message.under_way) {
        append(message, lane.payload(), lane.length());
    } else {
        const Opening opening = opening_of(lane);
        begin(message, envelope_of(opening, peer), opening.receipt);
        append(message, lane.payload() + sizeof opening, lane.length() - sizeof opening);
    }
    if (message.arrived == message.envelope.bytes) close(message);
    lane.release();
}

void Mailbox::begin(Message& message, const Envelope& envelope, std::uint32_t receipt) {
    message = Message{envelope, receipt, 0, {}, nullptr, false, false};
    message.receiver = match(message);
    if (message.receiver == nullptr) message.kept.resize(envelope.bytes);
    message.under_way = true;  // only now: there may not be that much memory
}

void Mailbox::append(Message& message, const std::byte* data, std::uint64_t bytes) {
    const std::uint64_t total = message.envelope.bytes, fits = std::min(bytes, total - message.arrived);
    if (message.receiver != nullptr) {
        if (message.receiver->fits(total)) collx::copy(message.receiver->data_ + message.arrived, data, fits);
    } else if (!message.kept.empty()) {
        collx::copy(message.kept.data() + message.arrived, data, fits);
    }
    message.arrived += fits;
}

void Mailbox::close(Message& message) {
    message.under_way = false;
    if (message.unwanted) return;
    if (message.receiver != nullptr) {
        message.receiver->complete(message.envelope);
        return;
    }
    if (RecvTask* const task = match(message))  // it was asked for while it was coming in
        hand_over(*task, message);
    else
        kept_.push_back(std::move(message));
}

void Mailbox::deliver(std::int32_t tag, const std::byte* data, std::uint64_t bytes, std::uint32_t receipt) {
    Message message;
    begin(message, {static_cast<int>(rank_), tag, bytes}, receipt);
    append(message, data, bytes);
    close(message);
}

}  // namespace collx
