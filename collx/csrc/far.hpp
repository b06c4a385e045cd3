// What one communicator tells and asks its ranks on other hosts, and hears from them.
//
// Of a rank whose region this process cannot map it keeps a replica: memory of its own with the same layout. What a rank
// writes into its region for others to see it also tells here, and the control thread of the others writes that into
// their replicas of it, in the same order. So everything that reads regions reads replicas as well.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "control_frame.hpp"
#include "frame.hpp"
#include "region.hpp"

namespace collx {

class Control;

// What the control thread does with a data connection of this communicator. May be called by any thread.
class WireEnd {
  public:
    virtual void attach(int fd) = 0;                            // it is made; the descriptor becomes the wire's
    virtual void farewell(State state, std::uint64_t frames) = 0;  // to be shown when so many frames have come
    virtual void arrived(std::uint64_t word, const Chains& chains) = 0;  // of the peer's newest call
    [[nodiscard]] virtual std::uint64_t sent() const = 0;

  protected:
    ~WireEnd() = default;
};

class Far {
  public:
    // `members`: the ranks' numbers in the job, by which `control` knows them; `far`: which of them are on other hosts.
    // `epoch` is the job's, for the wires.
    Far(std::shared_ptr<Control> control, std::uint32_t communicator, std::uint32_t epoch, std::uint32_t rank,
        const Layout& layout, std::vector<std::uint32_t> members, std::vector<bool> far);
    ~Far() { leave(); }
    Far(const Far&) = delete;
    Far& operator=(const Far&) = delete;

    const std::uint32_t communicator, epoch, rank;
    const std::vector<std::uint32_t> members;
    const std::vector<bool> far;     // by rank
    std::vector<WireEnd*> wires;     // by rank, to be set before `enter`

    // From now on the replicas among the regions are written by the control thread, with all that came before.
    void enter(std::vector<std::byte*> regions);
    void leave();  // until now

    // To all far ranks.
    void tell(Tells kind, std::uint32_t subject = 0, std::uint64_t value = 0, std::string_view text = {});
    void tell_state(State state);

    void want(std::size_t peer);                       // a data connection, for its wire to be attached
    void arm(int fd, std::uint32_t events);            // rings this rank's bell once when one of them is there
    void disarm(int fd);

    // To be called in a wait, and when it is over: asks the peers what they do, ever more rarely.
    void wonder(std::chrono::steady_clock::time_point now);
    void restart() { interval_ = {}; }
    // Asks, and waits for the answers a moment. Records and waits of the far ranks that do are then as they were when it began,
    // in all communicators of this process that they are in.
    void ask();

    [[nodiscard]] bool silent(std::size_t peer) const;  // it has not answered for longer than such a moment
    [[nodiscard]] bool departed(std::size_t peer) const;
    // When what is known of the peer's calls was asked for, in ns of this host's steady clock.
    [[nodiscard]] std::int64_t asked(std::size_t peer) const { return heard_[peer].asked.load(std::memory_order_acquire); }
    [[nodiscard]] std::string losses() const;  // of far ranks, where more than the end of a process is known, for people
    // What keeps a data connection from being made; empty while nothing does.
    [[nodiscard]] std::string trouble() const;

  private:
    friend class Control;
    using Time = std::chrono::steady_clock::time_point;

    struct Heard {
        std::atomic<State> state{State::running};
        std::atomic<std::int64_t> asked{0};
        std::uint64_t shown = 0;  // the newest of this rank's calls that the peer was told of
    };

    // By the control thread, with the Control locked. False for what makes no sense.
    bool take(std::uint32_t peer, const ControlFrame& frame, std::int64_t asked);
    bool take_word(std::uint32_t peer, const ControlFrame& frame);
    void take_record(std::uint32_t peer, const RecordWords& words) const;
    void take_answer(std::uint32_t peer, const AnswerWords& words, std::int64_t asked);
    void answer(std::uint32_t peer);
    void lost(std::uint32_t peer);
    void fail(std::uint32_t member, const std::string& why);
    void wake() const;
    [[nodiscard]] int rank_of(std::uint32_t member) const;
    [[nodiscard]] Header& header(std::uint32_t peer) const { return Layout::header(regions_[peer]); }

    const std::shared_ptr<Control> control_;
    const Layout& layout_;
    std::vector<std::byte*> regions_;  // empty while it has not entered
    std::vector<Heard> heard_;         // by rank
    std::atomic<bool> troubled_{false};
    std::string trouble_;  // written once, before that
    std::chrono::milliseconds interval_{};
    Time next_{};
    std::mutex asking_;
    Time vain_{};  // when somebody did not answer
};

}  // namespace collx
