// Runs dumped plans between ranks on different hosts: threads that are joined by sockets, each with replicas of the others'
// regions. Then what may go wrong between them.
//   wire_test CASES
#include <cstdio>

#include "world.hpp"

using namespace collx;

namespace {

constexpr Cable kCables[] = {Cable::pair, Cable::narrow, Cable::tcp};

// All cases on as many ranks as each has, so many of them on a host.
std::size_t run_all(std::vector<Case>& cases, std::uint32_t per_host, Cable cable) {
    std::vector<std::unique_ptr<World>> worlds(17);
    std::size_t failed = 0;
    for (auto& one : cases) {
        const auto size = static_cast<std::uint32_t>(one.ranks.size());
        if (size <= per_host) continue;
        auto& world = worlds[size];
        if (!world) world = std::make_unique<World>(size, per_host, cable);
        if (run_case(*world, one)) continue;
        std::printf("FAILED %s, %u on a host, cable %d\n", one.name.c_str(), per_host, static_cast<int>(cable));
        world = nullptr;
        ++failed;
    }
    return failed;
}

Clock::time_point in(int milliseconds) { return Clock::now() + std::chrono::milliseconds(milliseconds); }

// On two ranks on a host each.
class Two {
  public:
    explicit Two(Cable cable) : world(2, 1, cable) {}

    // What `rank` comes to in a run of a case, on memory of its own that is gone afterwards.
    Outcome run(Case& one, std::size_t rank, Clock::time_point deadline = soon()) {
        Rank& mine = one.ranks[rank];
        Prepared prepared(Plan::decode(mine.plan));
        Words input = mine.input;
        Words output(mine.expected.size(), -1);
        const Outcome outcome = world[rank].run(prepared, bytes(input), bytes(output), ++calls[rank], deadline);
        right[rank] = output == mine.expected;
        untouched[rank] = output == Words(output.size(), -1);
        return outcome;
    }
    World world;
    std::uint64_t calls[2] = {0, 0};
    bool right[2] = {false, false}, untouched[2] = {false, false};
};

Case& named(std::vector<Case>& cases, const std::string& name) {
    return *std::ranges::find(cases, name, &Case::name);
}

// Who makes another call learns it from the first message, before its memory is touched.
bool mismatch(std::vector<Case>& cases, Cable cable) {
    Two two(cable);
    Case& small = named(cases, "all_reduce:ring size 2 count 3");
    Case& large = named(cases, "all_reduce:ring size 2 count 8000");
    Outcome here, there;
    std::thread other([&] {
        there = two.run(large, 1);
        two.world[1].verdict.propose(Why::mismatch, "");
    });
    here = two.run(small, 0);
    two.world[0].verdict.propose(Why::mismatch, "");
    other.join();
    const auto found = [](const Outcome& outcome) {
        return outcome.status == Status::mismatched || outcome.status == Status::decided;
    };
    return found(here) && found(there) && two.untouched[0] && two.untouched[1];
}

// A rank that sends and leaves at once has left when all of it has been received, and not before.
bool leaving(Cable cable, bool closes) {
    constexpr int messages = 20;
    Two two(cable);
    Words word(400, 5);
    std::thread sender([&] {
        for (int number = 0; number < messages; ++number) two.world[0].send(1, number, bytes(word), word.size() * 8, soon());
        two.world[0].leaving();
        if (closes) two.world[0].close();
    });
    bool right = true;
    for (int number = 0; number < messages; ++number) {
        Words got(400);
        right &= bool(two.world[1].recv({0, number}, bytes(got), got.size() * 8, soon())) && got == word;
    }
    const Outcome none = two.world[1].recv({0, messages}, bytes(word), 8, soon());
    sender.join();
    return right && none.status == Status::departed && none.peer == 0;
}

// What a rank sent last reaches one that comes late, although it has closed since.
bool late(std::vector<Case>& cases, Cable cable) {
    Two two(cable);
    Case& one = named(cases, "broadcast:direct size 2 count 8000");  // from rank 1
    bool sent = false;
    std::thread root([&] {
        sent = bool(two.run(one, 1));
        two.world[1].close();
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const Outcome got = two.run(one, 0);
    root.join();
    return sent && got && two.right[0];
}

// A call that ends before its time leaves nothing behind that would still be written to, or sent from: its memory is gone.
bool cut(std::vector<Case>& cases, Cable cable, std::size_t impatient) {
    Two two(cable);
    Case& one = named(cases, "broadcast:direct size 2 count 8000");
    const std::size_t other = 1 - impatient;
    Outcome end;
    std::atomic<bool> gone{false};
    std::thread patient([&] {
        while (impatient == 1 && !gone) std::this_thread::yield();  // the root sends until nothing more fits
        end = two.run(one, other, in(3000));
    });
    const Outcome given_up = two.run(one, impatient, in(impatient == 1 ? 100 : 0));
    gone = true;
    Words word(1);
    two.world[impatient].recv({static_cast<int>(other), 1}, bytes(word), 8, in(200));  // which takes in what comes
    two.world[impatient].verdict.propose(Why::gave_up, "");
    patient.join();
    // Half a message is never taken for a whole one.
    const bool halved = impatient == 1 && cable == Cable::narrow;
    return !(halved && (given_up || end)) && (!end || two.right[other]);
}

// A message that is half there when its place is withdrawn ends in a slot, whole.
bool withdrawn() {
    const Layout layout(2);
    std::vector<std::byte> own(layout.heap_at), theirs(layout.heap_at), place(1000), sent(1000, std::byte{7});
    const Stream stream{0, 1, 3, 4};
    const Outgoing out(stream, layout, own.data());
    Incoming in(stream, layout, own.data(), theirs.data(), out);
    in.land(1, place.data(), 1000, 5);
    const auto put = [&](const void* from, std::size_t bytes) {
        std::array<iovec, 2> parts;
        in.room(parts);
        if (parts[0].iov_len < bytes) return false;
        std::memcpy(parts[0].iov_base, from, bytes);
        return in.took(bytes) == nullptr;
    };
    const Frame head{Frame::kMagic, Frame::kVersion, FrameKind::collective, 3, 4, 5, 1, 1000};
    bool right = put(&head, sizeof head) && put(sent.data(), 600);
    const std::vector<std::byte> half = place;
    in.withdraw();
    right &= put(sent.data(), 400) && place == half;
    const Line& line = Layout::lines(theirs.data(), layout.collective, 0)[0];
    return right && line.ticket == 1 && line.offset < layout.heap_at && half[599] == std::byte{7} &&
           std::equal(sent.begin(), sent.end(), theirs.begin() + static_cast<std::ptrdiff_t>(line.offset));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: wire_test CASES\n"), 2;
    auto cases = read_cases(argv[1]);
    std::size_t failed = 0;
    for (const Cable cable : kCables) failed += run_all(cases, 1, cable);
    failed += run_all(cases, 2, Cable::pair);
    const auto check = [&](const char* name, Cable cable, bool right) {
        if (right) return;
        std::printf("FAILED %s, cable %d\n", name, static_cast<int>(cable));
        ++failed;
    };
    for (const Cable cable : kCables) {
        check("mismatch", cable, mismatch(cases, cable));
        check("leaving", cable, leaving(cable, false));
        check("closing", cable, leaving(cable, true));
        check("late", cable, late(cases, cable));
        check("a receiver that gives up", cable, cut(cases, cable, 0));
        check("a sender that gives up", cable, cut(cases, cable, 1));
    }
    check("withdrawn", Cable::pair, withdrawn());
    std::printf("%zu failed\n", failed);
    return failed == 0 ? 0 : 1;
}
