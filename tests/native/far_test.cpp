// What ends a communicator whose ranks are on several hosts, and how its survivors agree on who goes on, while they die.
#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>

#include "processes.hpp"
#include "shrink.hpp"

using namespace collx;

namespace {

// Passes on what two processes tell each other, until the one of them dies for the other: that one sees the end of the
// connection, the dead one sees nothing, as it does nothing any more.
class Relay {
  public:
    Relay(int dying, int living) : dying_(dying), living_(living), thread_(&Relay::run, this) {}
    ~Relay() {
        cut();
        thread_.join();
        close(dying_);
    }
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;
    void cut() { cut_ = true; }

  private:
    void run() {
        bool open = true;
        while (open && !cut_.load()) {
            pollfd ends[]{{dying_, POLLIN, 0}, {living_, POLLIN, 0}};
            poll(ends, 2, 1);
            if (!cut_.load()) open = pass(dying_, living_) && pass(living_, dying_);
        }
        close(living_);
    }
    static bool pass(int from, int to) {
        char bytes[4096];
        const ssize_t got = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0) return got < 0;
        return send(to, bytes, static_cast<std::size_t>(got), MSG_NOSIGNAL) == got;
    }

    const int dying_, living_;
    std::atomic<bool> cut_{false};
    std::thread thread_;
};

// Six ranks, on two hosts or three, in one communicator.
struct Job {
    static constexpr std::uint32_t kSize = 6;

    // `dying`: those whose deaths are seen by one after the other.
    Job(std::uint32_t hosts, const std::vector<std::uint32_t>& dying) {
        for (std::uint32_t rank = 0; rank < kSize; ++rank) own.push_back(std::make_unique<Memory>(Layout(kSize)));
        for (std::uint32_t rank = 0; rank < kSize; ++rank) {
            std::vector<std::byte*> near(kSize);
            for (std::uint32_t peer = rank % hosts; peer < kSize; peer += hosts) near[peer] = own[peer]->begin();
            ranks.push_back(std::make_unique<Process>(rank, kSize, near));
        }
        const auto dies = [&](std::uint32_t rank) { return std::ranges::find(dying, rank) != dying.end(); };
        for (std::uint32_t one = 0; one < kSize; ++one)
            for (std::uint32_t other = one + 1; other < kSize; ++other) {
                if (one % hosts == other % hosts) continue;
                if (!dies(one) && !dies(other)) {
                    join(*ranks[one], *ranks[other]);
                } else {
                    const Pair first, second;
                    ranks[one]->control->add(other, first.one);
                    ranks[other]->control->add(one, second.one);
                    const bool reversed = !dies(one);
                    relays.push_back({one, other, std::make_unique<Relay>(reversed ? second.other : first.other, reversed ? first.other : second.other)});
                }
            }
        for (std::uint32_t rank = 0; rank < kSize; ++rank) {
            ranks[rank]->enter(1);
            verdicts.push_back(std::make_unique<Verdict>(rank, ranks[rank]->layout, ranks[rank]->regions, std::vector<int>{}, ranks[rank]->far.get()));
            shrinks.push_back(std::make_unique<Shrink>(rank, ranks[rank]->layout, ranks[rank]->regions, *verdicts[rank], ranks[rank]->far.get()));
        }
    }
    ~Job() {
        relays.clear();
        ranks.clear();
    }
    void kill(std::uint32_t rank, std::mt19937& chance) {
        std::ranges::shuffle(relays, chance);
        for (auto& [one, other, relay] : relays)
            if (one == rank || other == rank) {
                relay->cut();
                if (chance() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(chance() % 300));
            }
        ranks[rank]->of(rank).life.fetch_or(kDied);
    }

    struct Way {
        std::uint32_t one, other;
        std::unique_ptr<Relay> relay;
    };
    std::vector<std::unique_ptr<Memory>> own;
    std::vector<std::unique_ptr<Process>> ranks;
    std::vector<Way> relays;
    std::vector<std::unique_ptr<Verdict>> verdicts;
    std::vector<std::unique_ptr<Shrink>> shrinks;
};

// Whose proposal it is, all ranks of all hosts act on it, as their own hosts' ranks show and as they are told.
bool all_hear_a_verdict() {
    for (const std::uint32_t hosts : {2u, 3u, 6u}) {
        Job job(hosts, {});
        job.verdicts[4]->propose(Why::mismatch, "collective differs");
        for (std::uint32_t rank = 0; rank < Job::kSize; ++rank) {
            Verdict& verdict = *job.verdicts[rank];
            if (!eventually([&] { return verdict.look(false); }) || verdict.winner() != 4) return false;
            if (verdict.proposal().why != Why::mismatch || verdict.proposal().text != std::string("collective differs")) return false;
        }
        job.verdicts[2]->propose(Why::revoked, "");  // too late
        if (job.verdicts[2]->winner() != 4 || job.ranks[2]->of(2).proposed.load() != 0) return false;
    }
    return true;
}

bool all_hear_of_a_death() {
    std::mt19937 chance(1);
    for (const std::uint32_t hosts : {2u, 3u, 6u}) {
        Job job(hosts, {2});
        job.kill(2, chance);
        for (const std::uint32_t rank : {0u, 1u, 3u, 4u, 5u}) {
            Verdict& verdict = *job.verdicts[rank];
            if (!eventually([&] { return verdict.look(false); })) return false;
            if (verdict.proposal().why != Why::failed || verdict.failed() != std::vector<std::uint32_t>{2}) return false;
        }
    }
    return true;
}

struct Ending {
    bool united = false, gave_up = false;
    std::uint32_t attempt = 0;
    std::vector<std::uint32_t> members;
    bool operator==(const Ending&) const = default;
};

// A rank's shrink, until it ends or the rank is `dead`. Rank `leaves` gives up when it has the members of an attempt.
Ending shrink(Job& job, std::uint32_t rank, const std::atomic<bool>& dead, bool leaves) {
    Shrink& own = *job.shrinks[rank];
    const auto soon = [] { return Clock::now() + std::chrono::milliseconds(5); };
    const auto limit = Clock::now() + std::chrono::seconds(20);
    const auto over = [&] { return dead.load() || Clock::now() > limit; };
    for (std::uint32_t attempt = 0; attempt < Job::kSize; ++attempt) {
        while (!own.meet(attempt, soon(), nullptr))
            if (over()) return {};
        if (leaves) {
            const std::uint32_t outcome = own.give_up(attempt, "it had enough");
            if (outcome == Shrink::kFailed) continue;
            return {outcome == Shrink::kUnited, outcome >= Shrink::kGaveUp, attempt, own.members()};
        }
        Outcome outcome = own.unite(attempt, soon(), nullptr);
        while (!outcome) {
            if (over()) return {};
            outcome = own.unite(attempt, soon(), nullptr);
        }
        const auto word = static_cast<std::uint32_t>(outcome.peer);
        if (word == Shrink::kFailed) continue;
        return {word == Shrink::kUnited, word >= Shrink::kGaveUp, attempt, own.members()};
    }
    return {};
}

// Ranks that die one after the other, each seen by the others at different times, while all agree.
bool survivors_agree(std::uint32_t seed) {
    std::mt19937 chance(seed);
    std::vector<std::uint32_t> order{0, 1, 2, 3, 4, 5};
    std::ranges::shuffle(order, chance);
    const std::vector<std::uint32_t> dying(order.begin(), order.begin() + 1 + chance() % 3);
    const int leaver = chance() % 4 == 0 ? static_cast<int>(order.back()) : -1;
    Job job(std::vector<std::uint32_t>{2, 3, 6}[chance() % 3], dying);
    std::vector<std::atomic<bool>> dead(Job::kSize);
    std::vector<Ending> endings(Job::kSize);
    std::vector<std::thread> threads;
    job.kill(dying[0], chance);
    dead[dying[0]] = true;
    for (std::uint32_t rank = 0; rank < Job::kSize; ++rank)
        threads.emplace_back([&, rank] { endings[rank] = shrink(job, rank, dead[rank], static_cast<int>(rank) == leaver); });
    for (const std::uint32_t rank : dying) {
        std::this_thread::sleep_for(std::chrono::microseconds(chance() % 2000));
        job.kill(rank, chance);
        dead[rank] = true;
    }
    for (auto& thread : threads) thread.join();
    const std::vector<std::uint32_t> survivors(order.begin() + static_cast<std::ptrdiff_t>(dying.size()), order.end());
    const Ending& first = endings[survivors.front()];
    if (leaver >= 0) return std::ranges::all_of(survivors, [&](std::uint32_t rank) { return endings[rank].gave_up; });
    return std::ranges::all_of(survivors, [&](std::uint32_t rank) {
        return endings[rank] == first && first.united && std::ranges::find(first.members, rank) != first.members.end();
    });
}

}  // namespace

int main() {
    int failed = 0;
    const auto test = [&](const std::string& name, bool passes) {
        if (passes) return;
        std::printf("FAILED %s\n", name.c_str());
        ++failed;
    };
    test("all_hear_a_verdict", all_hear_a_verdict());
    test("all_hear_of_a_death", all_hear_of_a_death());
    for (std::uint32_t seed = 0; seed < 60; ++seed) test("survivors_agree " + std::to_string(seed), survivors_agree(seed));
    return failed == 0 ? 0 : 1;
}
