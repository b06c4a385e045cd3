// Runs dumped plans between ranks on different hosts: threads that are joined by pairs of sockets, each with replicas of the
// others' regions.
//   wire_test CASES
#include <cstdio>

#include "world.hpp"

using namespace collx;

namespace {

// All cases on as many ranks as each has, so many of them on a host.
std::size_t run_all(std::vector<Case>& cases, std::uint32_t per_host) {
    std::vector<std::unique_ptr<World>> worlds(17);
    std::size_t failed = 0;
    for (auto& one : cases) {
        const auto size = static_cast<std::uint32_t>(one.ranks.size());
        if (size <= per_host) continue;
        auto& world = worlds[size];
        if (!world) world = std::make_unique<World>(size, per_host);
        if (run_case(*world, one)) continue;
        std::printf("FAILED %s, %u on a host\n", one.name.c_str(), per_host);
        world = nullptr;
        ++failed;
    }
    return failed;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: wire_test CASES\n"), 2;
    auto cases = read_cases(argv[1]);
    std::size_t failed = 0;
    for (const std::uint32_t per_host : {1u, 2u}) failed += run_all(cases, per_host);
    std::printf("%zu failed\n", failed);
    return failed == 0 ? 0 : 1;
}
