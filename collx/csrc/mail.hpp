// Point-to-point messages with tags, on lanes of their own.
//
// A message is one line that says its length and tag, with the bytes of a short one behind them, and then lines
// of payload. A receive takes the first message that it asks for, and of the receives that ask for a message the one
// that was posted first has it. What comes before it and nobody asks for is put aside.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "task.hpp"

namespace collx {

inline constexpr int kAnySource = -1;
inline constexpr std::int32_t kAnyTag = -1;  // of users' tags, which are not negative
// Before those of the messages that say that a receive was matched; the transports' own lie between.
inline constexpr std::int32_t kReceiptTag = -16;

struct Envelope {
    int source = -1;
    std::int32_t tag = 0;
    std::uint64_t bytes = 0;
};

// Which messages are asked for.
struct Wanted {
    int source;
    std::int32_t tag;
    [[nodiscard]] bool from(std::size_t peer) const { return source == kAnySource || source == static_cast<int>(peer); }
    [[nodiscard]] bool takes(const Envelope& message) const {
        return from(static_cast<std::size_t>(message.source)) &&
               (tag == message.tag || (tag == kAnyTag && message.tag >= 0));
    }
};

class RecvTask;

// One rank's messages: what comes from every peer, what has come and was not asked for, and who asks for what has not.
class Mailbox {
  public:
    Mailbox(std::size_t rank, std::size_t size) : rank_(rank), coming_(size) {}

    void post(RecvTask& task);
    void withdraw(const RecvTask& task);
    // Takes what the lanes hold, as long as somebody waits for it; true where anything moved.
    bool pull(Links& links, int source);
    // The first message that is `wanted` and that no receive has, wherever it is. Others are put aside.
    std::optional<Envelope> find(Links& links, const Wanted& wanted);
    void deliver(std::int32_t tag, const std::byte* data, std::uint64_t bytes, std::uint32_t receipt);  // to itself

    [[nodiscard]] std::uint32_t next_receipt() { return receipts_ = receipts_ % kReceipts + 1; }
    // What receives have been matched with whose senders wait for that, until it is taken to be told them.
    struct Matched {
        std::size_t sender;
        std::uint32_t receipt;
    };
    std::vector<Matched> matched;

  private:
    static constexpr std::uint32_t kReceipts = 1u << 30;
    struct Message {
        Envelope envelope;
        std::uint32_t receipt = 0;     // what its sender waits for; 0 where it does not
        std::uint64_t arrived = 0;
        std::vector<std::byte> kept;   // where nobody wanted it when it began
        RecvTask* receiver = nullptr;  // somebody did
        bool unwanted = false;         // but has gone
        bool under_way = false;
    };

    bool pull_from(Links& links, std::size_t peer);
    std::optional<Envelope> look(Links& links, std::size_t peer, const Wanted& wanted);
    [[nodiscard]] bool claimed(const Envelope& message) const;  // a receive waits that will get it
    [[nodiscard]] bool awaited(std::size_t peer) const;
    void take(Reader& lane, std::size_t peer);
    void begin(Message& message, const Envelope& envelope, std::uint32_t receipt);
    static void append(Message& message, const std::byte* data, std::uint64_t bytes);
    void close(Message& message);
    RecvTask* match(const Message& message);
    void settle(RecvTask& task, const Message& message);
    bool take_kept(RecvTask& task);
    static void hand_over(RecvTask& task, const Message& kept);

    const std::size_t rank_;
    std::vector<Message> coming_;  // by peer
    std::deque<Message> kept_;     // in the order in which they came
    std::deque<RecvTask*> waiting_;
    std::size_t turn_ = 0;  // whom a receive from anybody asks first: fair to those that send all the time
    std::uint32_t receipts_ = 0;
};

class RecvTask final : public Task {
  public:
    // Of `bytes` bytes `exactly`, or of so many at most: then what came is said by the outcome.
    RecvTask(Mailbox& mailbox, const Wanted& wanted, std::byte* data, std::uint64_t bytes, bool exactly,
             Clock::time_point limit)
        : Task(limit), mailbox_(mailbox), wanted_(wanted), data_(data), bytes_(bytes), exactly_(exactly) {}
    bool step(Links& links) override;
    [[nodiscard]] bool needs(Links& links, std::size_t peer) const override;
    [[nodiscard]] bool recallable() const override { return !matched_; }
    void abandon() override { mailbox_.withdraw(*this); }

  private:
    friend class Mailbox;
    [[nodiscard]] bool fits(std::uint64_t total) const { return exactly_ ? total == bytes_ : total <= bytes_; }
    void complete(const Envelope& message);

    Mailbox& mailbox_;
    Wanted wanted_;  // narrowed to the sender when there is one
    std::byte* data_;
    std::uint64_t bytes_;
    bool exactly_;
    bool posted_ = false;
    bool matched_ = false;
};

class SendTask final : public Task {
  public:
    // `synchronous`: ends only when a receive has been matched with it.
    SendTask(Mailbox& mailbox, std::size_t rank, std::size_t peer, std::int32_t tag, const std::byte* data,
             std::uint64_t bytes, bool synchronous, std::size_t chunk, Clock::time_point limit);
    // Tells a sender that a receive has been matched with its message.
    SendTask(Mailbox& mailbox, std::size_t rank, const Mailbox::Matched& matched);
    bool step(Links& links) override;
    [[nodiscard]] bool sends() const override { return true; }
    [[nodiscard]] bool owed() const override { return tag_ <= kReceiptTag; }
    void abandon() override;

  private:
    bool write(Links& links);

    static constexpr char kHalf = 0;  // has the turn for good: nothing may follow half a message
    Mailbox& mailbox_;
    std::size_t rank_;
    std::size_t peer_;
    std::int32_t tag_;
    const std::byte* data_;
    std::uint64_t bytes_;
    std::size_t chunk_;
    std::uint64_t sent_ = 0;
    bool opened_ = false;
    bool written_ = false;
    const void** turn_ = nullptr;
    std::uint32_t receipt_ = 0;
    std::optional<RecvTask> awaited_;  // what comes when it has been matched
};

// Waits for a message and leaves it where it is; or only looks.
class ProbeTask final : public Task {
  public:
    ProbeTask(Mailbox& mailbox, const Wanted& wanted, bool waits, Clock::time_point limit)
        : Task(limit), mailbox_(mailbox), wanted_(wanted), waits_(waits) {}
    bool step(Links& links) override;
    [[nodiscard]] bool needs(Links& links, std::size_t peer) const override;

  private:
    Mailbox& mailbox_;
    Wanted wanted_;
    bool waits_;
    bool looked_ = false;
};

}  // namespace collx
