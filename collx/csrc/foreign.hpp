// Reading the memory of another process where it lies, where the system lets this one (cross-memory attach).
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace collx {

// What a process shows in shared memory so that others can try: they read it from its own memory, and compare.
struct Sign {
    std::uint64_t address;  // of `secret` in the owner's own memory
    std::uint64_t secret[2];
};

class Foreign {
  public:
    Foreign() = default;  // reads nothing
    // Tries to read the sign of the process that has this thread. It may not be allowed, or not be the one that was
    // meant: thread ids of another namespace name others here.
    Foreign(pid_t thread, const Sign& sign);

    [[nodiscard]] bool allowed() const { return thread_ != 0; }
    // 0, or errno's word for why not all of it could be read.
    [[nodiscard]] int read(std::byte* to, std::uint64_t address, std::uint64_t bytes) const;

  private:
    pid_t thread_ = 0;
};

}  // namespace collx
