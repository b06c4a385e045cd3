#include "mail.hpp"

#include <algorithm>
#include <cstring>

#include "kernels.hpp"

namespace collx {

namespace {

struct Opening {
    std::uint64_t total;
    std::int64_t tag;
};
constexpr std::uint64_t kShort = kInline - sizeof(Opening);  // payload that fits behind the opening

}  // namespace

bool SendTask::step(Links& links) {
    if (peer_ == rank_) {  // a rank's message to itself needs no lane
        own_.deliver(tag_, data_, bytes_);
        return finished = true;
    }
    Writer& lane = links.mail_to[peer_];
    bool any = false;
    blocked_on = static_cast<int>(peer_);
    const void*& turn = links.mailing[peer_];
    if (turn != nullptr && turn != this) return false;
    turn = this;
    turn_ = &turn;
    if (!opened_ && lane.room()) {
        std::byte line[kInline];
        const Opening opening{bytes_, tag_};
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
    finished = opened_ && sent_ == bytes_;
    if (finished) turn = nullptr;
    return any;
}

bool RecvTask::step(Links& links) {
    blocked_on = static_cast<int>(peer_);
    if (!posted_) {
        posted_ = true;
        inbox_.post(*this);
        if (finished) return true;
    }
    return inbox_.pull(links);
}

void RecvTask::complete(std::uint64_t total) {
    if (total == bytes_)
        finished = true;
    else
        fail(Status::wrong_length, static_cast<int>(peer_), total);
}

void Inbox::post(RecvTask& task) {
    if (!take_kept(task)) waiting_.push_back(&task);
}

void Inbox::withdraw(const RecvTask& task) {
    std::erase(waiting_, &task);
    if (!under_way_ || current_.receiver != &task) return;
    current_.receiver = nullptr;
    current_.unwanted = true;  // the rest is dropped as it comes
}

bool Inbox::take_kept(RecvTask& task) {
    const auto found = std::ranges::find(kept_, task.tag_, &Message::tag);
    if (found == kept_.end()) return false;
    if (found->total == task.bytes_) collx::copy(task.data_, found->kept.data(), found->total);
    task.complete(found->total);
    kept_.erase(found);
    return true;
}

bool Inbox::pull(Links& links) {
    Reader& lane = links.mail_from[peer_];
    bool any = false;
    while ((under_way_ || !waiting_.empty()) && lane.arrived()) {
        if (!under_way_)
            open(lane);
        else
            append(current_, lane.payload(), lane.length());
        if (current_.arrived == current_.total) close(current_);
        lane.release();
        any = true;
    }
    if (any) links.touch(peer_);
    return any;
}

void Inbox::open(const Reader& lane) {
    Opening opening{};
    std::memcpy(&opening, lane.payload(), sizeof opening);
    current_ = Message{opening.tag, opening.total, 0, {}, nullptr, false};
    const auto found = std::ranges::find(waiting_, opening.tag, &RecvTask::tag_);
    if (found != waiting_.end()) {
        current_.receiver = *found;
        waiting_.erase(found);
    } else {
        current_.kept.resize(opening.total);
    }
    under_way_ = true;
    append(current_, lane.payload() + sizeof opening, lane.length() - sizeof opening);
}

void Inbox::append(Message& message, const std::byte* data, std::uint64_t bytes) {
    const std::uint64_t fits = std::min(bytes, message.total - message.arrived);
    if (message.receiver != nullptr) {
        if (message.total == message.receiver->bytes_) collx::copy(message.receiver->data_ + message.arrived, data, fits);
    } else if (!message.kept.empty()) {
        collx::copy(message.kept.data() + message.arrived, data, fits);
    }
    message.arrived += fits;
}

void Inbox::close(Message& message) {
    under_way_ = false;
    if (message.unwanted) return;
    if (message.receiver != nullptr) {
        message.receiver->complete(message.total);
        return;
    }
    kept_.push_back(std::move(message));
    // Somebody may have asked for this tag while the message was coming in.
    const auto found = std::ranges::find(waiting_, kept_.back().tag, &RecvTask::tag_);
    if (found == waiting_.end()) return;
    RecvTask* task = *found;
    waiting_.erase(found);
    take_kept(*task);
}

void Inbox::deliver(std::int64_t tag, const std::byte* data, std::uint64_t bytes) {
    Message message{tag, bytes, bytes, std::vector<std::byte>(data, data + bytes), nullptr, false};
    close(message);
}

}  // namespace collx
