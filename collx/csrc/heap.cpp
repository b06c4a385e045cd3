#include "heap.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <utility>

namespace collx {

namespace {

// Ranges begin and end at multiples of this, the largest page of any processor that Linux runs on. Where pages are
// smaller only addresses are lost: memory is taken by the page.
constexpr std::uint64_t kGrain = 64 << 10;
constexpr std::uint64_t kPiece = 1 << 20;  // allocated in one system call, which a signal undoes

std::uint64_t up(std::uint64_t value, std::uint64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

std::string because(int error) { return std::generic_category().message(error); }

}  // namespace

Mapping::Mapping(int fd, std::size_t heap_at) {
    struct stat status{};
    if (fstat(fd, &status) != 0 || static_cast<std::size_t>(status.st_size) < heap_at)
        throw std::runtime_error("a peer's region is smaller than this communicator needs");
    const auto size = static_cast<std::size_t>(status.st_size);
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        throw std::runtime_error("no " + std::to_string(size) + " bytes of address space for a rank's shared memory: " +
                                 because(errno) + "; give all ranks the same, or a larger, `ulimit -v`");
    bytes_ = {static_cast<std::byte*>(at), size};
    if (size > heap_at) madvise(bytes_.data() + heap_at, size - heap_at, MADV_DONTDUMP);
}

Mapping Mapping::replica(std::size_t heap_at) {
    void* at = mmap(nullptr, heap_at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        throw std::runtime_error("no " + std::to_string(heap_at) + " bytes of memory for what comes from a rank: " + because(errno));
    return Mapping({static_cast<std::byte*>(at), heap_at});
}

Mapping::~Mapping() {
    if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

Mapping::Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

class Heap::File {
  public:
    explicit File(int fd) : number(fcntl(fd, F_DUPFD_CLOEXEC, 0)) {
        if (number < 0)
            throw std::runtime_error("no descriptor for a rank's shared memory: " + because(errno) +
                                     "; raise `ulimit -n`");
    }
    ~File() { ::close(number); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const int number;
};

Heap::Heap(std::span<std::byte> file, std::size_t heap_at, int fd)
    : region_(file.data()), file_(std::make_shared<const File>(fd)), process_(getpid()) {
    const std::uint64_t length = (file.size() - heap_at) / kGrain * kGrain;
    if (length > 0) free_.emplace(heap_at, length);
}

std::optional<Heap::Range> Heap::take(std::uint64_t bytes, Interrupted interrupted) {
    bytes = std::max<std::uint64_t>(bytes, 1);
    const Range range = claim(bytes);
    std::shared_ptr<const File> file;
    {
        const std::lock_guard lock(lock_);
        file = file_;
    }
    int error = file == nullptr ? EBADF : 0;
    bool stopped = false;
    for (std::uint64_t done = 0; done < bytes && error == 0 && !stopped;) {
        const std::uint64_t piece = std::min(bytes - done, kPiece);
        if (fallocate(file->number, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset + done),
                      static_cast<off_t>(piece)) == 0)
            done += piece;
        else if (errno == EINTR)
            stopped = interrupted != nullptr && interrupted();
        else
            error = errno;
    }
    if (error == 0 && !stopped) return range;
    give_back(range);
    if (stopped) return std::nullopt;
    throw NoMemory("no " + std::to_string(bytes) + " bytes of shared memory to be had: " + because(error));
}

Heap::Range Heap::claim(std::uint64_t bytes) {
    const std::lock_guard lock(lock_);
    std::uint64_t most = 0;
    for (const auto& [offset, length] : free_) {
        most = std::max(most, length);
        if (length < bytes) continue;
        const Range range{offset, up(bytes, kGrain)};
        if (length > range.length) free_.emplace(offset + range.length, length - range.length);
        free_.erase(offset);
        return range;
    }
    throw NoMemory("no " + std::to_string(bytes) + " bytes in one piece in this rank's heap, " + std::to_string(most) +
                   " at most: drop arrays of comm.empty, or raise `ulimit -v` where it is small");
}

void Heap::give_back(Range range) noexcept {
    if (getpid() != process_) return;
    madvise(region_ + range.offset, range.length, MADV_REMOVE);
    try {
        forgo(range);
    } catch (const std::bad_alloc&) {
    }  // only its addresses are lost
}

void Heap::forgo(Range range) {
    const std::lock_guard lock(lock_);
    auto next = free_.lower_bound(range.offset);
    if (next != free_.end() && range.offset + range.length == next->first) {
        range.length += next->second;
        next = free_.erase(next);
    }
    if (next != free_.begin()) {
        const auto before = std::prev(next);
        if (before->first + before->second == range.offset) {
            before->second += range.length;
            return;
        }
    }
    free_.emplace(range.offset, range.length);
}

void Heap::close() {
    const std::lock_guard lock(lock_);
    file_.reset();
}

}  // namespace collx
