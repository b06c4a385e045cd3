// The cases of dump_cases.py, and communicators whose ranks are threads to run them on.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "control.hpp"
#include "endpoint.hpp"

namespace collx {

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

inline std::vector<Case> read_cases(const char* path) {
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

// What data connections are made of: pairs of sockets, such with little room, or TCP.
enum class Cable { pair, narrow, tcp };

inline std::pair<int, int> plug(Cable cable) {
    int ends[2] = {-1, -1};
    if (cable != Cable::tcp) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
        const int little = 4096;  // the kernel doubles it
        for (const int end : ends)
            if (cable == Cable::narrow) setsockopt(end, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
        return {ends[0], ends[1]};
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const at = reinterpret_cast<sockaddr*>(&address);
    const int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(door, at, length) != 0 || listen(door, 1) != 0 || getsockname(door, at, &length) != 0 ||
        connect(ends[0], at, length) != 0 || (ends[1] = accept(door, nullptr, nullptr)) < 0)
        std::abort();
    ::close(door);
    return {ends[0], ends[1]};
}

// Makes the data connections that controls of this process want.
class Connector {
  public:
    Connector(std::vector<std::shared_ptr<Control>> controls, Cable cable)
        : controls_(std::move(controls)), cable_(cable), stop_(eventfd(0, 0)), thread_([this] { run(); }) {}
    ~Connector() {
        eventfd_write(stop_, 1);
        thread_.join();
        ::close(stop_);
    }
    Connector(const Connector&) = delete;
    Connector& operator=(const Connector&) = delete;

  private:
    void run() {
        std::vector<pollfd> asked{{stop_, POLLIN, 0}};
        for (const auto& control : controls_) asked.push_back({control->fileno(), POLLIN, 0});
        while (poll(asked.data(), asked.size(), -1) > 0 && asked[0].revents == 0)
            for (const auto& control : controls_)
                for (const auto& [communicator, peer] : control->wants()) {
                    const auto [mine, theirs] = plug(cable_);
                    control->attach(communicator, peer, mine);
                    controls_[peer]->attach(communicator, control->rank, theirs);
                }
    }

    const std::vector<std::shared_ptr<Control>> controls_;
    const Cable cable_;
    const int stop_;
    std::thread thread_;
};

// The regions of one communicator whose ranks are threads. With `per_host` ranks on each host: all others are far.
class World {
  public:
    explicit World(std::uint32_t size, std::uint32_t per_host = 0, Cable cable = Cable::pair) : layout_(size), files_(size) {
        const std::uint32_t near = per_host == 0 ? size : per_host;
        for (std::uint32_t rank = 0; rank < size; ++rank) {
            files_[rank] = map();
            keepers_.push_back(std::make_unique<Keeper>(Layout::header(files_[rank].data())));
        }
        for (std::uint32_t rank = 0; rank < size; ++rank) {
            auto files = files_;
            std::vector<bool> far(size);
            for (std::uint32_t peer = 0; peer < size; ++peer)
                if (rank / near != peer / near) far[peer] = true, files[peer] = map();
            endpoints_.push_back(std::make_unique<Endpoint>(rank, layout_, files, true, nullptr, std::vector<int>{},
                                                            near < size ? join(rank, far) : nullptr));
        }
        connector_ = std::make_unique<Connector>(controls_, cable);
    }
    ~World() {
        std::vector<std::thread> closing;  // one may wait until another has taken what it sent
        for (auto& endpoint : endpoints_) closing.emplace_back([&] { endpoint->close(); });
        for (auto& thread : closing) thread.join();
        endpoints_.clear();
        connector_ = nullptr;
        keepers_.clear();
        for (const auto& file : mapped_) munmap(file.data(), file.size());
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    Endpoint& operator[](std::size_t rank) { return *endpoints_[rank]; }
    std::byte* heap(std::size_t rank) { return files_[rank].data() + layout_.heap_at; }
    std::uint64_t calls = 0;  // collectives made by every rank

  private:
    static constexpr std::size_t kHeap = 1 << 20;

    std::span<std::byte> map() {
        const std::size_t bytes = layout_.heap_at + kHeap;
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        mapped_.emplace_back(static_cast<std::byte*>(at), bytes);
        return mapped_.back();
    }
    std::unique_ptr<Far> join(std::uint32_t rank, const std::vector<bool>& far) {
        controls_.push_back(std::make_shared<Control>(rank, layout_.size));
        std::vector<std::uint32_t> members(layout_.size);
        for (std::uint32_t peer = 0; peer < layout_.size; ++peer) {
            members[peer] = peer;
            if (!far[peer] || peer > rank) continue;
            const auto [mine, theirs] = plug(Cable::pair);
            controls_[rank]->add(peer, mine);
            controls_[peer]->add(rank, theirs);
        }
        return std::make_unique<Far>(controls_[rank], 7, 11, rank, layout_, members, far);
    }

    Layout layout_;
    std::vector<std::span<std::byte>> mapped_, files_;  // files_: by rank, its own
    std::vector<std::unique_ptr<Keeper>> keepers_;
    std::vector<std::shared_ptr<Control>> controls_;
    std::unique_ptr<Connector> connector_;
    std::vector<std::unique_ptr<Endpoint>> endpoints_;
};

inline std::byte* bytes(Words& words) { return reinterpret_cast<std::byte*>(words.data()); }

inline Clock::time_point soon() { return Clock::now() + std::chrono::seconds(60); }

// Three runs on memory that the others read where it lies.
inline bool run_lent(World& world, std::size_t rank, Rank& mine, Prepared& prepared, std::uint64_t& sequence) {
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
inline bool run_rank(World& world, std::size_t rank, Case& one) {
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
    auto receiving = endpoint.start_recv({static_cast<int>(previous), 7}, bytes(got), got.size() * 8, soon());
    right &= bool(endpoint.send(next, 7, bytes(token), token.size() * 8, soon()));
    right &= bool(endpoint.wait(*receiving, soon()));
    right &= got == Words(5000, static_cast<std::int64_t>(previous));
    for (auto& task : tasks) right &= bool(endpoint.wait(*task, soon()));
    return right && mine.output == mine.expected;
}

inline bool run_case(World& world, Case& one) {
    std::vector<std::thread> threads;
    std::vector<char> right(one.ranks.size(), 0);
    for (std::size_t rank = 0; rank < one.ranks.size(); ++rank)
        threads.emplace_back([&, rank] { right[rank] = run_rank(world, rank, one); });
    for (auto& thread : threads) thread.join();
    world.calls += 10;
    return std::find(right.begin(), right.end(), 0) == right.end();
}

}  // namespace collx
