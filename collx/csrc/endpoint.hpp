// One rank's end of a communicator: runs calls in the caller's thread, or on a progress thread of its own.
//
// One thread at a time drives: it moves all calls under way forward, its own and the others'; so a blocked call never
// keeps another from ending, and waiting for an asynchronous one helps it along. Collectives run one after the
// other in the order they were started, point-to-point messages beside them.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "collective.hpp"
#include "mail.hpp"
#include "shrink.hpp"
#include "whereabouts.hpp"

namespace collx {

// What a caller holds that others need, and which takes longer to let go of and get back than a short call takes.
class Grip {
  public:
    virtual void let_go() = 0;

  protected:
    ~Grip() = default;
};

class Endpoint {
  public:
    // `files` are the mapped memory files of all ranks, this rank's first line initialised by its Keeper. `pidfds` tell
    // of the end of their processes: one per rank, -1 where there is none, or none at all. `far`: where any rank is on
    // another host. The files of those are replicas.
    Endpoint(std::uint32_t rank, const Layout& layout, const std::vector<std::span<std::byte>>& files,
             bool oversubscribed, Interrupted interrupted, std::vector<int> pidfds = {}, std::unique_ptr<Far> far = nullptr);
    ~Endpoint() { close(); }
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

    // In the caller's thread, until the end. Deadlines are absolute.
    // `begun` is for the record of the call. `grip` is let go of unless the call ends at once.
    Outcome run(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                Clock::time_point deadline, Clock::time_point begun = {}, Grip* grip = nullptr);
    Outcome send(std::size_t peer, std::int32_t tag, const std::byte* data, std::uint64_t bytes,
                 Clock::time_point deadline, bool synchronous = false);
    Outcome recv(const Wanted& wanted, std::byte* data, std::uint64_t bytes, Clock::time_point deadline,
                 bool exactly = true);
    // Names nobody where it does not wait and there is none.
    Outcome probe(const Wanted& wanted, bool waits, Clock::time_point deadline);

    // The same on the progress thread.
    std::shared_ptr<Task> start(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                                Clock::time_point deadline);
    std::shared_ptr<Task> start_send(std::size_t peer, std::int32_t tag, const std::byte* data, std::uint64_t bytes,
                                     Clock::time_point deadline, bool synchronous = false);
    std::shared_ptr<Task> start_recv(const Wanted& wanted, std::byte* data, std::uint64_t bytes,
                                     Clock::time_point deadline, bool exactly = true);
    // Takes back a receive that nothing has come for; false where that is too late.
    bool recall(Task& task);
    // How a started call ended; timed_out with the call going on where `deadline` comes first.
    Outcome wait(Task& task, Clock::time_point deadline);

    // Starts nothing more. The peers are told when nothing that it sends is under way any more.
    void leaving();
    bool close();  // false where it could only begin to
    // Whether nothing started is under way, behind which a call would queue.
    [[nodiscard]] bool idle() const { return under_way_.load(std::memory_order_relaxed) == 0; }

    // Agrees on who goes on after a verdict; see Shrink::meet and unite.
    Outcome meet(std::uint32_t attempt, Clock::time_point deadline) {
        return shrink.meet(attempt, deadline, interrupted_);
    }
    Outcome unite(std::uint32_t attempt, Clock::time_point deadline) {
        return shrink.unite(attempt, deadline, interrupted_);
    }

  private:
    const std::unique_ptr<Far> far_;

  public:
    Verdict verdict;
    Shrink shrink;

    [[nodiscard]] const Header& header(std::size_t peer) const { return *links_.headers[peer]; }
    // Whether the peer has said that it leaves. Of one that another rank found gone, that need not be known here yet.
    [[nodiscard]] bool left(std::size_t peer) const {
        const bool running = header(peer).state.load(std::memory_order_acquire) == State::running;
        return !died(header(peer)) && (!running || (far_ != nullptr && far_->departed(peer)));
    }
    [[nodiscard]] Wire* wire(std::size_t peer) const { return links_.wires.to(peer); }
    // In one line: what two ranks disagree on, and who keeps this one waiting.
    [[nodiscard]] std::string explain(const Outcome& mismatch) const;
    [[nodiscard]] std::string late(int waited_for) const { return laggards(place_, waited_for); }
    // Brings what is known of the calls of ranks on other hosts up to date.
    void ask() const {
        if (far_ != nullptr) far_->ask();
    }
    // To be called first, if at all: how people know this communicator, and which ranks of the job its ranks are.
    void name(std::string label, std::vector<std::uint32_t> members);

  private:
    using Tasks = std::deque<std::shared_ptr<Task>>;
    enum class Kind { collective, mail, queued };

    template <typename Message, typename... Given>
    Outcome now(Given&&... given);
    Outcome drive_and_leave(Task& task, Kind kind, Grip* grip = nullptr);
    Outcome finish(const std::shared_ptr<Task>& task);
    Outcome drive(Task& goal, Kind kind, Clock::time_point deadline, Grip* grip = nullptr);
    Outcome turn(Waiter& waiter, Task* goal, Kind kind, Clock::time_point deadline);
    bool pass(Task* goal, Kind kind);
    bool step(Task& task);
    bool acknowledge();
    static void cancel_as_asked(Task& task);
    [[nodiscard]] bool unsent() const { return !links_.wires.delivered() && !verdict.decided(); }
    void look_at_wires();
    void compare_calls(Task* goal);
    bool show_wait(const Task* goal, Kind kind, Clock::time_point deadline);
    void compare_communicators(Task* goal);
    void settle();
    void announce_leaving();
    void send_receipts();
    void tell(const Task& task);
    void for_all(Task* goal, const std::function<void(Task&)>& act);
    void end(Task* goal, Outcome why);
    [[nodiscard]] int lacked(const Task& task);
    [[nodiscard]] int departed(const Task& task);
    void end_departed(Task* goal);
    void expire(Task* goal);
    [[nodiscard]] Clock::time_point earliest(const Task* goal, Clock::time_point deadline) const;
    std::shared_ptr<Task> submit(Tasks& queue, std::shared_ptr<Task> task);
    void adopt();
    void progress();
    bool take();
    [[nodiscard]] bool driving() const;
    bool take_idle();
    void leave();
    void await_turn(const Task& task, Clock::time_point deadline);
    void announce();
    void nudge();

    const std::uint32_t rank_;
    const std::size_t chunk_;
    Links links_;
    Mailbox mailbox_;
    const bool oversubscribed_;
    Patience patience_;  // of who drives in its caller's thread
    Seat seat_;
    const Interrupted interrupted_;
    Workspace workspace_;
    Recorder recorder_;
    Communicator place_;
    std::string crossing_;  // what was found to differ between communicators

    // Guarded by being the driver.
    Tasks collectives_, mails_;
    std::uint64_t epoch_ = 1;  // counts what was done

    std::atomic<bool> taken_{false};  // somebody drives
    std::atomic<std::thread::id> driver_{};
    std::atomic<int> under_way_{0};  // calls started and not ended
    std::atomic<int> waiting_{0};    // threads that wait for another driver; the progress thread makes room for them
    std::atomic<bool> left_over_{false};  // the last driver left although something is unsent, as others waited
    std::atomic<bool> incoming_{false};
    std::atomic<bool> leaving_{false};
    std::atomic<bool> closing_{false};
    std::atomic<bool> closed_{false};

    std::mutex queue_;  // guards what is on its way to the driver; `changed_` tells of drivers that leave
    std::condition_variable changed_;
    Tasks new_collectives_, new_mails_;
    std::thread thread_;
    const int process_;
};

}  // namespace collx
