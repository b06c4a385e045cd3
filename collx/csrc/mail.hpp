// Point-to-point messages with tags, on lanes of their own.
//
// A message is one line that says its length and tag, with the bytes of a short one behind them, and then lines
// of payload. A receiver that wants another tag than the next one puts the message aside.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "task.hpp"

namespace collx {

class RecvTask;

// What has come from one peer and has not been asked for, and who asks for what has not come.
class Inbox {
  public:
    explicit Inbox(std::size_t peer) : peer_(peer) {}

    // Takes what the lane holds as long as somebody waits for it; true where anything moved.
    bool pull(Links& links);
    void post(RecvTask& task);
    void withdraw(const RecvTask& task);
    void deliver(std::int64_t tag, const std::byte* data, std::uint64_t bytes);  // from this rank to itself

  private:
    struct Message {
        std::int64_t tag = 0;
        std::uint64_t total = 0;
        std::uint64_t arrived = 0;
        std::vector<std::byte> kept;   // where nobody wanted it when it began
        RecvTask* receiver = nullptr;  // somebody did
        bool unwanted = false;         // but has gone
    };

    void open(const Reader& lane);
    void append(Message& message, const std::byte* data, std::uint64_t bytes);
    void close(Message& message);
    bool take_kept(RecvTask& task);

    std::size_t peer_;
    bool under_way_ = false;
    Message current_;
    std::deque<Message> kept_;
    std::deque<RecvTask*> waiting_;
};

class SendTask final : public Task {
  public:
    SendTask(Inbox& own, std::size_t rank, std::size_t peer, std::int64_t tag, const std::byte* data, std::uint64_t bytes, std::size_t chunk,
             Clock::time_point limit)
        : Task(limit), own_(own), rank_(rank), peer_(peer), tag_(tag), data_(data), bytes_(bytes), chunk_(chunk) {}
    bool step(Links& links) override;
    [[nodiscard]] bool sends() const override { return true; }
    void abandon() override {
        if (turn_ != nullptr && *turn_ == this) *turn_ = opened_ ? static_cast<const void*>(&kHalf) : nullptr;
    }

  private:
    static constexpr char kHalf = 0;  // has the turn for good: nothing may follow half a message
    Inbox& own_;
    std::size_t rank_;
    std::size_t peer_;
    std::int64_t tag_;
    const std::byte* data_;
    std::uint64_t bytes_;
    std::size_t chunk_;
    std::uint64_t sent_ = 0;
    bool opened_ = false;
    const void** turn_ = nullptr;
};

class RecvTask final : public Task {
  public:
    RecvTask(Inbox& inbox, std::size_t peer, std::int64_t tag, std::byte* data, std::uint64_t bytes,
             Clock::time_point limit)
        : Task(limit), inbox_(inbox), peer_(peer), tag_(tag), data_(data), bytes_(bytes) {}
    bool step(Links& links) override;
    void abandon() override { inbox_.withdraw(*this); }

  private:
    friend class Inbox;
    void complete(std::uint64_t total);

    Inbox& inbox_;
    std::size_t peer_;
    std::int64_t tag_;
    std::byte* data_;
    std::uint64_t bytes_;
    bool posted_ = false;
};

}  // namespace collx
