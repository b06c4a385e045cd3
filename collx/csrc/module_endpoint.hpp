// Plans and a rank's endpoint as Python holds them; module.cpp gives them their names.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "control.hpp"
#include "endpoint.hpp"
#include "module_region.hpp"

namespace collx {

namespace nb = nanobind;

inline Clock::time_point after(double seconds, Clock::time_point now = Clock::now()) {
    if (!(seconds < 1e9)) return Clock::time_point::max();
    return now + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Of a traceback: the type and the text of the exception.
inline std::string last_line(std::string_view text) {
    while (text.ends_with('\n')) text.remove_suffix(1);
    return std::string(text.substr(text.rfind('\n') + 1));
}

// A decoded plan with what keeps its user op alive. The callable takes (target, a, b, bytes), addresses as ints.
class PreparedPlan {
  public:
    PreparedPlan(const nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig>& words, nb::object custom)
        : prepared(Plan::decode({words.data(), words.size()})), custom_(std::move(custom)) {
        prepared.custom_context = this;
        prepared.custom = [](void* self, void* target, const void* a, const void* b, std::uint64_t bytes) {
            const nb::gil_scoped_acquire gil;
            try {
                static_cast<PreparedPlan*>(self)->custom_(address(target), address(a), address(b), bytes);
                return true;
            } catch (nb::python_error& error) {
                static_cast<PreparedPlan*>(self)->raised = nb::cast(error.value());
                static_cast<PreparedPlan*>(self)->prepared.complaint = last_line(error.what());
                return false;
            }
        };
    }

    int traverse(visitproc visit, void* arg) {
        Py_VISIT(custom_.ptr());
        Py_VISIT(raised.ptr());
        return 0;
    }
    void clear() {
        custom_ = nb::none();
        raised = nb::none();
    }

    Prepared prepared;
    nb::object raised = nb::none();

  private:
    static std::uintptr_t address(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }
    nb::object custom_;
};

using Result = std::tuple<int, int, std::uint64_t, std::uint64_t>;  // status, peer, bytes, wanted

// A call of the flight recorder: sequence, collective, dtype, op, root, count, algorithm, progress, started, ended.
using Shown = std::tuple<std::uint64_t, std::string, std::string, std::string, std::int64_t, std::string, std::string,
                         int, double, double>;

inline Result result(Outcome outcome) {
    if (outcome.status == Status::interrupted) throw nb::python_error();
    return {static_cast<int>(outcome.status), outcome.peer, outcome.bytes, outcome.wanted};
}

inline std::byte* at(std::uintptr_t address) { return reinterpret_cast<std::byte*>(address); }

class PyEndpoint {
  public:
    // `fds` by rank, -1 for those on other hosts; `members`: the ranks' numbers in the job, as `control` knows them.
    PyEndpoint(std::shared_ptr<Region> region, const std::vector<int>& fds, bool oversubscribed,
               std::vector<int> pidfds, nb::object keep, std::shared_ptr<Control> control, std::uint32_t communicator,
               std::uint32_t epoch, std::vector<std::uint32_t> members)
        : region_(std::move(region)), keep_(std::move(keep)) {
        std::vector<std::span<std::byte>> files;
        std::vector<bool> far(fds.size());
        for (std::uint32_t peer = 0; peer < fds.size(); ++peer) {
            far[peer] = fds[peer] < 0 && peer != region_->rank;
            if (far[peer])
                mappings_.push_back(Mapping::replica(region_->layout.heap_at));
            else if (peer != region_->rank)
                mappings_.emplace_back(fds[peer], region_->layout.heap_at);
            files.push_back(peer == region_->rank ? region_->mapping.bytes() : mappings_.back().bytes());
        }
        if (files.size() != region_->layout.size) throw std::invalid_argument("one region per rank is needed");
        std::unique_ptr<Far> distant;
        if (std::ranges::find(far, true) != far.end()) {
            if (control == nullptr || members.size() != far.size())
                throw std::invalid_argument("ranks on other hosts need a Control, and their numbers in the job");
            distant = std::make_unique<Far>(std::move(control), communicator, epoch, region_->rank, region_->layout,
                                            std::move(members), std::move(far));
        }
        endpoint_ = std::make_unique<Endpoint>(region_->rank, region_->layout, files, oversubscribed, &interrupted,
                                               std::move(pidfds), std::move(distant));
    }
    ~PyEndpoint() {
        if (getpid() == process_)
            close();
        else
            static_cast<void>(endpoint_.release());  // a forked child cannot join threads it does not have
    }

    // Lets other Python threads run, at once or when told to; counted until it has the interpreter back.
    class Outside final : public Grip {
      public:
        explicit Outside(PyEndpoint& endpoint, bool at_once = true) : callers_(endpoint.callers_) {
            callers_.fetch_add(1);
            if (at_once) let_go();
        }
        void let_go() override { release_.emplace(); }
        ~Outside() {
            release_.reset();
            callers_.fetch_sub(1);
        }
        Outside(const Outside&) = delete;
        Outside& operator=(const Outside&) = delete;

      private:
        std::atomic<int>& callers_;
        std::optional<nb::gil_scoped_release> release_;
    };

    Outcome at_once(PreparedPlan& plan, std::byte* input, std::byte* output, std::uint64_t sequence, double timeout) {
        Outcome outcome;
        {
            Outside outside(*this, false);
            const auto begun = Clock::now();
            outcome = endpoint_->run(plan.prepared, input, output, sequence, after(timeout, begun), begun, &outside);
        }
        if (outcome.status == Status::closed) close();  // maybe a signal handler only began to
        return outcome;
    }
    Result run(PreparedPlan& plan, std::uintptr_t input, std::uintptr_t output, std::uint64_t sequence,
               double timeout) {
        return result(at_once(plan, at(input), at(output), sequence, timeout));
    }
    [[nodiscard]] bool idle() const { return endpoint_->idle(); }
    std::shared_ptr<Task> start(PreparedPlan& plan, std::uintptr_t input, std::uintptr_t output,
                                std::uint64_t sequence, double timeout) {
        const Outside outside(*this);
        return endpoint_->start(plan.prepared, at(input), at(output), sequence, after(timeout));
    }
    Result send(std::size_t peer, std::int32_t tag, std::uintptr_t data, std::uint64_t bytes, double timeout,
                bool synchronous) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->send(peer, tag, at(data), bytes, after(timeout), synchronous);
        }
        return ended(outcome);
    }
    Result recv(int source, std::int32_t tag, std::uintptr_t data, std::uint64_t bytes, double timeout, bool exactly) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->recv({source, tag}, at(data), bytes, after(timeout), exactly);
        }
        return ended(outcome);
    }
    Result probe(int source, std::int32_t tag, bool waits, double timeout) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->probe({source, tag}, waits, after(timeout));
        }
        return ended(outcome);
    }
    std::shared_ptr<Task> start_send(std::size_t peer, std::int32_t tag, std::uintptr_t data, std::uint64_t bytes,
                                     double timeout, bool synchronous) {
        const Outside outside(*this);
        return endpoint_->start_send(peer, tag, at(data), bytes, after(timeout), synchronous);
    }
    std::shared_ptr<Task> start_recv(int source, std::int32_t tag, std::uintptr_t data, std::uint64_t bytes,
                                     double timeout, bool exactly) {
        const Outside outside(*this);
        return endpoint_->start_recv({source, tag}, at(data), bytes, after(timeout), exactly);
    }
    bool recall(Task& task) {
        const Outside outside(*this);
        return endpoint_->recall(task);
    }
    Result wait(Task& task, double timeout) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->wait(task, after(timeout));
        }
        return ended(outcome);
    }
    void propose(std::uint32_t why, const std::string& text) {
        endpoint_->verdict.propose(static_cast<Why>(why), text);
    }
    void propose_failed(int left) { endpoint_->verdict.propose_failed(left); }
    // Why, by whom, what that one says of it, and the ranks that have failed; (0, 0, "", []) where there is none yet.
    [[nodiscard]] std::tuple<std::uint32_t, std::uint32_t, std::string, std::vector<std::uint32_t>> verdict() const {
        const Verdict& verdict = endpoint_->verdict;
        if (!verdict.decided()) return {};
        const Proposal& proposal = verdict.proposal();
        const bool failed = proposal.why == Why::failed;
        return {static_cast<std::uint32_t>(proposal.why), verdict.winner(), proposal.text,
                failed ? verdict.failed() : std::vector<std::uint32_t>{}};
    }
    void leaving() { endpoint_->leaving(); }

    // A shrink; see shrink.hpp.
    // The members; none where that was not known in time.
    std::vector<std::uint32_t> members(std::uint32_t attempt, double timeout) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->meet(attempt, after(timeout));
        }
        result(outcome);
        return outcome ? endpoint_->shrink.members() : std::vector<std::uint32_t>{};
    }
    std::uint32_t outcome(std::uint32_t attempt) {
        endpoint_->verdict.ask_kernel();
        return endpoint_->shrink.outcome(attempt);
    }
    std::uint32_t unite(std::uint32_t attempt, double timeout) {
        Outcome outcome;
        {
            const Outside outside(*this);
            outcome = endpoint_->unite(attempt, after(timeout));
        }
        result(outcome);
        return outcome ? static_cast<std::uint32_t>(outcome.peer) : Shrink::kUndecided;
    }
    std::uint32_t give_up(std::uint32_t attempt, const std::string& text) {
        return endpoint_->shrink.give_up(attempt, text);
    }
    [[nodiscard]] std::string regret(std::uint32_t peer) const { return endpoint_->shrink.regret(peer); }
    [[nodiscard]] std::vector<std::uint32_t> missing(std::uint32_t attempt) const {
        return endpoint_->shrink.missing(attempt);
    }

    // Without the interpreter's lock, as ranks on other hosts may be asked.
    [[nodiscard]] std::string explain(int peer, std::uint64_t bytes, std::uint64_t wanted) const {
        const nb::gil_scoped_release release;
        return endpoint_->explain({Status::mismatched, peer, bytes, wanted});
    }
    [[nodiscard]] std::string late(int waited_for) const {
        const nb::gil_scoped_release release;
        return endpoint_->late(waited_for);
    }
    void ask() const {
        const nb::gil_scoped_release release;
        endpoint_->ask();
    }
    void name(std::string label, std::vector<std::uint32_t> members) {
        endpoint_->name(std::move(label), std::move(members));
    }
    // The newest calls of `peer`, the oldest first.
    [[nodiscard]] std::vector<Shown> calls(std::size_t peer, std::uint64_t most) const {
        const Flight& flight = endpoint_->header(peer).flight;
        const std::uint64_t last = newest(flight);
        std::vector<Shown> found;
        for (std::uint64_t at = last > most ? last - most + 1 : 1; at <= last; ++at)
            if (const auto call = recorded(flight, at)) {
                const Traits& traits = call->traits;
                found.emplace_back(call->sequence, traits.collective, traits.dtype, traits.op, traits.root,
                                   traits.count, traits.algorithm, static_cast<int>(call->progress),
                                   static_cast<double>(call->started) * 1e-9, static_cast<double>(call->ended) * 1e-9);
            }
        return found;
    }
    [[nodiscard]] bool left(std::size_t peer) const { return endpoint_->left(peer); }
    void close() {
        if (getpid() != process_) return;
        bool closed = false;
        {
            const nb::gil_scoped_release release;
            closed = endpoint_->close();
            // Threads in a call must be out of it before the interpreter ends, which would end them in the middle.
            const auto limit = Clock::now() + std::chrono::milliseconds(500);
            while (closed && callers_.load() > 0 && Clock::now() < limit)
                std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
        if (closed) region_->release();
    }

    std::uint64_t counted = 0;  // collectives: the newest one's sequence

  private:
    Result ended(Outcome outcome) {
        if (outcome.status == Status::closed) close();  // maybe a signal handler only began to
        return result(outcome);
    }

    std::shared_ptr<Region> region_;
    nb::object keep_;  // owns the pidfds
    std::vector<Mapping> mappings_;
    std::unique_ptr<Endpoint> endpoint_;
    std::atomic<int> callers_{0};  // threads in a call without the interpreter
    const int process_ = getpid();
};

}  // namespace collx
