// A rank's memory file: its region, and behind that the heap, from which `comm.empty` takes its arrays.
//
// The heap is sparse. It has the size of the machine's memory and none of that memory until a range is taken, so every
// rank maps all of every file once, and an array in it is at the same offset for all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>

#include "wait.hpp"

namespace collx {

// All of a memory file as this process sees it. Throws std::runtime_error with a line for the user.
class Mapping {
  public:
    Mapping(int fd, std::size_t heap_at);
    // Memory of this process's own, for the region of a rank whose file cannot be mapped here.
    static Mapping replica(std::size_t heap_at);
    ~Mapping();
    Mapping(Mapping&& other) noexcept;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

  private:
    explicit Mapping(std::span<std::byte> bytes) : bytes_(bytes) {}

    std::span<std::byte> bytes_;
};

// No memory for an array, and why.
class NoMemory : public std::bad_alloc {
  public:
    explicit NoMemory(std::string why) : why_(std::move(why)) {}
    [[nodiscard]] const char* what() const noexcept override { return why_.c_str(); }

  private:
    std::string why_;
};

class Heap {
  public:
    struct Range {
        std::uint64_t offset;  // in the file
        std::uint64_t length;
    };

    // Of the file `fd`, mapped as `file`; keeps a descriptor of its own until `close`.
    Heap(std::span<std::byte> file, std::size_t heap_at, int fd);

    // A range with memory behind all of it, so that using it can never end in SIGBUS; nothing where `interrupted` says
    // so. Throws NoMemory.
    [[nodiscard]] std::optional<Range> take(std::uint64_t bytes, Interrupted interrupted);
    // Gives the memory back to the machine. Nothing in a forked child, which shares it with its parent.
    void give_back(Range range) noexcept;
    // Nothing can be taken any more; what was taken stays until it is given back.
    void close();

  private:
    class File;

    [[nodiscard]] Range claim(std::uint64_t length);
    void forgo(Range range);

    std::byte* const region_;
    std::mutex lock_;
    std::map<std::uint64_t, std::uint64_t> free_;  // offset -> length; neighbours are one range
    std::shared_ptr<const File> file_;
    const int process_;
};

}  // namespace collx
