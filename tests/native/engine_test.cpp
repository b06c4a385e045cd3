// Runs dumped plans with threads as ranks, for ThreadSanitizer and the others. The cases come from
// tests/native/dump_cases.py: every registered algorithm, with inputs and what must come out.
//   engine_test CASES
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "endpoint.hpp"

using namespace collx;

namespace {

using Words = std::vector<std::int64_t>;

struct Rank {
    Words plan, input, expected, output;
};

struct Case {
    std::string name;
    std::vector<Rank> ranks;
};

class File {
  public:
    explicit File(const char* path) {
        std::ifstream in(path, std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(in), {});
    }
    [[nodiscard]] bool ended() const { return at_ >= bytes_.size(); }
    std::int64_t number() {
        std::int64_t value = 0;
        std::memcpy(&value, bytes_.data() + at_, sizeof value);
        at_ += sizeof value;
        return value;
    }
    Words words() {
        Words result(static_cast<std::size_t>(number()));
        for (auto& word : result) word = number();
        return result;
    }

  private:
    std::vector<char> bytes_;
    std::size_t at_ = 0;
};

std::vector<Case> read_cases(const char* path) {
    File file(path);
    std::vector<Case> cases;
    while (!file.ended()) {
        Case one;
        for (const std::int64_t letter : file.words()) one.name.push_back(static_cast<char>(letter));
        const std::int64_t size = file.number();
        for (std::int64_t rank = 0; rank < size; ++rank) {
            Rank r{file.words(), file.words(), file.words(), {}};
            r.output.resize(r.expected.size());
            one.ranks.push_back(std::move(r));
        }
        cases.push_back(std::move(one));
    }
    return cases;
}

// The regions of one communicator whose ranks are threads.
class World {
  public:
    explicit World(std::uint32_t size) : layout_(size) {
        for (std::uint32_t rank = 0; rank < size; ++rank) {
            void* at = mmap(nullptr, layout_.heap_at + kHeap, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            files_.emplace_back(static_cast<std::byte*>(at), layout_.heap_at + kHeap);
            keepers_.push_back(std::make_unique<Keeper>(Layout::header(files_.back().data())));
        }
        for (std::uint32_t rank = 0; rank < size; ++rank)
            endpoints_.push_back(std::make_unique<Endpoint>(rank, layout_, files_, true, nullptr));
    }
    ~World() {
        endpoints_.clear();
        keepers_.clear();
        for (const auto& file : files_) munmap(file.data(), file.size());
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    Endpoint& operator[](std::size_t rank) { return *endpoints_[rank]; }
    std::byte* heap(std::size_t rank) { return files_[rank].data() + layout_.heap_at; }
    std::uint64_t calls = 0;  // collectives made by every rank

  private:
    static constexpr std::size_t kHeap = 1 << 20;

    Layout layout_;
    std::vector<std::span<std::byte>> files_;
    std::vector<std::unique_ptr<Keeper>> keepers_;
    std::vector<std::unique_ptr<Endpoint>> endpoints_;
};

std::byte* bytes(Words& words) { return reinterpret_cast<std::byte*>(words.data()); }

Clock::time_point soon() { return Clock::now() + std::chrono::seconds(60); }

// Three runs on memory that the others read where it lies.
bool run_lent(World& world, std::size_t rank, Rank& mine, Prepared& prepared, std::uint64_t& sequence) {
    std::byte* input = world.heap(rank);
    std::byte* output = input + mine.input.size() * 8;
    bool right = true;
    for (int turn = 0; turn < 3; ++turn) {
        std::copy(mine.input.begin(), mine.input.end(), reinterpret_cast<std::int64_t*>(input));
        right &= bool(world[rank].run(prepared, input, output, ++sequence, soon()));
        right &= std::equal(mine.expected.begin(), mine.expected.end(), reinterpret_cast<std::int64_t*>(output));
        std::memset(input, 0, mine.input.size() * 8);  // it is the caller's again: nobody may still read it
    }
    return right;
}

// Runs of a case in the caller's thread, as many as a plan has ways for its data to go and one more, three on memory of the
// heap, three on the progress thread, and messages around the ring.
bool run_rank(World& world, std::size_t rank, Case& one) {
    Rank& mine = one.ranks[rank];
    Endpoint& endpoint = world[rank];
    const std::size_t size = one.ranks.size();
    Prepared prepared(Plan::decode(mine.plan));
    bool right = true;
    std::uint64_t sequence = world.calls;
    for (int turn = 0; turn < 4; ++turn) {
        std::fill(mine.output.begin(), mine.output.end(), 0);
        right &= bool(endpoint.run(prepared, bytes(mine.input), bytes(mine.output), ++sequence, soon()));
        right &= mine.output == mine.expected;
    }
    right &= run_lent(world, rank, mine, prepared, sequence);
    std::fill(mine.output.begin(), mine.output.end(), 0);
    std::vector<std::shared_ptr<Task>> tasks;
    for (int turn = 0; turn < 3; ++turn)
        tasks.push_back(endpoint.start(prepared, bytes(mine.input), bytes(mine.output), ++sequence, soon()));
    Words token(5000, static_cast<std::int64_t>(rank)), got(5000);
    const auto next = (rank + 1) % size, previous = (rank + size - 1) % size;
    auto receiving = endpoint.start_recv(previous, 7, bytes(got), got.size() * 8, soon());
    right &= bool(endpoint.send(next, 7, bytes(token), token.size() * 8, soon()));
    right &= bool(endpoint.wait(*receiving, soon()));
    right &= got == Words(5000, static_cast<std::int64_t>(previous));
    for (auto& task : tasks) right &= bool(endpoint.wait(*task, soon()));
    return right && mine.output == mine.expected;
}

bool run_case(World& world, Case& one) {
    std::vector<std::thread> threads;
    std::vector<char> right(one.ranks.size(), 0);
    for (std::size_t rank = 0; rank < one.ranks.size(); ++rank)
        threads.emplace_back([&, rank] { right[rank] = run_rank(world, rank, one); });
    for (auto& thread : threads) thread.join();
    world.calls += 10;
    return std::find(right.begin(), right.end(), 0) == right.end();
}

// A rank that gives up, one that closes and one that is leaving must wake the others, who all see the same verdict.
bool failures() {
    World world(3);
    Words out(1);
    Outcome first, second;
    std::thread one([&] { first = world[1].recv(0, 1, bytes(out), 8, soon()); });
    world[0].verdict.propose(Why::gave_up, "because");
    one.join();
    std::thread two([&] { second = world[2].recv(1, 1, nullptr, 0, soon()); });
    two.join();
    World going(3);
    Outcome third, fourth;
    std::thread waits([&] {
        third = going[1].recv(0, 1, bytes(out), 8, soon());
        going[1].verdict.propose_failed(third.peer);
    });
    std::thread beside([&] { fourth = going[2].recv(1, 1, bytes(out), 8, soon()); });
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
