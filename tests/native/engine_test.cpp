// Runs dumped plans with threads as ranks, for ThreadSanitizer and the others. The cases come from
// tests/native/dump_cases.py: every registered algorithm, with inputs and what must come out.
//   engine_test CASES
#include <cstdio>

#include "world.hpp"

using namespace collx;

namespace {

// A rank that gives up, one that closes and one that is leaving must wake the others, who all see the same verdict.
bool failures() {
    World world(3);
    Words out(1);
    Outcome first, second;
    std::thread one([&] { first = world[1].recv({0, 1}, bytes(out), 8, soon()); });
    world[0].verdict.propose(Why::gave_up, "because");
    one.join();
    std::thread two([&] { second = world[2].recv({1, 1}, nullptr, 0, soon()); });
    two.join();
    World going(3);
    Outcome third, fourth;
    std::thread waits([&] {
        third = going[1].recv({0, 1}, bytes(out), 8, soon());
        going[1].verdict.propose_failed(third.peer);
    });
    std::thread beside([&] { fourth = going[2].recv({1, 1}, bytes(out), 8, soon()); });
    going[0].leaving();
    waits.join();
    beside.join();
    const std::vector<std::uint32_t> leaver{0};
    return first.status == Status::decided && second.status == Status::decided &&
           world[2].verdict.proposal().text == std::string("because") && world[1].verdict.winner() == 0 &&
           third.status == Status::departed && fourth.status == Status::decided &&
           going[2].verdict.failed() == leaver;
}

// Survivors that all propose at once go through the same attempts to the same members.
bool shrinking() {
    constexpr std::uint32_t size = 6;
    World world(size);
    for (int round = 0; round < 2; ++round) world[4].close(), world[0].close();
    std::vector<std::vector<std::uint32_t>> members(size);
    std::vector<std::thread> threads;
    for (const std::uint32_t rank : {1u, 2u, 3u, 5u})
        threads.emplace_back([&, rank] {
            Shrink& shrink = world[rank].shrink;
            for (std::uint32_t attempt = 0;; ++attempt) {
                if (!world[rank].meet(attempt, soon())) return;
                members[rank] = shrink.members();
                if (rank == 3) return static_cast<void>(world[3].close());  // in the middle of the first attempt
                const Outcome outcome = world[rank].unite(attempt, soon());
                if (!outcome || outcome.peer == Shrink::kUnited) return;
            }
        });
    for (auto& thread : threads) thread.join();
    const std::vector<std::uint32_t> wanted{1, 2, 5};
    return members[1] == wanted && members[2] == wanted && members[5] == wanted;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: engine_test CASES\n"), 2;
    auto cases = read_cases(argv[1]);
    std::vector<std::unique_ptr<World>> worlds(17);
    std::size_t failed = 0;
    for (auto& one : cases) {
        auto& world = worlds[one.ranks.size()];
        if (!world) world = std::make_unique<World>(static_cast<std::uint32_t>(one.ranks.size()));
        if (run_case(*world, one)) continue;
        std::printf("FAILED %s\n", one.name.c_str());
        world = nullptr;
        ++failed;
    }
    if (!failures()) std::printf("FAILED failures\n"), ++failed;
    if (!shrinking()) std::printf("FAILED shrinking\n"), ++failed;
    std::printf("%zu passed, %zu failed\n", cases.size() + 2 - failed, failed);
    return failed == 0 ? 0 : 1;
}
