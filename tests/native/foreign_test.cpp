// Reading another process's memory: only of the process that shows the sign, and with an error where there is nothing.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "foreign.hpp"

using collx::Foreign;
using collx::Sign;

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
    if (holds) return;
    std::printf("FAILED %s\n", what);
    ++failures;
}

// What a child reads of this process.
int as_child(const Sign& sign, const std::uint64_t (&numbers)[3], const void* hole) {
    const Foreign parent(getppid(), sign);
    expect(parent.allowed(), "the parent can be read");
    std::uint64_t got[3]{};
    const auto at = [](const void* address) { return reinterpret_cast<std::uintptr_t>(address); };
    expect(parent.read(reinterpret_cast<std::byte*>(got), at(numbers), sizeof got) == 0, "a read");
    expect(got[0] == 1 && got[1] == 2 && got[2] == 3, "what was read");
    expect(parent.read(reinterpret_cast<std::byte*>(got), at(hole), sizeof got) == EFAULT, "a hole");
    Sign other = sign;
    other.secret[1] ^= 1;
    expect(!Foreign(getppid(), other).allowed(), "a process with another secret");
    expect(!Foreign(0, sign).allowed(), "nobody");
    expect(!Foreign().allowed(), "none");
    return failures;
}

}  // namespace

int main() {
    std::uint64_t secret[2] = {17, 4}, numbers[3] = {7, 7, 7};
    const Sign sign{reinterpret_cast<std::uintptr_t>(secret), {secret[0], secret[1]}};
    void* hole = mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ready[2];
    if (pipe(ready) != 0) return 2;
    const pid_t child = fork();
    if (child == 0) {
        char byte;
        if (read(ready[0], &byte, 1) != 1) _exit(2);
        _exit(as_child(sign, numbers, hole));
    }
    for (std::uint64_t i = 0; i < 3; ++i) numbers[i] = i + 1;  // after the fork: the child has others
    if (write(ready[1], "", 1) != 1) return 2;
    int status = 0;
    waitpid(child, &status, 0);
    std::printf("%d\n", status);
    return status == 0 ? 0 : 1;
}
