// What a run knows of its loans, whenever it looks.
//   loans_test
#include <cstdio>
#include <vector>

#include "loans.hpp"

using namespace collx;

namespace {

// As many loans as a lane has slots, consumed without anybody looking, then as many again: every one of them is noted
// for the move that it belongs to.
bool noted_late() {
    constexpr std::size_t targets = 3;  // no divisor of the slots
    const Layout layout(2);
    std::vector<Line> lines(layout.collective.slots);
    std::atomic<std::uint64_t> consumed{0};
    Writer lane(lines.data(), nullptr, layout.collective, 1, consumed);
    Loans loans(2, targets);
    std::vector<std::uint64_t> lent(targets);
    for (std::size_t count = 0; count < 10 * layout.collective.slots; ++count) {
        if (!lane.room()) consumed.store(lane.sent());
        if (!lane.room()) return false;
        const std::size_t target = count % targets;
        lane.publish(kInline + 1, 0, 0);
        loans.lend(1, lane, target);
        ++lent[target];
    }
    if (loans.settle(1, lane)) return false;  // the last ones are still read
    consumed.store(lane.sent());
    if (!loans.settle(1, lane) || loans.outstanding(1)) return false;
    for (std::size_t target = 0; target < targets; ++target)
        if (loans.returned(target) != lent[target]) return false;
    return true;
}

}  // namespace

int main() {
    const bool good = noted_late();
    std::printf("loans noted late: %s\n", good ? "ok" : "WRONG");
    return good ? 0 : 1;
}
