#include "foreign.hpp"

#include <sys/uio.h>

#include <cerrno>
#include <cstring>

namespace collx {

Foreign::Foreign(pid_t thread, const Sign& sign) : thread_(thread) {
    std::uint64_t found[2]{};
    const bool same = thread != 0 && read(reinterpret_cast<std::byte*>(found), sign.address, sizeof found) == 0 &&
                      std::memcmp(found, sign.secret, sizeof found) == 0;
    if (!same) thread_ = 0;
}

int Foreign::read(std::byte* to, std::uint64_t address, std::uint64_t bytes) const {
    while (bytes > 0) {
        const iovec here{to, bytes}, there{reinterpret_cast<void*>(address), bytes};
        const ssize_t got = process_vm_readv(thread_, &here, 1, &there, 1, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return EFAULT;
        to += got;
        address += static_cast<std::uint64_t>(got);
        bytes -= static_cast<std::uint64_t>(got);
    }
    return 0;
}

}  // namespace collx
