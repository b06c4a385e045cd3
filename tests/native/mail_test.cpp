// Messages between threads as ranks, from anybody, synchronous and cancelled, near and far, for the sanitizers.
//   mail_test CASES
#include <cstdio>

#include "world.hpp"

using namespace collx;

namespace {

constexpr int kRounds = 20;

Wanted anything() { return {kAnySource, kAnyTag}; }

// Every rank sends every rank, itself too, a message per round, and receives as many from anybody: of one line or of
// several, probed or not, in this thread or beside it.
bool exchange(World& world, std::size_t rank, std::size_t size) {
    Endpoint& here = world[rank];
    bool right = true;
    for (int round = 0; round < kRounds; ++round) {
        const std::size_t length = round % 3 == 2 ? 20'000 : 3;
        Words mine(length, static_cast<std::int64_t>(rank));
        std::vector<std::shared_ptr<Task>> sends;
        for (std::size_t peer = 0; peer < size; ++peer)
            sends.push_back(here.start_send(peer, round, bytes(mine), length * 8, soon(), (round + peer) % 2 == 0));
        std::vector<bool> seen(size);
        for (std::size_t number = 0; number < size; ++number) {
            Words got(length + 1);
            const Wanted wanted{kAnySource, round};
            const Outcome probed = number == 0 ? here.probe(wanted, true, soon()) : Outcome{};
            Outcome found;
            if (round % 2 == 0)
                found = here.recv(wanted, bytes(got), got.size() * 8, soon(), false);
            else
                found = here.wait(*here.start_recv(wanted, bytes(got), got.size() * 8, soon(), false), soon());
            if (!found || !probed || found.bytes != length * 8 || found.wanted != static_cast<std::uint64_t>(round))
                return false;
            const auto source = static_cast<std::size_t>(found.peer);
            right &= !seen[source] && got[0] == found.peer && got[length - 1] == found.peer && got[length] == 0;
            seen[source] = true;
        }
        for (auto& send : sends) right &= bool(here.wait(*send, soon()));
    }
    return right && here.probe(anything(), false, soon()).peer < 0;
}

// Receives are taken back by one thread while another waits for them, and messages come in between.
bool cancelling(World& world) {
    bool right = true;
    for (int round = 0; round < 100; ++round) {
        Words got(1), mine(1, round);
        auto receiving = world[0].start_recv(anything(), bytes(got), 8, soon(), false);
        Outcome sent, waited;
        std::thread sending([&] { sent = world[1].send(0, 5, bytes(mine), 8, soon()); });
        std::thread waiting([&] { waited = world[0].wait(*receiving, soon()); });
        const bool recalled = world[0].recall(*receiving);
        waiting.join();
        right &= recalled == (waited.status == Status::recalled);
        if (recalled) waited = world[0].recv({1, 5}, bytes(got), 8, soon());
        right &= bool(waited) && got[0] == round;
        sending.join();
        right &= bool(sent);
    }
    return right;
}

// A probe does not tell of a message that a receive posted before it will get, however much of that has come.
bool probed(World& world) {
    bool right = true;
    Words mine(20'000), first(20'000), second(10'000), other(1);
    for (int round = 0; round < 20; ++round) {
        auto draining = world[0].start_recv({1, 6}, bytes(other), 8, soon(), false);
        auto large = world[1].start_send(0, 5, bytes(mine), first.size() * 8, soon());
        auto small = world[1].start_send(0, 5, bytes(mine), second.size() * 8, soon());
        auto receiving = world[0].start_recv({1, 5}, bytes(first), first.size() * 8, soon(), false);
        const Outcome found = world[0].probe({1, 5}, true, soon());
        right &= found && found.bytes == second.size() * 8;
        right &= bool(world[0].recv({1, 5}, bytes(second), second.size() * 8, soon()));
        right &= bool(world[1].send(0, 6, bytes(mine), 8, soon()));
        for (const auto& [rank, task] : {std::pair{0, receiving}, {0, draining}, {1, large}, {1, small}})
            right &= bool(world[rank].wait(*task, soon()));
    }
    return right;
}

// One that is too long is consumed, and nothing else is harmed.
bool truncated(World& world) {
    Words mine(20'000, 1), got(3);
    std::thread sending([&] {
        world[1].send(0, 1, bytes(mine), mine.size() * 8, soon());
        world[1].send(0, 2, bytes(mine), 8, soon());
    });
    const Outcome first = world[0].recv(anything(), bytes(got), 24, soon(), false);
    const bool untouched = got == Words(3);
    const Outcome second = world[0].recv(anything(), bytes(got), 24, soon(), false);
    sending.join();
    return first.status == Status::truncated && first.bytes == mine.size() * 8 && untouched && second &&
           second.bytes == 8 && got[0] == 1;
}

bool all(World& world, std::size_t size) {
    std::vector<char> right(size);
    std::vector<std::thread> threads;
    for (std::size_t rank = 0; rank < size; ++rank)
        threads.emplace_back([&, rank] { right[rank] = exchange(world, rank, size); });
    for (auto& thread : threads) thread.join();
    return std::ranges::count(right, 1) == static_cast<std::ptrdiff_t>(size) && cancelling(world) &&
           probed(world) && truncated(world);
}

}  // namespace

int main() {
    bool right = true;
    for (const std::uint32_t per_host : {0u, 1u, 2u}) {
        World world(4, per_host);
        if (all(world, 4)) continue;
        std::printf("FAILED with %u ranks per host (0: all)\n", per_host);
        right = false;
    }
    return right ? 0 : 1;
}
