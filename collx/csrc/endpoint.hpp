// One rank's end of a communicator: runs calls in the caller's thread, or on a progress thread of its own.
//
// Whoever holds `driving_` moves all calls under way forward, its own and the others'; so a blocked call never
// keeps another from ending, and waiting for an asynchronous one helps it along. Collectives run one after the
// other in the order they were started, point-to-point messages beside them.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "collective.hpp"
#include "mail.hpp"

namespace collx {

class Endpoint {
  public:
    // `regions` are the mapped regions of all ranks, this rank's first line initialised by its Keeper.
    Endpoint(std::uint32_t rank, const Layout& layout, std::vector<std::byte*> regions, bool oversubscribed,
             Interrupted interrupted);
    ~Endpoint() { close(); }
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

    // In the caller's thread, until the end. Deadlines are absolute.
    Outcome run(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                Clock::time_point deadline);
    Outcome send(std::size_t peer, std::int64_t tag, const std::byte* data, std::uint64_t bytes,
                 Clock::time_point deadline);
    Outcome recv(std::size_t peer, std::int64_t tag, std::byte* data, std::uint64_t bytes, Clock::time_point deadline);

    // The same on the progress thread.
    std::shared_ptr<Task> start(Prepared& plan, std::byte* input, std::byte* output, std::uint64_t sequence,
                                Clock::time_point deadline);
    std::shared_ptr<Task> start_send(std::size_t peer, std::int64_t tag, const std::byte* data, std::uint64_t bytes,
                                     Clock::time_point deadline);
    std::shared_ptr<Task> start_recv(std::size_t peer, std::int64_t tag, std::byte* data, std::uint64_t bytes,
                                     Clock::time_point deadline);
    // How a started call ended; timed_out with the call going on where `deadline` comes first.
    Outcome wait(Task& task, Clock::time_point deadline);

    // Makes every other rank's present and future wait end with peer_failed and `reason`.
    void fail(const char* reason);
    void close();

    [[nodiscard]] const Header& header(std::size_t peer) const { return *links_.headers[peer]; }

  private:
    using Tasks = std::deque<std::shared_ptr<Task>>;
    enum class Kind { collective, mail, queued };

    Outcome call(Task& task, Kind kind);
    Outcome drive(Task& goal, Kind kind, Clock::time_point deadline);
    Outcome turn(Waiter& waiter, Task* goal, Kind kind, Clock::time_point deadline);
    bool pass(Task* goal, Kind kind);
    void settle();
    void end(Task* goal, Outcome why, bool only_blocked);
    void expire(Task* goal);
    [[nodiscard]] Clock::time_point earliest(const Task* goal, Clock::time_point deadline) const;
    void adopt();
    void wake_all();
    void submit(Tasks& queue, std::shared_ptr<Task> task);
    void nudge();
    void progress();
    std::unique_lock<std::mutex> take_over();
    void deliver(std::int64_t tag, const std::byte* data, std::uint64_t bytes);

    const std::uint32_t rank_;
    const std::size_t chunk_;
    Links links_;
    std::vector<Inbox> inboxes_;
    Patience patience_;  // guarded by driving_
    const Interrupted interrupted_;
    Workspace workspace_;

    std::mutex driving_;  // guards all calls under way
    Tasks collectives_, mails_;

    std::mutex queue_;  // guards what is on its way to the driver, and the progress thread's sleep
    std::condition_variable queued_;
    Tasks new_collectives_, new_mails_;
    std::thread thread_;
    std::atomic<int> under_way_{0};  // calls started and not ended
    std::atomic<int> wanted_{0};     // threads that want to drive
    std::atomic<bool> incoming_{false};
    std::atomic<bool> closing_{false};
    const int process_;
};

}  // namespace collx
