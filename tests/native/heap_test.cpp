// The heap of a memory file under the sanitizers: threads that take and give back, and memory that is not to be had.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "heap.hpp"

namespace collx {
namespace {

constexpr std::size_t kRegion = 64 << 10;
constexpr std::size_t kHeap = 32 << 20;

struct File {
    explicit File(std::size_t bytes) : fd(memfd_create("heap_test", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
        if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) std::abort();
    }
    ~File() { close(fd); }
    const int fd;
};

bool can_take(Heap& heap, std::uint64_t bytes) {
    try {
        const auto range = heap.take(bytes, nullptr);
        heap.give_back(*range);
        return true;
    } catch (const NoMemory&) {
        return false;
    }
}

bool from_threads() {
    const File file(kRegion + kHeap);
    const Mapping mapping(file.fd, kRegion);
    Heap heap(mapping.bytes(), kRegion, file.fd);
    std::atomic<bool> right{true};
    std::vector<std::thread> threads;
    for (unsigned number = 1; number <= 4; ++number)
        threads.emplace_back([&, number] {
            std::minstd_rand random(number);
            std::vector<Heap::Range> kept;
            for (int turn = 0; turn < 200; ++turn) {
                kept.push_back(*heap.take(1 + random() % 300'000, nullptr));
                std::memset(mapping.bytes().data() + kept.back().offset, static_cast<int>(number), 4096);
                if (kept.size() < 6) continue;
                const auto gone = kept.begin() + static_cast<std::ptrdiff_t>(random() % kept.size());
                for (std::size_t at = 0; at < 4096; ++at)
                    if (mapping.bytes()[gone->offset + at] != std::byte(number)) right = false;
                heap.give_back(*gone);
                kept.erase(gone);
            }
            for (const auto& range : kept) heap.give_back(range);
        });
    for (auto& thread : threads) thread.join();
    return right && can_take(heap, kHeap) && !can_take(heap, kHeap + 1);
}

// A file that ends in the middle of what the heap believes to have stands for a machine whose memory does.
bool without_memory() {
    const File file(kRegion + kHeap / 2);
    if (fcntl(file.fd, F_ADD_SEALS, F_SEAL_GROW) != 0) return false;
    void* at = mmap(nullptr, kRegion + kHeap, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
    Heap heap({static_cast<std::byte*>(at), kRegion + kHeap}, kRegion, file.fd);
    bool right = !can_take(heap, kHeap);
    right &= can_take(heap, kHeap / 2);  // what came before the end was given back
    heap.close();
    right &= !can_take(heap, 1);
    munmap(at, kRegion + kHeap);
    return right;
}

}  // namespace
}  // namespace collx

int main() {
    const bool threads = collx::from_threads(), memory = collx::without_memory();
    std::printf("threads: %s, no memory: %s\n", threads ? "well" : "WRONG", memory ? "well" : "WRONG");
    return threads && memory ? 0 : 1;
}
