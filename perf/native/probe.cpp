// The time a cache line takes from one core to another: two threads answer each other on two lines.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "spin.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kBatch = 100;  // exchanges between two looks at the clock

struct alignas(128) Flag {
    std::atomic<std::uint64_t> value{0};
};

// Keeps the calling thread on one core while it lives.
class Pinned {
  public:
    explicit Pinned(int core) : ok_(core >= 0 && core < CPU_SETSIZE) {
        if (!ok_) return;
        pthread_getaffinity_np(pthread_self(), sizeof before_, &before_);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        ok_ = pthread_setaffinity_np(pthread_self(), sizeof one, &one) == 0;
    }
    ~Pinned() {
        if (ok_) pthread_setaffinity_np(pthread_self(), sizeof before_, &before_);
    }
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    [[nodiscard]] bool ok() const { return ok_; }

  private:
    cpu_set_t before_;
    bool ok_;
};

}  // namespace

// Fills `one_way` with nanoseconds, one figure per batch, until `seconds` have passed or there are `capacity`.
// How many there are; -1 where a core cannot be used.
extern "C" [[gnu::visibility("default")]] int stick_probe(int here, int there, double seconds, double* one_way,
                                                           int capacity) {
    constexpr std::uint64_t stop = ~0ull;
    Flag ping, pong;
    std::atomic<int> peer_ready{0};
    std::thread peer([&] {
        const Pinned pinned(there);
        peer_ready.store(pinned.ok() ? 1 : -1);
        for (std::uint64_t turn = 1; pinned.ok(); ++turn) {
            std::uint64_t seen = 0;
            stick::until([&] { return (seen = ping.value.load(std::memory_order_acquire)) >= turn; });
            if (seen == stop) return;  // its last word, whatever the turn
            pong.value.store(turn, std::memory_order_release);
        }
    });
    const Pinned pinned(here);
    stick::until([&] { return peer_ready.load() != 0; });
    int batches = -1;
    if (pinned.ok() && peer_ready.load() == 1) {
        std::uint64_t turn = 0;
        const auto begun = Clock::now();
        auto before = begun;
        for (batches = 0; batches < capacity;) {
            for (std::uint64_t end = turn + kBatch; turn < end;) {
                ping.value.store(++turn, std::memory_order_release);
                stick::until([&] { return pong.value.load(std::memory_order_acquire) == turn; });
            }
            const auto now = Clock::now();
            one_way[batches++] = std::chrono::duration<double, std::nano>(now - before).count() / (2.0 * kBatch);
            before = now;
            if (now - begun > std::chrono::duration<double>(seconds)) break;
        }
    }
    ping.value.store(stop, std::memory_order_release);
    peer.join();
    return batches;
}
